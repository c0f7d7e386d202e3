//! Snapshot files: the state of a whole cluster in one file, made while it runs, and a data directory made of one.
//!
//! ```text
//!  header   magic, version
//!  head     cluster, time, groups
//!  group    its number, its last entry, its time     ┐
//!  entries  keys and values, ascending               │ for each group
//!  entries  …                                        │
//!  end      how many, and the digest of the state    ┘
//!  seal     SHA-256 over everything before it
//! ```
//!
//! Each block has a checksum that begins with its own place in the file, so that no block reads at another place; the
//! seal covers all of them. A reader checks all that, the order of keys, and the sums that each state keeps of itself:
//! whatever is cut, flipped, moved or left out is refused with its offset. `docs/FORMAT.md` has the bytes.
//!
//! - [`write`](fn@write) writes the state of one group, as a node exports it: that is a whole file by itself.
//! - [`Reader`] reads and checks; [`Writer`] writes blocks: `chronos snapshot create` joins files of one group each.
//! - [`restore`](fn@restore) makes a data directory with which a cluster of one node begins.
//!
//! Not implemented: compression, encryption, increments.

mod format;
mod reader;
mod restore;
#[cfg(test)]
mod tests;
mod writer;

pub use format::{FORMAT_VERSION, GroupEnd, GroupHead, Head};
pub use reader::{Part, ReadError, Reader, Summary, check};
pub use restore::{RestoreError, Restored, Target, restore};
pub use writer::{WriteError, Writer, write};
