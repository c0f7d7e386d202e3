//! `chronos verify`.

use super::failure::{Failure, Outcome};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

/// Reads and checks everything in the data directory of a node that is stopped; repairs nothing
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "CHRONOS_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
}

/// Runs the command: exit code 1 if anything is damaged.
pub fn run(args: VerifyArgs, quiet: bool) -> Outcome {
    if !args.data_dir.is_dir() {
        return Err(Failure::new(format!("{}: no such directory", args.data_dir.display()))
            .hint("give the data directory of a stopped node with --data-dir"));
    }
    let shows_progress = !quiet && std::io::stderr().is_terminal();
    let mut progress = |what: &str, done: u64, all: u64| {
        if shows_progress {
            // A progress line that cannot be shown hinders nobody.
            let _ = write!(std::io::stderr(), "\r{what}: {done}/{all}\x1b[K");
        }
    };
    let result = chronos_node::verify(&args.data_dir, &mut progress);
    if shows_progress {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    let report = result.map_err(|error| Failure::new(error.to_string()))?;
    if !quiet || !report.is_sound() {
        writeln!(std::io::stdout(), "{report}")?;
    }
    match report.is_sound() {
        true => Ok(()),
        false => Err(Failure::new(format!("{} is damaged", args.data_dir.display()))),
    }
}
