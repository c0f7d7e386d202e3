//! The authority: it makes certificates.

use super::certificate::Certificate;
use super::error::TlsError;
use super::files;
use super::name::{Identity, Role, is_name};
use chronos_engine::proto::id::ClusterId;
use chronos_engine::proto::time::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use time::OffsetDateTime;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last one.
    pub not_after: Timestamp,
}

impl Validity {
    /// From 2000 to 2099: for certificates that must outlive every clock that is set wrong on purpose.
    pub const WIDE: Validity =
        Validity { not_before: Timestamp(946_684_800_000_000), not_after: Timestamp(4_102_444_799_000_000) };

    /// From now on for so many days. It begins a day early, so that a machine whose clock is behind takes it too.
    pub fn days(days: u32) -> Validity {
        const DAY: i64 = 86_400_000_000;
        let now = now().0;
        Validity { not_before: Timestamp(now - DAY), not_after: Timestamp(now + i64::from(days) * DAY) }
    }
}

/// The wall clock: what certificates are valid by.
pub(super) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A certificate to be made.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// As what its holder takes part.
    pub role: Role,
    /// The holder's name.
    pub name: String,
    /// Host names and IP addresses it is good for, for clients that check them.
    pub hosts: Vec<String>,
    /// When it is valid. It ends with the authority's at the latest.
    pub validity: Validity,
}

/// A certificate and its private key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// A certificate authority and its key.
pub struct Authority {
    certificate: Certificate,
    /// All certificates that are to be trusted: its own, and those it took the place of.
    bundle: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("identity", &self.certificate.identity).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, with the number of a new cluster.
    pub fn generate(validity: Validity) -> Result<Authority, TlsError> {
        let cluster = loop {
            match u128::from_le_bytes(random()?) {
                0 => {}
                number => break ClusterId(number),
            }
        };
        Authority::of_cluster(cluster, validity)
    }

    /// A new key and certificate for the same cluster. The old certificates stay trusted, so that leaves can be
    /// replaced one after the other.
    pub fn renew(&self, validity: Validity) -> Result<Authority, TlsError> {
        let mut next = Authority::of_cluster(self.cluster(), validity)?;
        next.bundle.push_str(&self.bundle);
        Ok(next)
    }

    /// A new one for a cluster whose number is known.
    pub fn of_cluster(cluster: ClusterId, validity: Validity) -> Result<Authority, TlsError> {
        let identity = Identity { cluster, role: Role::Authority, name: String::new() };
        let (key, pair) = new_key()?;
        let mut params = params(&identity, &format!("chronos {:032x}", cluster.0), validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = params.self_signed(&pair)?;
        let certificate = Certificate::read(made.der().clone(), "the new authority")?;
        Ok(Authority { certificate, bundle: made.pem(), key, issuer: Issuer::new(params, pair) })
    }

    /// Reads `ca.crt` and `ca.key`.
    pub fn load(dir: &Path) -> Result<Authority, TlsError> {
        let (certificate_file, key_file) = (dir.join("ca.crt"), dir.join("ca.key"));
        let what = certificate_file.display().to_string();
        let pem = files::read(&certificate_file)?;
        let key = files::read(&key_file)?;
        let key_name = key_file.display().to_string();
        let text = |bytes: Vec<u8>, what: &str| {
            String::from_utf8(bytes).map_err(|_| TlsError::malformed(what, "not text"))
        };
        let key = text(key, &key_name)?;
        let pair = KeyPair::from_pem(&key).map_err(|e| TlsError::malformed(key_name, e.to_string()))?;
        let first = files::certificates(&pem, &what)?.swap_remove(0);
        let certificate = Certificate::read(first.clone(), &what)?;
        if certificate.identity.role != Role::Authority {
            let found = certificate.identity.role;
            return Err(TlsError::WrongRole { what, found, wanted: Role::Authority.to_string() });
        }
        if !speaks_for(&pair, &first) {
            return Err(TlsError::KeyMismatch { certificate: certificate_file, key: key_file });
        }
        certificate.check_time(now(), &what)?;
        let issuer = Issuer::from_ca_cert_der(&first, pair)?;
        Ok(Authority { certificate, bundle: text(pem, &what)?, key, issuer })
    }

    /// Writes `ca.crt` and `ca.key`, making the directory if it is absent.
    pub fn save(&self, dir: &Path, force: bool) -> Result<(), TlsError> {
        make_dir(dir)?;
        let certificate = dir.join("ca.crt");
        // The key goes first, but not if the certificate would be refused then.
        if !force && certificate.exists() {
            return Err(TlsError::Exists { file: certificate });
        }
        files::write(&dir.join("ca.key"), &self.key, force)?;
        files::write(&certificate, &self.bundle, force)
    }

    /// The cluster it makes certificates for.
    pub fn cluster(&self) -> ClusterId {
        self.certificate.identity.cluster
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The certificates to trust, in PEM.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Makes a certificate with a new key.
    pub fn issue(&self, leaf: &Leaf) -> Result<Pair, TlsError> {
        if !is_name(&leaf.name) {
            return Err(TlsError::Name(leaf.name.clone()));
        }
        if leaf.role == Role::Authority {
            let wanted = "node, edge, client or reader".to_owned();
            return Err(TlsError::WrongRole { what: leaf.name.clone(), found: leaf.role, wanted });
        }
        let identity = Identity { cluster: self.cluster(), role: leaf.role, name: leaf.name.clone() };
        let not_after = leaf.validity.not_after.min(self.certificate.not_after);
        let mut params = params(&identity, &leaf.name, Validity { not_after, ..leaf.validity })?;
        for host in &leaf.hosts {
            params.subject_alt_names.push(san_of(host)?);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match leaf.role {
            Role::Node | Role::Edge => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            _ => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let (key, pair) = new_key()?;
        Ok(Pair { certificate: params.signed_by(&pair, &self.issuer)?.pem(), key })
    }
}

/// Makes a directory, and those above it, for its owner alone.
pub(super) fn make_dir(dir: &Path) -> Result<(), TlsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(TlsError::io("cannot make", dir))
}

fn params(identity: &Identity, common_name: &str, validity: Validity) -> Result<CertificateParams, TlsError> {
    let date = |time: Timestamp| {
        OffsetDateTime::from_unix_timestamp(time.0.div_euclid(1_000_000))
            .map_err(|error| TlsError::Library(format!("{time}: {error}")))
    };
    let mut params = CertificateParams::default();
    params.not_before = date(validity.not_before)?;
    params.not_after = date(validity.not_after)?;
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string())?)];
    Ok(params)
}

fn san_of(host: &str) -> Result<SanType, TlsError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || TlsError::Host(host.to_owned());
    match rustls::pki_types::DnsName::try_from(host) {
        Ok(name) => Ok(SanType::DnsName(Ia5String::try_from(name.as_ref()).map_err(|_| wrong())?)),
        Err(_) => Err(wrong()),
    }
}

fn random<const N: usize>() -> Result<[u8; N], TlsError> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| TlsError::Library("the operating system gives no random bytes".into()))?;
    Ok(bytes)
}

/// Positive, as X.509 wants it, and long enough to be the only one.
fn serial() -> Result<SerialNumber, TlsError> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A new Ed25519 key: as PEM, and ready to sign. It is written as PKCS #8 version 1, without the public key, because
/// OpenSSL, and with it psql, does not read the version that ring writes.
fn new_key() -> Result<(String, KeyPair), TlsError> {
    const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let mut der = PKCS8.to_vec();
    der.extend_from_slice(&random::<32>()?);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?;
    Ok((pair.serialize_pem(), pair))
}

/// Whether a key belongs to a certificate.
fn speaks_for(key: &KeyPair, certificate: &CertificateDer<'_>) -> bool {
    use x509_parser::prelude::FromDer;
    let parsed = x509_parser::certificate::X509Certificate::from_der(certificate);
    parsed
        .is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}
