//! The machine's two clocks, as wrong as they are told to be.
//!
//! Both run off one oscillator that drifts. The monotonic clock counts from the machine's boot, through process
//! restarts; a power cut is a new boot. The wall clock is it plus an offset that jumps, and it can stand still.

use chronos_proto::time::{Instant, Now, Timestamp};

/// Where simulated time begins: 2026-10-25T00:59:55Z, five seconds before clocks in Berlin are put back an hour.
pub const BEGIN: i64 = 1_792_889_995_000_000;

/// One machine's clocks. Times in microseconds.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The oscillator's error in parts per million.
    drift_ppm: i64,
    /// True time at which the drift last changed, and the oscillator's reading then.
    since: (u64, u64),
    booted: u64,
    /// Wall minus oscillator.
    offset: i64,
    frozen: Option<Timestamp>,
    /// Names the machine's boot.
    pub boot: u64,
    /// What the operating system says of its wall clock.
    pub synchronised: bool,
}

impl Clock {
    /// Clocks of a machine that booted at true time 0.
    pub fn new(drift_ppm: i64, offset: i64, synchronised: bool) -> Clock {
        Clock {
            drift_ppm,
            since: (0, 0),
            booted: 0,
            offset: BEGIN + offset,
            frozen: None,
            boot: 1,
            synchronised,
        }
    }

    fn oscillator(&self, at: u64) -> u64 {
        let elapsed = at - self.since.0;
        let error = i128::from(elapsed) * i128::from(self.drift_ppm) / 1_000_000;
        self.since.1 + (i128::from(elapsed) + error) as u64
    }

    /// The readings at a true time.
    pub fn now(&self, at: u64) -> Now {
        let ticks = self.oscillator(at);
        let wall = self.frozen.unwrap_or(Timestamp(ticks as i64 + self.offset));
        Now { mono: Instant(ticks - self.booted), wall }
    }

    /// The true time at which the monotonic clock reads `mono` or more.
    pub fn when(&self, at: u64, mono: Instant) -> u64 {
        let missing = (mono.0 + self.booted).saturating_sub(self.oscillator(at));
        let rate = 1_000_000 + self.drift_ppm;
        let true_micros = (u128::from(missing) * 1_000_000).div_ceil(rate as u128);
        // Rounding may leave the reading one tick short; the caller asks again then.
        at.saturating_add(u64::try_from(true_micros).unwrap_or(u64::MAX / 2))
    }

    /// A new boot: the monotonic clock begins again.
    pub fn reboot(&mut self, at: u64) {
        self.booted = self.oscillator(at);
        self.boot += 1;
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, micros: i64) {
        self.offset += micros;
    }

    /// The oscillator's error changes.
    pub fn set_drift(&mut self, at: u64, ppm: i64) {
        self.since = (at, self.oscillator(at));
        self.drift_ppm = ppm;
    }

    /// The wall clock stands still.
    pub fn freeze(&mut self, at: u64) {
        self.frozen = Some(self.now(at).wall);
    }

    /// The wall clock goes on from where it would have been.
    pub fn thaw(&mut self) {
        self.frozen = None;
    }

    /// The oscillator's error in parts per million.
    pub fn drift_ppm(&self) -> i64 {
        self.drift_ppm
    }

    /// How far the wall clock is ahead of true time.
    pub fn wall_error(&self, at: u64) -> i64 {
        error(self.now(at).wall, at)
    }

    /// An operator puts the wall clock right.
    pub fn correct(&mut self, at: u64) {
        self.frozen = None;
        self.offset -= self.wall_error(at);
    }
}

/// How far a time is ahead of the true one.
pub fn error(time: Timestamp, at: u64) -> i64 {
    time.0 - BEGIN - at as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_goes_back_within_a_boot() {
        let mut clock = Clock::new(500, 0, true);
        let before = clock.now(10_000_000);
        clock.set_drift(10_000_000, -500);
        clock.jump(-60_000_000);
        let after = clock.now(10_000_000);
        assert_eq!(before.mono, after.mono);
        assert_eq!(after.wall.0, before.wall.0 - 60_000_000);
        clock.reboot(11_000_000);
        assert_eq!(clock.now(11_000_000).mono, Instant(0));
    }

    #[test]
    fn the_time_of_a_reading_is_found() {
        for ppm in [-300, 0, 300] {
            let clock = Clock::new(ppm, 0, true);
            let at = clock.when(1_000, Instant(5_000_000));
            assert!(clock.now(at + 1).mono >= Instant(5_000_000));
            assert!(clock.now(at - 2).mono < Instant(5_000_000));
        }
    }

    #[test]
    fn a_frozen_wall_clock_stands_still_and_a_corrected_one_is_right() {
        let mut clock = Clock::new(100, 7_000_000, false);
        clock.freeze(1_000_000);
        assert_eq!(clock.now(1_000_000).wall, clock.now(9_000_000).wall);
        clock.correct(9_000_000);
        assert_eq!(clock.wall_error(9_000_000), 0);
    }
}
