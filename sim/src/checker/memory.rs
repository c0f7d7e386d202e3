//! `bounded`: what the engine holds in memory and on disk stays within its settings.

use crate::violation::{Held, Violation};

/// What is held, and how much of it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// What it is.
    pub what: &'static str,
    /// How much there is.
    pub now: u64,
    /// How much there may be.
    pub max: u64,
}

/// Whether each stays within its bound.
pub fn check(held: &[Amount]) -> Held {
    match held.iter().find(|h| h.now > h.max) {
        Some(Amount { what, now, max }) => {
            Err(Violation::safety("bounded", format!("{what}: {now}, and no more than {max} are allowed")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, check};

    #[test]
    fn growth_past_the_bound_is_seen() {
        assert_eq!(check(&[Amount { what: "requests", now: 4, max: 4 }]), Ok(()));
        assert!(check(&[Amount { what: "requests", now: 5, max: 4 }]).is_err());
    }
}
