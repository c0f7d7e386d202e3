//! What a run can come to when something does not hold.

use std::fmt;

/// What kind of promise was broken: it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something bad happened.
    Safety,
    /// Something good did not happen in time.
    Liveness,
    /// The same seed came to another history.
    Determinism,
    /// The engine panicked.
    Crash,
    /// A checker could not tell, or a mark was never hit.
    Unknown,
}

impl Class {
    /// Its name in print.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Safety => "safety",
            Class::Liveness => "liveness",
            Class::Determinism => "determinism",
            Class::Crash => "crash",
            Class::Unknown => "unknown",
        }
    }

    /// The exit code of `cargo sim`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Class::Safety => 3,
            Class::Liveness => 4,
            Class::Determinism => 5,
            Class::Crash => 6,
            Class::Unknown => 7,
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What kind of promise.
    pub class: Class,
    /// The checker that saw it.
    pub checker: &'static str,
    /// What it saw.
    pub what: String,
}

/// What a checker answers.
pub type Held = Result<(), Violation>;

impl Violation {
    /// A safety violation.
    pub fn safety(checker: &'static str, what: impl Into<String>) -> Violation {
        Violation { class: Class::Safety, checker, what: what.into() }
    }

    /// A liveness violation.
    pub fn liveness(checker: &'static str, what: impl Into<String>) -> Violation {
        Violation { class: Class::Liveness, checker, what: what.into() }
    }

    /// Whether a shrunken run failed for the same reason: the same checker, and of a panic the same words, whatever
    /// the numbers in them.
    pub fn same_kind(&self, other: &Violation) -> bool {
        let same = self.class == other.class && self.checker == other.checker;
        same && (self.class != Class::Crash || self.without_numbers().eq(other.without_numbers()))
    }

    fn without_numbers(&self) -> impl Iterator<Item = char> {
        self.what.chars().filter(|c| !c.is_ascii_digit())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::{Class, Violation};

    #[test]
    fn another_checker_class_or_panic_is_another_failure() {
        let seen = Violation::safety("log-matching", "index 4 on node 1");
        assert!(seen.same_kind(&Violation::safety("log-matching", "index 7 on node 2")));
        assert!(!seen.same_kind(&Violation::safety("digest", "index 4 on node 1")));
        assert!(!seen.same_kind(&Violation::liveness("log-matching", "index 4 on node 1")));
        let panic = |what: &str| Violation { class: Class::Crash, checker: "no-panic", what: what.into() };
        assert!(
            panic("commit 7 is beyond the last entry 6")
                .same_kind(&panic("commit 9 is beyond the last entry 8"))
        );
        assert!(!panic("commit 7 is beyond the last entry 6").same_kind(&panic("index out of bounds")));
    }
}
