//! Why a command failed, in words for the person who typed it.

use std::fmt;

/// A failed command: what happened, to what, and what to do next.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

/// What a command comes to.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The command could not do what was asked: exit code 1.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, code: 1 }
    }

    /// The command line asks for something that cannot be: exit code 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { code: 2, ..Failure::new(message) }
    }

    /// Adds what to do next, below what was said before.
    pub fn hint(self, hint: impl Into<String>) -> Failure {
        let hint = match self.hint {
            Some(before) => format!("{before}\n{}", hint.into()),
            None => hint.into(),
        };
        Failure { hint: Some(hint), ..self }
    }

    /// The reader of standard output went away: nothing to say, and nobody to say it to.
    pub fn closed_output() -> Failure {
        Failure::new("")
    }

    /// Puts what was being done before what went wrong.
    pub fn during(self, what: &str) -> Failure {
        Failure { message: format!("{what}: {}", self.message), ..self }
    }

    /// The process's exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Whether there is something to say.
    pub fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {}", hint.replace('\n', "\n  ")),
            None => Ok(()),
        }
    }
}

/// Standard output and standard error are the only plain I/O in the CLI; other places say what they were doing.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::closed_output(),
            _ => Failure::new(format!("cannot write the output: {error}")),
        }
    }
}
