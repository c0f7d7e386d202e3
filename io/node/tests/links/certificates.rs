//! Certificates of every kind, right and wrong, and TLS that shows them.

use chronos_node::link::TlsConfigs;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType, date_time_ymd,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::sync::{Arc, Mutex};

/// Years in which a certificate ends.
pub const GOOD: i32 = 2100;
pub const LATER: i32 = 2110;
pub const EXPIRED: i32 = 2001;

pub struct Authority {
    pub cluster: u128,
    issuer: Issuer<'static, KeyPair>,
    roots: Arc<RootCertStore>,
}

impl Authority {
    pub fn new(cluster: u128) -> Authority {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("cluster {cluster:x}"));
        let certificate = params.self_signed(&key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Authority { cluster, issuer: Issuer::new(params, key), roots: Arc::new(roots) }
    }

    pub fn node(&self, name: &str) -> Arc<Tls> {
        self.issue(&[&format!("chronos://{:032x}/node/{name}", self.cluster)], GOOD)
    }

    /// A certificate with any names, until the end of any year.
    pub fn issue(&self, uris: &[&str], until: i32) -> Arc<Tls> {
        Arc::new(Tls { now: Mutex::new(self.configs(uris, until)) })
    }

    fn configs(&self, uris: &[&str], until: i32) -> Configs {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![leaf.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let provider = Arc::new(ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
            .build()
            .unwrap();
        let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(clients.clone())
            .with_single_cert(chain.clone(), key.clone_key())
            .unwrap();
        server.alpn_protocols = vec![b"test".to_vec()];
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        let verifier = AnyHost { roots: self.roots.clone(), provider: provider.clone(), clients };
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .unwrap();
        client.alpn_protocols = vec![b"test".to_vec()];
        client.resumption = Resumption::disabled();
        Configs {
            server: Arc::new(QuicServerConfig::try_from(server).unwrap()),
            client: Arc::new(QuicClientConfig::try_from(client).unwrap()),
        }
    }

    /// Gives a node another certificate while it runs.
    pub fn renew(&self, tls: &Tls, name: &str, until: i32) {
        let uri = format!("chronos://{:032x}/node/{name}", self.cluster);
        *tls.now.lock().unwrap() = self.configs(&[&uri], until);
    }
}

pub struct Tls {
    now: Mutex<Configs>,
}

struct Configs {
    server: Arc<QuicServerConfig>,
    client: Arc<QuicClientConfig>,
}

impl TlsConfigs for Tls {
    fn server(&self) -> Arc<QuicServerConfig> {
        self.now.lock().unwrap().server.clone()
    }

    fn client(&self) -> Arc<QuicClientConfig> {
        self.now.lock().unwrap().client.clone()
    }
}

/// Checks the chain and the time, and no host name.
#[derive(Debug)]
struct AnyHost {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
}

impl ServerCertVerifier for AnyHost {
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
