//! What a process shows to others and whom it trusts, and how both are replaced while it runs.

use super::certificate::Certificate;
use super::error::TlsError;
use super::files::{self, Files, Stamp};
use super::name::{Identity, Role};
use super::verify::Verifier;
use chronos_engine::proto::id::ClusterId;
use chronos_engine::proto::time::Timestamp;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, InconsistentKeys, RootCertStore, ServerConfig};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// The server name to connect with where an API wants one: certificates are told apart by their URIs instead.
pub const SERVER_NAME: &str = "chronos";
/// The protocol between nodes, as QUIC connections negotiate it.
const ALPN_PEER: &[u8] = b"chronos-peer/1";
/// A certificate with less time left than this is warned about.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);

/// Who takes part in links between nodes.
const PEERS: &[Role] = &[Role::Node, Role::Edge];
/// Who may log in with a certificate.
const CLIENTS: &[Role] = &[Role::Client, Role::Reader];

/// A process's certificates at one moment, with the TLS configurations made of them.
pub struct Current {
    /// The certificates that are trusted, the newest first.
    pub authorities: Vec<Certificate>,
    /// The one that is shown.
    pub certificate: Certificate,
    /// Counts up with each replacement, from 0.
    pub generation: u64,
    /// What the owner should know and maybe change.
    pub warnings: Vec<String>,
    quic_server: Arc<QuicServerConfig>,
    quic_client: Arc<QuicClientConfig>,
    http: Arc<ServerConfig>,
    postgres: Arc<ServerConfig>,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("authorities", &self.authorities)
            .field("certificate", &self.certificate)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Current {
    /// For links between nodes, the side that accepts: both sides must show a certificate of a node or an edge.
    pub fn quic_server(&self) -> Arc<QuicServerConfig> {
        self.quic_server.clone()
    }

    /// For links between nodes, the side that connects; the other side must be a node.
    pub fn quic_client(&self) -> Arc<QuicClientConfig> {
        self.quic_client.clone()
    }

    /// For HTTP and gRPC over TCP. A client may show a certificate.
    pub fn http(&self) -> Arc<ServerConfig> {
        self.http.clone()
    }

    /// For the PostgreSQL wire. A client may show a certificate.
    pub fn postgres(&self) -> Arc<ServerConfig> {
        self.postgres.clone()
    }

    /// Every certificate that is in use, each with what it is: `ca`, `node` …
    pub fn certificates(&self) -> impl Iterator<Item = (Role, &Certificate)> {
        let all = self.authorities.iter().chain([&self.certificate]);
        all.map(|certificate| (certificate.identity.role, certificate))
    }

    /// What should be looked at now: certificates that expire soon or have, keys that others can read.
    pub fn warnings_at(&self, now: Timestamp) -> Vec<String> {
        let soon = self.certificates().filter(|(_, c)| c.not_after < now + EXPIRES_SOON);
        let soon = soon.map(|(role, c)| match c.not_after < now {
            true => format!("the {role} certificate {} expired at {}", c.subject, c.not_after),
            false => format!("the {role} certificate {} expires at {}", c.subject, c.not_after),
        });
        self.warnings.iter().cloned().chain(soon).collect()
    }
}

/// What a look at the files came to.
#[derive(Debug)]
pub enum Reload {
    /// They are as they were.
    Unchanged,
    /// They changed: new connections use what is in them.
    Replaced(Arc<Current>),
    /// They changed to something that is of no use: everything stays as it was.
    Kept(TlsError),
}

/// Certificates that are read again when their files change.
#[derive(Debug)]
pub struct Credentials {
    files: Option<Files>,
    identity: Identity,
    current: RwLock<Arc<Current>>,
    seen: Mutex<Seen>,
    clock: Arc<dyn TimeProvider>,
}

/// What is known of the files.
#[derive(Debug, Default)]
struct Seen {
    stamp: [Option<Stamp>; 3],
    /// What is wrong with them as they are now.
    problem: Option<String>,
    reloads: u64,
    failures: u64,
}

impl Credentials {
    /// Reads certificates that must have one of some roles and, if one is given, that name.
    pub fn load(files: Files, roles: &[Role], name: Option<&str>) -> Result<Credentials, TlsError> {
        Credentials::load_by(files, roles, name, Arc::new(DefaultTimeProvider))
    }

    /// [`Credentials::load`] by another clock than the machine's: what is valid, here and at every handshake, it says.
    pub fn load_by(
        files: Files,
        roles: &[Role],
        name: Option<&str>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Credentials, TlsError> {
        let stamp = files.stamp();
        let current = read(&files, 0, &clock)?;
        let identity = current.certificate.identity.clone();
        let what = || files.certificate.display().to_string();
        if !roles.contains(&identity.role) {
            let wanted: Vec<String> = roles.iter().map(Role::to_string).collect();
            let wanted = wanted.join(" or ");
            return Err(TlsError::WrongRole { what: what(), found: identity.role, wanted });
        }
        if let Some(wanted) = name.filter(|wanted| *wanted != identity.name) {
            let wanted = wanted.to_owned();
            return Err(TlsError::OtherName { what: what(), found: identity.name, wanted });
        }
        let seen = Seen { stamp, ..Seen::default() };
        Ok(Credentials {
            identity,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(seen),
            files: Some(files),
            clock,
        })
    }

    /// Certificates that come from no file and never change.
    pub(super) fn fixed(bundle: &str, certificate: &str, key: &str) -> Result<Credentials, TlsError> {
        let clock: Arc<dyn TimeProvider> = Arc::new(DefaultTimeProvider);
        let material = Material::parse(
            ("the authority", bundle.as_bytes()),
            ("the certificate", certificate.as_bytes()),
            ("its key", key.as_bytes()),
            clock.clone(),
        )?;
        let current = material.configure(0, Vec::new())?;
        Ok(Credentials {
            identity: current.certificate.identity.clone(),
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::default(),
            files: None,
            clock,
        })
    }

    /// For whom the certificate speaks. It does not change while the process runs.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster that its authority is of.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    /// What new connections are to use.
    pub fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks whether the files changed, and if so takes what is in them. Files that cannot be used change nothing;
    /// they are tried again each time, since half of a pair may have been copied. Blocks on the files.
    pub fn check(&self) -> Reload {
        let Some(files) = &self.files else { return Reload::Unchanged };
        let stamp = files.stamp();
        let before = self.current();
        {
            let seen = self.seen();
            if stamp == seen.stamp && seen.problem.is_none() {
                return Reload::Unchanged;
            }
        }
        // What is behind the stamp is read with no lock held; whoever looks at the same time reads the same.
        let next = read(files, before.generation + 1, &self.clock).and_then(|next| {
            let (found, wanted) = (&next.certificate.identity, &self.identity);
            if found == wanted {
                return Ok(next);
            }
            let what = files.certificate.display().to_string();
            Err(match found.cluster == wanted.cluster {
                true => TlsError::OtherName { what, found: found.to_string(), wanted: wanted.to_string() },
                false => TlsError::OtherCluster { what, found: found.cluster, wanted: wanted.cluster },
            })
        });
        let mut seen = self.seen();
        seen.stamp = stamp;
        match next {
            Ok(next) => {
                seen.problem = None;
                // Another look at the same time may have been the first to take them.
                let before = self.current();
                let is_same =
                    next.certificate == before.certificate && next.authorities == before.authorities;
                if is_same {
                    return Reload::Unchanged;
                }
                seen.reloads += 1;
                let next = Arc::new(next);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
                Reload::Replaced(next)
            }
            Err(error) => {
                let problem = Some(error.to_string());
                // Said once, though it is tried again.
                if seen.problem == problem {
                    return Reload::Unchanged;
                }
                seen.problem = problem;
                seen.failures += 1;
                Reload::Kept(error)
            }
        }
    }

    /// What is wrong with the files as they are now, while older certificates stay in use.
    pub fn problem(&self) -> Option<String> {
        self.seen().problem.clone()
    }

    /// How often certificates were replaced, and how often files changed to something of no use.
    pub fn reloads(&self) -> (u64, u64) {
        let seen = self.seen();
        (seen.reloads, seen.failures)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(files: &Files, generation: u64, clock: &Arc<dyn TimeProvider>) -> Result<Current, TlsError> {
    let (ca, certificate, key) =
        (files::read(&files.ca)?, files::read(&files.certificate)?, files::read(&files.key)?);
    let name = |file: &Path| file.display().to_string();
    let (ca_name, certificate_name, key_name) = (name(&files.ca), name(&files.certificate), name(&files.key));
    let clock = clock.clone();
    let material =
        Material::parse((&ca_name, &ca), (&certificate_name, &certificate), (&key_name, &key), clock)?;
    material.configure(generation, files::exposed(&files.key).into_iter().collect())
}

/// What is in the files, checked.
struct Material {
    provider: Arc<CryptoProvider>,
    clock: Arc<dyn TimeProvider>,
    roots: Arc<RootCertStore>,
    authorities: Vec<Certificate>,
    certificate: Certificate,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// A file's name, for messages, and what is in it.
type Named<'a> = (&'a str, &'a [u8]);

impl Material {
    fn parse(
        ca: Named<'_>,
        certificate: Named<'_>,
        key: Named<'_>,
        clock: Arc<dyn TimeProvider>,
    ) -> Result<Material, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let now = clock.current_time().unwrap_or_else(UnixTime::now);
        let (authorities, roots) = authorities(ca, stamp(now))?;
        let chain = files::certificates(certificate.1, certificate.0)?;
        let private = files::key(key.1, key.0)?;
        let read = Certificate::read(chain[0].clone(), certificate.0)?;
        let cluster = authorities[0].identity.cluster;
        if read.identity.role == Role::Authority {
            return Err(TlsError::WrongRole {
                what: certificate.0.to_owned(),
                found: read.identity.role,
                wanted: "node, edge, client or reader".to_owned(),
            });
        }
        read.check_time(stamp(now), certificate.0)?;
        if read.identity.cluster != cluster {
            let what = certificate.0.to_owned();
            return Err(TlsError::OtherCluster { what, found: read.identity.cluster, wanted: cluster });
        }
        // Every certificate of ours is good for clients, so this checks the chain of each.
        let own = Verifier::new(roots.clone(), provider.clone(), cluster, Role::LEAVES, false)?;
        ClientCertVerifier::verify_client_cert(&own, &chain[0], &chain[1..], now).map_err(|error| {
            TlsError::OtherAuthority { what: certificate.0.to_owned(), why: error.to_string() }
        })?;
        let signer = provider.key_provider.load_private_key(private.clone_key());
        let signer = signer.map_err(|error| TlsError::malformed(key.0, error.to_string()))?;
        let pair = rustls::sign::CertifiedKey::new(chain.clone(), signer);
        match pair.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => {
                let (certificate, key) = (PathBuf::from(certificate.0), PathBuf::from(key.0));
                return Err(TlsError::KeyMismatch { certificate, key });
            }
        }
        Ok(Material { provider, clock, roots, authorities, certificate: read, chain, key: private })
    }

    fn configure(self, generation: u64, warnings: Vec<String>) -> Result<Current, TlsError> {
        let library = |error: &dyn std::fmt::Display| TlsError::Library(error.to_string());
        let peers = self.server(PEERS, false, &[&TLS13], &[ALPN_PEER])?;
        let http = self.server(CLIENTS, true, &[&TLS13, &TLS12], &[b"h2", b"http/1.1"])?;
        let postgres = self.server(CLIENTS, true, &[&TLS13, &TLS12], &[b"postgresql"])?;
        let mut client = self.client(&[Role::Node], &[&TLS13])?;
        client.alpn_protocols = vec![ALPN_PEER.to_vec()];
        let quic_server = QuicServerConfig::try_from(peers).map_err(|e| library(&e))?;
        let quic_client = QuicClientConfig::try_from(client).map_err(|e| library(&e))?;
        Ok(Current {
            quic_server: Arc::new(quic_server),
            quic_client: Arc::new(quic_client),
            http: Arc::new(http),
            postgres: Arc::new(postgres),
            authorities: self.authorities,
            certificate: self.certificate,
            generation,
            warnings,
        })
    }

    fn verifier(&self, roles: &'static [Role], optional: bool) -> Result<Arc<Verifier>, TlsError> {
        let cluster = self.certificate.identity.cluster;
        Verifier::new(self.roots.clone(), self.provider.clone(), cluster, roles, optional).map(Arc::new)
    }

    fn server(
        &self,
        roles: &'static [Role],
        optional: bool,
        versions: &[&'static rustls::SupportedProtocolVersion],
        protocols: &[&[u8]],
    ) -> Result<ServerConfig, TlsError> {
        let library = |error: rustls::Error| TlsError::Library(error.to_string());
        let mut config = ServerConfig::builder_with_details(self.provider.clone(), self.clock.clone())
            .with_protocol_versions(versions)
            .map_err(library)?
            .with_client_cert_verifier(self.verifier(roles, optional)?)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(library)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        // A resumed session would go on with a certificate that is no longer valid or trusted.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    fn client(
        &self,
        roles: &'static [Role],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_details(self.provider.clone(), self.clock.clone())
            .with_protocol_versions(versions)
            .map_err(|error| TlsError::Library(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(roles, false)? as Arc<dyn ServerCertVerifier>)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| TlsError::Library(error.to_string()))?;
        Ok(sober(config))
    }
}

/// Without early data, resumption and the server's name in the clear.
fn sober(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config
}

fn stamp(now: UnixTime) -> Timestamp {
    Timestamp(i64::try_from(now.as_secs().saturating_mul(1_000_000)).unwrap_or(i64::MAX))
}

/// The certificates in an authority's file, all of one cluster.
fn authorities(ca: Named<'_>, now: Timestamp) -> Result<(Vec<Certificate>, Arc<RootCertStore>), TlsError> {
    let (what, pem) = ca;
    let mut roots = RootCertStore::empty();
    let mut all: Vec<Certificate> = Vec::new();
    for der in files::certificates(pem, what)? {
        let certificate = Certificate::read(der, what)?;
        let Identity { cluster, role, .. } = certificate.identity;
        if role != Role::Authority {
            let what = what.to_owned();
            return Err(TlsError::WrongRole { what, found: role, wanted: Role::Authority.to_string() });
        }
        if let Some(first) = all.first().map(|first| first.identity.cluster).filter(|first| *first != cluster)
        {
            return Err(TlsError::OtherCluster { what: what.to_owned(), found: cluster, wanted: first });
        }
        roots.add(certificate.der.clone()).map_err(|error| TlsError::malformed(what, error.to_string()))?;
        all.push(certificate);
    }
    // One that has expired does no harm beside one that has not: that is what a renewal looks like.
    if all.iter().all(|certificate| certificate.check_time(now, what).is_err()) {
        all[0].check_time(now, what)?;
    }
    Ok((all, Arc::new(roots)))
}

/// The TLS configuration of a client of the TCP listeners: it trusts the nodes of one authority's cluster, whatever
/// address they are reached by, and shows a certificate if it is given one with its key.
pub fn client_config(
    ca: &Path,
    pair: Option<(&Path, &Path)>,
    protocols: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    const SERVERS: &[Role] = &[Role::Node, Role::Edge];
    let versions: &[&'static rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];
    let ca_pem = files::read(ca)?;
    let ca_name = ca.display().to_string();
    let mut config = match pair {
        Some((certificate, key)) => {
            let (certificate_pem, key_pem) = (files::read(certificate)?, files::read(key)?);
            let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
            let clock = Arc::new(DefaultTimeProvider);
            Material::parse((&ca_name, &ca_pem), (&certificate, &certificate_pem), (&key, &key_pem), clock)?
                .client(SERVERS, versions)?
        }
        None => {
            let (authorities, roots) = authorities((&ca_name, &ca_pem), stamp(UnixTime::now()))?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let cluster = authorities[0].identity.cluster;
            let verifier = Verifier::new(roots, provider.clone(), cluster, SERVERS, false)?;
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(versions)
                .map_err(|error| TlsError::Library(error.to_string()))?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth();
            sober(config)
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Who is at the other end, by the certificates that it showed in a handshake that went well: for QUIC,
/// `connection.peer_identity()` downcast to `Vec<CertificateDer>`.
pub fn peer_of(certificates: &[CertificateDer<'_>]) -> Result<Identity, TlsError> {
    let what = "the other side's certificate";
    let first = certificates.first().ok_or_else(|| TlsError::malformed(what, "none was shown"))?;
    Ok(Certificate::read(first.clone(), what)?.identity)
}
