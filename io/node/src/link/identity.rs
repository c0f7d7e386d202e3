//! Who is at the other end, by the certificate that it showed. That its authority may say so, TLS has checked.

use crate::tls::{Certificate, Role, TlsError};
use chronos_proto::Timestamp;
use chronos_proto::id::{ClusterId, NodeId};
use quinn::Connection;
use rustls::pki_types::CertificateDer;

/// A node, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) cluster: ClusterId,
    pub(super) name: String,
    pub(super) expires: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum IdentityError {
    #[error("it shows no certificate")]
    Absent,
    #[error(transparent)]
    Unreadable(#[from] TlsError),
    #[error("its certificate is for the {0} {1}, not for a node")]
    Role(Role, String),
}

impl Identity {
    pub(super) fn node(&self) -> NodeId {
        NodeId::of_name(&self.name)
    }

    pub(super) fn of(connection: &Connection) -> Result<Identity, IdentityError> {
        let chain = connection.peer_identity().ok_or(IdentityError::Absent)?;
        let chain = chain.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| IdentityError::Absent)?;
        let leaf = chain.into_iter().next().ok_or(IdentityError::Absent)?;
        let Certificate { identity, not_after, .. } = Certificate::read(leaf, "its certificate")?;
        match identity.role {
            Role::Node => Ok(Identity { cluster: identity.cluster, name: identity.name, expires: not_after }),
            role => Err(IdentityError::Role(role, identity.name)),
        }
    }
}
