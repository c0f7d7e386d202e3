//! Linearizable reads: a round of heartbeats that begins after the read, answered by a quorum (dissertation, 6.4).

use super::quorum::committed_index;
use super::{Index, Instant, Message, Output, Raft, Role};
use crate::bugs::{self, Bug};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Reads that wait, and rounds of heartbeats.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reads {
    /// The last round that was begun in this term.
    round: u64,
    /// Reads that wait for a round still to begin.
    asked: Vec<u64>,
    /// By round: the commit index when it began, and its reads.
    rounds: VecDeque<(u64, Index, Vec<u64>)>,
    /// When recent rounds were begun.
    begun: VecDeque<(u64, Instant)>,
    /// When the last confirmed round was begun.
    lease_from: Option<Instant>,
    /// Another may be elected in spite of leases, since it was told to campaign.
    handed_over: bool,
}

/// Rounds whose beginning is remembered.
const ROUNDS: usize = 64;

impl Reads {
    /// A new term's leader counts anew.
    pub fn restart(&mut self) {
        self.round = 0;
        self.handed_over = false;
        self.end_lease();
    }

    fn end_lease(&mut self) {
        self.lease_from = None;
        self.begun.clear();
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.rounds.is_empty()
    }

    /// There is none in the rest of this term.
    pub fn no_more_leases(&mut self) {
        self.handed_over = true;
    }

    /// Nobody waiting is answered by this leader any more.
    pub fn fail(&mut self, outputs: &mut Vec<Output>) {
        let waiting = self.rounds.drain(..).flat_map(|(_, _, reads)| reads).chain(self.asked.drain(..));
        outputs.extend(waiting.map(|number| Output::Read { number, index: None }));
        self.end_lease();
    }
}

impl Raft {
    /// Asks from which index on a state may answer a read that begins now; [`Output::Read`] tells. False if this member
    /// does not lead: nothing will be told.
    pub fn read(&mut self, number: u64) -> bool {
        if self.role != Role::Leader {
            return false;
        }
        if self.ready() && (self.reads_alone() || bugs::active(Bug::ReadWithoutQuorum)) {
            let index = Some(self.hard.commit);
            self.outputs.push(Output::Read { number, index });
        } else {
            self.stir();
            self.reads.asked.push(number);
        }
        true
    }

    /// Whether nobody need be asked.
    pub fn reads_alone(&self) -> bool {
        self.configuration().is_alone(self.id)
    }

    /// Until when, by its own clock, this leader may answer reads without asking, if leases are on: no other can be
    /// elected before. Once it has told another to campaign there are no leases for the rest of the term.
    pub fn lease_until(&self) -> Option<Instant> {
        if !self.settings.leases || !self.ready() || self.reads.handed_over {
            return None;
        }
        let timeout = self.settings.election_timeout_us;
        let drift = if bugs::active(Bug::LeaseWithoutDrift) { 0 } else { self.settings.drift_permille };
        let holds = timeout - timeout * drift / 1_000;
        self.reads.lease_from.map(|from| Instant(from.0 + holds))
    }

    /// Heartbeats to everybody, which begin a round.
    pub(super) fn beat(&mut self) {
        // On the same moments in every group, so that they travel together.
        let every = self.settings.heartbeat_us;
        self.heartbeat_at = Instant((self.now.0 / every + 1) * every);
        self.reads.round += 1;
        let (round, now) = (self.reads.round, self.now);
        if self.reads.begun.len() == ROUNDS {
            self.reads.begun.pop_front();
        }
        self.reads.begun.push_back((round, now));
        if self.ready() && !self.reads.asked.is_empty() {
            let reads = std::mem::take(&mut self.reads.asked);
            self.reads.rounds.push_back((round, self.hard.commit, reads));
        }
        let (term, commit) = (self.hard.term, self.hard.commit);
        let rests = self.offers_rest(round);
        let beats: Vec<_> = self.progress.iter().map(|(to, p)| (*to, commit.min(p.matched))).collect();
        for (to, commit) in beats {
            let message = match rests {
                true => Message::Rest { term, last: commit, round },
                false => Message::Heartbeat { term, commit, round },
            };
            self.send(to, message);
        }
        self.confirm_reads();
    }

    /// Reads that have gathered begin a round of their own, one at a time.
    pub(super) fn begin_read_round(&mut self) {
        if self.ready() && !self.reads.asked.is_empty() && self.reads.rounds.is_empty() {
            self.beat();
        }
    }

    /// Reads that came before this leader knew what is committed.
    pub(super) fn reads_after_commit(&mut self) {
        if self.ready() && self.reads_alone() {
            let index = Some(self.hard.commit);
            let asked = std::mem::take(&mut self.reads.asked);
            self.outputs.extend(asked.into_iter().map(|number| Output::Read { number, index }));
        }
    }

    /// Answers the reads of rounds that a quorum has answered.
    pub(super) fn confirm_reads(&mut self) {
        let round = self.reads.round;
        let answered = |node| match node {
            node if node == self.id => round,
            node => self.progress.get(&node).map_or(0, |progress| progress.round),
        };
        let confirmed = committed_index(self.configuration(), answered);
        while let Some((begun, at)) = self.reads.begun.front().copied()
            && begun <= confirmed
        {
            self.reads.begun.pop_front();
            self.reads.lease_from = self.reads.lease_from.max(Some(at));
        }
        while let Some((_, index, reads)) = self.reads.rounds.pop_front_if(|(begun, ..)| *begun <= confirmed)
        {
            let index = Some(index);
            self.outputs.extend(reads.into_iter().map(|number| Output::Read { number, index }));
        }
    }
}
