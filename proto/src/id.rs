//! Identities and positions. Each is a newtype, so that a term is never taken for an index.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A member of a cluster, drawn when its data directory is made. Never zero.
    NodeId(u64)
);
id!(
    /// A cluster, drawn when its first node bootstraps.
    ClusterId(u128)
);
id!(
    /// One life of a store: drawn anew when a data directory is made, so a wiped node is told from its past.
    Incarnation(u64)
);
id!(
    /// A Raft group. Group 0 is the catalogue's; no code but bootstrap assumes which group a relation is in.
    GroupId(u32)
);
id!(
    /// A Raft term.
    Term(u64)
);
id!(
    /// A position in one group's log; the first entry is 1, and 0 means "none".
    Index(u64)
);
id!(
    /// A position in one node's WAL, over all its groups; the first record is 1, and 0 means "none".
    Lsn(u64)
);
id!(
    /// A table or a topic, numbered by the catalogue and never reused.
    RelationId(u32)
);
id!(
    /// A column of one relation; kept over renames, never reused in its relation.
    ColumnId(u32)
);
id!(
    /// A secondary index, numbered in its relation and never reused there.
    IndexId(u32)
);
id!(
    /// A client session: a series of requests that are numbered, so that each has one effect.
    SessionId(u128)
);

impl NodeId {
    /// The number of a named node: a hash of its name, the same wherever it is computed. Never zero.
    pub fn of_name(name: &str) -> NodeId {
        NodeId(xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), 0x6368_726f_6e6f_7331).max(1))
    }
}

impl Index {
    /// The position after this one.
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }
}

impl Term {
    /// The term after this one.
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Lsn {
    /// The position after this one.
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

/// The name of one write request. A leader that has seen it answers with the first outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Whose request it is.
    pub session: SessionId,
    /// Its number in the session, from 1.
    pub sequence: u64,
    /// Every sequence below this one is answered and will not be asked again: its outcome may be forgotten.
    pub floor: u64,
}
