//! SQL as pure functions: text in, typed row mutations and the key ranges read out.
//!
//! ```text
//! text ──parse──> Statement ──bind, plan──> Prepared ──execute over a Snapshot──> Outcome
//!                 (shared)                  (cached by catalogue version)          Rows | Tag | Commit
//! ```
//!
//! Nothing here reads a clock, a socket or a file: the statement's time, its random seed and its request id come with
//! the [`Context`]. A write is evaluated against one snapshot into a `Transaction` that the caller hands to the engine;
//! the answer comes back through [`Session::committed`]. The log never carries SQL.

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
pub use prepared::{ColumnDesc, Kind, Prepared};
pub use session::{Notice, Session, SessionOptions, TransactionStatus};
