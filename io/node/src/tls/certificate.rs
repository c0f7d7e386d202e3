//! A certificate, read.

use super::error::TlsError;
use super::files;
use super::name::Identity;
use chronos_engine::proto::time::Timestamp;
use ring::digest;
use rustls::pki_types::CertificateDer;
use std::net::IpAddr;
use std::path::Path;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// What a certificate says, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate itself.
    pub der: CertificateDer<'static>,
    /// For whom it speaks.
    pub identity: Identity,
    /// Its subject, for people.
    pub subject: String,
    /// The host names and addresses it is good for.
    pub hosts: Vec<String>,
    /// When it begins to be valid.
    pub not_before: Timestamp,
    /// When it ends to be valid.
    pub not_after: Timestamp,
    /// SHA-256 of its bytes.
    pub fingerprint: [u8; 32],
}

impl Certificate {
    /// Reads one. `what` names it in errors: its file, or whose it is.
    pub fn read(der: CertificateDer<'_>, what: &str) -> Result<Certificate, TlsError> {
        let malformed = |why: String| TlsError::malformed(what, why);
        let (rest, parsed) = X509Certificate::from_der(&der)
            .map_err(|error| malformed(format!("no X.509 certificate: {error}")))?;
        if !rest.is_empty() {
            return Err(malformed("bytes after the certificate's end".into()));
        }
        let names = parsed.subject_alternative_name().map_err(|error| malformed(error.to_string()))?;
        let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let mut hosts = Vec::new();
        let mut uris = Vec::new();
        for name in names {
            match name {
                GeneralName::URI(uri) if Identity::is_ours(uri) => uris.push(*uri),
                GeneralName::DNSName(host) => hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => hosts.extend(address(bytes).map(|ip| ip.to_string())),
                _ => {}
            }
        }
        // Two names would be two answers to who is there.
        let identity = match uris.as_slice() {
            [uri] => Identity::parse(uri).ok_or_else(|| malformed(format!("{uri:?} is no name of ours")))?,
            [] => {
                return Err(malformed(
                    "the certificate has no chronos:// name: `chronos certs` makes ones that do".into(),
                ));
            }
            _ => return Err(malformed("the certificate has more than one chronos:// name".into())),
        };
        let seconds = |time: x509_parser::time::ASN1Time| {
            Timestamp(time.timestamp().saturating_mul(1_000_000).clamp(Timestamp::EPOCH.0, Timestamp::MAX.0))
        };
        let validity = parsed.validity();
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &der).as_ref());
        Ok(Certificate {
            identity,
            subject: parsed.subject().to_string(),
            hosts,
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
            fingerprint,
            der: der.into_owned(),
        })
    }

    /// Reads all certificates in a PEM file; there is at least one.
    pub fn read_file(file: &Path) -> Result<Vec<Certificate>, TlsError> {
        let what = file.display().to_string();
        let all = files::certificates(&files::read(file)?, &what)?;
        all.into_iter().map(|der| Certificate::read(der, &what)).collect()
    }

    /// Whether it is valid at a time.
    pub fn check_time(&self, now: Timestamp, what: &str) -> Result<(), TlsError> {
        let what = what.to_owned();
        if now > self.not_after {
            return Err(TlsError::Expired { what, at: self.not_after });
        }
        if now < self.not_before {
            return Err(TlsError::NotYetValid { what, at: self.not_before });
        }
        Ok(())
    }

    /// Its fingerprint as people compare it: pairs of hexadecimal digits.
    pub fn fingerprint_text(&self) -> String {
        let pairs: Vec<String> = self.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        pairs.join(":")
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}
