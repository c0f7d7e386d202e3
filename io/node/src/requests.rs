//! Names for write requests that may be asked again: one session for each run of a node, numbered requests, and the
//! floor below which every outcome may be forgotten.

use chronos_engine::proto::id::{RequestId, SessionId};
use chronos_engine::proto::time::{Instant, Timestamp};
use chronos_engine::state::{SESSION_IDLE_US, SESSION_OUTCOMES_MAX, Sessions};
use std::collections::BTreeSet;

/// A request that is never answered pins the floor; past this many behind it, a new session is begun.
const SPAN_MAX: u64 = SESSION_OUTCOMES_MAX as u64 / 2;
/// A session that was not used for this long is not used again: the engine may be about to forget it.
const IDLE_MAX_US: u64 = SESSION_IDLE_US as u64 / 2;

#[derive(Debug, Default)]
pub(crate) struct Requests {
    session: SessionId,
    used: Instant,
    used_at: Timestamp,
    next: u64,
    open: BTreeSet<u64>,
}

impl Requests {
    /// The next name. `time` is cluster time, `unique` tells sessions that are born together apart.
    pub(crate) fn draw(&mut self, mono: Instant, time: Timestamp, unique: impl FnOnce() -> u64) -> RequestId {
        // The engine counts in cluster time, which may have stepped forward.
        let stepped = time.micros_since(self.used_at) > IDLE_MAX_US as i64;
        let idle = stepped || mono.micros_since(self.used) > IDLE_MAX_US;
        if self.session == SessionId(0) || idle || self.next - self.floor() >= SPAN_MAX {
            let session = Sessions::id(time, unique());
            *self = Requests { session, used: mono, used_at: time, next: 1, open: BTreeSet::new() };
        }
        self.used = mono;
        self.used_at = time;
        let sequence = self.next;
        self.next += 1;
        self.open.insert(sequence);
        RequestId { session: self.session, sequence, floor: self.floor() }
    }

    /// The request is answered, or will not be asked.
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

    fn draw(requests: &mut Requests, mono: u64, unique: u64) -> RequestId {
        requests.draw(Instant(mono), Timestamp(1_000), || unique)
    }

    #[test]
    fn floor_follows_the_oldest_open_request() {
        let mut requests = Requests::default();
        let (a, b) = (draw(&mut requests, 1, 7), draw(&mut requests, 2, 8));
        assert_eq!((a.session, a.sequence, a.floor), (Sessions::id(Timestamp(1_000), 7), 1, 1));
        assert_eq!((b.session, b.sequence, b.floor), (a.session, 2, 1));
        requests.done(b);
        assert_eq!(draw(&mut requests, 3, 8).floor, 1);
        requests.done(a);
        assert_eq!(draw(&mut requests, 4, 8).floor, 3);
    }

    #[test]
    fn a_stuck_or_idle_session_is_given_up() {
        let mut requests = Requests::default();
        let stuck = draw(&mut requests, 1, 7);
        for _ in 1..SPAN_MAX {
            let request = draw(&mut requests, 1, 8);
            assert_eq!(request.session, stuck.session);
            requests.done(request);
        }
        let fresh = draw(&mut requests, 1, 8);
        assert_eq!((fresh.session, fresh.sequence), (Sessions::id(Timestamp(1_000), 8), 1));
        assert_eq!(draw(&mut requests, IDLE_MAX_US + 2, 9).session, Sessions::id(Timestamp(1_000), 9));
        let stepped = Timestamp(1_001 + IDLE_MAX_US as i64);
        let after = requests.draw(Instant(IDLE_MAX_US + 3), stepped, || 10);
        assert_eq!(after.session, Sessions::id(stepped, 10), "cluster time stepped forward");
    }
}
