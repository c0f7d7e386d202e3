//! Random schedules of everything that a cluster can do and suffer, and then its recovery.

use crate::cluster::{Cluster, Member};
use chronos_engine::raft::{Change, Role, Settings};
use chronos_engine::rng::Rng;
use chronos_proto::id::{Index, NodeId};
use chronos_proto::membership::Configuration;
use std::collections::BTreeSet;

/// What happened in many schedules, so that none of it can be forgotten unnoticed.
#[derive(Debug, Default)]
struct Seen {
    elections: u64,
    commits: u64,
    reads: u64,
    cuts: u64,
    snapshots: u64,
    changes: u64,
    transfers: u64,
    lost: u64,
    rests: u64,
}

struct Schedule {
    cluster: Cluster,
    rng: Rng,
    /// For what keeps members awake, so that no other choice is another for it.
    doubts: Rng,
    /// By bit: the faults that this schedule is spared, so that others go deep.
    spared: u64,
    seen: Seen,
    texts: u64,
}

impl Schedule {
    fn new(seed: u64, voters: u64) -> Schedule {
        let mut rng = Rng::new(seed);
        let settings = Settings {
            append_bytes_max: [1, 30, 1 << 20][rng.below(3) as usize],
            inflight_max: [1, 2, 256][rng.below(3) as usize],
            uncommitted_bytes_max: [100, 1 << 20][rng.below(2) as usize],
            kept_bytes_max: [0, 50, 1 << 20][rng.below(3) as usize],
            leases: rng.one_in(2),
            rest_after_us: if seed % 4 < 2 { 150_000 } else { 0 },
            ..Settings::default()
        };
        let mut cluster = Cluster::new(settings, seed, voters);
        for id in [voters + 1, voters + 2] {
            cluster.add(NodeId(id), Configuration::default());
        }
        if cluster.settings.leases {
            // Clocks differ by what the lease allows for, and no more.
            cluster.members.values_mut().for_each(|member| member.rate = rng.between(955, 1_045));
        }
        let spared = rng.next_u64() & rng.next_u64();
        let doubts = rng.split("doubts");
        Schedule { cluster, rng, doubts, spared, seen: Seen::default(), texts: 0 }
    }

    /// Now and then somebody is told that others are silent, rightly or not.
    fn doubt(&mut self) {
        if !self.doubts.one_in(20) {
            return;
        }
        let ids = self.cluster.ids();
        let id = ids[self.doubts.below(ids.len() as u64) as usize];
        let rests = self.cluster.raft(id).is_some_and(|raft| raft.is_resting());
        self.seen.rests += u64::from(rests);
        match self.doubts.one_in(2) {
            true => self.cluster.at(id, |raft, now| raft.wake(now)),
            false => self.cluster.at(id, |raft, now| raft.leader_silent(now)),
        };
    }

    fn anyone(&mut self) -> NodeId {
        let ids = self.cluster.ids();
        ids[self.rng.below(ids.len() as u64) as usize]
    }

    /// One of those that are so, if there is one.
    fn one_that(&mut self, is: impl Fn(&Member) -> bool) -> Option<NodeId> {
        let ids: Vec<NodeId> =
            self.cluster.members.iter().filter(|(_, member)| is(member)).map(|(id, _)| *id).collect();
        ids.get(self.rng.below(ids.len() as u64) as usize).copied()
    }

    /// A leader, most of the time.
    fn leader(&mut self) -> NodeId {
        let leads = |id: &NodeId| self.cluster.raft(*id).is_some_and(|raft| raft.role() == Role::Leader);
        let leaders: Vec<NodeId> = self.cluster.ids().into_iter().filter(leads).collect();
        if leaders.is_empty() || self.rng.one_in(10) {
            return self.anyone();
        }
        leaders[self.rng.below(leaders.len() as u64) as usize]
    }

    fn step(&mut self) {
        let under_way = self.cluster.wire.len() as u64;
        match self.rng.below(100) {
            0..=49 if under_way > 0 => {
                // Mostly in order.
                let place = if self.rng.one_in(4) { self.rng.below(under_way) } else { 0 };
                self.cluster.deliver(place as usize);
            }
            0..=54 => self.let_time_pass(),
            55 => self.cluster.deliver_all(),
            56..=65 => {
                let id = self.leader();
                self.texts += 1;
                let text = format!("t{}", self.texts);
                self.cluster.propose(id, &text);
            }
            66..=69 => {
                let id = self.leader();
                self.seen.reads += u64::from(self.cluster.read(id).is_some());
            }
            70..=84 => self.repair(),
            _ => {
                let fault = self.rng.below(15);
                if self.spared & (1 << fault) == 0 {
                    self.fault(fault);
                }
            }
        }
    }

    fn let_time_pass(&mut self) {
        let micros = if self.rng.one_in(4) { 700_000 } else { 60_000 };
        self.cluster.now += self.rng.below(micros);
        for id in self.cluster.ids() {
            let due = self.cluster.raft(id).and_then(|raft| raft.next_deadline());
            if due.is_some_and(|at| at <= self.cluster.clock(id)) {
                self.cluster.tick(id);
            }
        }
    }

    fn repair(&mut self) {
        match self.rng.below(7) {
            0 | 1 => {
                if let Some(id) = self.one_that(|member| !member.writes.is_empty()) {
                    let count = self.rng.below(5) as usize;
                    self.cluster.finish(id, count);
                }
            }
            2 => {
                if let Some(id) = self.one_that(|member| member.holds_writes) {
                    self.member(id).holds_writes = false;
                    self.cluster.finish(id, usize::MAX);
                }
            }
            3 => {
                if let Some(id) = self.one_that(|member| member.raft.is_none()) {
                    self.cluster.restart(id);
                }
            }
            4 => {
                if let Some(id) = self.one_that(|member| member.paused) {
                    self.member(id).paused = false;
                }
            }
            5 => {
                let works = !self.rng.one_in(4);
                if let Some(id) = self.one_that(|member| member.installing.is_some()) {
                    self.cluster.install(id, works);
                }
                if let Some(id) = self.one_that(|member| !member.sending.is_empty())
                    && let Some(to) = self.member(id).sending.first().copied()
                {
                    self.cluster.send_snapshot(id, to, works);
                }
            }
            _ if self.rng.one_in(4) => self.cluster.cut.clear(),
            _ => {}
        }
    }

    fn fault(&mut self, fault: u64) {
        let under_way = self.cluster.wire.len() as u64;
        let id = self.anyone();
        match fault {
            0 if under_way > 0 => {
                self.seen.lost += 1;
                self.cluster.wire.remove(self.rng.below(under_way) as usize);
            }
            1 if under_way > 0 => {
                let twice = self.cluster.wire[self.rng.below(under_way) as usize].clone();
                self.cluster.wire.push(twice);
            }
            2 => self.member(id).holds_writes = true,
            3 => {
                let writes = self.member(id).writes.len() as u64;
                let kept = self.rng.below(writes + 1) as usize;
                match self.member(id).installing.is_some() && self.rng.one_in(2) {
                    true => self.cluster.crash_at_install(id),
                    false => self.cluster.crash(id, kept),
                }
            }
            4 => {
                self.cluster.at(id, |raft, now| raft.campaign(now));
            }
            5 | 6 => self.change(),
            7 => {
                let (id, to) = (self.leader(), self.anyone());
                let taken = self.cluster.at(id, |raft, _| raft.transfer(to));
                self.seen.transfers += u64::from(taken == Some(Ok(())));
            }
            8 => self.cluster.compact(id),
            9 => {
                let to = self.anyone();
                self.cluster.at(id, |raft, _| raft.unreachable(to));
            }
            10 => self.member(id).holds_installs ^= true,
            11 => self.member(id).holds_snapshots ^= true,
            12 => {
                let other = self.anyone();
                self.seen.cuts += 1;
                self.cluster.cut.insert((id, other));
                if self.rng.one_in(2) {
                    self.cluster.cut.insert((other, id));
                }
            }
            13 => {
                for other in self.cluster.ids() {
                    self.cluster.cut.insert((id, other));
                    self.cluster.cut.insert((other, id));
                }
            }
            14 => self.member(id).paused = true,
            _ => {}
        }
    }

    fn member(&mut self, id: NodeId) -> &mut Member {
        self.cluster.members.get_mut(&id).expect("a member")
    }

    fn change(&mut self) {
        let id = self.leader();
        let changes: Vec<Change> = (0..=self.rng.below(2))
            .map(|_| {
                let node = self.anyone();
                match self.rng.below(4) {
                    0 | 1 => Change::AddVoter(node),
                    2 => Change::AddLearner(node),
                    _ => Change::Remove(node),
                }
            })
            .collect();
        let taken = self.cluster.at(id, |raft, _| raft.change_membership(&changes));
        self.seen.changes += u64::from(matches!(taken, Some(Ok(_))));
    }

    /// Every fault ends; the group must elect, commit something new, and bring all its members to the same state.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.ids() {
            let member = self.member(id);
            member.paused = false;
            (member.holds_writes, member.holds_installs, member.holds_snapshots) = (false, false, false);
            self.cluster.restart(id);
            self.cluster.at(id, |raft, now| raft.wake(now));
        }
        self.cluster.pass(30_000_000);
        let leaders: BTreeSet<NodeId> = self
            .cluster
            .ids()
            .into_iter()
            .filter(|id| self.cluster.raft(*id).is_some_and(|raft| raft.ready()))
            .collect();
        assert_eq!(leaders.len(), 1, "leaders after everything was healed");
        let leader = *leaders.first().expect("one");
        let before = self.cluster.oracle.committed();
        self.cluster.propose(leader, "after").expect("up").expect("a proposal");
        self.seen.reads += u64::from(self.cluster.read(leader).is_some());
        self.cluster.pass(5_000_000);
        assert!(self.cluster.oracle.committed() > before, "nothing is committed after everything was healed");
        let raft = self.cluster.raft(leader).expect("up");
        assert!(!raft.configuration().is_joint(), "a change is left half done");
        let state = &self.cluster.members[&leader].state;
        for id in raft.configuration().members() {
            assert_eq!(&self.cluster.members[&id].state, state, "{id} is not where the leader {leader} is");
        }
        self.seen.commits = self.cluster.oracle.committed().0;
        self.seen.elections = raft.term().0;
        let installed = |id: &NodeId| {
            let member = &self.cluster.members[id];
            member.raft.as_ref().is_some_and(|raft| raft.log().base().index > Index(0))
        };
        self.seen.snapshots = self.cluster.ids().iter().filter(|id| installed(id)).count() as u64;
    }
}

fn run(seed: u64) -> Seen {
    let mut schedule = Schedule::new(seed, if seed.is_multiple_of(2) { 3 } else { 5 });
    if schedule.rng.one_in(2) {
        schedule.cluster.pass(1_500_000);
    }
    for _ in 0..400 {
        schedule.doubt();
        schedule.step();
    }
    schedule.heal();
    schedule.seen
}

/// Runs a seed; a failure says which.
fn check(seed: u64) -> Seen {
    let result = std::panic::catch_unwind(|| run(seed));
    result.unwrap_or_else(|_| panic!("seed {seed} failed"))
}

#[test]
fn no_schedule_breaks_a_promise_and_all_recover() {
    let seeds = std::env::var("RAFT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(150);
    let from = std::env::var("RAFT_FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let mut all = Seen::default();
    for seed in from..from + seeds {
        let seen = check(seed);
        all.elections += seen.elections;
        all.commits += seen.commits;
        all.reads += seen.reads;
        all.cuts += seen.cuts;
        all.snapshots += seen.snapshots;
        all.changes += seen.changes;
        all.transfers += seen.transfers;
        all.lost += seen.lost;
        all.rests += seen.rests;
    }
    println!("{all:?}");
    let Seen { elections, commits, reads, cuts, snapshots, changes, transfers, lost, rests } = all;
    for (count, what) in [
        (elections, "elections"),
        (commits, "commits"),
        (reads, "reads"),
        (cuts, "cuts"),
        (snapshots, "snapshots"),
        (changes, "changes"),
        (transfers, "transfers"),
        (lost, "lost messages"),
        (rests, "members at rest that were woken"),
    ] {
        assert!(count > 0, "{seeds} seeds had no {what}");
    }
}

#[cfg(feature = "planted-bugs")]
#[test]
fn every_planted_bug_is_caught() {
    use chronos_engine::bugs::{Bug, plant};
    let bugs = [
        Bug::VoteNotDurable,
        Bug::CommitOldTerm,
        Bug::AppendBeforeSync,
        Bug::ReadWithoutQuorum,
        Bug::SingleStepChange,
        Bug::StaleAck,
        Bug::LeaseWithoutDrift,
    ];
    let most = std::env::var("RAFT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3_000);
    let mut blind = Vec::new();
    for bug in bugs {
        plant(Some(bug));
        match (0..most).find(|seed| std::panic::catch_unwind(|| run(*seed)).is_err()) {
            Some(seed) => println!("{} is caught by seed {seed}", bug.name()),
            None => blind.push(bug.name()),
        }
    }
    plant(None);
    assert_eq!(blind, Vec::<&str>::new(), "not caught by {most} seeds");
}
