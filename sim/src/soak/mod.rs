//! `cargo sim soak`: all stages in turn for hours, and a journal of what they came to, so that one night goes on where
//! the last one was stopped.
//!
//! ```text
//! journal   what was run and what failed, in a file: a line a batch, a line a failure
//! stage     what can be run: profiles, the stage of several groups, other programs
//! cli       the command line, the turns, the summary
//! ```
//!
//! Whichever stage has had the least time is next, so all get the same. A batch is one stage's next seeds; its lines
//! are appended at once when it ends, and a run that is stopped loses no more than the batch under way. The file that is
//! read back decides where each stage goes on, so no seed is run twice.

mod cli;
pub mod journal;
pub mod stage;

pub use cli::main;
