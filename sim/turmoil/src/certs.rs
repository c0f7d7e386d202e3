//! The authority of a simulated cluster, the certificates of its nodes, and the clock that they expire by.

use chronos_node::tls::{Authority, Credentials, Files, Leaf, Reload, Role, TlsError, Validity, write};
use chronos_proto::id::ClusterId;
use chronos_proto::time::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The wall clock when a run begins.
pub const EPOCH: Timestamp = Timestamp(chronos_sim::clock::BEGIN);
/// The cluster. Its number is part of what is sent, so it is the same in every run.
pub const CLUSTER: ClusterId = ClusterId(0x7e57_c1a5);
const YEAR_US: i64 = 365 * 86_400_000_000;

/// Simulated microseconds since a run began, as the loop around turmoil counts them.
#[derive(Clone, Debug, Default)]
pub struct Elapsed(Arc<AtomicU64>);

impl Elapsed {
    /// Moves on.
    pub fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    /// Now.
    pub fn micros(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The wall clock of a machine that nobody has set wrong.
    pub fn wall(&self) -> Timestamp {
        Timestamp(EPOCH.0 + self.micros() as i64)
    }
}

impl TimeProvider for Elapsed {
    fn current_time(&self) -> Option<UnixTime> {
        let micros = u64::try_from(self.wall().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_micros(micros)))
    }
}

/// A cluster's authority, and a directory with each node's files.
pub struct Certificates {
    authority: Authority,
    dir: TempDir,
    elapsed: Elapsed,
}

impl Certificates {
    /// A new authority.
    pub fn new(elapsed: Elapsed) -> Result<Certificates, TlsError> {
        let authority = Authority::of_cluster(CLUSTER, validity(-YEAR_US, 10 * YEAR_US))?;
        let dir = tempfile::tempdir().map_err(|error| TlsError::Library(error.to_string()))?;
        Ok(Certificates { authority, dir, elapsed })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a node's files anew: valid from a little before now, for so long.
    pub fn issue(&self, name: &str, lasts: Duration) -> Result<(), TlsError> {
        let now = self.elapsed.micros() as i64;
        let validity = validity(now - 3_600_000_000, now + lasts.as_micros() as i64);
        let leaf = Leaf { role: Role::Node, name: name.to_owned(), hosts: Vec::new(), validity };
        let pair = self.authority.issue(&leaf)?;
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).map_err(|error| TlsError::Library(error.to_string()))?;
        let files = files(&dir);
        write(&files.ca, self.authority.bundle(), true)?;
        write(&files.certificate, &pair.certificate, true)?;
        write(&files.key, &pair.key, true)
    }

    /// Puts a new authority in the old one's place. Certificates of the old one stay trusted by whoever reads the new
    /// files.
    pub fn renew_authority(&mut self) -> Result<(), TlsError> {
        self.authority = self.authority.renew(validity(-YEAR_US, 10 * YEAR_US))?;
        Ok(())
    }

    /// Gives a node the authorities of now beside the certificate that it has.
    pub fn trust(&self, name: &str) -> Result<(), TlsError> {
        write(&files(&self.path(name)).ca, self.authority.bundle(), true)
    }

    /// What a node's process reads at its start.
    pub fn load(&self, name: &str) -> Result<Credentials, TlsError> {
        let files = files(&self.path(name));
        Credentials::load_by(files, &[Role::Node], Some(name), Arc::new(self.elapsed.clone()))
    }
}

/// Looks at the files as a node does now and then. If there is something new in them: when it expires.
pub fn reload(credentials: &Credentials) -> Result<Option<Timestamp>, TlsError> {
    match credentials.check() {
        Reload::Unchanged => Ok(None),
        Reload::Replaced(current) => Ok(Some(current.certificate.not_after)),
        Reload::Kept(error) => Err(error),
    }
}

fn files(dir: &Path) -> Files {
    Files::in_dir(dir, Role::Node)
}

/// Microseconds since a run began.
fn validity(from: i64, until: i64) -> Validity {
    Validity { not_before: Timestamp(EPOCH.0 + from), not_after: Timestamp(EPOCH.0 + until) }
}
