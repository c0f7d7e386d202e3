//! Names for write requests: one session for each run of a node, numbered requests, and the floor below which every
//! outcome may be forgotten.

use chronos_engine::proto::id::{RequestId, SessionId};
use std::collections::BTreeSet;

/// A request that is never answered pins the floor; past this many behind it, a new session is drawn.
const SPAN_MAX: u64 = 1 << 16;

#[derive(Debug)]
pub(crate) struct Requests {
    session: SessionId,
    next: u64,
    open: BTreeSet<u64>,
}

impl Requests {
    pub(crate) fn new(session: SessionId) -> Requests {
        Requests { session, next: 1, open: BTreeSet::new() }
    }

    pub(crate) fn draw(&mut self, fresh: impl FnOnce() -> SessionId) -> RequestId {
        if self.next - self.floor() >= SPAN_MAX {
            *self = Requests::new(fresh());
        }
        let sequence = self.next;
        self.next += 1;
        self.open.insert(sequence);
        RequestId { session: self.session, sequence, floor: self.floor() }
    }

    pub(crate) fn done(&mut self, request: RequestId) {
        if request.session == self.session {
            self.open.remove(&request.sequence);
        }
    }

    fn floor(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floor_follows_the_oldest_open_request() {
        let mut requests = Requests::new(SessionId(7));
        let fresh = || SessionId(8);
        let (a, b) = (requests.draw(fresh), requests.draw(fresh));
        assert_eq!((a.sequence, a.floor), (1, 1));
        assert_eq!((b.sequence, b.floor), (2, 1));
        requests.done(b);
        assert_eq!(requests.draw(fresh).floor, 1);
        requests.done(a);
        assert_eq!(requests.draw(fresh).floor, 3);
    }

    #[test]
    fn a_stuck_request_ends_the_session_and_not_memory() {
        let mut requests = Requests::new(SessionId(7));
        for _ in 0..SPAN_MAX {
            let request = requests.draw(|| SessionId(8));
            if request.sequence != 1 {
                requests.done(request);
            }
        }
        let request = requests.draw(|| SessionId(8));
        assert_eq!(request, RequestId { session: SessionId(8), sequence: 1, floor: 1 });
    }
}
