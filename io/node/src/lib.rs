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
//! nobody. There is no global state: several nodes live in one process.

pub mod clock;
mod directory;
pub mod driver;
mod error;
mod handle;
mod inbox;
mod open;
mod options;
mod requests;
mod runner;
mod scrub;
mod signals;
mod status;
pub mod store;
mod verify;
pub mod wal_files;

pub use chronos_engine as engine;
pub use error::{CommitError, Exit, OpenError};
pub use handle::{CommitReply, NodeHandle, Sink, SubscriberEvent};
pub use open::open;
pub use options::{Fsync, Options, Profile};
pub use status::{ClockStatus, Histogram, NodeStatus, Role, StoreStatus, VerifyState, WalStatus};
pub use verify::{Report, verify};
