//! SQL as pure functions: text in, typed row mutations and the key ranges read out.
//!
//! ```text
//! text ──parse──> Statement ──bind, plan──> Prepared ──execute over a Snapshot──> Outcome
//!                 (shared)                  (kept while the catalogue agrees)      Rows | Tag | Commit
//!
//! parse    sqlparser behind limits on size and depth, and the statements that PostgreSQL does not have
//! bind     names become slots, functions are resolved, unknown literals and parameters get their types
//! rel      the logical plan, without parser types
//! plan     conditions go to the sources, sources choose a key or an index, joins follow equalities
//! exec     operators over batches of typed columns; writes become operations and ranges of keys read
//! func     functions and operators by name and argument types
//! system   topics, timers and the catalogue as relations
//! session  one connection: its transaction, its settings, its plans
//! ```
//!
//! Nothing here reads a clock, a socket or a file: the statement's time, its random seed and its request id come with
//! the [`Context`]. A write is evaluated against one snapshot into a `Transaction` that the caller hands to the engine;
//! the answer comes back through [`Session::committed`]. The log never carries SQL. Rows come in a defined order even
//! without ORDER BY: that of the key for scans, of the first row for groups.
//!
//! Where the language differs from PostgreSQL's:
//!
//! - Integers are all 64 bits wide and described as BIGINT; a literal with a fraction is DOUBLE PRECISION, and so are
//!   the averages of integers.
//! - TIMESTAMP is TIMESTAMPTZ read and shown in UTC; the setting `TimeZone` is kept but changes neither.
//! - VARCHAR(n) is TEXT; its length is not enforced. Text compares by bytes, as in the C collation.
//! - Every isolation level is serializable, and a conflict shows at COMMIT as 40001.
//! - JSON is kept as JSONB is, with numbers as doubles where they do not fit 64 bits.
//!
//! Not implemented, and refused by name with 0A000: NUMERIC, arrays, foreign keys, COPY, cursors, statements that write
//! inside of WITH, regular expressions, time zones other than UTC, topics of several partitions, rollups;
//! `docs/SQL.md` has the whole list. What that costs now: sorts,
//! hashes and results live in memory and end with 53200 beyond their budget, joins are ordered without statistics, and
//! an event published inside an open transaction is not visible to it before the commit.

mod action;
mod bind;
pub mod error;
pub mod exec;
mod expr;
mod func;
pub mod oid;
pub mod parse;
mod plan;
pub mod prepared;
mod rel;
pub mod session;
mod settings;
mod system;
pub mod text;
mod time;
mod types;

pub use error::{SqlError, SqlState};
pub use exec::vector::{Batch, ValueRef};
pub use exec::{Commit, Context, Limits, Outcome, RowSet};
pub use parse::{Statement, parse};
pub use prepared::{ColumnDesc, Deallocated, Kind, Prepared};
pub use session::{Notice, Session, SessionOptions, TransactionStatus};
