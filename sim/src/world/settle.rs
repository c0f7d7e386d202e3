//! The end of a run: faults stop, and what is pending must come to something within a minute.
//!
//! In a cluster a core is drawn, a quorum of every configuration that may be in force; it is healed, and the others
//! stay as broken as they are. Once the core has come to terms, power is cut once more, everywhere, and it must do so
//! again from what its disks have.

use super::machine::{NAMES, id};
use super::shell::GROUP;
use super::{Event, SETTLE, World};
use crate::checker::state::Difference;
use crate::chronicle::What;
use crate::marks::Mark;
use crate::plan::End;
use crate::rng::Rng;
use crate::violation::{Held, Violation};
use chronos_engine::raft::committed_index;
use chronos_proto::membership::Configuration;

/// Wall clocks that are no further apart agree, in microseconds.
const CLOCKS_AGREE: i64 = 100_000;
/// How far cluster time may stay behind clocks that agree: their readings are as old as an answer to a heartbeat.
const FOLLOWS_WITHIN: i64 = 5_000_000;

impl World {
    /// Clients and faults stop; what is pending must now come to an end.
    pub(super) fn settle(&mut self) -> Held {
        self.say("world", format_args!("clients and faults stop"));
        self.settling = Some(self.now);
        if !self.solo() {
            self.choose_core();
        }
        let core = self.core.clone();
        self.note(|| What::Settling { core });
        for m in self.core.clone() {
            self.heal(m);
        }
        // Whoever waits at one that stays broken goes elsewhere.
        for m in (0..self.machines.len()).filter(|m| !self.core.contains(m)).collect::<Vec<_>>() {
            self.readers_lost(m);
        }
        // Nothing waits for a subscriber that went: each comes back.
        for reader in 0..self.readers.len() as u64 {
            self.readers[reader as usize].wanted = true;
            self.after(200_000, Event::Open(reader));
        }
        // What was open is asked again, by those who have not heard.
        let tokens: Vec<_> = self.tokens.keys().copied().collect();
        for token in tokens {
            self.after(self.knobs.client_timeout, Event::Timeout(token));
        }
        Ok(())
    }

    /// Every configuration that may be in force: what is committed, and what any log has beyond it.
    pub(super) fn configurations(&self) -> Vec<Configuration> {
        let mut all: Vec<Configuration> = (0..self.machines.len())
            .filter_map(|m| match self.machines[m].up.as_ref().and_then(|up| up.node.raft(GROUP)) {
                Some(raft) => Some(raft.configuration().clone()),
                None => self.group.configuration(m).cloned(),
            })
            .filter(|configuration| !configuration.voters.is_empty())
            .collect();
        all.extend(self.group.committed_configuration().cloned());
        if all.is_empty() {
            all.push(Configuration::of((0..self.knobs.nodes).map(id)));
        }
        all
    }

    fn choose_core(&mut self) {
        let configurations = self.configurations();
        let rng = &mut Rng::new(self.knobs.seed, "core");
        let mut rest: Vec<usize> = (0..self.machines.len()).filter(|m| !self.machines[*m].wiped).collect();
        // A cluster begins once all that it begins with were heard.
        let all = rng.chance(300) || self.group.committed() == 0;
        let mut core: Vec<usize> = Vec::new();
        let enough = |core: &[usize]| {
            let holds = |c: &Configuration| {
                committed_index(c, |node| u8::from(core.iter().any(|m| id(*m) == node))) > 0
            };
            configurations.iter().all(holds)
        };
        while !rest.is_empty() && (all || !enough(&core)) {
            let place = rng.below(rest.len() as u64) as usize;
            core.push(rest.swap_remove(place));
        }
        core.sort_unstable();
        let names: Vec<&str> = core.iter().map(|m| NAMES[*m]).collect();
        self.say("world", format_args!("the core is {}", names.join(" ")));
        if core.len() < self.machines.len() {
            self.marks.hit(Mark::CoreOnly);
        }
        for from in &core {
            for to in &core {
                if from != to {
                    self.network.mend_all(*from, *to);
                }
            }
        }
        self.network.calm();
        for m in rest {
            self.break_for_good(m, rng.below(4));
        }
        for client in &mut self.clients {
            client.turn_to(core[client.home() % core.len()]);
        }
        self.core = core;
    }

    /// Members may have changed after the core was drawn: it is a quorum of what is in force now, or nothing could come
    /// of it.
    fn widen_core(&mut self) {
        let of_core = self.core.iter().filter_map(|m| {
            let raft = self.machines[*m].up.as_ref()?.node.raft(GROUP)?;
            Some(raft.configuration().clone())
        });
        let in_core = |c: &Configuration| {
            committed_index(c, |node| u8::from(self.core.iter().any(|m| id(*m) == node))) > 0
        };
        let lacking: Vec<Configuration> = of_core.filter(|c| !c.voters.is_empty() && !in_core(c)).collect();
        let more = (0..self.machines.len()).find(|m| {
            let helps = |c: &Configuration| c.is_voter(id(*m));
            !self.core.contains(m) && !self.machines[*m].wiped && lacking.iter().any(helps)
        });
        let Some(more) = more else { return };
        self.say("world", format_args!("the core is joined by {}", NAMES[more]));
        self.core.push(more);
        self.core.sort_unstable();
        for other in self.core.clone() {
            if other != more {
                self.network.mend_all(more, other);
                self.network.mend_all(other, more);
            }
        }
        self.heal(more);
    }

    /// One that is not in the core is never heard again, or hears nobody, or both.
    fn break_for_good(&mut self, m: usize, fate: u64) {
        let (mute, deaf) = match fate {
            0 => {
                self.end(m, End::Power);
                (true, true)
            }
            1 => (true, true),
            2 => (true, false),
            _ => (false, true),
        };
        self.say(NAMES[m], format_args!("stays broken: mute={mute} deaf={deaf}"));
        for other in (0..self.machines.len()).filter(|other| *other != m) {
            if mute {
                self.network.cut(m, other, self.now);
            }
            if deaf {
                self.network.cut(other, m, self.now);
            }
        }
    }

    /// True if all has come to an end, and did so again after a power cut.
    pub(super) fn round_of_settling(&mut self, since: u64) -> Result<bool, Violation> {
        if !self.solo() {
            self.widen_core();
        }
        let late = self.now >= since + SETTLE;
        let what = match self.still_open() {
            Ok(None) if self.watch.restarted_at_end => {
                self.judge_lists()?;
                self.say("check", format_args!("all is settled"));
                return Ok(true);
            }
            Ok(None) => {
                // Once more from what the disks have: it must come to the same state.
                self.watch.restarted_at_end = true;
                for m in 0..self.machines.len() {
                    self.end(m, End::Power);
                }
                for m in self.core.clone() {
                    self.after(1_000, Event::Start(m));
                }
                return Ok(false);
            }
            Ok(Some(what)) => what,
            Err(Difference::Wrong(violation)) => return Err(violation),
            Err(Difference::Damaged(what)) => {
                let m = self.leader().unwrap_or(self.core[0]);
                self.damage_read(m, &what)?;
                return Ok(false);
            }
        };
        // A node that is caught up by snapshots writes checkpoints one after the other, and on the slowest disks of
        // all one takes 5 s in the mean and half a minute at times.
        let checkpoints = 20 * self.knobs.checkpoint_latency;
        if late && self.now >= since + SETTLE + 30_000_000 + checkpoints {
            let what = format!("{} s after faults stopped, {what}", (self.now - since) / 1_000_000);
            return Err(Violation::liveness("settles", what));
        }
        Ok(false)
    }

    /// What is still to come, if anything.
    fn still_open(&mut self) -> Result<Option<String>, Difference> {
        if self.solo() {
            return self.unsettled(0);
        }
        let Some(leader) = self.leader().filter(|m| self.core.contains(m)) else {
            return Ok(Some("no node of the core leads".into()));
        };
        let committed = self.group.committed();
        for m in self.core.clone() {
            let applied = self.group.applied_by(m);
            if self.is_member(m) && applied < committed {
                return Ok(Some(format!("{} has applied {applied} of {committed} entries", NAMES[m])));
            }
        }
        if let Some(what) = self.lags_behind_truth(leader) {
            return Ok(Some(what));
        }
        self.unsettled(leader)
    }

    /// Whether the node is one of the cluster, by what is committed.
    pub(super) fn is_member(&self, m: usize) -> bool {
        self.group.committed_configuration().is_none_or(|c| c.contains(id(m)))
    }

    /// Where all clocks of the core agree, its leader's cluster time comes to what they show.
    fn lags_behind_truth(&self, leader: usize) -> Option<String> {
        let errors = self.core.iter().map(|m| self.machines[*m].clock.wall_error(self.now));
        let (low, high) = (errors.clone().min()?, errors.max()?);
        let published = self.machines[leader].up.as_ref()?.published.as_ref()?;
        let time = published.clock.at(self.machines[leader].clock.now(self.now).mono);
        let told = crate::clock::error(time, self.now);
        let lags = self.core.len() > 1 && high - low <= CLOCKS_AGREE && told < low - FOLLOWS_WITHIN;
        lags.then(|| {
            format!(
                "cluster time at {} is {told} us from the truth, all clocks at least {low}",
                NAMES[leader]
            )
        })
    }
}
