//! What crosses a wire or a disk.
//!
//! Everything here is data: ids, stamps, values, commands, frames and their limits. A type in this crate is
//! either stored (log, state, WAL) or sent (client, peer), so its encoding is part of `docs/FORMAT.md` and a
//! golden file in `tests/golden` keeps old bytes readable. Encodings are postcard with append-only enums: a new
//! variant goes to the end, a field is never added to a stored struct without a new variant or version byte.
//!
//! ```text
//! id      who and which: nodes, groups, relations, requests, log positions
//! time    microseconds, wall and monotonic, always given by a caller
//! stamp   hybrid logical clock stamps and the pure rule that merges them
//! value   SQL values and types
//! numeric exact decimals as bytes in order
//! array   arrays as bytes
//! key     memcomparable encoding of values: bytes order as values do
//! row     rows by column number
//! schema  relations as the catalogue stores them
//! command what a log entry says: the closed batch of operations
//! membership who is in a group
//! raft    what the members of a group say to each other
//! peer    what nodes say to each other
//! hello   the first words on a link between two nodes
//! frame   length, version and checksum around whatever is sent
//! limits  every bound that a user can meet, in one place
//! ```

pub mod array;
pub mod codec;
pub mod command;
pub mod frame;
pub mod hello;
pub mod id;
pub mod key;
pub mod limits;
pub mod membership;
pub mod numeric;
pub mod peer;
pub mod raft;
pub mod row;
pub mod schedule;
pub mod schema;
pub mod stamp;
pub mod time;
pub mod value;

pub use command::{Command, Event, Op, OpOutcome};
pub use id::{ColumnId, GroupId, Index, IndexId, Lsn, NodeId, RelationId, RequestId, SessionId, Term};
pub use time::{Instant, Timestamp};
pub use value::{Type, Value};
