//! Certificates, and TLS with them.
//!
//! A cluster has one authority ([`Authority`]), and that authority's number is the cluster's. Every certificate it
//! issues says in a SAN URI who holds it and as what ([`Identity`]): `chronos://<cluster>/node/node1`. Who is spoken
//! to is decided by that name and nothing else. A host name proves little between nodes: a member may be reached by
//! any of its addresses, addresses change, and a certificate of the right host but the wrong role must not pass.
//!
//! ```text
//! name         who a certificate speaks for       authority    makes certificates
//! certificate  reads one                          development  the authority that a data root's processes share
//! files        PEM files, whole or not at all     verify       rustls' chain checks and our names
//! credentials  what a process shows and trusts, read again when its files change
//! ```
//!
//! [`Credentials`] hold the configurations of the moment. A connection keeps those it began with; a new one takes
//! the current, so replacing certificates drops nothing. Keys are Ed25519, the provider is ring, sessions between
//! nodes are never resumed and early data is off, so that every handshake checks a certificate.
//!
//! Not implemented: revocation lists (renew the authority instead), keys other than Ed25519 for the authority itself,
//! intermediate authorities.

mod authority;
mod certificate;
mod credentials;
mod development;
mod error;
mod files;
mod name;
mod verify;

pub use authority::{Authority, Leaf, Pair, Validity};
pub use certificate::Certificate;
pub use credentials::{Credentials, Current, Reload, SERVER_NAME, client_config, peer_of};
pub use development::Development;
pub use error::{TlsError, explain, explain_alert, explain_io};
pub use files::{Files, exposed, write};
pub use name::{Identity, Role, is_name};

#[cfg(test)]
mod tests;
