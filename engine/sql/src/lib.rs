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
//! - In expressions VARCHAR is TEXT, and CHAR(n) loses the spaces at its end. Text compares by bytes, as in the C
//!   collation.
//! - Every isolation level is serializable, and a conflict shows at COMMIT as 40001.
//!
//! Not implemented, and refused by name with 0A000: keys of arrays, foreign keys, statements that write
//! inside of WITH, rollups; `docs/SQL.md` has the whole list. What that costs now:
//! sorts, hashes and results live in memory and end with 53200 beyond their budget, joins are ordered without
//! statistics, and an event published inside an open transaction is not visible to it before the commit.

mod action;
mod array;
mod bind;
pub mod copy;
mod cursor;
mod decimal;
pub mod error;
pub mod exec;
mod expr;
mod func;
mod json;
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
pub mod zone;

pub use copy::{Copy, Gather};
pub use error::{SqlError, SqlState};
pub use exec::vector::{Batch, ValueRef};
pub use exec::{Commit, Context, Limits, Outcome, RowSet};
pub use parse::{Statement, parse};
pub use prepared::{ColumnDesc, Deallocated, Kind, Prepared};
pub use session::{Notice, Session, SessionOptions, TransactionStatus};
