//! The one queue into a driver thread. The driver takes all of it at once, so a batch costs one lock.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    bound: usize,
}

struct State<T> {
    messages: VecDeque<T>,
    requests: usize,
    waiting: bool,
    closed: bool,
}

/// Why a request was not taken.
#[derive(Debug)]
pub(crate) enum Rejected<T> {
    Full(T, usize),
    Closed(T),
}

impl<T> Inbox<T> {
    pub(crate) fn new(bound: usize) -> Inbox<T> {
        let state = State { messages: VecDeque::new(), requests: 0, waiting: false, closed: false };
        Inbox { state: Mutex::new(state), arrived: Condvar::new(), bound }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it holds the lock; were it so, the queue would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues what clients ask, up to the bound.
    pub(crate) fn request(&self, message: T) -> Result<(), Rejected<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed(message));
        }
        if state.requests >= self.bound {
            return Err(Rejected::Full(message, state.requests));
        }
        state.requests += 1;
        self.push(state, message);
        Ok(())
    }

    /// Queues what the shell's own threads report: bounded by what they were asked to do.
    pub(crate) fn report(&self, message: T) -> Result<(), T> {
        let state = self.lock();
        if state.closed {
            return Err(message);
        }
        self.push(state, message);
        Ok(())
    }

    fn push(&self, mut state: MutexGuard<'_, State<T>>, message: T) {
        state.messages.push_back(message);
        let wake = std::mem::take(&mut state.waiting);
        drop(state);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Takes everything queued, waiting for something up to `timeout` (none: for ever).
    pub(crate) fn take(&self, batch: &mut VecDeque<T>, timeout: Option<Duration>) {
        let mut state = self.lock();
        if state.messages.is_empty() && timeout != Some(Duration::ZERO) {
            state.waiting = true;
            state = match timeout {
                Some(timeout) => {
                    let waited = self.arrived.wait_timeout_while(state, timeout, |s| s.messages.is_empty());
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.arrived.wait_while(state, |s| s.messages.is_empty());
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
            state.waiting = false;
        }
        std::mem::swap(&mut state.messages, batch);
        state.requests = 0;
    }

    /// Takes no more; what is still queued is handed back.
    pub(crate) fn close(&self) -> VecDeque<T> {
        let mut state = self.lock();
        state.closed = true;
        std::mem::take(&mut state.messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_and_reports_are_not() {
        let inbox = Inbox::new(2);
        assert!(inbox.request(1).is_ok());
        assert!(inbox.request(2).is_ok());
        assert!(matches!(inbox.request(3), Err(Rejected::Full(3, 2))));
        assert!(inbox.report(4).is_ok());
        let mut batch = VecDeque::new();
        inbox.take(&mut batch, None);
        assert_eq!(batch, [1, 2, 4]);
        batch.clear();
        assert!(inbox.request(5).is_ok());
        assert_eq!(inbox.close(), [5]);
        assert!(matches!(inbox.request(6), Err(Rejected::Closed(6))));
        assert_eq!(inbox.report(7), Err(7));
    }
}
