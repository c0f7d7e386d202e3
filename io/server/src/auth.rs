//! Who may do what: bearer tokens, kept as digests, and client certificates.
//!
//! With neither tokens nor certificates configured the listeners are open to everybody who reaches them, which is this
//! machine alone unless the operator said otherwise. With certificates a caller shows a token or a certificate; one
//! that shows neither may do nothing. Not implemented: roles of one's own making.

use crate::config::Config;
use crate::scram::Passwords;
use chronos_node::tls::{self, Credentials, Identity};
use sha2::{Digest, Sha256};
use std::sync::Arc;

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
    #[error(
        "a token is needed: send it as `Authorization: Bearer TOKEN`, or as the password; a client certificate \
         does as well"
    )]
    Missing,
    /// It is not one of ours.
    #[error("the token is not valid here")]
    Unknown,
    /// It cannot log in, only take part as something else.
    #[error("a certificate of this role does not let its owner log in")]
    Certificate,
}

type TokenDigest = [u8; 32];

/// Who sent a request, as found out before it reached its handler.
#[derive(Clone, Copy, Debug)]
pub struct Caller(pub Result<Role, Denied>);

/// Who is let in.
#[derive(Clone)]
pub struct Auth {
    admin: Option<TokenDigest>,
    read_only: Option<TokenDigest>,
    /// The tokens as passwords; none if there are no tokens, or no randomness to keep them with.
    passwords: Option<Passwords>,
    credentials: Option<Arc<Credentials>>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_open() { "Auth(open)" } else { "Auth(closed)" })
    }
}

impl Auth {
    /// The tokens of a configuration, and the certificates that the listeners show.
    pub fn new(config: &Config, credentials: Option<Arc<Credentials>>) -> Auth {
        let tokens = [(Role::Admin, &config.auth_token_admin), (Role::ReadOnly, &config.auth_token_readonly)];
        let tokens = tokens.map(|(role, secret)| (role, secret.as_ref().map(|secret| secret.expose())));
        let [(_, admin), (_, read_only)] = tokens;
        let known = tokens.into_iter().filter_map(|(role, token)| Some((role, token?)));
        let passwords = (admin.or(read_only)).and_then(|_| Passwords::new(known).ok());
        Auth { admin: admin.map(digest), read_only: read_only.map(digest), passwords, credentials }
    }

    /// Whether everybody is let in: neither tokens nor certificates are configured.
    pub fn is_open(&self) -> bool {
        self.admin.is_none() && self.read_only.is_none() && self.credentials.is_none()
    }

    /// The certificates that the listeners show; none if they are plain.
    pub fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.credentials.as_ref()
    }

    /// The tokens, for those who prove that they know one instead of sending it.
    pub(crate) fn passwords(&self) -> Option<&Passwords> {
        self.passwords.as_ref()
    }

    /// The role of whoever showed a certificate in a handshake.
    pub fn role_of_certificate(&self, shown: &Identity) -> Result<Role, Denied> {
        match shown.role {
            tls::Role::Client => Ok(Role::Admin),
            tls::Role::Reader => Ok(Role::ReadOnly),
            tls::Role::Authority | tls::Role::Node | tls::Role::Edge => Err(Denied::Certificate),
        }
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

    /// The role of a request with this `Authorization` header, over a connection that showed this certificate. A
    /// token is what counts if both are there.
    pub fn role_of_request(&self, header: Option<&str>, shown: Option<&Identity>) -> Result<Role, Denied> {
        match (header, shown) {
            (None, Some(shown)) if !self.is_open() => self.role_of_certificate(shown),
            _ => self.role_of_header(header),
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
        let auth = Auth::new(&config, None);
        assert_eq!(auth.role(Some("write it")), Ok(Role::Admin));
        assert_eq!(auth.role_of_header(Some("bearer read it")), Ok(Role::ReadOnly));
        assert_eq!(auth.role(Some("write")), Err(Denied::Unknown));
        assert_eq!(auth.role(None), Err(Denied::Missing));
        assert_eq!(auth.role_of_header(Some("Basic d3JpdGUgaXQ=")), Err(Denied::Missing));
    }

    #[test]
    fn an_open_listener_ignores_tokens() {
        let auth = Auth::new(&Config::default(), None);
        assert_eq!(auth.role(None), Ok(Role::Admin));
        assert_eq!(auth.role(Some("whatever")), Ok(Role::Admin));
    }
}
