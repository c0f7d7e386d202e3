//! The schedule of faults: a pure function of the seed, the kinds that are wanted and the length of the run.

use crate::relay::Weather;
use chronos_tests::random::Random;
use std::collections::BTreeSet;
use std::time::Duration;

/// A kind of fault, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Kind {
    /// SIGKILL, and a start some time later: one, a minority, a majority, all at once
    Kill,
    /// SIGSTOP, and SIGCONT some time later
    Pause,
    /// Both ways are cut: one node from all others, halves, a bridge, a ring
    Partition,
    /// One way is cut: a node that cannot send, or cannot hear
    OneWay,
    /// Datagrams are lost, doubled, delayed and reordered
    Net,
    /// A disk becomes full
    Disk,
    /// A wall clock jumps, or runs too fast or too slow
    Clock,
    /// One more node is taken in, and out again
    Member,
    /// A node loses all it has stored, and is replaced
    Wipe,
    /// All nodes are stopped and started, one after the other
    Restart,
}

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The leader of group 0.
    Leader,
    /// Another.
    Follower,
    /// Any one.
    Any,
    /// As many as can be missed.
    Minority,
    /// One more.
    Majority,
    /// All.
    All,
}

/// Which ways are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// From and to all others.
    Isolate(Target),
    /// Nothing that it sends arrives.
    Mute(Target),
    /// It hears nothing.
    Deaf(Target),
    /// Between two halves.
    Halves,
    /// Between two halves, but for one node that both reach.
    Bridge,
    /// One way between two nodes.
    OneLink,
}

/// A wall clock, as libfaketime wants it told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skew(pub String);

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed; healed by a start.
    Kill(Target),
    /// Stopped; healed by going on.
    Pause(Target),
    /// Cut off.
    Cut(Cut),
    /// A bad network.
    Weather(Weather),
    /// No space.
    Disk(Target),
    /// A wrong clock.
    Clock(Target, Skew),
    /// Killed, its files removed, started as if nothing had been; and replaced in the end.
    Wipe,
    /// A member more for a while.
    Member,
    /// Restarted one after the other.
    Rolling,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the beginning.
    pub at: Duration,
    /// For how long.
    pub hold: Duration,
    /// What.
    pub fault: Fault,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of time.
    pub steps: Vec<Step>,
    /// How long it takes in all.
    pub length: Duration,
}

impl Plan {
    /// Draws one. Without kinds nothing happens, for as long.
    pub fn draw(kinds: &BTreeSet<Kind>, length: Duration, random: &mut Random) -> Plan {
        let kinds: Vec<Kind> = kinds.iter().copied().collect();
        let mut steps = Vec::new();
        let mut at = Duration::from_secs(2);
        while !kinds.is_empty() {
            let hold = hold(random);
            if at + hold > length {
                break;
            }
            let kind = kinds[random.within(0..kinds.len() as u64) as usize];
            steps.push(Step { at, hold, fault: fault(kind, random) });
            // Now and then the next one strikes before this one is over.
            at += if random.one_in(5) { hold / 2 } else { hold + millis(random, 1_000..4_000) };
        }
        Plan { steps, length }
    }
}

/// Mostly longer than an election takes, sometimes shorter.
fn hold(random: &mut Random) -> Duration {
    match random.within(0..4) {
        0 => millis(random, 100..1_000),
        1 | 2 => millis(random, 1_000..4_000),
        _ => millis(random, 4_000..10_000),
    }
}

fn millis(random: &mut Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(random.within(range))
}

fn fault(kind: Kind, random: &mut Random) -> Fault {
    let mut pick = |of: &[Target]| of[random.within(0..of.len() as u64) as usize];
    let one = [Target::Leader, Target::Leader, Target::Follower, Target::Any];
    match kind {
        Kind::Kill => {
            let [leader, leader_too, follower, any] = one;
            Fault::Kill(pick(&[
                leader,
                leader_too,
                follower,
                any,
                Target::Minority,
                Target::Majority,
                Target::All,
            ]))
        }
        Kind::Pause => {
            Fault::Pause(pick(&[Target::Leader, Target::Leader, Target::Any, Target::Minority, Target::All]))
        }
        Kind::Partition => {
            let target = pick(&one);
            match random.within(0..4) {
                0 | 1 => Fault::Cut(Cut::Isolate(target)),
                2 => Fault::Cut(Cut::Halves),
                _ => Fault::Cut(Cut::Bridge),
            }
        }
        Kind::OneWay => {
            let target = pick(&one);
            match random.within(0..3) {
                0 => Fault::Cut(Cut::Mute(target)),
                1 => Fault::Cut(Cut::Deaf(target)),
                _ => Fault::Cut(Cut::OneLink),
            }
        }
        Kind::Net => Fault::Weather(Weather {
            lost: random.within(0..300),
            doubled: random.within(0..200),
            delayed: random.within(0..500),
            delay_ms: random.within(1..200),
        }),
        Kind::Disk => Fault::Disk(pick(&one)),
        Kind::Clock => {
            // No more than can be outvoted.
            let target = pick(&[Target::Leader, Target::Any, Target::Minority]);
            let skews = ["+86400", "-86400", "+0.3", "-0.3", "+5", "-5", "+0 x2.0", "+0 x0.5"];
            Fault::Clock(target, Skew(skews[random.within(0..skews.len() as u64) as usize].to_owned()))
        }
        Kind::Member => Fault::Member,
        Kind::Wipe => Fault::Wipe,
        Kind::Restart => Fault::Rolling,
    }
}

impl Cut {
    /// Whom it strikes, if it strikes one more than others.
    pub fn target(self) -> Option<Target> {
        match self {
            Cut::Isolate(target) | Cut::Mute(target) | Cut::Deaf(target) => Some(target),
            Cut::Halves | Cut::Bridge | Cut::OneLink => None,
        }
    }

    /// What it does, in words.
    pub fn words(self) -> &'static str {
        match self {
            Cut::Isolate(_) => "isolate",
            Cut::Mute(_) => "nothing arrives from",
            Cut::Deaf(_) => "nothing arrives at",
            Cut::Halves => "cut into halves",
            Cut::Bridge => "cut into halves with a bridge",
            Cut::OneLink => "cut one way of one link",
        }
    }

    /// Whether nobody can follow whom it strikes.
    pub fn is_total(self) -> bool {
        matches!(self, Cut::Isolate(_) | Cut::Mute(_) | Cut::Deaf(_))
    }

    /// The ways that are cut, each from one node to another.
    pub fn ways(self, struck: &[usize], all: &[usize], random: &mut Random) -> BTreeSet<(usize, usize)> {
        let pairs = || all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b);
        let mut order = all.to_vec();
        for last in (1..order.len()).rev() {
            order.swap(last, random.within(0..last as u64 + 1) as usize);
        }
        let (left, right) = order.split_at(all.len() / 2);
        // With an even number the bridge is one of the right.
        let bridge = right.first();
        let apart = |a: &usize, b: &usize| left.contains(a) != left.contains(b);
        match self {
            Cut::Isolate(_) => pairs().filter(|(a, b)| struck.contains(a) != struck.contains(b)).collect(),
            Cut::Mute(_) => pairs().filter(|(a, b)| struck.contains(a) && !struck.contains(b)).collect(),
            Cut::Deaf(_) => pairs().filter(|(a, b)| !struck.contains(a) && struck.contains(b)).collect(),
            Cut::Halves => pairs().filter(|(a, b)| apart(a, b)).collect(),
            Cut::Bridge => {
                pairs().filter(|(a, b)| apart(a, b) && bridge != Some(a) && bridge != Some(b)).collect()
            }
            Cut::OneLink => order.windows(2).take(1).map(|pair| (pair[0], pair[1])).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_that_ends_in_time() {
        let kinds = [Kind::Kill, Kind::Pause, Kind::Partition, Kind::OneWay, Kind::Net].into();
        let length = Duration::from_secs(600);
        let plan = |seed| Plan::draw(&kinds, length, &mut Random::new(seed));
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let plan = plan(3);
        assert!(plan.steps.len() > 50, "{}", plan.steps.len());
        assert!(plan.steps.iter().all(|step| step.at + step.hold <= length));
        assert!(plan.steps.is_sorted_by_key(|step| step.at));
    }

    #[test]
    fn ways_are_cut_as_the_words_say() {
        let mut random = Random::new(1);
        let mut ways = |cut: Cut, all: &[usize]| cut.ways(&[0], all, &mut random);
        let three = [0, 1, 2];
        assert_eq!(ways(Cut::Mute(Target::Any), &three), [(0, 1), (0, 2)].into());
        assert_eq!(ways(Cut::Deaf(Target::Any), &three), [(1, 0), (2, 0)].into());
        assert_eq!(ways(Cut::Isolate(Target::Any), &three), [(0, 1), (0, 2), (1, 0), (2, 0)].into());
        assert_eq!(ways(Cut::Halves, &three).len(), 4);
        assert_eq!(ways(Cut::Bridge, &three).len(), 2);
        assert_eq!(ways(Cut::Bridge, &[0, 1, 2, 3, 4]).len(), 8);
        assert_eq!(ways(Cut::OneLink, &three).len(), 1);
    }
}
