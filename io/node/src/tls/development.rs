//! The development authority: on loopback with nothing configured, all processes under one data root share it.
//!
//! Many of them may start at the same moment. Each that finds no authority makes one in a directory of its own and
//! renames that to `dev-ca`; a rename onto a directory that is not empty fails, so one of them wins and the others
//! read what it made. Certificates are made on demand in the same way, each with its key in one file.

use super::authority::{Authority, Leaf, Pair, Validity, make_dir};
use super::credentials::Credentials;
use super::error::TlsError;
use super::files;
use super::name::Role;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The authority under a data root.
#[derive(Debug)]
pub struct Development {
    dir: PathBuf,
    authority: Authority,
}

impl Development {
    /// Opens the authority of a data root, making it if there is none.
    pub fn open(root: &Path) -> Result<Development, TlsError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        make_dir(root)?;
        let dir = root.join("dev-ca");
        if !dir.is_dir() {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            let own = root.join(format!(".dev-ca.{}.{next}", std::process::id()));
            let made = Authority::generate(Validity::WIDE)
                .and_then(|authority| authority.save(&own, true))
                .and_then(|()| take_place(&own, &dir));
            if made.is_err() || own.exists() {
                // Somebody else was first, or it could not be made: either way it is of no use.
                let _ = fs::remove_dir_all(&own);
            }
            made?;
            files::sync_dir(root)?;
        }
        Ok(Development { authority: Authority::load(&dir)?, dir })
    }

    /// The authority itself.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The certificate of a node, an edge or a client, made if there is none.
    pub fn credentials(&self, role: Role, name: &str) -> Result<Credentials, TlsError> {
        let file = self.dir.join(format!("{role}-{name}.pem"));
        if !file.exists() {
            let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
            let leaf = Leaf { role, name: name.to_owned(), hosts, validity: Validity::WIDE };
            let Pair { certificate, key } = self.authority.issue(&leaf)?;
            match files::write(&file, &format!("{certificate}{key}"), false) {
                // Whoever was first wrote one that is as good.
                Ok(()) | Err(TlsError::Exists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let pem = files::read(&file)?;
        let text = String::from_utf8(pem)
            .map_err(|_| TlsError::malformed(file.display().to_string(), "not text: remove it"))?;
        Credentials::fixed(self.authority.bundle(), &text, &text)
    }
}

/// Renames a directory to a name that may be taken by then, which is as good.
fn take_place(own: &Path, shared: &Path) -> Result<(), TlsError> {
    match fs::rename(own, shared) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) =>
        {
            Ok(())
        }
        other => other.map_err(TlsError::io("cannot make", shared)),
    }
}
