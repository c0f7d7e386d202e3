//! A lane: one partition for one queue. Every offset below the cursor is done, out, waiting or ready; each is in
//! exactly one of these states.

use super::{BACKOFF_MAX, BACKOFF_MIN, Deadlines, Due, QueueId};
use crate::bugs::{self, Bug};
use crate::state::records::{Attempts, ConsumerRecord};
use crate::step::SubscriberId;
use chronos_proto::time::Instant;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Who has an event, and until when it is believed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) to: SubscriberId,
    pub(super) until: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Out(Lease),
    Waiting(Instant),
    Ready,
    /// It is to become a dead letter.
    Dead,
}

/// What an event comes to that was handed out in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It comes again, having been handed out so often.
    Again(u32),
    /// It does not.
    Dead(u32),
}

/// An event that was handed out and is not done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Handed {
    /// How often.
    times: u32,
    state: State,
}

/// Invariant: an offset below `cursor` is below `floor`, or in `done`, or in `handed`; `floor` itself is not in `done`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Lane {
    place: (QueueId, u32),
    floor: u64,
    cursor: u64,
    released: u64,
    span_max: u64,
    /// Done above the floor; beyond the cursor too, if they were acknowledged in another life.
    done: BTreeSet<u64>,
    handed: BTreeMap<u64, Handed>,
    /// How often events that were not handed out in this life were in others.
    attempts: Attempts,
    /// Those of `handed` that may be handed out again.
    ready: BTreeSet<u64>,
}

impl Lane {
    pub(super) fn new(place: (QueueId, u32), floor: u64, span_max: u64) -> Lane {
        Lane {
            place,
            floor,
            cursor: floor,
            released: 0,
            span_max,
            done: BTreeSet::new(),
            handed: BTreeMap::new(),
            attempts: Attempts::new(),
            ready: BTreeSet::new(),
        }
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The end of what may be out or done now: released, and within the span.
    pub(super) fn limit(&self) -> u64 {
        self.released.min(self.floor.saturating_add(self.span_max))
    }

    /// Whether the span alone holds it up.
    pub(super) fn is_paused(&self) -> bool {
        self.ready.is_empty() && self.cursor < self.released && self.cursor >= self.limit()
    }

    /// How much can be handed out; too high by what is done beyond the cursor.
    pub(super) fn available(&self) -> u64 {
        self.ready.len() as u64 + self.limit().saturating_sub(self.cursor)
    }

    /// More is released. False if that was known.
    pub(super) fn release(&mut self, end: u64) -> bool {
        let news = end > self.released;
        self.released = self.released.max(end);
        news
    }

    /// Takes note of stored progress, and of how often what is not done was handed out.
    pub(super) fn merge(&mut self, stored: &ConsumerRecord, attempts: &Attempts, deadlines: &mut Deadlines) {
        while self.floor < stored.floor && self.floor < self.cursor {
            self.finish(self.floor, deadlines);
        }
        if self.floor < stored.floor {
            self.floor = stored.floor;
            self.cursor = self.cursor.max(self.floor);
            self.done = self.done.split_off(&self.floor);
            self.raise_floor();
        }
        for (offset, times) in attempts.iter().filter(|_| !bugs::active(Bug::ForgetAttempts)) {
            match self.handed.get_mut(offset) {
                Some(handed) => handed.times = handed.times.max(*times),
                None if *offset >= self.floor && !self.done.contains(offset) => {
                    self.attempts.insert(*offset, *times);
                }
                None => {}
            }
        }
        for offset in stored.done.iter().filter(|_| !bugs::active(Bug::ForgetAckedAhead)) {
            self.finish(*offset, deadlines);
        }
    }

    /// Appends up to `most` offsets, ascending, with how often each was handed out before. With a lease they stay
    /// accountable; without one they are done with. Those that were handed out `limit` times go to `dead` instead.
    pub(super) fn take(
        &mut self,
        most: usize,
        (lease, limit): (Option<Lease>, u32),
        deadlines: &mut Deadlines,
        offsets: &mut Vec<(u64, u32)>,
        dead: &mut Vec<(u64, u32)>,
    ) {
        while offsets.len() < most {
            let Some(offset) = self.ready.pop_first().or_else(|| self.next_new()) else { break };
            let Some(lease) = lease else {
                offsets.push((offset, 0));
                self.floor = self.cursor;
                continue;
            };
            let before = self.attempts.remove(&offset).unwrap_or(0);
            let handed = self.handed.entry(offset).or_insert(Handed { times: before, state: State::Ready });
            if handed.times >= limit {
                dead.push((offset, handed.times));
                handed.state = State::Dead;
                continue;
            }
            offsets.push((offset, handed.times));
            handed.times = handed.times.saturating_add(1);
            handed.state = State::Out(lease);
            deadlines.insert(self.deadline(lease.until, offset));
        }
    }

    fn next_new(&mut self) -> Option<u64> {
        while self.cursor < self.limit() {
            let offset = self.cursor;
            self.cursor += 1;
            if !self.done.contains(&offset) {
                return Some(offset);
            }
        }
        None
    }

    /// An event is done. False if it was before.
    pub(super) fn finish(&mut self, offset: u64, deadlines: &mut Deadlines) -> bool {
        if offset < self.floor || !self.done.insert(offset) {
            return false;
        }
        self.attempts.remove(&offset);
        if let Some(handed) = self.handed.remove(&offset) {
            self.leave(offset, handed.state, deadlines);
        }
        self.raise_floor();
        true
    }

    fn raise_floor(&mut self) {
        while self.done.first() == Some(&self.floor) {
            self.done.pop_first();
            self.floor += 1;
        }
        self.cursor = self.cursor.max(self.floor);
    }

    /// The holder does not want an event now. None if it is not out to it.
    pub(super) fn give_back(
        &mut self,
        offset: u64,
        holder: SubscriberId,
        (now, delay): (Instant, Duration),
        limit: u32,
        deadlines: &mut Deadlines,
    ) -> Option<Fate> {
        let Handed { times, state: State::Out(lease) } = self.handed.get(&offset).copied()? else {
            return None;
        };
        if lease.to != holder {
            return None;
        }
        self.leave(offset, State::Out(lease), deadlines);
        Some(self.fail(offset, times, (now, delay.max(backoff(times))), limit, deadlines))
    }

    /// The holder is gone: all that it held may be handed out at once.
    pub(super) fn abandon(
        &mut self,
        holder: SubscriberId,
        now: Instant,
        limit: u32,
        deadlines: &mut Deadlines,
    ) -> Vec<(u64, Fate)> {
        let held = |(_, handed): &(&u64, &Handed)| matches!(handed.state, State::Out(l) if l.to == holder);
        let held: Vec<_> = self.handed.iter().filter(held).map(|(offset, h)| (*offset, *h)).collect();
        let mut fates = Vec::with_capacity(held.len());
        for (offset, Handed { times, state }) in held {
            self.leave(offset, state, deadlines);
            fates.push((offset, self.fail(offset, times, (now, Duration::ZERO), limit, deadlines)));
        }
        fates
    }

    /// The deadline of an event has come: its wait is over, or its lease, in vain.
    pub(super) fn end_lease(
        &mut self,
        offset: u64,
        now: Instant,
        limit: u32,
        deadlines: &mut Deadlines,
    ) -> Option<Fate> {
        let Handed { times, state } = self.handed.get(&offset).copied()?;
        match state {
            State::Out(_) => Some(self.fail(offset, times, (now, backoff(times)), limit, deadlines)),
            State::Waiting(_) => {
                self.enter(offset, State::Ready, deadlines);
                None
            }
            State::Ready | State::Dead => None,
        }
    }

    /// An event could not become a dead letter.
    pub(super) fn keep(&mut self, offset: u64, deadlines: &mut Deadlines) {
        if self.handed.get(&offset).is_some_and(|handed| handed.state == State::Dead) {
            self.enter(offset, State::Ready, deadlines);
        }
    }

    fn fail(
        &mut self,
        offset: u64,
        times: u32,
        (now, delay): (Instant, Duration),
        limit: u32,
        deadlines: &mut Deadlines,
    ) -> Fate {
        if times >= limit {
            self.enter(offset, State::Dead, deadlines);
            return Fate::Dead(times);
        }
        self.wait(offset, now, delay, deadlines);
        Fate::Again(times)
    }

    fn wait(&mut self, offset: u64, now: Instant, delay: Duration, deadlines: &mut Deadlines) {
        let state = if delay.is_zero() { State::Ready } else { State::Waiting(now + delay) };
        self.enter(offset, state, deadlines);
    }

    fn enter(&mut self, offset: u64, state: State, deadlines: &mut Deadlines) {
        if let Some(handed) = self.handed.get_mut(&offset) {
            handed.state = state;
        }
        match state {
            State::Ready => {
                self.ready.insert(offset);
            }
            State::Waiting(until) | State::Out(Lease { until, .. }) => {
                deadlines.insert(self.deadline(until, offset));
            }
            State::Dead => {}
        }
    }

    fn leave(&mut self, offset: u64, state: State, deadlines: &mut Deadlines) {
        match state {
            State::Ready => {
                self.ready.remove(&offset);
            }
            State::Waiting(until) | State::Out(Lease { until, .. }) => {
                deadlines.remove(&self.deadline(until, offset));
            }
            State::Dead => {}
        }
    }

    fn deadline(&self, at: Instant, offset: u64) -> (Instant, QueueId, Due) {
        let (queue, partition) = self.place;
        (at, queue, Due::Offset { partition, offset })
    }

    /// Takes its deadlines back, before it goes.
    pub(super) fn clear(&mut self, deadlines: &mut Deadlines) {
        for (offset, handed) in std::mem::take(&mut self.handed) {
            self.leave(offset, handed.state, deadlines);
        }
    }

    #[cfg(test)]
    pub(super) fn deadlines(&self) -> usize {
        self.handed.values().filter(|h| matches!(h.state, State::Out(_) | State::Waiting(_))).count()
    }

    #[cfg(test)]
    pub(super) fn check(&self, deadlines: &Deadlines) {
        assert!(self.floor <= self.cursor);
        assert!(self.cursor - self.floor <= self.span_max);
        assert!(!self.done.contains(&self.floor));
        for offset in self.floor..self.cursor {
            assert!(self.done.contains(&offset) ^ self.handed.contains_key(&offset), "offset {offset}");
        }
        for (offset, handed) in &self.handed {
            assert!((self.floor..self.cursor).contains(offset));
            assert_eq!(self.ready.contains(offset), handed.state == State::Ready);
            if let State::Waiting(until) | State::Out(Lease { until, .. }) = handed.state {
                assert!(deadlines.contains(&self.deadline(until, *offset)));
            }
        }
    }
}

/// The wait before an event comes again that was handed out so many times.
fn backoff(times: u32) -> Duration {
    match times {
        0 | 1 => Duration::ZERO,
        _ => BACKOFF_MIN.saturating_mul(1 << (times - 2).min(20)).min(BACKOFF_MAX),
    }
}
