//! `statement_timeout`: a statement that runs for longer is canceled, as if its user had asked for it.

use crate::gateway::{Answer, Gateway};
use chronos_proto::Value;
use chronos_sql::{Prepared, Session, SqlError, SqlState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Runs a prepared statement, its commit included, for no longer than the session allows. A commit that is under way
/// is waited for: its outcome is not known before.
pub(super) async fn execute(
    gateway: &Gateway,
    session: &mut Session,
    prepared: &Arc<Prepared>,
    params: &[Value],
    cancel: &Arc<AtomicBool>,
) -> Result<Answer, SqlError> {
    let Some(limit) = session.statement_timeout() else {
        return gateway.execute(session, prepared, params, cancel).await;
    };
    let timer = Timer::start(limit, cancel);
    let answer = gateway.execute(session, prepared, params, cancel).await;
    answer.map_err(|error| timer.explain(error))
}

/// Cancels when the time is over, unless it is dropped before.
struct Timer {
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Passed,
    /// The statement is done: what is canceled now would be the next one.
    Done,
}

impl Timer {
    fn start(limit: Duration, cancel: &Arc<AtomicBool>) -> Timer {
        let state = Arc::new(Mutex::new(State::Running));
        let (shared, cancel) = (state.clone(), cancel.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if *state == State::Running {
                *state = State::Passed;
                cancel.store(true, Ordering::Relaxed);
            }
        });
        Timer { state, task }
    }

    /// The error that a statement ended with, and why if it was for its time.
    fn explain(&self, error: SqlError) -> SqlError {
        let passed = *self.state.lock().unwrap_or_else(PoisonError::into_inner) == State::Passed;
        match passed && error.code == SqlState::CANCELED {
            true => SqlError::new(SqlState::CANCELED, "canceling statement due to statement timeout"),
            false => error,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Done;
        self.task.abort();
    }
}
