//! `timers`: each fires once, never before cluster time reaches its due time, and not late while all is well.
//!
//! Scheduled events carry a number of their own, so that a second firing is seen whatever the log says.

use crate::violation::{Held, Violation};
use chronos_engine::state::records::StoredEvent;
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;

/// Where each scheduled event came out.
#[derive(Clone, Debug, Default)]
pub struct Timers(BTreeMap<u64, (RelationId, u64)>);

impl Timers {
    /// A reader sees an event, at cluster time `read`. `number` is the event's own.
    pub fn seen(
        &mut self,
        topic: RelationId,
        offset: u64,
        number: u64,
        event: &StoredEvent,
        read: Timestamp,
    ) -> Held {
        if let Some(due) = event.deliver_at {
            let fired = event.fired_at.unwrap_or(Timestamp(i64::MIN));
            if fired < due || read < due {
                let what = format!(
                    "event {number} at offset {offset} of topic {topic} is due at {due}, fired at {fired} and seen at \
                     {read}"
                );
                return Err(Violation::safety("never-early", what));
            }
        }
        match self.0.insert(number, (topic, offset)) {
            Some(first) if first != (topic, offset) => {
                let what = format!(
                    "event {number} of topic {topic} came out at offset {} and again at offset {offset}",
                    first.1
                );
                Err(Violation::safety("exactly-once", what))
            }
            _ => Ok(()),
        }
    }

    /// Forgets all, to look at the topics anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// A firing's entry has its own time: no further ahead of the due time than the setting allows.
pub fn fired_ahead(due: Timestamp, entry: Timestamp, ahead_max: i64) -> Held {
    if due.micros_since(entry) <= ahead_max {
        return Ok(());
    }
    let what =
        format!("a timer due at {due} is fired by an entry of {entry}, more than {ahead_max} us ahead");
    Err(Violation::safety("never-early", what))
}

/// A pending timer, set last at `set`, while all has been well since `well` (cluster time): it is not later than
/// `late_max`.
pub fn pending(
    id: &str,
    due: Timestamp,
    set: Timestamp,
    well: Timestamp,
    now: Timestamp,
    late_max: i64,
) -> Held {
    let since = due.max(set).max(well);
    if now.micros_since(since) <= late_max {
        return Ok(());
    }
    let what = format!(
        "timer {id:?} was due at {due} and is pending at {now}, {} us after all was well",
        now.micros_since(since)
    );
    Err(Violation::liveness("never-late", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: RelationId = RelationId(16);

    fn fired(due: i64, at: i64) -> StoredEvent {
        StoredEvent {
            event: chronos_proto::Event::default(),
            published_at: Timestamp(0),
            deliver_at: Some(Timestamp(due)),
            fired_at: Some(Timestamp(at)),
        }
    }

    #[test]
    fn an_early_a_second_and_a_late_firing_are_seen() {
        let mut timers = Timers::default();
        assert_eq!(timers.seen(TOPIC, 0, 1, &fired(100, 100), Timestamp(100)), Ok(()));
        assert_eq!(timers.seen(TOPIC, 0, 1, &fired(100, 100), Timestamp(150)), Ok(()), "read again");
        assert!(timers.clone().seen(TOPIC, 1, 2, &fired(200, 199), Timestamp(300)).is_err(), "fired early");
        assert!(timers.clone().seen(TOPIC, 1, 2, &fired(200, 200), Timestamp(199)).is_err(), "seen early");
        assert!(timers.seen(TOPIC, 1, 1, &fired(100, 100), Timestamp(300)).is_err(), "fired twice");
        let late = |now| pending("t", Timestamp(100), Timestamp(0), Timestamp(200), Timestamp(now), 50);
        assert_eq!(late(250), Ok(()));
        assert!(late(251).is_err());
        assert!(fired_ahead(Timestamp(100), Timestamp(79), 20).is_err());
        assert_eq!(fired_ahead(Timestamp(100), Timestamp(80), 20), Ok(()));
    }
}
