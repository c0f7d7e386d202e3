//! Timers of one group at its leader: which are near, which are due, which are armed.
//!
//! The ordered timer index in the state holds them all. The wheel holds those up to a cursor in that order, never
//! more than a bound; what is set below the cursor goes into the wheel at once, what is above waits for its refill.
//! The wheel only proposes: a stale entry (cancelled, rescheduled) is found out when its firing is applied, so nothing
//! has to be taken out of the wheel.

use crate::bugs::{self, Bug};
use crate::keys::{self, KeyRange};
use crate::state::{ReadError, snapshot::Snapshot};
use crate::timer::Wheel;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::command::TimerRef;
use chronos_proto::id::RelationId;
use chronos_proto::limits::FIRE_MAX_TIMERS;
use chronos_proto::time::{MICROS_PER_MS, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Timers loaded in one step at the most.
const REFILL_SLICE: usize = 4_096;

type Place = (Timestamp, u64);

/// The near timers.
#[derive(Serialize, Deserialize)]
pub struct Timers {
    wheel: Wheel<TimerRef, Place>,
    /// Everything at or below this place in the due order is in the wheel or was taken from it.
    cursor: Place,
    /// More timers lie between the cursor and the window's end: loading goes on.
    behind: bool,
    due: VecDeque<TimerRef>,
    /// The log takes no firing now: asking again waits for the next write to be durable.
    stuck: bool,
    /// Release times of fired events that nobody may see yet.
    armed: BTreeMap<Timestamp, BTreeSet<(RelationId, u32)>>,
    window_us: i64,
    wheel_max: usize,
}

impl Timers {
    /// An empty wheel at `now`; the first refill fills it.
    pub fn new(now: Timestamp, window_us: i64, wheel_max: usize) -> Timers {
        Timers {
            wheel: Wheel::new(now.millis().max(0) as u64),
            cursor: (Timestamp(i64::MIN), 0),
            behind: true,
            due: VecDeque::new(),
            stuck: false,
            armed: BTreeMap::new(),
            window_us,
            wheel_max,
        }
    }

    /// Timers in the wheel or waiting to be fired.
    pub fn near(&self) -> usize {
        self.wheel.len() + self.due.len()
    }

    /// A timer was set.
    pub fn set(&mut self, timer: TimerRef) {
        if (timer.due, timer.sequence) > self.cursor {
            return;
        }
        let edge = self.cursor.0.0.saturating_sub(MICROS_PER_MS);
        if bugs::active(Bug::LoseTimerAtBoundary) && timer.due.0 > edge {
            return;
        }
        if self.wheel.len() >= 2 * self.wheel_max {
            // Too many near ones: begin again with as many as the wheel should hold.
            self.wheel.clear();
            self.cursor = (Timestamp(i64::MIN), 0);
            self.behind = true;
            return;
        }
        self.insert(timer);
    }

    fn insert(&mut self, timer: TimerRef) {
        let due_ms = timer.due.0.max(0).unsigned_abs().div_ceil(1_000);
        let place = (timer.due, timer.sequence);
        self.wheel.insert(due_ms, place, timer);
    }

    /// Whether timers should be loaded now.
    pub fn wants_refill(&self, now: Timestamp) -> bool {
        let room = self.wheel.len() < self.wheel_max.div_ceil(2);
        let near = self.cursor.0.0.saturating_sub(now.0) <= self.window_us / 2;
        room && (self.behind || near)
    }

    /// When the window must move on, if nothing else happens before.
    pub fn refill_at(&self) -> Option<Timestamp> {
        (self.wheel.len() < self.wheel_max.div_ceil(2)).then(|| {
            if self.behind { Timestamp(i64::MIN) } else { Timestamp(self.cursor.0.0 - self.window_us / 2) }
        })
    }

    /// Loads the next slice of timers from the due order.
    pub fn refill(&mut self, now: Timestamp, snapshot: &Snapshot) -> Result<(), ReadError> {
        let window_end = (Timestamp(now.0.saturating_add(self.window_us)), u64::MAX);
        let from = KeyRange::point(keys::due(self.cursor.0, self.cursor.1)).end;
        let to = KeyRange::point(keys::due(window_end.0, window_end.1)).end;
        let room = self.wheel_max.saturating_sub(self.wheel.len()).min(REFILL_SLICE);
        if from >= to || room == 0 {
            return Ok(());
        }
        let mut last = None;
        let mut loaded = 0;
        for entry in snapshot.scan(&KeyRange { start: from, end: to }, false).take(room) {
            let (key, value): (Bytes, Bytes) = entry?;
            let Some((due, sequence)) = keys::due_parts(&key) else { continue };
            let (topic, partition, timer_id): (RelationId, u32, String) = codec::decode("due entry", &value)?;
            self.insert(TimerRef { due, sequence, topic, partition, timer_id });
            last = Some((due, sequence));
            loaded += 1;
        }
        self.behind = loaded == room;
        self.cursor = if self.behind { last.unwrap_or(window_end) } else { window_end };
        Ok(())
    }

    /// Moves what is due by `horizon` out of the wheel, and takes the next batch to be fired.
    pub fn take_due(&mut self, horizon: Timestamp) -> Vec<TimerRef> {
        let mut out = Vec::new();
        self.wheel.advance(horizon.millis().max(0) as u64, &mut out);
        self.due.extend(out.into_iter().map(|(_, _, timer)| timer));
        let batch = self.due.len().min(FIRE_MAX_TIMERS);
        self.due.drain(..batch).collect()
    }

    /// These could not be fired now, nor can others before [`Timers::unstick`].
    pub fn put_back(&mut self, timers: Vec<TimerRef>) {
        self.stuck = true;
        for timer in timers.into_iter().rev() {
            self.due.push_front(timer);
        }
    }

    /// The log may take firings again.
    pub fn unstick(&mut self) {
        self.stuck = false;
    }

    /// Whether some are due that were not taken yet and can be.
    pub fn has_due(&self) -> bool {
        !self.due.is_empty() && !self.stuck
    }

    /// When the wheel wants to be advanced next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.wheel.next_expiration().map(|ms| Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
    }

    /// An event fired ahead of its release.
    pub fn arm(&mut self, release: Timestamp, topic: RelationId, partition: u32) {
        self.armed.entry(release).or_default().insert((topic, partition));
    }

    /// Partitions with events that are released by `now`, by release time.
    pub fn take_released(&mut self, now: Timestamp) -> Vec<(Timestamp, RelationId, u32)> {
        let mut out = Vec::new();
        while let Some(first) = self.armed.first_entry().filter(|e| *e.key() <= now) {
            let (release, partitions) = first.remove_entry();
            out.extend(partitions.into_iter().map(|(topic, partition)| (release, topic, partition)));
        }
        out
    }

    /// Partitions with events that are released after `time`, by release time.
    pub fn releases_after(
        &self,
        time: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, (RelationId, u32))> + '_ {
        let after = self.armed.range((Bound::Excluded(time), Bound::Unbounded));
        after.flat_map(|(release, partitions)| partitions.iter().map(|place| (*release, *place)))
    }

    /// The next release.
    pub fn next_release(&self) -> Option<Timestamp> {
        self.armed.first_key_value().map(|(release, _)| *release)
    }
}
