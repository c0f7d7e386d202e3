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

    /// Whether a shrunken run failed for the same reason.
    pub fn same_kind(&self, other: &Violation) -> bool {
        self.class == other.class && self.checker == other.checker
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.checker, self.what)
    }
}
