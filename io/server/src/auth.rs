//! Who may do what: bearer tokens, kept as digests.
//!
//! With no token configured the listeners are open to everybody who reaches them, which is this machine alone unless
//! the operator said otherwise. Not implemented: roles, SCRAM, client certificates.

use crate::config::Config;
use sha2::{Digest, Sha256};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reading.
    ReadOnly,
}

/// A missing or unknown token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// None was given.
    #[error("a token is needed: send it as `Authorization: Bearer TOKEN`, or as the password")]
    Missing,
    /// It is not one of ours.
    #[error("the token is not valid here")]
    Unknown,
}

type TokenDigest = [u8; 32];

/// The tokens that are let in.
#[derive(Clone, Default)]
pub struct Auth {
    admin: Option<TokenDigest>,
    read_only: Option<TokenDigest>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_open() { "Auth(open)" } else { "Auth(tokens)" })
    }
}

impl Auth {
    /// The tokens of a configuration.
    pub fn new(config: &Config) -> Auth {
        let digest = |secret: &Option<crate::config::Secret>| secret.as_ref().map(|s| digest(s.expose()));
        Auth { admin: digest(&config.auth_token_admin), read_only: digest(&config.auth_token_readonly) }
    }

    /// Whether everybody is let in: no token is configured.
    pub fn is_open(&self) -> bool {
        self.admin.is_none() && self.read_only.is_none()
    }

    /// The role of whoever shows this token. On an open listener a token is not looked at.
    pub fn role(&self, token: Option<&str>) -> Result<Role, Denied> {
        if self.is_open() {
            return Ok(Role::Admin);
        }
        let given = digest(token.ok_or(Denied::Missing)?);
        // Both are compared whichever matches, each in full.
        let admin = self.admin.is_some_and(|known| same(&known, &given));
        let read_only = self.read_only.is_some_and(|known| same(&known, &given));
        match (admin, read_only) {
            (true, _) => Ok(Role::Admin),
            (false, true) => Ok(Role::ReadOnly),
            (false, false) => Err(Denied::Unknown),
        }
    }

    /// The role of a request with this `Authorization` header.
    pub fn role_of_header(&self, header: Option<&str>) -> Result<Role, Denied> {
        let token = header.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        self.role(token)
    }
}

fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares in a time that does not depend on where they differ.
fn same(a: &TokenDigest, b: &TokenDigest) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn tokens_open_their_doors_only() {
        let config = Config {
            auth_token_admin: Some(Secret::new("write it")),
            auth_token_readonly: Some(Secret::new("read it")),
            ..Config::default()
        };
        let auth = Auth::new(&config);
        assert_eq!(auth.role(Some("write it")), Ok(Role::Admin));
        assert_eq!(auth.role_of_header(Some("bearer read it")), Ok(Role::ReadOnly));
        assert_eq!(auth.role(Some("write")), Err(Denied::Unknown));
        assert_eq!(auth.role(None), Err(Denied::Missing));
        assert_eq!(auth.role_of_header(Some("Basic d3JpdGUgaXQ=")), Err(Denied::Missing));
    }

    #[test]
    fn an_open_listener_ignores_tokens() {
        let auth = Auth::new(&Config::default());
        assert_eq!(auth.role(None), Ok(Role::Admin));
        assert_eq!(auth.role(Some("whatever")), Ok(Role::Admin));
    }
}
