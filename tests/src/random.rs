//! A small seeded generator: a test prints its seed, and the seed repeats its choices.

use std::ops::Range;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator that a seed names.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The seed from the environment variable `name`, or a fresh one.
    pub fn seed_from(name: &str) -> u64 {
        match std::env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")),
            Err(_) => crate::micros_now() as u64 ^ u64::from(std::process::id()) << 40,
        }
    }

    /// A generator of its own for a part, so that a draw here does not shift one there.
    pub fn split(&mut self) -> Random {
        Random(self.draw())
    }

    /// Sixty-four bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of the range, which is not empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.draw() % (range.end - range.start)
    }

    /// True once in `n` draws.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.draw().is_multiple_of(n)
    }
}
