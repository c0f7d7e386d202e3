//! Whom to trust: the chain by rustls, the name by us.
//!
//! rustls' own verifier of servers wants a host name to compare. Here the name that counts is the SAN URI, so the
//! chain is checked by rustls' function for chains alone, with the same rules and the same code, and our check of
//! the name takes the place of the host's. Signatures over the handshake are rustls' in both directions.

use super::certificate::Certificate;
use super::error::TlsError;
use super::name::Role;
use chronos_engine::proto::id::ClusterId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use std::sync::Arc;

/// Accepts certificates of one cluster with one of some roles.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    cluster: ClusterId,
    roles: &'static [Role],
    /// A client may show no certificate at all.
    optional: bool,
}

impl Verifier {
    pub fn new(
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
        cluster: ClusterId,
        roles: &'static [Role],
        optional: bool,
    ) -> Result<Verifier, TlsError> {
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let clients = clients.build().map_err(|error| TlsError::Library(error.to_string()))?;
        Ok(Verifier { roots, provider, clients, cluster, roles, optional })
    }

    /// Checks the name of a certificate whose chain is in order.
    pub fn check_name(&self, certificate: &CertificateDer<'_>) -> Result<(), TlsError> {
        let what = "the other side's certificate";
        let identity = Certificate::read(certificate.clone(), what)?.identity;
        if identity.cluster != self.cluster {
            let what = what.to_owned();
            return Err(TlsError::OtherCluster { what, found: identity.cluster, wanted: self.cluster });
        }
        if !self.roles.contains(&identity.role) {
            let wanted: Vec<String> = self.roles.iter().map(Role::to_string).collect();
            return Err(TlsError::WrongRole {
                what: format!("{what} ({:?})", identity.name),
                found: identity.role,
                wanted: wanted.join(" or "),
            });
        }
        Ok(())
    }

    fn named(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        self.check_name(certificate)
            .map_err(|error| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        self.named(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        !self.optional
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.clients.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.named(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}
