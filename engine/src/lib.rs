//! The sans-IO engine: one [`Node`] is one process's whole protocol state, and [`Node::step`] is all it does.
//!
//! ```text
//!            Input                                   Effect { after, action }
//!  client request ─┐                             ┌─> Wal(op)        segments of the write-ahead log
//!  write durable  ─┤    ┌───────────────────┐    ├─> Reply          to a client, once its write is durable
//!  checkpoint done ├──> │ Node::step(now, …)│ ───┼─> Publish        a snapshot that readers may use
//!  deadline        ─┤    └───────────────────┘    ├─> Checkpoint     the frozen overlay, for the store
//!  queue drained  ─┘       clock raft wal        └─> Deliver        offsets that a subscriber may read
//!                          state timer txn
//! ```
//!
//! Nothing here reads a clock, a file, a socket or ambient randomness: the same inputs in the same order give the
//! same outputs, byte for byte. What a client is promised waits for its durability input (`Effect::after`).

pub mod bugs;
pub mod catalog;
pub mod clock;
pub mod delivery;
pub mod node;
pub mod raft;
pub mod record;
pub mod rng;
pub mod schedule;
pub mod state;
pub mod step;
pub mod store;
pub mod timer;
pub mod txn;
pub mod wal;

pub use catalog::Catalog;
pub use chronos_proto as proto;
pub use node::{Config, Node};
pub use state::keys;
pub use state::snapshot::Snapshot;
pub use step::{Action, Effect, Input, Outputs, Reply, Request};
pub use store::{SharedStore, Store, StoreError};
