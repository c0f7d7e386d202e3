//! Logs go to standard error, and to a file if one is given.

use super::failure::{Failure, Outcome};
use super::log_file::LogFile;
use chronos_server::config::Config;
use std::io::IsTerminal;
use std::sync::Mutex;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sets up logging for a node: `RUST_LOG` (`info`, `chronos=debug,warn` …) if given, else information, or warnings
/// if quiet.
pub fn init(quiet: bool, config: &Config) -> Outcome {
    let fallback = if quiet { LevelFilter::WARN } else { LevelFilter::INFO };
    let targets = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => text
            .parse::<Targets>()
            .map_err(|error| Failure::usage(format!("RUST_LOG={text}: {error}")).hint("try RUST_LOG=info"))?,
        _ => Targets::new().with_default(LevelFilter::WARN).with_target("chronos", fallback),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let file = config.log_file.as_ref().map(|path| {
        let opened = LogFile::open(path, config.log_max_bytes, config.log_max_files);
        opened
            .map_err(|error| Failure::usage(format!("cannot open the log file {}: {error}", path.display())))
    });
    let file = file
        .transpose()?
        .map(|file| tracing_subscriber::fmt::layer().with_writer(Mutex::new(file)).with_ansi(false));
    tracing_subscriber::registry()
        .with(lines)
        .with(file)
        .with(targets)
        .try_init()
        .map_err(|error| Failure::new(format!("cannot set up logging: {error}")))
}
