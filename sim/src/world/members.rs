//! What operators do to a cluster: nodes are taken in and out, leadership is handed over, checkpoints are made.

use super::machine::{NAMES, id, member};
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
        if !self.may_wipe(m) {
            return Ok(());
        }
        self.end(m, crate::plan::End::Kill);
        let machine = &mut self.machines[m];
        machine.disk = Default::default();
        machine.store = Default::default();
        machine.shared = std::sync::Arc::new(machine.store.clone());
        machine.incarnation = Incarnation(machine.incarnation.0 + 1);
        machine.ills = Default::default();
        machine.wiped = true;
        self.group.wiped(m);
        self.say("world", format_args!("the data directory of {} is wiped", NAMES[m]));
        self.after(200_000, Event::Start(m));
        Ok(())
    }

    /// All others know which store it had, and enough of them are left.
    fn may_wipe(&self, m: usize) -> bool {
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
            let noted = self.machines[other].up.as_ref().and_then(|up| {
                up.node.members().into_iter().find(|member| member.node == id(m))?.incarnation
            });
            other == m || self.machines[other].wiped || noted == Some(self.machines[m].incarnation)
        };
        // One that began alone would begin alone again.
        self.knobs.nodes >= 3
            && self.configurations().iter().all(enough_are_left)
            && (0..self.machines.len()).all(knows)
    }

    /// A node that was wiped, or is not a member (yet), takes no part: the link to it ends, and it dials again.
    pub(super) fn refused_peer(&mut self, m: usize, peer: usize, why: &str) -> Held {
        self.drop_link(m, peer);
        if self.machines[peer].wiped {
            self.marks.hit(Mark::WipedNodeRefused);
        } else if self.knobs.spares == 0 && !self.machines[m].wiped {
            return Err(Violation::safety("no-false-alarm", format!("{} refuses a peer: {why}", NAMES[m])));
        }
        Ok(())
    }
}
