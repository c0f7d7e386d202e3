//! `dedup`: within the window after a message id was claimed, no second event of that id comes into the topic.
//!
//! It looks at the events that readers see, not at the claims.

use crate::violation::{Held, Violation};
use chronos_engine::state::records::StoredEvent;
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;

/// Claimed ids and when each was claimed last.
#[derive(Clone, Debug, Default)]
pub struct Dedup(BTreeMap<(RelationId, String), (Timestamp, u64)>);

impl Dedup {
    /// An event with a claimed id is in a topic at an offset. It counts from when it was published or scheduled, up
    /// to the window after it came into the topic.
    pub fn stored(&mut self, topic: RelationId, window: i64, offset: u64, event: &StoredEvent) -> Held {
        let begun = event.published_at;
        // A timer's claim is made anew when it fires, at most a little before its release.
        let held_from = match event.fired_at {
            Some(fired) if event.deliver_at.is_some_and(|due| due > begun) => fired,
            _ => begun,
        };
        let name = (topic, event.event.message_id.clone());
        if let Some((last, first)) = self.0.get(&name)
            && begun.0 < last.0.saturating_add(window)
            && begun > *last
        {
            let what = format!(
                "message id {:?} of topic {topic} is at offset {first} and again at {offset}, {} us later, within a \
                 window of {window} us",
                name.1,
                begun.micros_since(*last)
            );
            return Err(Violation::safety("dedup", what));
        }
        self.0.insert(name, (held_from, offset));
        Ok(())
    }

    /// Forgets all, to look at the topics anew.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: i64) -> StoredEvent {
        let event = chronos_proto::Event { message_id: "m".into(), ..chronos_proto::Event::default() };
        StoredEvent { event, published_at: Timestamp(at), deliver_at: None, fired_at: None }
    }

    #[test]
    fn a_second_event_within_the_window_is_seen() {
        let topic = RelationId(16);
        let mut dedup = Dedup::default();
        assert_eq!(dedup.stored(topic, 100, 0, &event(1_000)), Ok(()));
        assert_eq!(dedup.clone().stored(topic, 100, 1, &event(1_101)), Ok(()), "after the window");
        assert_eq!(dedup.clone().stored(RelationId(17), 100, 0, &event(1_050)), Ok(()), "another topic");
        assert!(dedup.stored(topic, 100, 1, &event(1_050)).is_err());
    }
}
