//! Replication: appends and their answers, snapshots, and what becomes committed.

use super::membership::{Memberships, leave_joint};
use super::progress::Pace;
use super::quorum::committed_index;
use super::{Compacted, Entry, Index, Log, LogId, Makes, Message, NodeId, Output, Raft, Record, Role, Term};
use crate::bugs::{self, Bug};
use chronos_proto::command::Command;
use chronos_proto::membership::Configuration;
use chronos_proto::time::Timestamp;

impl Raft {
    // The leader's half

    pub(super) fn send_appends(&mut self) {
        let followers: Vec<NodeId> = self.progress.keys().copied().collect();
        for follower in followers {
            while self.send_append(follower, false) {}
        }
    }

    /// Sends what the follower's pace and window allow; an empty append too, if asked to. True if there may be more.
    fn send_append(&mut self, to: NodeId, empty: bool) -> bool {
        let (settings, term) = (self.settings, self.hard.term);
        let Some(progress) = self.progress.get_mut(&to) else { return false };
        let full = progress.inflight.len() >= settings.inflight_max
            || progress.inflight_bytes >= settings.inflight_bytes_max;
        match progress.pace {
            Pace::Snapshot => return false,
            Pace::Probe if progress.paused => return false,
            Pace::Replicate if full && !empty => return false,
            Pace::Probe | Pace::Replicate => {}
        }
        let previous = Index(progress.next.0 - 1);
        let Some(previous_term) = self.log.term(previous) else {
            // It is behind the log. One that is silent would not take a snapshot either.
            if progress.active {
                progress.snapshot();
                self.outputs.push(Output::SendSnapshot { to });
            }
            return false;
        };
        let entries =
            if full { Vec::new() } else { self.log.slice(progress.next, settings.append_bytes_max) };
        if entries.is_empty() && !empty && progress.pace == Pace::Replicate {
            return false;
        }
        let more = match (progress.pace, entries.last()) {
            (Pace::Replicate, Some(last)) => {
                let bytes = entries.iter().map(|entry| entry.command.bytes() as u64).sum();
                progress.sent(last.index, bytes);
                true
            }
            (Pace::Probe, _) => {
                progress.paused = true;
                false
            }
            _ => false,
        };
        let previous = LogId { term: previous_term, index: previous };
        self.send(to, Message::Append { term, previous, entries, commit: self.hard.commit });
        more
    }

    pub(super) fn appended(&mut self, from: NodeId, matched: Index) {
        let last = self.log.last().index;
        // More than there is: not an answer to this leader.
        if self.role != Role::Leader || matched > last {
            return;
        }
        let base = self.log.base().index;
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.active = true;
        let news = progress.matched(matched);
        match progress.pace {
            // What is older than the probe does not answer it.
            Pace::Probe if progress.matched.next() == progress.next => progress.replicate(),
            // What it has now reaches the log again, by the snapshot or by itself.
            Pace::Snapshot if progress.matched >= base => progress.replicate(),
            _ => {}
        }
        self.fresh = true;
        if news {
            self.advance_commit();
            self.hand_over();
        }
    }

    pub(super) fn append_rejected(&mut self, from: NodeId, previous: Index, hint: LogId) {
        if self.role != Role::Leader {
            return;
        }
        // Below the base nothing is known of the log: a snapshot will be sent.
        let agree = match hint.index < self.log.base().index {
            true => hint.index,
            false => self.log.agrees_at_most(hint.index.min(previous), hint.term).index,
        };
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.active = true;
        match progress.pace {
            Pace::Replicate if previous > progress.matched => progress.probe(),
            // An answer to an older probe otherwise.
            Pace::Probe if progress.next.0 == previous.0 + 1 => {
                let next = Index(agree.0.min(previous.0.saturating_sub(1)) + 1).max(progress.matched.next());
                // One that has lost what it acknowledged will say so: until then there is nothing to find out.
                progress.paused = next == progress.next;
                progress.next = next;
            }
            _ => return,
        }
        self.fresh = true;
    }

    pub(super) fn heartbeat_answered(&mut self, from: NodeId, round: u64) {
        if self.role != Role::Leader {
            return;
        }
        let last = self.log.last().index;
        let Some(progress) = self.progress.get_mut(&from) else { return };
        progress.active = true;
        progress.round = progress.round.max(round);
        progress.paused = false;
        let stuck = progress.matched == progress.matched_before && progress.matched < last;
        progress.matched_before = progress.matched;
        if stuck && progress.pace == Pace::Replicate {
            // Either it is slow to write, or an append was lost: an empty one behind them asks which.
            self.send_append(from, true);
        }
        self.fresh = true;
        self.confirm_reads();
    }

    /// Commits what a quorum has, from this leader's first entry on.
    pub(super) fn advance_commit(&mut self) {
        let matched = |node| match node {
            node if node == self.id => self.persisted,
            node => self.progress.get(&node).map_or(Index(0), |progress| progress.matched),
        };
        let committed = match bugs::active(Bug::CountLearners) {
            true => committed_index(&Configuration::of(self.configuration().members()), matched),
            false => committed_index(self.configuration(), matched),
        };
        // Figure 8 of the paper: older terms' entries are committed only through one of this term.
        let counts = committed >= self.own_term_from || bugs::active(Bug::CommitOldTerm);
        if self.role != Role::Leader || !counts || committed <= self.hard.commit {
            return;
        }
        self.hard.commit = committed;
        self.fresh = true;
        self.reads_after_commit();
        if self.memberships.since() > committed {
            return;
        }
        if self.configuration().is_joint() {
            let next = leave_joint(self.configuration());
            self.append_of_its_own(Command::Membership(next));
            self.sync_progress();
            // A quorum of the simple configuration may have it already.
            self.advance_commit();
        } else if !self.configuration().voters.contains(&self.id) {
            // It was removed, and its last duty is done: the others hear of the commit.
            self.beat();
            self.send_appends();
            self.step_down(self.hard.term);
        } else {
            self.sync_progress();
        }
    }

    /// The state that [`Output::SendSnapshot`] asked for is with the follower, up to `last`, or could not be brought there
    /// (none). [`Message::Snapshot`] is sent beside this, by whoever brought the state.
    pub fn snapshot_sent(&mut self, to: NodeId, last: Option<LogId>) {
        let Some(progress) = self.progress.get_mut(&to).filter(|p| p.pace == Pace::Snapshot) else { return };
        progress.probe();
        if let Some(last) = last {
            progress.next = progress.next.max(last.index.next());
        }
        // It puts the snapshot in place first, or there was none: its word, or the next heartbeat's answer, lets it go on.
        progress.paused = true;
    }

    // The follower's half

    pub(super) fn append_asked(&mut self, from: NodeId, previous: LogId, entries: Vec<Entry>, commit: Index) {
        let term = self.hard.term;
        if self.installing.is_some() {
            // The log is about to begin anew.
            return;
        }
        if !follow_on(previous, &entries, term) {
            return;
        }
        let matches = self.log.has(previous) || previous.index < self.log.base().index;
        if !matches {
            let hint = self.log.agrees_at_most(previous.index, previous.term);
            let previous = previous.index;
            return self.send(from, Message::AppendRejected { term, previous, hint });
        }
        let end = entries.last().map_or(previous.index, |entry| entry.index);
        for entry in entries {
            if entry.index <= self.log.base().index {
                continue;
            }
            match self.log.term(entry.index) {
                Some(known) if known == entry.term && !bugs::active(Bug::TruncateOnAppend) => continue,
                Some(_) => self.truncate(entry.index),
                None => {}
            }
            self.push(entry);
        }
        self.verified = self.verified.max(end);
        self.commit_to(commit.min(end));
        self.owes_appended = true;
        let early = bugs::active(Bug::AppendBeforeSync);
        if self.persisted >= self.verified || self.writing.is_empty() || early {
            self.tell_appended();
        }
    }

    /// The leader of `term` has said elsewhere that everything up to `index` is committed.
    pub fn learn_committed(&mut self, term: super::Term, index: Index) {
        if term == self.hard.term && self.role == Role::Follower && self.leader.is_some() {
            self.commit_to(index.min(self.verified));
        }
    }

    /// Tells the leader how much of what it sent is durable, if it waits for that.
    pub(super) fn tell_appended(&mut self) {
        let (Some(leader), true) = (self.leader, self.owes_appended) else { return };
        let durable =
            if bugs::active(Bug::AppendBeforeSync) { self.log.last().index } else { self.persisted };
        let matched = durable.min(self.verified);
        self.owes_appended = matched < self.verified;
        let term = self.hard.term;
        self.send(leader, Message::Appended { term, matched });
    }

    /// A snapshot has arrived whole. It is put in place unless the log has what it holds.
    pub(super) fn snapshot_asked(&mut self, from: NodeId, last: LogId, configuration: Configuration) {
        if self.installing.is_some() {
            return;
        }
        if last.index > self.hard.commit && !self.log.has(last) {
            self.installing = Some(last);
            return self.outputs.push(Output::Install { last, configuration });
        }
        self.commit_to(last.index);
        self.verified = self.verified.max(self.hard.commit.min(last.index));
        let (term, matched) = (self.hard.term, self.persisted.min(self.verified));
        self.send(from, Message::Appended { term, matched });
    }

    /// The state at `last` is in place, durably, or could not be put there (`done` is false). The log begins anew behind
    /// it.
    pub fn installed(
        &mut self,
        last: LogId,
        configuration: Configuration,
        time: Timestamp,
        stamp: u64,
        done: bool,
    ) {
        if self.installing.take_if(|installing| *installing == last).is_none() || !done {
            return;
        }
        assert!(last.index > self.hard.commit, "a snapshot at {} went behind the commit", last.index);
        let base = self.log.base().index;
        if self.log.last().index > base {
            self.truncate_all(base.next());
        }
        self.log = Log::new(last);
        self.memberships = Memberships::new(last.index, configuration);
        self.hard.commit = last.index;
        self.persisted = last.index;
        self.verified = last.index;
        self.last_time = self.last_time.max(time);
        self.last_stamp = self.last_stamp.max(stamp);
        self.owes_appended = true;
        self.persist(Record::Compacted(Compacted { index: last.index, term: last.term }), Makes::Other);
    }

    /// What is in the log gives way to a snapshot, committed or not: the snapshot has it all.
    fn truncate_all(&mut self, from: Index) {
        for writing in &mut self.writing {
            if let Makes::Entries(index) = &mut writing.makes {
                *index = Index(0);
            }
        }
        self.persist(Record::Truncate { from }, Makes::Other);
    }
}

/// Whether these are entries behind `previous` such as a leader of `term` may have.
fn follow_on(previous: LogId, entries: &[Entry], term: Term) -> bool {
    let mut before = previous;
    entries.iter().all(|entry| {
        let follows = entry.index == before.index.next() && entry.term >= before.term && entry.term <= term;
        before = LogId { term: entry.term, index: entry.index };
        follows
    })
}
