//! The trace of a run: one line an event, hashed always, printed if asked for.

use crate::chronicle::{Happening, What};
use chronos_proto::codec;
use std::fmt::{self, Write};

/// Collects lines into a hash, and prints or keeps them.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    line: String,
    kept: Option<Vec<String>>,
    chronicle: Vec<Happening>,
    /// Events so far.
    pub step: u64,
}

impl Trace {
    /// A trace that keeps its lines, or only their hash.
    pub fn new(keep: bool) -> Trace {
        let kept = keep.then(Vec::new);
        Trace { hash: 0, line: String::with_capacity(256), kept, chronicle: Vec::new(), step: 0 }
    }

    /// One event: simulated microseconds, who, what.
    pub fn line(&mut self, at: u64, who: &str, what: fmt::Arguments<'_>) {
        self.line.clear();
        let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
        // Writing to a String does not fail.
        let _ = write!(self.line, "{:>7} {seconds:>5}.{micros:06} {who:<6} ", self.step);
        let _ = self.line.write_fmt(what);
        self.hash = codec::digest(&self.hash.to_le_bytes(), self.line.as_bytes());
        if let Some(kept) = &mut self.kept {
            kept.push(self.line.clone());
        }
    }

    /// For the chronicle, which is kept with the lines and is not hashed.
    pub fn note(&mut self, at: u64, what: impl FnOnce() -> What) {
        if self.kept.is_some() {
            self.chronicle.push(Happening { step: self.step, at, what: what() });
        }
    }

    /// Bytes that belong to the history but make no line.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.hash = codec::digest(&self.hash.to_le_bytes(), bytes);
    }

    /// Of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines and the chronicle, if they were kept.
    pub fn into_parts(self) -> (Vec<String>, Vec<Happening>) {
        (self.kept.unwrap_or_default(), self.chronicle)
    }
}
