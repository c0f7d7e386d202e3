//! `clock`: cluster time never goes back and never stands still, and it follows the wall clock forward only where
//! the rules allow: the operating system vouches for it, or it has held for a minute, or the step is small and such
//! steps are few. Against the truth, which the world alone knows, it is no further ahead than any wall clock ever was.

use crate::violation::{Held, Violation};
use chronos_engine::step::ClockReading;
use chronos_proto::time::{Now, Timestamp};

/// A step up to here may be taken unvouched.
const SMALL_STEP: i64 = 500_000;
/// How long a wall clock must hold to be believed.
const HOLD: u64 = 60_000_000;
/// Clocks are looked at now and then, so a hold may seem a little shorter.
const SLACK: u64 = 2_500_000;

/// What was seen of cluster time.
#[derive(Clone, Debug, Default)]
pub struct ClusterTime {
    /// Cluster time minus monotonic time, in this run.
    offset: Option<i64>,
    /// The most that wall minus monotonic time was since the last look.
    wall_max: Option<i64>,
    vouched: bool,
    /// Unvouched steps so far, in this run.
    unvouched: i64,
    run_began: u64,
    /// The node follows its own wall clock alone, not other nodes' too.
    alone: bool,
}

fn minus(time: Timestamp, now: Now) -> i64 {
    time.0 - now.mono.0 as i64
}

impl ClusterTime {
    /// A process starts.
    pub fn restarted(&mut self, now: Now, vouched: bool, alone: bool) {
        *self = ClusterTime {
            vouched,
            alone,
            run_began: now.mono.0,
            wall_max: Some(minus(now.wall, now)),
            ..Self::default()
        };
    }

    /// The node takes a step at these readings; `vouched` if it was last told that the wall clock is synchronised.
    pub fn stepped(&mut self, now: Now, vouched: bool) {
        let wall = minus(now.wall, now);
        self.wall_max = Some(self.wall_max.map_or(wall, |max| max.max(wall)));
        self.vouched |= vouched;
    }

    /// The node says what cluster time is. `held` is how long the wall clock has run without a step.
    pub fn read(
        &mut self,
        reading: ClockReading,
        applied: Timestamp,
        now: Now,
        vouched: bool,
        held: u64,
    ) -> Held {
        let wrong = |what: String| Err(Violation::safety("cluster-time", what));
        let offset = reading.time.0 - reading.mono.0 as i64;
        if reading.mono > now.mono {
            return wrong(format!("a reading of {:?} is from the future of {:?}", reading.mono, now.mono));
        }
        if self.alone && reading.at(now.mono) < applied {
            return wrong(format!(
                "cluster time {} is before the applied time {applied}",
                reading.at(now.mono)
            ));
        }
        let Some(before) = self.offset.replace(offset) else {
            self.look(now, vouched);
            return Ok(());
        };
        let step = offset - before;
        if step < 0 {
            return wrong(format!("cluster time went back by {} us", -step));
        }
        if step > 0 && self.alone {
            let wall = self.wall_max.unwrap_or(i64::MIN).max(minus(now.wall, now));
            if offset > wall {
                return wrong(format!(
                    "cluster time went {step} us forward, {} us past the wall clock",
                    offset - wall
                ));
            }
            let vouched = self.vouched || vouched || held + SLACK >= HOLD;
            if !vouched {
                self.unvouched += step;
                let run = (now.mono.0 - self.run_began) as i64;
                let allowed = SMALL_STEP + run / (HOLD as i64 / SMALL_STEP) + 1_000;
                if self.unvouched > allowed {
                    return wrong(format!(
                        "cluster time followed the wall clock {step} us forward, unvouched and after it had held \
                         {held} us"
                    ));
                }
            }
        }
        self.look(now, vouched);
        Ok(())
    }

    fn look(&mut self, now: Now, vouched: bool) {
        self.wall_max = Some(minus(now.wall, now));
        self.vouched = vouched;
    }
}

/// Rounding, of readings and of drift.
const ROUNDING: i64 = 1_000;

/// How far ahead of the truth cluster time may be: as far as any machine's wall clock was when its node looked, and as
/// fast monotonic clocks then carry it. Times in microseconds of true time.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    at: u64,
    ahead: Option<i64>,
    /// What drift added since, in millionths of a microsecond.
    carried: i128,
    fastest_ppm: i64,
}

impl Truth {
    /// Some oscillator runs so fast from now on.
    pub fn runs(&mut self, at: u64, drift_ppm: i64) {
        self.advance(at);
        self.fastest_ppm = self.fastest_ppm.max(drift_ppm);
    }

    /// A node looks at its wall clock, which is `error` ahead of the truth.
    pub fn shown(&mut self, at: u64, error: i64) {
        self.advance(at);
        if self.limit().is_none_or(|limit| error > limit) {
            self.ahead = Some(error);
            self.carried = 0;
        }
    }

    /// A node says that cluster time is `error` ahead of the truth.
    pub fn told(&mut self, at: u64, error: i64) -> Held {
        self.advance(at);
        match self.limit() {
            Some(limit) if error <= limit + ROUNDING => Ok(()),
            limit => {
                let what = format!(
                    "cluster time is {error} us ahead of the truth, and no wall clock would carry it further than \
                     {limit:?} us"
                );
                Err(Violation::safety("cluster-time", what))
            }
        }
    }

    fn limit(&self) -> Option<i64> {
        self.ahead.map(|ahead| ahead + (self.carried / 1_000_000) as i64)
    }

    fn advance(&mut self, at: u64) {
        self.carried += i128::from(at.saturating_sub(self.at)) * i128::from(self.fastest_ppm);
        self.at = self.at.max(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::time::Instant;

    #[test]
    fn a_time_that_no_wall_clock_showed_is_seen() {
        let mut truth = Truth::default();
        truth.runs(0, 200);
        truth.shown(0, 3_000_000);
        truth.shown(1_000_000, -7_000_000);
        assert_eq!(truth.told(1_000_000, 3_000_200), Ok(()));
        assert!(truth.clone().told(1_000_000, 3_002_000).is_err());
        assert_eq!(truth.told(100_000_000, 3_020_000), Ok(()), "a fast clock carries it further");
        truth.shown(100_000_000, 90_000_000);
        assert_eq!(truth.told(100_000_000, 90_000_000), Ok(()));
    }

    const S: i64 = 1_000_000;

    fn now(mono: i64, wall: i64) -> Now {
        Now { mono: Instant(mono as u64), wall: Timestamp(wall) }
    }

    fn reading(mono: i64, time: i64) -> ClockReading {
        ClockReading { mono: Instant(mono as u64), time: Timestamp(time) }
    }

    /// A clock that was read at (1 s, 101 s), while the wall said the same.
    fn begun() -> ClusterTime {
        let mut clock = ClusterTime::default();
        clock.restarted(now(0, 100 * S), false, true);
        let held = clock.read(reading(S, 101 * S), Timestamp(0), now(S, 101 * S), false, 0);
        assert_eq!(held, Ok(()));
        clock
    }

    #[test]
    fn going_on_by_the_monotonic_clock_holds() {
        assert_eq!(
            begun().read(reading(2 * S, 102 * S), Timestamp(0), now(2 * S, 500 * S), false, 0),
            Ok(())
        );
    }

    #[test]
    fn going_back_or_standing_still_is_seen() {
        assert!(begun().read(reading(2 * S, 100 * S), Timestamp(0), now(2 * S, 100 * S), true, 0).is_err());
        assert!(begun().read(reading(2 * S, 101 * S), Timestamp(0), now(2 * S, 101 * S), true, 0).is_err());
        assert!(begun().read(reading(2 * S, 102 * S), Timestamp(103 * S), now(2 * S, 0), true, 0).is_err());
    }

    #[test]
    fn following_an_unvouched_jump_is_seen_and_a_vouched_one_holds() {
        let follow = |vouched, held| {
            begun().read(reading(2 * S, 160 * S), Timestamp(0), now(2 * S, 160 * S), vouched, held)
        };
        assert!(follow(false, 0).is_err());
        assert_eq!(follow(true, 0), Ok(()));
        assert_eq!(follow(false, HOLD), Ok(()));
    }

    #[test]
    fn passing_the_wall_clock_is_seen() {
        assert!(
            begun().read(reading(2 * S, 160 * S), Timestamp(0), now(2 * S, 110 * S), true, HOLD).is_err()
        );
    }

    #[test]
    fn small_steps_hold_until_they_are_many() {
        let mut clock = begun();
        let mut ahead = 0;
        let seen = (2..20).find(|second| {
            ahead += 400_000;
            let time = (100 + second) * S + ahead;
            clock.read(reading(second * S, time), Timestamp(0), now(second * S, time), false, 0).is_err()
        });
        assert_eq!(seen, Some(3));
    }
}
