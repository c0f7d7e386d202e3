//! What can be wrong with certificates, in words for whoever has to put it right.

use super::name::Role;
use chronos_engine::proto::id::ClusterId;
use chronos_engine::proto::time::Timestamp;
use std::io;
use std::path::PathBuf;

/// Why a certificate could not be made, read or trusted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that is needed is absent.
    #[error("{} is missing: `chronos certs` makes certificates", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// A file that would be overwritten.
    #[error("{} is there already: --force replaces it", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The operating system refused.
    #[error("{what} {}: {error}", file.display())]
    Io {
        /// What was tried: `cannot read`.
        what: &'static str,
        /// With what.
        file: PathBuf,
        /// Its words.
        error: io::Error,
    },
    /// A file or message does not hold what it should.
    #[error("{what}: {why}")]
    Malformed {
        /// The file, or whose certificate it is.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The private key belongs to another certificate.
    #[error("{}: the key is not that of {}: copy both files of one pair", key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// Its time is over.
    #[error("{what}: the certificate expired at {at}: make a new one with `chronos certs`")]
    Expired {
        /// The file, or whose certificate it is.
        what: String,
        /// When.
        at: Timestamp,
    },
    /// Its time has not begun.
    #[error("{what}: the certificate is not valid before {at}: is the clock right?")]
    NotYetValid {
        /// The file, or whose certificate it is.
        what: String,
        /// From when on it is.
        at: Timestamp,
    },
    /// Another authority signed it, or it is not signed right.
    #[error("{what}: not signed by the authority that is trusted here ({why}): is it of another cluster?")]
    OtherAuthority {
        /// The file, or whose certificate it is.
        what: String,
        /// What the check said.
        why: String,
    },
    /// It names another cluster.
    #[error("{what}: it belongs to cluster {:032x}, this is cluster {:032x}", found.0, wanted.0)]
    OtherCluster {
        /// The file, or whose certificate it is.
        what: String,
        /// What it says.
        found: ClusterId,
        /// What it should say.
        wanted: ClusterId,
    },
    /// It is for something else.
    #[error("{what}: its role is {found}, which does not serve here: {wanted} is needed")]
    WrongRole {
        /// The file, or whose certificate it is.
        what: String,
        /// What it says.
        found: Role,
        /// What would do.
        wanted: String,
    },
    /// It is somebody else's.
    #[error("{what}: it belongs to {found:?}, this is {wanted:?}: every node has a certificate of its own")]
    OtherName {
        /// The file.
        what: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// No name for a node, an edge or a client.
    #[error("{0:?} is no name: up to 64 letters, digits, -, _ and ., beginning with a letter or digit")]
    Name(String),
    /// Neither a host name nor an IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Host(String),
    /// The library could not make a certificate.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// No randomness, or a configuration that the library does not take.
    #[error("TLS: {0}")]
    Library(String),
}

impl TlsError {
    pub(super) fn io(what: &'static str, file: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> TlsError {
        let file = file.into();
        move |error| TlsError::Io { what, file, error }
    }

    pub(super) fn malformed(what: impl Into<String>, why: impl Into<String>) -> TlsError {
        TlsError::Malformed { what: what.into(), why: why.into() }
    }
}

/// An error of a handshake in words for whoever has to put it right.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::AlertReceived(alert) => {
            explain_alert(u8::from(*alert)).map_or_else(|| error.to_string(), str::to_owned)
        }
        Error::InvalidCertificate(CertificateError::Other(name)) => name.0.to_string(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the other side's certificate is not signed by the authority that is trusted here: is it of another \
             cluster?"
                .to_owned()
        }
        Error::InvalidMessage(_) => "the other side does not speak TLS".to_owned(),
        _ => error.to_string(),
    }
}

/// The same for an error of a stream; none if TLS has no part in it.
pub fn explain_io(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref::<rustls::Error>().map(explain)
}

/// What an alert from the other side of a handshake says about our certificate, if it is one about certificates. QUIC
/// carries an alert as the transport error 0x100 + alert.
pub fn explain_alert(alert: u8) -> Option<&'static str> {
    Some(match alert {
        42 => "the other side cannot read our certificate",
        45 => "the other side says that our certificate has expired, or its clock is wrong",
        46 => {
            "the other side does not accept our certificate: it is of another cluster, or its role does not serve there"
        }
        48 => "the other side does not trust our certificate's authority: is it of another cluster?",
        49 => "the other side does not let our certificate in",
        116 => "the other side wants a certificate, and we showed none",
        _ => return None,
    })
}
