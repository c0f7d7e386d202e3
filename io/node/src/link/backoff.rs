//! How long to wait before the next attempt: doubling, with jitter, so that nodes do not dial in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
/// The longest wait, and how long a link must have lasted to begin anew with the shortest.
pub(super) const LONGEST: Duration = Duration::from_secs(2);

pub(super) struct Backoff {
    next: Duration,
    random: u64,
}

impl Backoff {
    pub(super) fn new(seed: u64) -> Backoff {
        Backoff { next: FIRST, random: seed }
    }

    /// The next wait: between half and all of 50 ms, 100 ms, 200 ms and so on to two seconds.
    pub(super) fn wait(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        // splitmix64.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let half = whole / 2;
        half + half * (mixed >> 48) as u32 / (1 << 16)
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_within_their_jitter_and_end_at_two_seconds() {
        let mut backoff = Backoff::new(7);
        let waits: Vec<Duration> = (0..20).map(|_| backoff.wait()).collect();
        for (n, wait) in waits.iter().enumerate() {
            let whole = (FIRST * (1 << n.min(10))).min(LONGEST);
            assert!(*wait >= whole / 2 && *wait <= whole, "wait {n} is {wait:?}");
        }
        let spread = waits[8..].iter().collect::<std::collections::BTreeSet<_>>();
        assert!(spread.len() > 8, "no jitter in {waits:?}");
        backoff.reset();
        assert!(backoff.wait() <= FIRST);
        assert_ne!(Backoff::new(1).wait(), Backoff::new(99).wait());
    }
}
