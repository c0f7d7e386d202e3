//! What operators do to a cluster: nodes are taken in and out, leadership is handed over, checkpoints are made.

use super::machine::{Copy, Machine, NAMES, id, member};
use super::shell::GROUP;
use super::{Event, World};
use crate::marks::Mark;
use crate::rng::Rng;
use crate::violation::{Held, Violation};
use chronos_engine::raft::Change;
use chronos_engine::step::{Input, OperatorError, Request, Token};
use chronos_proto::id::Incarnation;
use chronos_proto::membership::Configuration;
use std::collections::BTreeSet;

impl World {
    fn operate(&mut self, m: usize, request: Request) {
        self.last_token += 1;
        let token = Token(self.last_token);
        self.say("op", format_args!("asks {} for {request:?}", NAMES[m]));
        self.give(m, Input::Request { token, request });
    }

    /// An operator's request was taken up, or not.
    pub(super) fn operated(&mut self, m: usize, result: &Result<(), OperatorError>) {
        self.say(NAMES[m], format_args!("operator: {result:?}"));
        match result {
            Ok(()) => {}
            Err(_) => self.marks.hit(Mark::OperatorRefused),
        }
    }

    /// Leadership is handed to another.
    pub(super) fn transfer(&mut self, salt: u64) {
        let Some(leader) = self.leader() else { return };
        let rng = &mut Rng::new(salt, "transfer");
        let to = rng.below(self.machines.len() as u64) as usize;
        self.operate(leader, Request::Transfer { group: GROUP, to: id(to) });
        if self.knobs.raft.leases && rng.chance(500) {
            // It does not hear what comes of it.
            self.isolate_soon(leader, rng);
        }
    }

    /// Members come, go, or are replaced.
    pub(super) fn churn(&mut self, salt: u64) {
        let Some(leader) = self.leader() else { return };
        let rng = &mut Rng::new(salt, "churn");
        let Some(raft) = self.machines[leader].up.as_ref().and_then(|up| up.node.raft(GROUP)) else { return };
        let now = raft.configuration().clone();
        let voters: Vec<usize> = (0..self.machines.len()).filter(|m| now.voters.contains(&id(*m))).collect();
        let others: Vec<usize> =
            (0..self.machines.len()).filter(|m| !voters.contains(m) && !self.machines[*m].wiped).collect();
        let least = voters.len() <= 1;
        let mut changes = Vec::new();
        let leaves = |rng: &mut Rng| Change::Remove(id(*rng.pick(&voters)));
        match rng.below(6) {
            0 | 1 if !others.is_empty() => changes.push(Change::AddVoter(id(*rng.pick(&others)))),
            2 if !others.is_empty() => changes.push(Change::AddLearner(id(*rng.pick(&others)))),
            3 if !others.is_empty() => {
                changes.extend([Change::AddVoter(id(*rng.pick(&others))), leaves(rng)]);
            }
            4 if others.len() > 1 => {
                changes.extend([Change::AddVoter(id(others[0])), Change::AddVoter(id(others[1]))]);
            }
            4 if voters.len() > 3 => {
                changes.extend([Change::Remove(id(voters[0])), Change::Remove(id(voters[1]))]);
            }
            _ if !least => changes.push(leaves(rng)),
            _ => return,
        }
        let gone: BTreeSet<usize> = (0..self.machines.len()).filter(|m| self.machines[*m].wiped).collect();
        let spoils = |change: &Change| {
            // With too many wiped voters no quorum is left: an operator would not do that.
            matches!(change, Change::Remove(node) if !gone.contains(&(node.0 as usize - 1)))
                && voters.iter().filter(|m| !gone.contains(m)).count() <= voters.len() / 2 + 1
                && !gone.is_empty()
        };
        if changes.iter().any(spoils) {
            return;
        }
        for change in &changes {
            if let Change::AddVoter(node) | Change::AddLearner(node) = change {
                self.operate(leader, Request::PutMember(member(node.0 as usize - 1)));
            }
        }
        self.operate(leader, Request::Change { group: GROUP, changes });
    }

    /// A machine loses its data directory; it comes back under the same name, and must be refused.
    pub(super) fn wipe(&mut self, m: usize) -> Held {
        if !self.may_lose(m, false) {
            return Ok(());
        }
        self.end(m, crate::plan::End::Kill);
        let machine = &mut self.machines[m];
        machine.disk = Default::default();
        machine.store = Default::default();
        machine.shared = std::sync::Arc::new(machine.store.clone());
        machine.incarnation = Incarnation(machine.incarnation.0 + 1);
        machine.begun = None;
        machine.ills = Default::default();
        machine.wiped = true;
        self.group.wiped(m);
        self.say("world", format_args!("the data directory of {} is wiped", NAMES[m]));
        self.after(200_000, Event::Start(m));
        Ok(())
    }

    /// Somebody copies a data directory, be the node up or down.
    pub(super) fn copy(&mut self, m: usize) {
        let machine = &mut self.machines[m];
        if !machine.wiped && machine.begun.is_some() {
            let Machine { disk, store, begun, .. } = machine;
            machine.copy = Some(Box::new(Copy { disk: disk.clone(), store: store.clone(), begun: *begun }));
        }
    }

    /// The data directory is put back from the copy. All others know that it was started since: it must be refused.
    pub(super) fn put_back(&mut self, m: usize) -> Held {
        let machine = &self.machines[m];
        let copied = machine.copy.as_ref().and_then(|copy| copy.begun);
        let tells = copied.is_some_and(|copied| copied.number != machine.start_number());
        if !tells || !self.may_lose(m, true) {
            return Ok(());
        }
        self.end(m, crate::plan::End::Kill);
        let machine = &mut self.machines[m];
        let Some(copy) = machine.copy.take() else { return Ok(()) };
        Copy { disk: machine.disk, store: machine.store, begun: machine.begun } = *copy;
        machine.shared = std::sync::Arc::new(machine.store.clone());
        machine.ills = Default::default();
        machine.wiped = true;
        machine.put_back = true;
        self.group.put_back(m);
        self.say("world", format_args!("the data directory of {} is put back from a copy", NAMES[m]));
        self.after(200_000, Event::Start(m));
        Ok(())
    }

    /// All others know which store it had (and, if asked, which start of it), and enough of them are left.
    fn may_lose(&self, m: usize, start: bool) -> bool {
        if self.machines[m].up.is_none() {
            return false;
        }
        // A change that only some have heard of, and not this one, is in force where it is.
        let enough_are_left = |now: &Configuration| {
            let lost = (0..self.machines.len()).filter(|o| *o == m || self.machines[*o].wiped);
            let lost = lost.filter(|o| now.is_voter(id(*o))).count();
            !now.is_joint() && now.voters.len() >= 3 && lost <= (now.voters.len() - 1) / 2
        };
        let knows = |other: usize| {
            let members = self.machines[other].up.as_ref().map(|up| up.node.members()).unwrap_or_default();
            let noted = members.into_iter().find(|member| member.node == id(m));
            let same = noted.is_some_and(|noted| {
                noted.incarnation == Some(self.machines[m].incarnation)
                    && (!start || noted.boot == self.machines[m].start_number())
            });
            other == m || self.machines[other].wiped || same
        };
        // One that began alone would begin alone again.
        self.knobs.nodes >= 3
            && self.configurations().iter().all(enough_are_left)
            && (0..self.machines.len()).all(knows)
    }

    /// A node that was wiped, or is not a member (yet), takes no part: the link to it ends, and it dials again.
    pub(super) fn refused_peer(&mut self, m: usize, peer: usize, why: &str) -> Held {
        self.drop_link(m, peer);
        self.is_rightly_refused(m, peer, why)
    }

    /// Whoever is refused was wiped, put back, or is no member.
    pub(super) fn is_rightly_refused(&mut self, m: usize, peer: usize, why: &str) -> Held {
        if self.machines[peer].wiped {
            let old = self.machines[peer].put_back;
            self.marks.hit(if old { Mark::OldCopyRefused } else { Mark::WipedNodeRefused });
        } else if self.knobs.spares == 0 && !self.machines[m].wiped {
            return Err(Violation::safety("no-false-alarm", format!("{} refuses a peer: {why}", NAMES[m])));
        }
        Ok(())
    }
}
