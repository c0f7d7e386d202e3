//! Majorities.

use chronos_proto::id::Index;

/// The greatest index that a majority of voters has matched; 0 without voters.
pub fn committed_index(matched: &[Index]) -> Index {
    let mut sorted = matched.to_vec();
    sorted.sort_unstable();
    // A majority is the greater half: with the indexes ascending, all from this one on have at least its value.
    match sorted.len() {
        0 => Index(0),
        voters => sorted[(voters - 1) / 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_must_have_matched() {
        let of = |matched: &[u64]| committed_index(&matched.iter().copied().map(Index).collect::<Vec<_>>()).0;
        assert_eq!(of(&[]), 0);
        assert_eq!(of(&[7]), 7);
        assert_eq!(of(&[7, 3]), 3);
        assert_eq!(of(&[7, 3, 5]), 5);
        assert_eq!(of(&[9, 1, 1, 8]), 1);
        assert_eq!(of(&[9, 1, 4, 8, 2]), 4);
    }
}
