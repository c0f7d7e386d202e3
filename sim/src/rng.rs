//! The simulator's generator: xoshiro256++, seeded through splitmix64, split by label so that a new draw in one
//! part of the world does not shift another.

/// A stream of numbers that depends on its seed alone.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// A stream of its own for each (seed, label).
    pub fn new(seed: u64, label: &str) -> Rng {
        let mut state = label.bytes().fold(seed, |s, b| splitmix(&mut (s ^ u64::from(b))));
        Rng(std::array::from_fn(|_| splitmix(&mut state)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// From `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low).saturating_add(1))
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }

    /// Around `mean`, mostly below, with a tail of eight times as much.
    pub fn latency(&mut self, mean: u64) -> u64 {
        match self.below(16) {
            0 => self.range(mean, mean * 8),
            1 => 0,
            _ => self.range(mean / 2, mean + mean / 2),
        }
    }

    /// Exponential around `mean`, in integers: how many heads come in a row, and a part of the next toss.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let heads = u64::from(self.bits().leading_zeros());
        mean * 693 * (heads * 1_024 + self.below(1_024)) / 1_024_000
    }

    /// The place in `weights` that a draw in proportion to them falls on.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let mut left = self.below(weights.iter().map(|&w| u64::from(w)).sum());
        for (i, &weight) in weights.iter().enumerate() {
            match left.checked_sub(u64::from(weight)) {
                Some(rest) => left = rest,
                None => return i,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn a_label_splits_the_stream_and_a_seed_repeats_it() {
        let draw = |seed, label| {
            std::array::from_fn::<u64, 4, _>({
                let mut rng = Rng::new(seed, label);
                move |_| rng.bits()
            })
        };
        assert_eq!(draw(7, "disk"), draw(7, "disk"));
        assert_ne!(draw(7, "disk"), draw(7, "clock"));
        assert_ne!(draw(7, "disk"), draw(8, "disk"));
    }

    #[test]
    fn ranges_hold_their_ends() {
        let mut rng = Rng::new(1, "ranges");
        let seen: std::collections::BTreeSet<u64> = (0..200).map(|_| rng.range(3, 6)).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert!((0..100).all(|_| rng.weighted(&[0, 5, 0]) == 1));
        assert!(!rng.chance(0) && rng.chance(1000));
        let mean = (0..4_000).map(|_| rng.exponential(1_000)).sum::<u64>() / 4_000;
        assert!((900..1_150).contains(&mean), "{mean}");
    }
}
