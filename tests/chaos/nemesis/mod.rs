//! What is done to the cluster while clients work: a plan that follows from the seed ([`plan`]), and its execution.
//!
//! A fault lasts a while and is taken back; some overlap the next. Which node leads is asked when a fault begins, so
//! the same seed strikes the same role at the same time, though not always the same node. After the last fault all is
//! healed, and within a bound the cluster must be whole again: every node serves, one leads, and all have the same
//! state at the same index.

mod plan;

pub use plan::{Kind, Plan};

use crate::cluster::{Cluster, Condition, Status};
use crate::history::{Act, Fault as Remark, Recorder, Settled};
use crate::relay::Weather;
use chronos_tests::random::Random;
use plan::{Fault, Skew, Target};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How long the cluster may take to be whole again.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long a change of members may take while faults go on.
const CHANGE_LIMIT: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A fault that is due for longer is left out.
const LATE: Duration = Duration::from_secs(1);

/// The nemesis: it owns the cluster.
pub struct Nemesis {
    cluster: Cluster,
    recorder: Rc<Recorder>,
    random: Random,
    /// A member is being taken in.
    change: Option<JoinHandle<Result<(), String>>>,
    /// Changes that were begun and could not be ended while faults went on.
    unfinished: Vec<Heal>,
}

/// A fault that is in force, and how it is taken back.
struct Striking {
    until: Duration,
    what: String,
    heal: Heal,
}

enum Heal {
    Start(Vec<usize>),
    Resume(Vec<usize>),
    Mend(Vec<(usize, usize)>),
    Calm,
    Empty(Vec<usize>),
    Clock(Vec<usize>),
    TakeOut(usize),
    Replace(Vec<usize>),
    Nothing,
}

impl Nemesis {
    /// One for this cluster.
    pub fn new(cluster: Cluster, recorder: Rc<Recorder>, random: Random) -> Nemesis {
        Nemesis { cluster, recorder, random, change: None, unfinished: Vec::new() }
    }

    /// Starts every node.
    pub fn start(&mut self) -> Result<(), String> {
        (0..self.cluster.size()).try_for_each(|node| self.cluster.start(node))
    }

    /// Carries a plan out. Ends with everything healed.
    pub async fn carry_out(&mut self, plan: Plan) -> Result<(), String> {
        let begin = Instant::now();
        let mut striking: Vec<Striking> = Vec::new();
        let mut steps = plan.steps.into_iter().peekable();
        while begin.elapsed() < plan.length {
            let now = begin.elapsed();
            let (over, still): (Vec<_>, Vec<_>) = striking.into_iter().partition(|s| s.until <= now);
            striking = still;
            for ended in over {
                self.heal(ended).await?;
            }
            if striking.is_empty()
                && let Some(heal) = self.unfinished.pop()
            {
                let what = "a change of members that could not be ended".to_owned();
                self.heal(Striking { until: now, what, heal }).await?;
            }
            if let Some(step) = steps.next_if(|step| step.at <= now) {
                let is_clock = |fault: &Striking| matches!(fault.heal, Heal::Clock(_));
                if matches!(step.fault, Fault::Clock(..)) && striking.iter().any(is_clock) {
                    // Two minorities may be a majority, and then the wrong clocks are right.
                    continue;
                }
                let clocks = matches!(step.fault, Fault::Clock(..)) || striking.iter().any(is_clock);
                let alone = striking.is_empty();
                if matches!(step.fault, Fault::Rolling) && !alone {
                    // It waits for nodes that come up among the others, and nothing heals meanwhile.
                    continue;
                }
                if now > step.at + LATE {
                    // What a long step held up would all strike at once.
                    continue;
                }
                let doubt = clocks && !alone;
                striking.extend(self.strike(step.fault, now + step.hold, alone, doubt).await?);
            }
            self.cluster.look_after()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for fault in striking {
            self.heal(fault).await?;
        }
        Ok(())
    }

    /// Begins a fault, alone or beside others. None if it cannot be now: its nodes are struck already.
    async fn strike(
        &mut self,
        fault: Fault,
        until: Duration,
        alone: bool,
        time_in_doubt: bool,
    ) -> Result<Option<Striking>, String> {
        let leader = self.cluster.leader().await;
        let all: Vec<usize> = (0..self.cluster.size()).collect();
        let target = match &fault {
            Fault::Kill(target) | Fault::Pause(target) | Fault::Disk(target) => Some(*target),
            Fault::Wipe => Some(Target::Follower),
            Fault::Clock(target, _) => Some(*target),
            Fault::Cut(cut) => cut.target(),
            Fault::Weather(_) | Fault::Rolling | Fault::Member => None,
        };
        let nodes = target.map(|target| self.choose(target, leader)).unwrap_or_default();
        let names = nodes.iter().map(|node| self.cluster.name(*node)).collect::<Vec<_>>().join(" and ");
        let is_leader = leader.is_some_and(|leader| nodes.contains(&leader));
        let up = |node: &usize| self.cluster.condition(*node) == Condition::Running && !nodes.contains(node);
        // Beside other faults a majority may be up, and cut apart.
        let majority = alone && all.iter().filter(|node| up(node)).count() >= self.cluster.majority();
        let unfit = nodes.iter().any(|node| self.cluster.condition(*node) != Condition::Running);
        // A store that is lost beside another fault may be one too many.
        let too_much = matches!(fault, Fault::Wipe) && !(alone && self.unfinished.is_empty());
        if target.is_some() && (nodes.is_empty() || unfit || too_much) {
            return Ok(None);
        }
        // Told before it is done: what it causes comes after it in the history.
        let (what, leader_lost) = match &fault {
            Fault::Kill(_) => (format!("kill {names}"), is_leader && majority),
            Fault::Pause(_) => (format!("pause {names}"), is_leader && majority),
            Fault::Disk(_) => (format!("fill the disk of {names}"), false),
            Fault::Wipe => (format!("wipe {names}"), false),
            Fault::Clock(_, skew) => (format!("set the clock of {names} to {}", skew.0), false),
            Fault::Cut(cut) => (format!("{} {names}", cut.words()), is_leader && majority && cut.is_total()),
            Fault::Weather(weather) => (format!("{weather:?}"), false),
            Fault::Member => ("take in one more".to_owned(), false),
            Fault::Rolling => ("restart one after the other".to_owned(), false),
        };
        eprintln!("chaos: {what}");
        self.recorder.remark(Act::Fault(Remark { what: what.clone(), leader_lost, time_in_doubt }));
        let heal = match fault {
            Fault::Kill(_) => {
                nodes.iter().for_each(|node| self.cluster.kill(*node));
                Heal::Start(nodes)
            }
            Fault::Pause(_) => {
                nodes.iter().for_each(|node| self.cluster.pause(*node));
                Heal::Resume(nodes)
            }
            Fault::Disk(_) => {
                nodes.iter().try_for_each(|node| self.cluster.fill_disk(*node, true))?;
                Heal::Empty(nodes)
            }
            Fault::Wipe => {
                for node in &nodes {
                    self.cluster.kill(*node);
                    self.cluster.wipe(*node)?;
                    // As it was started before: it must not pass for what it was.
                    self.cluster.may_end(*node);
                    self.cluster.start(*node)?;
                }
                Heal::Replace(nodes)
            }
            Fault::Clock(_, Skew(to)) => {
                nodes.iter().try_for_each(|node| self.cluster.set_clock(*node, &to))?;
                Heal::Clock(nodes)
            }
            Fault::Cut(cut) => {
                let ways = cut.ways(&nodes, &all, &mut self.random);
                ways.iter().try_for_each(|(from, to)| self.cluster.network().cut(*from, *to, true))?;
                Heal::Mend(ways.into_iter().collect())
            }
            Fault::Weather(weather) => {
                self.cluster.network().weather(weather)?;
                Heal::Calm
            }
            Fault::Member => {
                match self.cluster.spare().filter(|n| self.cluster.condition(*n) == Condition::Down) {
                    Some(node) => {
                        self.take_in(node).await?;
                        Heal::TakeOut(node)
                    }
                    None => Heal::Nothing,
                }
            }
            Fault::Rolling => {
                self.restart_one_after_the_other().await?;
                Heal::Nothing
            }
        };
        Ok(Some(Striking { until, what, heal }))
    }

    /// As an operator does it: the next one only when the last one serves again.
    async fn restart_one_after_the_other(&mut self) -> Result<(), String> {
        for node in 0..self.cluster.size() {
            if self.cluster.condition(node) != Condition::Running {
                continue;
            }
            self.cluster.stop(node).await;
            self.cluster.start(node)?;
            let begin = Instant::now();
            while begin.elapsed() < SETTLE_LIMIT {
                let statuses = self.cluster.statuses().await;
                if statuses[node].as_ref().is_some_and(|status| status.ready) {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        Ok(())
    }

    async fn heal(&mut self, fault: Striking) -> Result<(), String> {
        let what = format!("no more: {}", fault.what);
        eprintln!("chaos: {what}");
        self.recorder.remark(Act::Heal(what));
        match fault.heal {
            Heal::Start(nodes) => nodes.into_iter().try_for_each(|node| self.cluster.start(node)),
            Heal::Resume(nodes) => {
                nodes.into_iter().for_each(|node| self.cluster.resume(node));
                Ok(())
            }
            Heal::Mend(ways) => {
                ways.into_iter().try_for_each(|(from, to)| self.cluster.network().cut(from, to, false))
            }
            Heal::Calm => self.cluster.network().weather(Weather::default()),
            Heal::Empty(nodes) => nodes.into_iter().try_for_each(|node| self.cluster.fill_disk(node, false)),
            Heal::Clock(nodes) => nodes.into_iter().try_for_each(|node| self.cluster.set_clock(node, "+0")),
            Heal::TakeOut(node) => {
                if self.take_out(node, CHANGE_LIMIT).await.is_err() {
                    self.unfinished.push(Heal::TakeOut(node));
                }
                Ok(())
            }
            Heal::Replace(nodes) => {
                for node in nodes {
                    if self.replace(node, CHANGE_LIMIT).await.is_err() {
                        self.unfinished.push(Heal::Replace(vec![node]));
                    }
                }
                Ok(())
            }
            Heal::Nothing => Ok(()),
        }
    }

    /// A node that is not of the cluster is started, and taken in while other things happen.
    async fn take_in(&mut self, node: usize) -> Result<(), String> {
        self.cluster.start(node)?;
        self.change = Some(self.begin_change("add", node, CHANGE_LIMIT).await);
        Ok(())
    }

    /// A member is taken out, and forgets everything.
    async fn take_out(&mut self, node: usize, limit: Duration) -> Result<(), String> {
        self.end_change().await;
        self.change("remove", node, limit).await?;
        self.cluster.kill(node);
        self.cluster.wipe(node)
    }

    /// As an operator does it for a node that has lost its disk: out, empty, and in again.
    async fn replace(&mut self, node: usize, limit: Duration) -> Result<(), String> {
        self.end_change().await;
        self.change("remove", node, limit).await?;
        self.cluster.kill(node);
        self.cluster.wipe(node)?;
        self.cluster.joins(node);
        self.cluster.start(node)?;
        self.change("add", node, limit).await
    }

    async fn end_change(&mut self) {
        if let Some(change) = self.change.take() {
            // What came of it was said; out it goes either way.
            let _ = change.await;
        }
    }

    async fn change(&self, verb: &str, node: usize, limit: Duration) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let change = self.begin_change(verb, node, limit).await;
            match change.await.map_err(|e| e.to_string())? {
                // It never was taken in, or an attempt before took it out.
                Err(why) if verb == "remove" && why.contains("unknown_member") => return Ok(()),
                Err(why) if why.contains("change_pending") && begin.elapsed() < limit => {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                told => return told,
            }
        }
    }

    async fn begin_change(&self, verb: &str, node: usize, limit: Duration) -> JoinHandle<Result<(), String>> {
        let asked = self.cluster.leader().await.filter(|asked| *asked < self.cluster.size()).unwrap_or(0);
        let mut command = self.cluster.change(asked, verb, node, limit);
        let what = format!("{verb} {}", self.cluster.name(node));
        eprintln!("chaos: {what}");
        tokio::task::spawn_blocking(move || {
            let told = command.output().map_err(|e| e.to_string())?;
            let why = String::from_utf8_lossy(&told.stderr).trim().to_owned();
            let told = if told.status.success() { Ok(()) } else { Err(format!("{what}: {why}")) };
            match &told {
                Ok(()) => eprintln!("chaos: {what}: done"),
                Err(why) => eprintln!("chaos: {why}"),
            }
            told
        })
    }

    fn choose(&mut self, target: Target, leader: Option<usize>) -> Vec<usize> {
        let size = self.cluster.size();
        let any = self.random.within(0..size as u64) as usize;
        let first = match target {
            Target::Leader => leader.unwrap_or(any),
            // The next one after the leader, so that it is not the leader.
            Target::Follower => leader.map_or(any, |leader| (leader + 1 + any % (size - 1).max(1)) % size),
            Target::Any | Target::Minority | Target::Majority => any,
            Target::All => 0,
        };
        let count = match target {
            Target::Leader | Target::Follower | Target::Any => 1,
            Target::Minority => ((size - 1) / 2).max(1),
            Target::Majority => self.cluster.majority(),
            Target::All => size,
        };
        (0..count).map(|nth| (first + nth) % size).collect()
    }

    /// Waits until the cluster is whole.
    pub async fn settle(&mut self) -> Result<Settled, String> {
        self.cluster.network().heal()?;
        let mut failures = Vec::new();
        for change in std::mem::take(&mut self.unfinished) {
            let told = match change {
                Heal::TakeOut(node) => self.take_out(node, SETTLE_LIMIT).await,
                Heal::Replace(nodes) => match nodes.first() {
                    Some(node) => self.replace(*node, SETTLE_LIMIT).await,
                    None => Ok(()),
                },
                _ => Ok(()),
            };
            failures.extend(told.err().map(|why| format!("a change of members could not be ended: {why}")));
        }
        let begin = Instant::now();
        let mut in_the_way = String::new();
        while begin.elapsed() < SETTLE_LIMIT {
            self.cluster.look_after()?;
            match whole(&self.cluster.statuses().await[..self.cluster.size()]) {
                Ok(()) => {
                    let took_ms = Some(begin.elapsed().as_millis() as u64);
                    return Ok(Settled { took_ms, failures, ..Settled::default() });
                }
                Err(why) => in_the_way = why,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let failure = format!("the cluster is not whole {SETTLE_LIMIT:?} after the last fault: {in_the_way}");
        failures.push(failure);
        Ok(Settled { failures, ..Settled::default() })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The cluster, when the nemesis has done its work.
    pub fn into_cluster(self) -> Cluster {
        self.cluster
    }
}

/// Whether every node serves, one leads, and all have the same state at the same index. Else, what is in the way.
fn whole(statuses: &[Option<Status>]) -> Result<(), String> {
    let mut states: BTreeSet<(u64, &(u64, String))> = BTreeSet::new();
    let mut groups = BTreeSet::new();
    let mut leaders = 0;
    for (node, status) in statuses.iter().enumerate() {
        let status = status.as_ref().ok_or_else(|| format!("n{} does not answer", node + 1))?;
        if !status.ready {
            return Err(format!("n{} is not ready", node + 1));
        }
        leaders += usize::from(status.leads);
        for (group, state) in &status.groups {
            groups.insert(*group);
            states.insert((*group, state));
        }
    }
    if leaders != 1 {
        return Err(format!("{leaders} nodes lead"));
    }
    match states.len() == groups.len() {
        true => Ok(()),
        false => Err(format!("the nodes are not equal: {states:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(leads: bool, applied: u64, digest: &str) -> Option<Status> {
        let groups = [(0, (applied, digest.to_owned()))].into();
        Some(Status { leads, term: 1, ready: true, groups })
    }

    #[test]
    fn a_cluster_is_whole_when_one_leads_and_all_are_equal() {
        let (leader, follower) = (status(true, 5, "a"), status(false, 5, "a"));
        assert_eq!(whole(&[leader.clone(), follower.clone()]), Ok(()));
        assert!(whole(&[follower.clone(), follower.clone()]).is_err());
        assert!(whole(&[leader.clone(), leader.clone()]).is_err());
        assert!(whole(&[leader.clone(), status(false, 4, "a")]).is_err());
        assert!(whole(&[leader.clone(), status(false, 5, "b")]).is_err());
        assert!(whole(&[leader, None]).is_err());
    }
}
