//! Who a certificate speaks for.

use chronos_engine::proto::id::ClusterId;
use std::fmt;

/// As what somebody takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Issues certificates.
    Authority,
    /// A member of the cluster.
    Node,
    /// An edge node that syncs with the cluster.
    Edge,
    /// A client that may do everything.
    Client,
    /// A client that may only read.
    Reader,
}

impl Role {
    /// Every role that a leaf may have.
    pub const LEAVES: &'static [Role] = &[Role::Node, Role::Edge, Role::Client, Role::Reader];

    const fn word(self) -> &'static str {
        match self {
            Role::Authority => "ca",
            Role::Node => "node",
            Role::Edge => "edge",
            Role::Client => "client",
            Role::Reader => "reader",
        }
    }

    /// What its files are called: `node.crt`, `node.key`.
    pub const fn stem(self) -> &'static str {
        match self {
            Role::Reader => "client",
            other => other.word(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What the SAN URI of a certificate says: `chronos://<cluster, 32 hexadecimal digits>/<role>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// As what.
    pub role: Role,
    /// By which name; an authority has none.
    pub name: String,
}

/// How the URIs begin.
const SCHEME: &str = "chronos://";

impl Identity {
    /// Reads a URI; none if it is not exactly one of ours.
    pub fn parse(uri: &str) -> Option<Identity> {
        let mut parts = uri.strip_prefix(SCHEME)?.split('/');
        let (cluster, word, name) = (parts.next()?, parts.next()?, parts.next());
        let is_hex = cluster.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if cluster.len() != 32 || !is_hex || parts.next().is_some() {
            return None;
        }
        let cluster = ClusterId(u128::from_str_radix(cluster, 16).ok()?);
        match name {
            None if word == Role::Authority.word() => {
                Some(Identity { cluster, role: Role::Authority, name: String::new() })
            }
            Some(name) if is_name(name) => {
                let role = *Role::LEAVES.iter().find(|role| role.word() == word)?;
                Some(Identity { cluster, role, name: name.to_owned() })
            }
            _ => None,
        }
    }

    /// Whether a URI claims to be one of ours.
    pub(super) fn is_ours(uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{:032x}/{}", self.cluster.0, self.role)?;
        if self.name.is_empty() { Ok(()) } else { write!(f, "/{}", self.name) }
    }
}

/// Whether this may name a node, an edge or a client: up to 64 letters, digits, `-`, `_` and `.`, of which the first
/// is a letter or digit.
pub fn is_name(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        let cluster = ClusterId(0x00ab);
        for role in Role::LEAVES {
            let identity = Identity { cluster, role: *role, name: "a-1.b_c".into() };
            assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        }
        let ca = Identity { cluster, role: Role::Authority, name: String::new() };
        assert_eq!(ca.to_string(), "chronos://000000000000000000000000000000ab/ca");
        assert_eq!(Identity::parse(&ca.to_string()), Some(ca));
    }

    #[test]
    fn what_is_not_exactly_a_name_is_none() {
        let id = "000000000000000000000000000000ab";
        for wrong in [
            format!("chronos://{id}"),
            format!("chronos://{id}/node"),
            format!("chronos://{id}/node/"),
            format!("chronos://{id}/node/a/b"),
            format!("chronos://{id}/node/a%20b"),
            format!("chronos://{id}/ca/a"),
            format!("chronos://{id}/root/a"),
            format!("chronos://{}/node/a", &id[1..]),
            format!("chronos://+{}/node/a", &id[1..]),
            format!("chronos://{}/node/a", id.to_uppercase()),
            format!("https://{id}/node/a"),
            format!("chronos://{id}/node/{}", "a".repeat(65)),
        ] {
            assert_eq!(Identity::parse(&wrong), None, "{wrong}");
        }
    }
}
