//! One connection's state: its transaction, its settings and its plans.

use crate::error::{SqlError, SqlState};
use crate::exec::{Commit, Context, Outcome};
use crate::parse::Statement;
use crate::prepared::Prepared;
use chronos_engine::Snapshot;
use chronos_engine::txn::{Committed, Refused};
use chronos_proto::{Type, Value};
use std::sync::Arc;

/// What a connection is told at its start.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// `current_user`.
    pub user: String,
    /// `current_database()`.
    pub database: String,
    /// Refuses every write with 25006.
    pub read_only: bool,
    /// `pg_backend_pid()`.
    pub backend_pid: i32,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            user: "chronos".into(),
            database: "chronos".into(),
            read_only: false,
            backend_pid: 0,
        }
    }
}

/// Where a connection stands, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction block is open.
    Idle,
    /// A block is open.
    InTransaction,
    /// A block is open and failed: only ROLLBACK goes on.
    Failed,
}

/// Something to tell the client beside the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// True for WARNING, false for NOTICE.
    pub warning: bool,
    /// Its SQLSTATE.
    pub code: SqlState,
    /// The words.
    pub message: String,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    options: SessionOptions,
}

impl Session {
    /// A connection that has just been made.
    pub fn new(options: SessionOptions) -> Session {
        Session { options }
    }

    /// What ReadyForQuery says.
    pub fn transaction_status(&self) -> TransactionStatus {
        TransactionStatus::Idle
    }

    /// Binds and plans a statement. `declared` are the parameter types that the client gave, if any.
    /// On an error the open transaction, if any, has failed.
    pub fn prepare(
        &mut self,
        statement: &Statement,
        declared: &[Option<Type>],
        snapshot: &Snapshot,
    ) -> Result<Arc<Prepared>, SqlError> {
        let _ = (declared, snapshot);
        Err(SqlError::unsupported(statement.text()))
    }

    /// Runs a prepared statement. If the catalogue has changed since, it is prepared again inside.
    ///
    /// On [`Outcome::Commit`] the caller submits the transaction to the engine and hands the answer to
    /// [`Session::committed`]; nothing else may be run on this session before.
    pub fn execute(
        &mut self,
        prepared: &Arc<Prepared>,
        params: &[Value],
        cx: &Context<'_>,
    ) -> Result<Outcome, SqlError> {
        let _ = (prepared, params, cx);
        Err(SqlError::unsupported("execution"))
    }

    /// Takes the engine's answer to a commit and gives the statement's outcome: a tag or rows.
    ///
    /// If the answer is [`Refused::Conflict`] and [`Commit::retryable`] was true, the caller should not call this
    /// but execute the same statement again on a newer snapshot, a bounded number of times.
    pub fn committed(
        &mut self,
        commit: Commit,
        answer: Result<Committed, Refused>,
    ) -> Result<Outcome, SqlError> {
        let _ = (commit, answer);
        Err(SqlError::unsupported("execution"))
    }

    /// Says that an error happened outside (a parameter that did not decode, say): an open transaction has failed.
    pub fn fail(&mut self) {}

    /// Opens an implicit transaction: all statements until [`Session::finish_implicit`] commit together, as those of
    /// one simple query, or of one pipeline up to Sync, do. BEGIN inside turns it into an explicit one.
    pub fn begin_implicit(&mut self) {}

    /// Ends an implicit transaction if one is open: [`Outcome::Commit`] if it wrote, else a tag to ignore.
    /// If it failed, it is rolled back.
    pub fn finish_implicit(&mut self, cx: &Context<'_>) -> Result<Outcome, SqlError> {
        let _ = cx;
        Ok(Outcome::Tag("COMMIT".into()))
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<String> {
        (name == "session_authorization").then(|| self.options.user.clone())
    }

    /// Changes a setting, as the startup message does.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let _ = (name, value);
        Ok(())
    }

    /// Settings that clients are told of (ParameterStatus): all at the start, then those that changed.
    pub fn take_parameters(&mut self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        Vec::new()
    }
}
