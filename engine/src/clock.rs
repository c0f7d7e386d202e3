//! Cluster time on one node: what "never early" is measured against.
//!
//! A wall clock may be wrong and may jump; the monotonic clock may not, but knows no date. Cluster time starts from the
//! greatest time known and runs at the monotonic rate, so it never stands still and never goes back. The wall clock is
//! evidence, watched by [`ClusterClock::observe`]:
//!
//! ```text
//! the store is empty                        wall time is adopted: there is nothing else
//! wall is behind                            ignored
//! wall is ahead, by little (500 ms a minute) adopted at once
//! wall is ahead, by more                    adopted when the operating system says that it is synchronised, when it
//!                                           has held for 60 s, or when an operator confirms it
//! ```
//!
//! What is adopted is adopted by a jump. A slew would keep cluster time knowingly behind, and its one virtue, that no
//! interval is skipped, helps nobody here: timers that a jump passes are late already and fire in their order. The
//! allowance for small steps refills over a minute, so a wall clock that runs away pulls cluster time along by a
//! percent or two at the most.
//!
//! After a restart in the same boot of the machine, time goes on from the last anchor by the monotonic clock, which
//! counted the time between. After another boot it starts at the greatest time that was stored.
//!
//! **With peers** their clocks are evidence too: every answer to a leader's heartbeat brings a reading, which lies somewhere
//! within the round trip. Where the readings of a quorum agree to within [`AGREEMENT`] (Marzullo, "Maintaining the Time in
//! a Distributed System", 1984; NTP does the same), the interval that spans them is the truth, and cluster time is its
//! lower bound, unless it is there already: it does not go back, and this node's own wall clock has no say beyond its
//! vote. A heartbeat brings the leader's cluster time, below which no follower stays ([`ClusterClock::hear`]).
//!
//! Who reads no quorum of clocks, a follower or a node cut off, goes on by the monotonic clock: it could act on no other
//! time, and a time that it took from its own wall clock would be the cluster's once it leads. Where a quorum is read and
//! differs, the rules above hold, without the small steps. A node of a cluster whose store is empty has no time yet
//! ([`ClusterClock::is_set`]) and takes the first that it hears of: the leader's, or, founding the cluster, what a quorum
//! agrees on, or the lower median of its clocks.
//!
//! Not here: an operator's `TimeEpoch`, the only way back. A time that was only read, and never
//! written with an anchor, is forgotten by a crash: the caller writes an entry when a step is adopted.

use crate::bugs::{self, Bug};
use crate::step::ClockReading;
use crate::wal::Anchor;
use chronos_proto::id::NodeId;
use chronos_proto::time::{Instant, Now, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// A forward step up to this much is adopted at once, and so is the sum of such steps over [`HOLD`].
pub const SMALL_STEP: Duration = Duration::from_millis(500);
/// How long a greater forward step must hold when nobody vouches for it.
pub const HOLD: Duration = Duration::from_secs(60);
/// Clocks that differ by no more than this agree.
pub const AGREEMENT: Duration = Duration::from_millis(250);
/// A peer's reading counts for so long.
const SAMPLE_AGE: Duration = Duration::from_secs(10);
/// How often the wall clock is looked at.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(1);

const SMALL_STEP_US: i64 = SMALL_STEP.as_micros() as i64;
const HOLD_US: u64 = HOLD.as_micros() as u64;

/// A step of the wall clock that was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockStepped {
    /// Microseconds from cluster time to the wall clock: positive if the wall is ahead.
    pub micros: i64,
    /// Whether cluster time follows it; if not, it is behind, or on trial.
    pub adopted: bool,
}

/// A forward step on trial.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Trial {
    since: Instant,
    /// How far the wall was ahead when the trial began.
    ahead_us: i64,
}

/// The cluster time of one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterClock {
    boot: u64,
    base: ClockReading,
    synchronised: bool,
    trial: Option<Trial>,
    /// What small steps may cost now: earned at one a microsecond, and no more than [`HOLD`] earns.
    allowance: u64,
    checked: Instant,
    /// The distance to the wall that was last told of.
    told_us: i64,
    /// How many clocks make a quorum; 1 for a node alone.
    quorum: usize,
    /// False where the store was empty and other clocks than this node's decide.
    set: bool,
    /// The last reading of each peer's clock.
    samples: BTreeMap<NodeId, Sample>,
}

/// What a peer's wall clock showed, as a distance to this node's monotonic clock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Sample {
    at: Instant,
    /// From wall - mono at the least to at the most, in microseconds.
    low: i64,
    high: i64,
}

impl ClusterClock {
    /// The clock at a start. `anchor` is the last one in the WAL, `persisted` the greatest time that was applied or
    /// logged; without either the store is empty, and the wall clock is taken unless there are `peers` to ask.
    pub fn start(
        boot: u64,
        now: Now,
        anchor: Option<Anchor>,
        persisted: Option<Timestamp>,
        peers: bool,
    ) -> ClusterClock {
        let anchored = anchor.and_then(|anchor| {
            let time = anchor.time?;
            Some(match anchor.boot == boot {
                true => ClockReading { mono: anchor.mono, time }.at(now.mono),
                false => time,
            })
        });
        let stored = anchored.max(persisted).filter(|_| !bugs::active(Bug::ForgetStoredTime));
        let alone = (!peers).then(|| now.wall.clamp(Timestamp::EPOCH, Timestamp::MAX));
        let known = stored.or(alone);
        let (set, time) = (known.is_some(), known.unwrap_or(Timestamp::EPOCH));
        ClusterClock {
            boot,
            base: ClockReading { mono: now.mono, time },
            synchronised: false,
            trial: None,
            allowance: HOLD_US,
            checked: now.mono,
            told_us: 0,
            quorum: 1,
            set,
            samples: BTreeMap::new(),
        }
    }

    /// Whether there is a time to go by: not in a cluster's node that is new and has heard of none.
    pub fn is_set(&self) -> bool {
        self.set
    }

    /// A leader says that cluster time is `time` at least. Tells of the step if it is more than a small one.
    pub fn hear(&mut self, mono: Instant, time: Timestamp) -> Option<ClockStepped> {
        let ahead_us = time.micros_since(self.time(mono));
        if ahead_us <= 0 || time > Timestamp::MAX {
            return None;
        }
        let step = self.adopt_time(mono, time);
        (ahead_us > SMALL_STEP_US).then_some(step)
    }

    /// How many voters decide, this one included: so many clocks must agree.
    pub fn set_quorum(&mut self, quorum: usize) {
        self.quorum = quorum.max(1);
    }

    /// A peer's wall clock showed `wall` at some time between `sent` and now.
    pub fn sample(&mut self, peer: NodeId, now: Now, sent: Instant, wall: Timestamp) {
        if sent > now.mono || wall > Timestamp::MAX {
            return;
        }
        let sample = Sample {
            at: now.mono,
            low: wall.0.saturating_sub(now.mono.0 as i64),
            high: wall.0.saturating_sub(sent.0 as i64),
        };
        self.samples.insert(peer, sample);
    }

    /// A peer is not there any more: its clock has no say.
    pub fn peer_lost(&mut self, peer: NodeId) {
        self.samples.remove(&peer);
    }

    /// The interval of true time that a quorum of clocks, this node's among them, agrees on.
    pub fn agreed(&self, now: Now) -> Option<(Timestamp, Timestamp)> {
        let mono = now.mono.0 as i64;
        let clocks = self.clocks(now)?;
        let margin = AGREEMENT.as_micros() as i64 / 2;
        // The point that most widened intervals hold; of several, the lowest.
        let holds = |point: i64| {
            move |(low, high): &&(i64, i64)| {
                low.saturating_sub(margin) <= point && point <= high.saturating_add(margin)
            }
        };
        let points = clocks.iter().map(|(low, _)| low.saturating_sub(margin));
        let best = points.min_by_key(|point| {
            let count = clocks.iter().filter(holds(*point)).count();
            (std::cmp::Reverse(count), *point)
        })?;
        let agreeing: Vec<&(i64, i64)> = clocks.iter().filter(holds(best)).collect();
        if agreeing.len() < self.quorum {
            return None;
        }
        let low = agreeing.iter().map(|(low, _)| *low).min()?;
        let high = agreeing.iter().map(|(_, high)| *high).max()?;
        Some((Timestamp(low.saturating_add(mono)), Timestamp(high.saturating_add(mono))))
    }

    /// What the clocks of a quorum show, this node's among them, as distances to its monotonic clock.
    fn clocks(&self, now: Now) -> Option<Vec<(i64, i64)>> {
        let own = now.wall.0.saturating_sub(now.mono.0 as i64);
        let fresh = self.samples.values().filter(|sample| now.mono < sample.at + SAMPLE_AGE);
        let mut clocks: Vec<(i64, i64)> = fresh.map(|sample| (sample.low, sample.high)).collect();
        clocks.push((own, own));
        (self.quorum >= 2 && clocks.len() >= self.quorum).then_some(clocks)
    }

    /// The lower median of what a quorum's clocks show.
    fn median(&self, now: Now) -> Option<Timestamp> {
        let mut lows: Vec<i64> = self.clocks(now)?.iter().map(|(low, _)| *low).collect();
        lows.sort_unstable();
        let median = lows[(lows.len() - 1) / 2].saturating_add(now.mono.0 as i64);
        Some(Timestamp(median).clamp(Timestamp::EPOCH, Timestamp::MAX))
    }

    /// Cluster time, if there is one to go by.
    pub fn known(&self, mono: Instant) -> Option<Timestamp> {
        self.set.then(|| self.time(mono))
    }

    /// Cluster time: the lower bound of what it may be. Never goes back.
    pub fn time(&self, mono: Instant) -> Timestamp {
        self.base.at(mono)
    }

    /// The same, to be carried on by others.
    pub fn reading(&self, mono: Instant) -> ClockReading {
        ClockReading { mono, time: self.time(mono) }
    }

    /// What to write down with a WAL write.
    pub fn anchor(&self, mono: Instant) -> Anchor {
        Anchor { boot: self.boot, mono, time: self.known(mono) }
    }

    /// The monotonic reading at which cluster time is `time`, unless a step comes between; the present if it is past.
    pub fn when(&self, time: Timestamp, mono: Instant) -> Instant {
        let ahead = u64::try_from(time.micros_since(self.time(mono))).unwrap_or(0);
        Instant(mono.0.saturating_add(ahead))
    }

    /// Looks at the wall clock; costs nothing, so every step may. `synchronised` is the operating system's word, if
    /// there is news of it. Tells of a step once, when it is noticed or adopted; small ones pass in silence.
    pub fn observe(&mut self, now: Now, synchronised: Option<bool>) -> Option<ClockStepped> {
        self.synchronised = synchronised.unwrap_or(self.synchronised);
        self.refill(now.mono);
        if let Some((low, _)) = self.agreed(now).filter(|(low, _)| *low <= Timestamp::MAX) {
            self.trial = None;
            let ahead_us = low.micros_since(self.time(now.mono));
            if ahead_us <= 0 {
                return None;
            }
            let step = self.adopt_time(now.mono, low);
            return (ahead_us > SMALL_STEP_US).then_some(step);
        }
        let follows_peers = self.quorum >= 2 || !self.set;
        if follows_peers && self.clocks(now).is_none() {
            self.trial = None;
            return None;
        }
        if !self.set
            && let Some(median) = self.median(now)
        {
            return self.hear(now.mono, median);
        }
        let ahead_us = now.wall.micros_since(self.time(now.mono));
        if ahead_us <= 0 || now.wall > Timestamp::MAX {
            self.trial = None;
            return self.tell(ahead_us);
        }
        let cost = ahead_us.unsigned_abs().saturating_mul(HOLD_US / SMALL_STEP_US as u64);
        if let Some(left) = self.allowance.checked_sub(cost).filter(|_| !follows_peers) {
            self.allowance = left;
            self.adopt(now);
            return None;
        }
        if self.synchronised || self.has_held(now.mono, ahead_us) || bugs::active(Bug::FireEarlyOnJump) {
            return Some(self.adopt(now));
        }
        if ahead_us > SMALL_STEP_US { self.tell(ahead_us) } else { None }
    }

    /// An operator vouches for the wall clock: it is adopted if it is ahead.
    pub fn confirm(&mut self, now: Now) -> Option<ClockStepped> {
        let ahead_us = now.wall.micros_since(self.time(now.mono));
        (ahead_us > 0 && now.wall <= Timestamp::MAX).then(|| self.adopt(now))
    }

    /// When to look at the wall clock again.
    pub fn next_check(&self) -> Instant {
        let next = self.checked + CHECK_INTERVAL;
        self.trial.map_or(next, |trial| next.min(trial.since + HOLD))
    }

    /// Whether the wall has been this far ahead for long enough; begins a trial if there is none of that distance.
    fn has_held(&mut self, mono: Instant, ahead_us: i64) -> bool {
        let steady = |trial: &Trial| ahead_us.abs_diff(trial.ahead_us) <= SMALL_STEP_US as u64;
        match self.trial.filter(steady) {
            Some(trial) => mono.micros_since(trial.since) >= HOLD_US,
            None => {
                self.trial = Some(Trial { since: mono, ahead_us });
                false
            }
        }
    }

    fn adopt(&mut self, now: Now) -> ClockStepped {
        self.adopt_time(now.mono, now.wall)
    }

    fn adopt_time(&mut self, mono: Instant, time: Timestamp) -> ClockStepped {
        let before = self.time(mono);
        assert!(time >= before, "cluster time would go back from {before} to {time}");
        self.base = ClockReading { mono, time };
        self.set = true;
        self.trial = None;
        self.told_us = 0;
        ClockStepped { micros: time.micros_since(before), adopted: true }
    }

    fn refill(&mut self, mono: Instant) {
        self.allowance = self.allowance.saturating_add(mono.micros_since(self.checked)).min(HOLD_US);
        self.checked = self.checked.max(mono);
    }

    fn tell(&mut self, ahead_us: i64) -> Option<ClockStepped> {
        if ahead_us.abs_diff(self.told_us) <= SMALL_STEP_US as u64 {
            return None;
        }
        self.told_us = ahead_us;
        let returned = ahead_us.unsigned_abs() <= SMALL_STEP_US as u64;
        (!returned).then_some(ClockStepped { micros: ahead_us, adopted: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOOT: u64 = 7;
    const T0: i64 = 1_733_856_000_000_000;
    const S: i64 = 1_000_000;

    fn now(mono: i64, wall: i64) -> Now {
        Now { mono: Instant(mono as u64), wall: Timestamp(wall) }
    }

    /// A clock at monotonic 0 and cluster time `T0`.
    fn clock() -> ClusterClock {
        ClusterClock::start(BOOT, now(0, T0), None, Some(Timestamp(T0)), false)
    }

    fn ahead(micros: i64, adopted: bool) -> Option<ClockStepped> {
        Some(ClockStepped { micros, adopted })
    }

    #[test]
    fn an_empty_store_takes_the_wall_clock() {
        let clock = ClusterClock::start(BOOT, now(5, T0), None, None, false);
        assert_eq!(clock.time(Instant(5)), Timestamp(T0));
        let before_epoch = ClusterClock::start(BOOT, now(5, -S), None, None, false);
        assert_eq!(before_epoch.time(Instant(5)), Timestamp::EPOCH);
    }

    #[test]
    fn the_same_boot_goes_on_by_the_monotonic_clock_whatever_the_wall_says() {
        let anchor = Anchor { boot: BOOT, mono: Instant(100), time: Some(Timestamp(T0)) };
        for wall in [0, T0, T0 + 3_600 * S] {
            let clock = ClusterClock::start(
                BOOT,
                now(100 + 30 * S, wall),
                Some(anchor),
                Some(Timestamp(T0 - S)),
                false,
            );
            assert_eq!(clock.time(Instant(100)), Timestamp(T0 + 30 * S));
            assert_eq!(clock.anchor(Instant(100 + 31 * S as u64)).time, Some(Timestamp(T0 + 31 * S)));
        }
    }

    #[test]
    fn another_boot_starts_at_the_greatest_time_stored() {
        let anchor = Anchor { boot: BOOT, mono: Instant(0), time: Some(Timestamp(T0)) };
        for (persisted, expected) in [(T0 - S, T0), (T0 + S, T0 + S)] {
            let start = now(500 * S, T0 + 3_600 * S);
            let mut clock =
                ClusterClock::start(BOOT + 1, start, Some(anchor), Some(Timestamp(persisted)), false);
            assert_eq!(clock.time(start.mono), Timestamp(expected));
            // The time that the machine was off is a forward step.
            assert_eq!(clock.observe(start, Some(true)), ahead(T0 + 3_600 * S - expected, true));
            assert_eq!(clock.time(start.mono), start.wall);
        }
    }

    #[test]
    fn a_backward_step_is_told_once_and_ignored() {
        let mut clock = clock();
        assert_eq!(clock.observe(now(S, T0 - 10 * S), Some(true)), ahead(-11 * S, false));
        assert_eq!(clock.observe(now(2 * S, T0 - 9 * S), None), None);
        assert_eq!(clock.time(Instant(2 * S as u64)), Timestamp(T0 + 2 * S));
        // Back to normal, and away again: told again.
        assert_eq!(clock.observe(now(3 * S, T0 + 3 * S), None), None);
        assert_eq!(clock.observe(now(4 * S, T0), None), ahead(-4 * S, false));
    }

    #[test]
    fn a_small_forward_step_is_adopted_at_once_but_not_again_and_again() {
        let mut clock = clock();
        assert_eq!(clock.observe(now(S, T0 + S + 400_000), None), None);
        assert_eq!(clock.time(Instant(S as u64)), Timestamp(T0 + S + 400_000));
        assert_eq!(clock.observe(now(2 * S, T0 + 2 * S + 800_000), None), None);
        assert_eq!(clock.time(Instant(2 * S as u64)), Timestamp(T0 + 2 * S + 400_000));
        // After a while the allowance is back.
        assert_eq!(clock.observe(now(50 * S, T0 + 50 * S + 800_000), None), None);
        assert_eq!(clock.time(Instant(50 * S as u64)), Timestamp(T0 + 50 * S + 800_000));
    }

    #[test]
    fn a_great_forward_step_is_adopted_when_it_has_held() {
        let mut clock = clock();
        let step = 300 * S;
        assert_eq!(clock.observe(now(S, T0 + S + step), None), ahead(step, false));
        assert_eq!(clock.next_check(), Instant(2 * S as u64));
        for second in 2..61 {
            assert_eq!(clock.observe(now(second * S, T0 + second * S + step), Some(false)), None);
            assert_eq!(clock.time(Instant(second as u64 * S as u64)), Timestamp(T0 + second * S));
        }
        assert_eq!(clock.next_check(), Instant(61 * S as u64));
        assert_eq!(clock.observe(now(61 * S, T0 + 61 * S + step), None), ahead(step, true));
        assert_eq!(clock.time(Instant(61 * S as u64)), Timestamp(T0 + 61 * S + step));
    }

    #[test]
    fn a_step_that_moves_starts_its_trial_again() {
        let mut clock = clock();
        for second in 1..600 {
            // Another distance every 50 seconds.
            let step = 100 * S * (1 + second / 50 % 2);
            clock.observe(now(second * S, T0 + second * S + step), None);
            assert_eq!(clock.time(Instant(second as u64 * S as u64)), Timestamp(T0 + second * S));
        }
        // Nor does one pass that returns for a moment.
        let mut clock = self::clock();
        for second in 1..600 {
            let step = if second % 50 == 0 { 0 } else { 100 * S };
            clock.observe(now(second * S, T0 + second * S + step), None);
            assert_eq!(clock.time(Instant(second as u64 * S as u64)), Timestamp(T0 + second * S));
        }
    }

    #[test]
    fn synchronised_or_confirmed_is_adopted_at_once() {
        let step = 86_400 * S;
        let mut clock = clock();
        assert_eq!(clock.observe(now(S, T0 + S + step), Some(false)), ahead(step, false));
        assert_eq!(clock.observe(now(2 * S, T0 + 2 * S + step), Some(true)), ahead(step, true));
        let mut clock = self::clock();
        assert_eq!(clock.confirm(now(S, T0 + S + step)), ahead(step, true));
        assert_eq!(clock.confirm(now(2 * S, T0)), None);
        // A date that no timer can have is no evidence.
        assert_eq!(clock.confirm(now(2 * S, i64::MAX)), None);
        clock.observe(now(2 * S, i64::MAX), Some(true));
        assert_eq!(clock.time(Instant(2 * S as u64)), Timestamp(T0 + 2 * S + step));
    }

    #[test]
    fn among_peers_only_a_quorum_of_clocks_moves_time() {
        let mut clock = clock();
        clock.set_quorum(2);
        // Alone it takes no step, however small or long, and no word of the operating system.
        for second in 1..200 {
            assert_eq!(clock.observe(now(second * S, T0 + second * S + 300_000), Some(true)), None);
            assert_eq!(clock.time(Instant(second as u64 * S as u64)), Timestamp(T0 + second * S));
        }
        // Another that differs makes no agreement: a small step has to hold as a great one has.
        for second in 200..260 {
            let at = now(second * S, T0 + second * S + 300_000);
            clock.sample(NodeId(2), at, at.mono, Timestamp(T0 + second * S));
            clock.observe(at, Some(false));
            assert_eq!(clock.time(at.mono), Timestamp(T0 + second * S));
        }
        // Two that agree decide, whatever this node's own says.
        let at = now(260 * S, T0);
        for peer in 2..4 {
            clock.sample(NodeId(peer), at, at.mono, Timestamp(T0 + 270 * S));
        }
        assert_eq!(clock.observe(at, Some(false)), ahead(10 * S, true));
        assert_eq!(clock.time(at.mono), Timestamp(T0 + 270 * S));
        // So does a leader, forward.
        assert_eq!(clock.hear(at.mono, Timestamp(T0 + 271 * S)), ahead(S, true));
        assert_eq!(clock.hear(at.mono, Timestamp(T0)), None);
        assert_eq!(clock.hear(at.mono, Timestamp(i64::MAX)), None);
        assert_eq!(clock.time(at.mono), Timestamp(T0 + 271 * S));
    }

    #[test]
    fn a_new_node_of_a_cluster_has_no_time_until_it_hears_one() {
        let new = || ClusterClock::start(BOOT, now(S, T0), None, None, true);
        let mut clock = new();
        assert_eq!(clock.observe(now(2 * S, T0 + S), Some(true)), None);
        assert!(!clock.is_set());
        assert_eq!(clock.anchor(Instant(2 * S as u64)).time, None);
        clock.hear(Instant(2 * S as u64), Timestamp(T0 - S));
        assert!(clock.is_set());
        assert_eq!(clock.time(Instant(3 * S as u64)), Timestamp(T0));
        // Founding a cluster of three of which two are up and differ: the earlier, until more is known.
        let mut clock = new();
        clock.set_quorum(2);
        let at = now(2 * S, T0 + S);
        clock.sample(NodeId(2), at, at.mono, Timestamp(T0 - 86_400 * S));
        clock.observe(at, Some(false));
        assert!(clock.is_set());
        assert_eq!(clock.time(at.mono), Timestamp(T0 - 86_400 * S));
        clock.sample(NodeId(3), at, at.mono, Timestamp(T0 + S));
        clock.observe(at, Some(false));
        assert_eq!(clock.time(at.mono), Timestamp(T0 + S));
    }

    #[test]
    fn when_is_the_inverse_of_time() {
        let clock = clock();
        let at = clock.when(Timestamp(T0 + 7_777), Instant(3));
        assert_eq!(clock.time(at), Timestamp(T0 + 7_777));
        assert_eq!(clock.when(Timestamp(T0 - 1), Instant(3)), Instant(3));
    }

    proptest! {
        /// Whatever the wall does: time never goes back, never stands still, follows no unvouched wall past the
        /// allowance and the trial, and follows a steady one in the end.
        #[test]
        fn holds_against_any_wall_clock(
            steps in prop::collection::vec((1i64..20 * S, prop_oneof![
                3 => Just(0i64), 2 => -2 * S..2 * S, 1 => -100_000 * S..100_000 * S
            ], prop::bool::weighted(0.1)), 1..100)
        ) {
            let mut clock = clock();
            let (mut mono, mut offset) = (0i64, 0i64);
            let mut last = Timestamp(T0);
            for (passed, moved, synchronised) in steps {
                mono += passed;
                offset += moved;
                let here = now(mono, T0 + mono + offset);
                let expected = last.0 + passed;
                prop_assert_eq!(clock.time(here.mono), Timestamp(expected));
                let told = clock.observe(here, Some(synchronised));
                let time = clock.time(here.mono);
                prop_assert!(time.0 == expected || time == here.wall);
                prop_assert!(time.0 >= expected);
                let jumped = time.0 - expected;
                if jumped > SMALL_STEP_US {
                    prop_assert_eq!(told, ahead(jumped, true));
                }
                if synchronised {
                    prop_assert!(time >= here.wall);
                }
                prop_assert!(clock.next_check() > here.mono);
                last = time;
            }
            // The wall holds: within a minute of checks it is not ahead any more.
            for _ in 0..61 {
                mono += S;
                clock.observe(now(mono, T0 + mono + offset), Some(false));
            }
            prop_assert!(clock.time(Instant(mono as u64)).0 >= T0 + mono + offset);
        }
    }
}
