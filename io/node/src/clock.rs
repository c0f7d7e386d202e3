//! The clocks of the machine: boot-time monotonic, wall, and what the kernel knows of them.

use chronos_engine::proto::time::{Instant, Now, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where a driver's readings come from.
pub trait Clock: Send {
    /// Both clocks now.
    fn now(&self) -> Now;
}

/// The machine's clocks. The monotonic one runs on while the machine sleeps.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let mono = clock_gettime(ClockId::Boottime);
        let mono = mono.tv_sec * 1_000_000 + mono.tv_nsec / 1_000;
        // By the C library, unlike the other: a test may preload one whose wall clock is wrong.
        let wall = SystemTime::now();
        let wall = match wall.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Now { mono: Instant(u64::try_from(mono).unwrap_or(0)), wall: Timestamp(wall) }
    }
}

/// A number that differs after every boot of the machine.
pub fn boot_id() -> u64 {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if id.is_empty() {
        // Without it no reading of another run can be trusted: a number of this run alone says so.
        return crate::directory::draw_u64();
    }
    chronos_engine::proto::codec::digest(b"boot", &id)
}

/// Whether the kernel says that its wall clock is disciplined by a time source.
pub fn synchronised() -> bool {
    // SAFETY: an all-zero `timex` is valid, `modes = 0` only reads, and the kernel writes within the struct.
    unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        let state = libc::adjtimex(&mut timex);
        state >= 0 && state != libc::TIME_ERROR && timex.status & libc::STA_UNSYNC == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_on_and_the_boot_id_stays() {
        let a = SystemClock.now();
        let b = SystemClock.now();
        assert!(b.mono >= a.mono);
        assert!(a.wall.0 > 1_700_000_000_000_000, "the wall clock of a test machine is after 2023");
        assert_eq!(boot_id(), boot_id());
    }
}
