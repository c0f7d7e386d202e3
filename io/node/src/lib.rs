//! The shell of one node: everything around [`chronos_engine::Node`] that touches the machine.
//!
//! ```text
//!  any thread            driver thread               WAL thread            store thread
//!  NodeHandle ──inbox──> Driver::turn ──WalOp──────> pwrite, fdatasync
//!     ^  ^                 │ step, step, drained <── WriteDurable
//!     │  └──── reply ──────┤ ──Checkpoint─────────────────────────────────> one LMDB transaction
//!     └─ published() <─────┘ <── CheckpointDurable, new view ───────────────┘
//! ```
//!
//! Everything that has queued up while a write was on its way becomes the next write and one sync, so the driver
//! never waits for the disk and the disk never for the driver. Readers take the published snapshot and wait for
//! nobody. There is no global state: several nodes live in one process (the one exception, the note that a death by
//! signal leaves, is asked for by [`Options::explain_signals`]).
//!
//! - [`driver`] is the loop itself, free of threads, files and LMDB; `runner` puts it on threads.
//! - [`wal_files`] performs the engine's WAL operations; [`store`] writes checkpoints to LMDB and reads them back.
//! - [`link`] carries messages between nodes.
//! - [`backup`] writes and reads snapshot files, and makes a data directory of one.
//! - [`tls`] makes, reads and replaces certificates, and says whom to trust.
//! - `recorder` keeps what the engine was last given and did in few words, for when something goes wrong; `recording` keeps
//!   all of it in files, where that is asked for, and the simulator replays them.
//! - `open` goes from a directory to a running node; [`verify()`] reads all of one; `scrub` does so in the background.
//!
//! Not implemented: reads that are asked for ahead; one driver for several engine nodes. A node that cannot write at its start (a full disk) does not serve reads.

pub mod backup;
pub mod clock;
mod directory;
pub mod driver;
mod error;
mod handle;
mod inbox;
pub mod link;
mod open;
mod options;
mod peers;
mod recorder;
mod recording;
mod requests;
mod runner;
mod scrub;
mod signals;
mod status;
pub mod store;
pub mod tls;
mod verify;
pub mod wal_files;

pub use chronos_engine as engine;
pub use directory::wipe;
pub use error::{CommitError, Exit, OpenError};
pub use handle::{CommitReply, ExportReply, NodeHandle, OperatorReply, ReadReply, Sink, SubscriberEvent};
pub use open::open;
pub use options::{Cluster, Fsync, Options, Profile};
pub use recording::{MAX_BYTES_LEAST, RecordOptions, RecordingStatus, recordings};
pub use status::{ClockStatus, ClockStep, Histogram, NodeStatus, Role, StoreStatus, VerifyState, WalStatus};
pub use verify::{Report, verify};
