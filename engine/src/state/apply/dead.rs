//! Dead letters: events that a consumer group is given up on.
//!
//! A dead letter is the event itself, with its message id, key and payload, in the partition of the same number of another
//! topic. Its headers say where it came from and why. One entry appends it there and marks it as done here, so there is
//! one, and nothing waits behind it. Redriving is the way back: one entry publishes it to where it came from, without those
//! headers, and marks it as done for [`REDRIVER`], a consumer group like others. Neither looks at the dedup window: the
//! message id is there already, and is to be there again.

use super::{Apply, Change};
use crate::bugs::{self, Bug};
use crate::state::ReadError;
use crate::state::keys;
use crate::state::records::{Attempts, ConsumerRecord, StoredEvent};
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::command::{Letter, OpOutcome};
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The consumer group of a topic of dead letters whose progress says which were redriven.
pub const REDRIVER: &str = "chronos.redrive";

/// The first of the headers that a dead letter gets.
const FIRST_HEADER: &str = "\"chronos-dead-topic\": \"";

impl Apply<'_> {
    /// Takes note that events were handed out in vain.
    pub(super) fn failed(
        &mut self,
        topic: RelationId,
        group: &str,
        offsets: &[(u32, u64, u32)],
    ) -> Result<(), ReadError> {
        if self.state.catalog.get(topic).is_none() {
            return Ok(());
        }
        let mut by_partition: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
        for (partition, offset, times) in offsets {
            by_partition.entry(*partition).or_default().push((*offset, *times));
        }
        for (partition, offsets) in by_partition {
            let progress = self.progress(topic, group, partition)?;
            let key = keys::attempts(topic, group, partition);
            let mut attempts: Attempts = self.state.record("attempts", &key, self.store)?.unwrap_or_default();
            for (offset, times) in offsets.into_iter().filter(|(offset, _)| !progress.is_done(*offset)) {
                let known = attempts.entry(offset).or_default();
                *known = times.max(*known);
            }
            if !attempts.is_empty() {
                self.state.put(key, Some(Bytes::from(codec::encode(&attempts))), self.store)?;
            }
        }
        Ok(())
    }

    /// What is done is not counted any more.
    pub(super) fn forget_attempts(
        &mut self,
        topic: RelationId,
        group: &str,
        partition: u32,
        progress: &ConsumerRecord,
    ) -> Result<(), ReadError> {
        let key = keys::attempts(topic, group, partition);
        let Some(mut attempts) = self.state.record::<Attempts>("attempts", &key, self.store)? else {
            return Ok(());
        };
        attempts.retain(|offset, _| !progress.is_done(*offset));
        let left = (!attempts.is_empty()).then(|| Bytes::from(codec::encode(&attempts)));
        self.state.put(key, left, self.store)
    }

    fn progress(&self, topic: RelationId, group: &str, partition: u32) -> Result<ConsumerRecord, ReadError> {
        let key = keys::consumer(topic, group, partition);
        Ok(self.state.record("consumer group", &key, self.store)?.unwrap_or_default())
    }

    /// Puts letters into the topic for them, and marks them as done. Those that are done already stay as they are.
    pub(super) fn dead_letter(
        &mut self,
        topic: RelationId,
        group: &str,
        dead: RelationId,
        letters: &[Letter],
    ) -> Result<(), ReadError> {
        let Some(source) = self.state.catalog.get(topic).cloned() else { return Ok(()) };
        let (mut done, mut kept) = (Vec::new(), Vec::new());
        for letter in letters {
            let place = (letter.partition, letter.offset);
            if self.progress(topic, group, letter.partition)?.is_done(letter.offset) {
                continue;
            }
            if !self.has_partition(dead, letter.partition) {
                kept.push(place);
                continue;
            }
            // One that is gone cannot be kept.
            if let Some(stored) = self.event(topic, letter.partition, letter.offset)? {
                let mut event = stored.event;
                event.headers = Some(with_origin(event.headers.as_deref(), &source.name, group, letter));
                let stored = StoredEvent { event, published_at: self.time, deliver_at: None, fired_at: None };
                self.append(dead, letter.partition, stored);
            }
            if !bugs::active(Bug::DeadLetterUnacked) {
                done.push(place);
            }
        }
        if !done.is_empty() {
            self.ack(topic, group, &done)?;
        }
        if !kept.is_empty() {
            let consumer_group = group.to_owned();
            self.changes.push(Change::Kept { topic, consumer_group, offsets: kept });
        }
        Ok(())
    }

    /// Publishes a dead letter to where it came from.
    pub(super) fn redrive(
        &mut self,
        dead: RelationId,
        partition: u32,
        offset: u64,
        source: RelationId,
    ) -> Result<OpOutcome, ReadError> {
        let there = self.has_partition(source, partition) && self.has_partition(dead, partition);
        if !there || self.progress(dead, REDRIVER, partition)?.is_done(offset) {
            return Ok(OpOutcome::TooLate);
        }
        let Some(stored) = self.event(dead, partition, offset)? else { return Ok(OpOutcome::TooLate) };
        let mut event = stored.event;
        event.headers = event.headers.and_then(without_origin);
        let stored = StoredEvent { event, published_at: self.time, deliver_at: None, fired_at: None };
        let to = self.append(source, partition, stored);
        self.ack(dead, REDRIVER, &[(partition, offset)])?;
        Ok(OpOutcome::Published { partition, offset: to })
    }

    /// Whether a topic has a partition, and this group keeps it.
    fn has_partition(&self, topic: RelationId, partition: u32) -> bool {
        self.state.catalog.get(topic).is_some_and(|relation| {
            relation.topic().is_some_and(|t| partition < t.partitions)
                && relation.home(partition) == self.state.group
        })
    }

    /// A stored event, released or not.
    fn event(
        &self,
        topic: RelationId,
        partition: u32,
        offset: u64,
    ) -> Result<Option<StoredEvent>, ReadError> {
        let events = self.state.snapshot(self.store).events(topic, partition, offset, 1, Timestamp::MAX)?;
        Ok(events.into_iter().next().filter(|event| event.offset == offset).map(|event| event.stored))
    }
}

/// Headers of a dead letter: those of the event, and where it comes from behind them.
fn with_origin(headers: Option<&str>, topic: &str, group: &str, letter: &Letter) -> String {
    let old = headers.and_then(|headers| headers.trim_end().strip_suffix('}')).unwrap_or("{").trim_end();
    let mut out = old.to_owned();
    if !old.ends_with('{') {
        out.push_str(", ");
    }
    out.push_str(FIRST_HEADER);
    quote(&mut out, topic);
    let Letter { partition, offset, deliveries, reason } = letter;
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "\", \"chronos-dead-partition\": \"{partition}\", \"chronos-dead-offset\": \"{offset}\", \
         \"chronos-dead-deliveries\": \"{deliveries}\", \"chronos-dead-group\": \""
    );
    quote(&mut out, group);
    out.push_str("\", \"chronos-dead-reason\": \"");
    quote(&mut out, reason);
    out.push_str("\"}");
    out
}

/// The headers that a dead letter had before. The names cannot stand inside of a value: quotes in there are escaped.
fn without_origin(headers: String) -> Option<String> {
    let Some(at) = headers.rfind(FIRST_HEADER) else { return Some(headers) };
    let before = headers[..at].trim_end().trim_end_matches(',').trim_end();
    (before != "{").then(|| format!("{before}}}"))
}

/// Appends text as the inside of a JSON string.
fn quote(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(reason: &str) -> Letter {
        Letter { partition: 1, offset: 7, deliveries: 3, reason: reason.into() }
    }

    #[test]
    fn headers_say_where_a_letter_comes_from_and_go_again() {
        let origin = |reason| {
            format!(
                "\"chronos-dead-topic\": \"a\\\"b\", \"chronos-dead-partition\": \"1\", \
                 \"chronos-dead-offset\": \"7\", \"chronos-dead-deliveries\": \"3\", \
                 \"chronos-dead-group\": \"g\", \"chronos-dead-reason\": \"{reason}\"}}"
            )
        };
        let with = |headers, reason| with_origin(headers, "a\"b", "g", &letter(reason));
        assert_eq!(with(None, "no"), format!("{{{}", origin("no")));
        assert_eq!(with(Some("{}"), "a\nb"), format!("{{{}", origin("a\\u000ab")));
        assert_eq!(with(Some("{\"a\": 1 }"), ""), format!("{{\"a\": 1, {}", origin("")));
        assert_eq!(without_origin(with(None, "x")), None);
        assert_eq!(without_origin(with(Some("{\"a\":1}"), FIRST_HEADER)), Some("{\"a\":1}".into()));
        assert_eq!(without_origin("{\"a\":1}".into()), Some("{\"a\":1}".into()));
    }
}
