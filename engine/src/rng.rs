//! The engine's only randomness: a small generator that is seeded by the caller and split by name.
//!
//! xoshiro256++ (Blackman and Vigna), seeded through splitmix64 as its authors advise. It is not for secrets. Each
//! component takes a [`split`](Rng::split) of its own, so that a new draw in one does not shift another's.

use serde::{Deserialize, Serialize};

/// A deterministic generator. The same seed gives the same numbers on every platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rng {
    state: [u64; 4],
}

impl Rng {
    /// A generator for a seed; every seed is good, zero too.
    pub fn new(seed: u64) -> Rng {
        let mut mix = seed;
        Rng { state: std::array::from_fn(|_| splitmix64(&mut mix)) }
    }

    /// A generator of its own for one component. Depends on this one's state and the label, and draws nothing.
    pub fn split(&self, label: &str) -> Rng {
        let hashed = label.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let mut mix = hashed;
        Rng::new(self.state.iter().fold(splitmix64(&mut mix), |seed, word| {
            let mut mix = seed ^ word;
            splitmix64(&mut mix)
        }))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number below `bound`, all equally likely; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Lemire's method: the high word of a product, redrawn in the few cases that would be uneven.
        let threshold = bound.wrapping_neg().checked_rem(bound).unwrap_or(0);
        loop {
            let product = u128::from(self.next_u64()) * u128::from(bound);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number from `low` to `high`, both included; `low` if they are the wrong way round.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        match high.saturating_sub(low).checked_add(1) {
            Some(width) => low + self.below(width),
            None => self.next_u64(),
        }
    }

    /// True once in `odds` draws on average; never for 0.
    pub fn one_in(&mut self, odds: u64) -> bool {
        odds > 0 && self.below(odds) == 0
    }
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_reference_implementations() {
        // splitmix64 of seed 0, as published with it.
        let mut mix = 0;
        assert_eq!(splitmix64(&mut mix), 0xE220_A839_7B1D_CDAF);
        assert_eq!(splitmix64(&mut mix), 0x6E78_9E6A_A1B9_65F4);
        // xoshiro256++ from the state 1, 2, 3, 4.
        let mut rng = Rng { state: [1, 2, 3, 4] };
        let first: Vec<u64> = (0..4).map(|_| rng.next_u64()).collect();
        assert_eq!(first, [41_943_041, 58_720_359, 3_588_806_011_781_223, 3_591_011_842_654_386]);
    }

    #[test]
    fn splits_differ_by_label_and_draw_nothing() {
        let rng = Rng::new(7);
        let (mut a, mut b, mut again) = (rng.split("raft"), rng.split("timer"), rng.split("raft"));
        let first = a.next_u64();
        assert_eq!(first, again.next_u64());
        assert_ne!(first, b.next_u64());
        assert_eq!(rng, Rng::new(7));
    }

    #[test]
    fn bounds_hold_and_are_reached() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 5];
        for _ in 0..1_000 {
            seen[rng.below(5) as usize] += 1;
            assert!((10..=12).contains(&rng.between(10, 12)));
        }
        assert!(seen.iter().all(|&n| n > 140), "{seen:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.between(9, 3), 9);
        assert!(!rng.one_in(0) && rng.one_in(1));
    }
}
