//! Which seeds a command line asks for, and how they are run on all cores: the same for every stage.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What `--seed`, `--seeds` and `--time` say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seeds {
    /// The first one, or the only one.
    pub first: Option<u64>,
    /// How many.
    pub count: Option<u64>,
    /// For how long, in seconds.
    pub time: Option<u64>,
}

impl Seeds {
    /// Takes a word of the command line, and the value behind it, if it is one of these; says whether it was.
    pub fn take(
        &mut self,
        word: &str,
        value: impl FnOnce() -> Result<String, String>,
    ) -> Result<bool, String> {
        let field = match word {
            "--seed" => &mut self.first,
            "--seeds" => &mut self.count,
            "--time" => &mut self.time,
            _ => return Ok(false),
        };
        let value = value()?;
        *field = Some(if word == "--time" { seconds(&value)? } else { number(&value)? });
        Ok(true)
    }

    /// The one that is to be replayed, if it is one.
    pub fn one(&self) -> Option<u64> {
        self.first.filter(|_| self.count.is_none() && self.time.is_none())
    }

    /// Where to begin: as was said, or somewhere new.
    pub fn begin(&self) -> u64 {
        self.first.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (since.as_micros() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16
        })
    }

    /// How many at the most; `usual` if nothing was said.
    pub fn most(&self, usual: u64) -> u64 {
        self.count.unwrap_or(if self.time.is_some() { u64::MAX } else { usual })
    }

    /// For how long.
    pub fn lasts(&self) -> Option<Duration> {
        self.time.map(Duration::from_secs)
    }
}

/// A time of the command line, in seconds unless it ends with `s`, `m` or `h`.
fn seconds(word: &str) -> Result<u64, String> {
    let unit = |letter| word.strip_suffix(letter);
    let (count, of) = match (unit('s'), unit('m'), unit('h')) {
        (Some(count), ..) => (count, 1),
        (_, Some(count), _) => (count, 60),
        (.., Some(count)) => (count, 3_600),
        _ => (word, 1),
    };
    number(count)?.checked_mul(of).ok_or_else(|| format!("{word:?} is too long"))
}

/// A number of the command line: decimal, or hexadecimal behind `0x`.
pub fn number(word: &str) -> Result<u64, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| format!("{word:?} is not a number"))
}

/// Runs seeds from `first` on, on all cores, until `each` says stop or there were `count`. `run` gets the place of a seed
/// and the seed; `each` gets what it came to, in the order in which they end.
pub fn on_all_cores<T: Send>(
    first: u64,
    count: u64,
    run: impl Fn(u64, u64) -> T + Sync,
    mut each: impl FnMut(u64, T) -> bool,
) {
    let workers = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (send, receive) = mpsc::sync_channel(workers);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (send, next, stop, run) = (send.clone(), &next, &stop, &run);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= count {
                        break;
                    }
                    let seed = first.wrapping_add(place);
                    if send.send((seed, run(place, seed))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        for (seed, outcome) in &receive {
            if !each(seed, outcome) {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        // Workers that wait to hand over a result are let go.
        drop(receive);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str]) -> Result<Seeds, String> {
        let mut seeds = Seeds::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let value = || words.next().map(|value| value.to_string()).ok_or("no value".to_owned());
            assert!(seeds.take(word, value)?, "{word} is not taken");
        }
        Ok(seeds)
    }

    #[test]
    fn words_say_which_seeds() {
        let one = said(&["--seed", "0x10"]).unwrap();
        assert_eq!((one.one(), one.begin(), one.most(7)), (Some(16), 16, 7));
        let many = said(&["--seed", "5", "--seeds", "3"]).unwrap();
        assert_eq!((many.one(), many.begin(), many.most(7)), (None, 5, 3));
        let timed = said(&["--time", "9"]).unwrap();
        assert_eq!((timed.most(7), timed.lasts()), (u64::MAX, Some(Duration::from_secs(9))));
        for (word, lasts) in [("90s", 90), ("10m", 600), ("8h", 28_800)] {
            assert_eq!(said(&["--time", word]).unwrap().lasts(), Some(Duration::from_secs(lasts)));
        }
        assert!(said(&["--time", "m"]).is_err() && said(&["--time", "10d"]).is_err());
        assert!(said(&["--seed", "0xg"]).is_err() && said(&["--seeds"]).is_err());
        assert_eq!(Seeds::default().take("--trace", || unreachable!()), Ok(false));
    }

    #[test]
    fn each_seed_is_run_once_until_it_is_enough() {
        let mut seen = Vec::new();
        on_all_cores(
            u64::MAX,
            9,
            |place, seed| (place, seed),
            |seed, (place, run)| {
                assert_eq!((seed, run), (u64::MAX.wrapping_add(place), seed));
                seen.push(place);
                true
            },
        );
        seen.sort_unstable();
        assert_eq!(seen, (0..9).collect::<Vec<_>>());
        let mut ended = 0;
        on_all_cores(
            1,
            u64::MAX,
            |_, seed| seed,
            |_, _| {
                ended += 1;
                ended < 3
            },
        );
        assert_eq!(ended, 3);
    }
}
