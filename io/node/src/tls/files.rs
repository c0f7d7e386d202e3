//! PEM files: written whole or not at all, readable by their owner alone.

use super::error::TlsError;
use super::name::Role;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// No certificate or key of ours is longer.
const MAX_BYTES: u64 = 1 << 20;

/// Where a process's certificate, key and authority are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authority's certificate, or several of them.
    pub ca: PathBuf,
    /// The certificate to show.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Files {
    /// Those of a role in a directory, as `chronos certs` makes them.
    pub fn in_dir(dir: &Path, role: Role) -> Files {
        let stem = role.stem();
        Files {
            ca: dir.join("ca.crt"),
            certificate: dir.join(format!("{stem}.crt")),
            key: dir.join(format!("{stem}.key")),
        }
    }

    /// What tells one state of the files from another without reading them.
    pub(super) fn stamp(&self) -> [Option<Stamp>; 3] {
        [&self.ca, &self.certificate, &self.key].map(|file| Stamp::of(file))
    }
}

/// A file's state: a copy, an edit and a rename each change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Path) -> Option<Stamp> {
        let meta = fs::metadata(file).ok()?;
        Some(Stamp {
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Reads a small file.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => TlsError::Missing { file: file.to_owned() },
        _ => TlsError::Io { what: "cannot read", file: file.to_owned(), error },
    };
    if fs::metadata(file).map_err(failed)?.len() > MAX_BYTES {
        return Err(TlsError::malformed(file.display().to_string(), "too long for a certificate or a key"));
    }
    fs::read(file).map_err(failed)
}

/// The certificates in a PEM file; at least one.
pub(super) fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let all = all.map_err(|error| TlsError::malformed(what, format!("no PEM: {error}")))?;
    if all.is_empty() {
        return Err(TlsError::malformed(what, "there is no certificate in it"));
    }
    Ok(all)
}

/// The private key in a PEM file.
pub(super) fn key(pem: &[u8], what: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| TlsError::malformed(what, format!("there is no private key in it: {error}")))
}

/// What to tell the owner of a key that others can read; nothing if they cannot.
pub fn exposed(key: &Path) -> Option<String> {
    let mode = fs::metadata(key).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let shown = key.display();
        format!("{shown}: the key is open to others (mode {mode:03o}): chmod 600 {shown}")
    })
}

/// Writes a file of mode 0600, whole or not at all. One that is there is replaced only by `force`.
pub fn write(file: &Path, text: &str, force: bool) -> Result<(), TlsError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = dir.join(format!(".{name}.{}.{next}", std::process::id()));
    let written = write_new(&temporary, text).and_then(|()| match force {
        true => fs::rename(&temporary, file),
        // Unlike a rename, a link fails if the name is taken.
        false => fs::hard_link(&temporary, file),
    });
    // After a rename it is gone already.
    let _ = fs::remove_file(&temporary);
    match written {
        Ok(()) => sync_dir(dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(TlsError::Exists { file: file.to_owned() })
        }
        Err(error) => Err(TlsError::io("cannot write", file)(error)),
    }
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()
}

/// Makes what was renamed in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), TlsError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(TlsError::io("cannot sync", dir))
}
