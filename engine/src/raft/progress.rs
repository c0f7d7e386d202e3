//! What a leader knows of each follower.

use chronos_proto::id::Index;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How entries are sent to a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// One append at a time, to find where the logs agree.
    Probe,
    /// A stream of appends, within the window.
    Replicate,
    /// None: a snapshot is on its way.
    Snapshot,
}

/// One follower.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The log agrees up to here, durably at the follower.
    pub matched: Index,
    /// The next entry to send.
    pub next: Index,
    pub pace: Pace,
    /// The probe that was sent is not answered.
    pub paused: bool,
    /// Sent and not answered: last index and bytes of each append.
    pub inflight: VecDeque<(Index, u64)>,
    pub inflight_bytes: u64,
    /// It answered since the last check of the quorum.
    pub active: bool,
    /// The greatest round of heartbeats that it answered.
    pub round: u64,
    /// The last round that offered rest and found it at rest.
    pub rests_from: u64,
    /// `matched` at the last heartbeat reply: unchanged means that appends may have been lost.
    pub matched_before: Index,
}

impl Progress {
    pub fn new(last: Index) -> Progress {
        Progress {
            matched: Index(0),
            next: last.next(),
            pace: Pace::Probe,
            paused: false,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            active: true,
            round: 0,
            rests_from: 0,
            matched_before: Index(0),
        }
    }

    pub fn probe(&mut self) {
        *self = Progress {
            pace: Pace::Probe,
            paused: false,
            next: self.matched.next(),
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            ..*self
        };
    }

    /// Nothing is known of its log any more; a snapshot that is on its way still is.
    pub fn forget(&mut self, last: Index) {
        let pace = self.pace;
        self.matched = Index(0);
        self.matched_before = Index(0);
        self.probe();
        self.next = last.next();
        if pace == Pace::Snapshot {
            self.pace = pace;
        }
    }

    pub fn replicate(&mut self) {
        self.probe();
        self.pace = Pace::Replicate;
    }

    pub fn snapshot(&mut self) {
        self.probe();
        self.pace = Pace::Snapshot;
    }

    pub fn sent(&mut self, last: Index, bytes: u64) {
        self.next = last.next();
        self.inflight.push_back((last, bytes));
        self.inflight_bytes += bytes;
    }

    /// True if this is news.
    pub fn matched(&mut self, index: Index) -> bool {
        let news = index > self.matched;
        self.matched = self.matched.max(index);
        self.next = self.next.max(self.matched.next());
        while let Some((_, bytes)) = self.inflight.pop_front_if(|(last, _)| *last <= index) {
            self.inflight_bytes -= bytes;
        }
        news
    }
}
