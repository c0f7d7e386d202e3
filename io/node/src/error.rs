//! Why a node could not be opened, or a commit has no outcome.

use chronos_engine::txn::Refused;
use std::io;
use std::path::PathBuf;

/// Why a node could not be opened. Nothing was changed but what the message says.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error(
        "{dir} is in use by process {pid}: one process per data directory; stop it or use another directory"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who has it, as written in the lock file.
        pid: String,
    },
    /// The directory was written by a newer release.
    #[error(
        "{dir} has data format {found}, this build reads up to {supported}: use the release that wrote it, or a newer one"
    )]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
        /// The newest this build reads.
        supported: u32,
    },
    /// A file that must be there is missing, or is not what it should be.
    #[error("{file}: {problem}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, where, and what to do.
        problem: String,
    },
    /// The WAL is damaged, or not this node's.
    #[error("{}/{damage}", dir.display())]
    Wal {
        /// The data directory.
        dir: PathBuf,
        /// What, where, and what to do.
        damage: Box<chronos_engine::wal::WalDamage>,
    },
    /// The operating system refused something.
    #[error("{what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Its words.
        error: io::Error,
    },
    /// The engine refused to start on what it found.
    #[error("{dir}: {why}")]
    Engine {
        /// The data directory.
        dir: PathBuf,
        /// Its words.
        why: String,
    },
}

impl OpenError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.into();
        move |error| OpenError::Io { what, path, error }
    }
}

/// Why a commit was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// It had no effect: nothing was written.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The node stopped, or leadership was lost, before the outcome was known: it may or may not be in the log.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

impl CommitError {
    /// As an answer to what has no unknown outcome.
    pub(crate) fn refused(self) -> Refused {
        match self {
            CommitError::Refused(refused) => refused,
            CommitError::Unknown(_) => Refused::Stopping,
        }
    }
}

/// How a node ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It was told to stop, and everything acknowledged is synced.
    Stopped,
    /// It could not go on: the message says why and what to do.
    Fatal(String),
}
