//! The number of a store's start, by which a store is told from an old copy of it that was put back.
//!
//! A store keeps its number and peers note the greatest one that they saw. The number is an epoch and some drawn bits. A
//! store goes on under its number until it knows that the cluster has noted it; the next start then takes the next
//! epoch, and draws anew. So whatever was copied before that start is behind it for ever: it comes with a lower epoch, or
//! with the same one and other bits, and as nobody lets it in, it never learns that its number was noted and never
//! passes the other, however often it is started.
//!
//! A copy from within the last epoch has nothing that tells it from its original: it cannot be told.

use chronos_proto::id::NodeId;
use chronos_proto::membership::Member;

/// Bits of a number that are drawn; the epoch is above them.
const DRAWN_BITS: u32 = 16;

/// Under which number a store starts. The shell keeps it durably beside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The number, as peers are told of it.
    pub number: u64,
    /// The cluster is known to have noted it.
    pub noted: bool,
}

impl Start {
    /// The next start of a store: of a new one, or of one that was last started as `before`. `drawn` is any random number.
    pub fn next(before: Option<Start>, drawn: u64) -> Start {
        match before {
            Some(before) if !before.noted => before,
            _ => {
                let epoch = before.map_or(0, |before| Start::epoch_of(before.number)) + 1;
                Start { number: epoch << DRAWN_BITS | drawn & ((1 << DRAWN_BITS) - 1), noted: false }
            }
        }
    }

    /// The epoch of a number. The first builds counted starts and drew nothing: such a count is its own epoch.
    pub fn epoch_of(number: u64) -> u64 {
        if is_count(number) { number } else { number >> DRAWN_BITS }
    }

    /// Whether these members say that this start of `node` was noted.
    pub fn is_noted_in(&self, node: NodeId, members: &[Member]) -> bool {
        members.iter().any(|member| member.node == node && member.boot == self.number)
    }

    /// Whether a store that comes with `number` is older than one that was seen with `seen`: a copy, put back.
    pub fn is_older(number: u64, seen: u64) -> bool {
        let (epoch, seen_epoch) = (Start::epoch_of(number), Start::epoch_of(seen));
        epoch < seen_epoch || epoch == seen_epoch && number != seen && !is_count(number) && !is_count(seen)
    }
}

fn is_count(number: u64) -> bool {
    number >> DRAWN_BITS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_goes_on_until_it_was_noted_and_then_draws_anew() {
        let first = Start::next(None, 7);
        assert_eq!(Start::next(Some(first), 8), first);
        let second = Start::next(Some(Start { noted: true, ..first }), 8);
        assert_eq!(Start::epoch_of(second.number), Start::epoch_of(first.number) + 1);
        assert!(
            Start::is_older(first.number, second.number) && !Start::is_older(second.number, first.number)
        );
        assert!(!Start::is_older(second.number, second.number));
    }

    #[test]
    fn a_copy_is_behind_for_ever() {
        let copied = Start { noted: true, ..Start::next(None, 7) };
        let original = Start::next(Some(copied), 8);
        let mut copy = copied;
        for drawn in 9..99 {
            copy = Start::next(Some(copy), drawn);
            assert!(Start::is_older(copy.number, original.number), "{copy:?}");
        }
    }

    #[test]
    fn starts_that_were_only_counted_go_on() {
        assert!(Start::is_older(3, 4) && !Start::is_older(4, 4) && !Start::is_older(5, 4));
        let next = Start::next(Some(Start { number: 4, noted: true }), 7);
        assert!(Start::is_older(4, next.number) && !Start::is_older(next.number, 4));
    }
}
