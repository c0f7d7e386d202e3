//! `chronos doctor`: what is commonly wrong with a node, in words; and all that somebody else needs to look at it, in one
//! file.

mod bundle;
mod findings;
mod tar;

use super::admin::ask;
use super::connect::Connect;
use super::failure::{Failure, Outcome};
use axum::http::Method;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Looks for what is commonly wrong with a node, or packs what is known of it for somebody else to look at
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    connect: Connect,
    /// Write status, metrics, settings, logs, what the node did last and its recording into this file (tar)
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// The data directory of a node that is stopped, in place of one that runs
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A log file, the end of which goes into the bundle
    #[arg(long, value_name = "FILE", requires = "bundle")]
    log_file: Option<PathBuf>,
    /// Where a stopped node's recordings are
    #[arg(long, value_name = "DIR", requires = "bundle")]
    record: Option<PathBuf>,
    /// Leave the recording out: it holds what clients wrote
    #[arg(long, requires = "bundle")]
    no_recording: bool,
}

/// Runs the command: exit code 1 if something is wrong.
pub fn run(args: &DoctorArgs) -> Outcome {
    match (&args.bundle, &args.data_dir) {
        (Some(file), None) => {
            let parts = super::block_on(bundle::of_running(args))?;
            bundle::write(file, &parts)
        }
        (Some(file), Some(dir)) => bundle::write(file, &bundle::of_stopped(dir, args)?),
        (None, None) => tell(&super::block_on(look(&args.connect))?),
        (None, Some(dir)) => tell(&findings::of_directory(dir)),
    }
}

async fn look(connect: &Connect) -> Outcome<Vec<findings::Finding>> {
    let status: Value = ask(connect, Method::GET, "/status", None).await?.good()?.json()?;
    let metrics = ask(connect, Method::GET, "/metrics", None).await?.good()?;
    let disk = status["data_dir"].as_str().and_then(|dir| findings::free_space(Path::new(dir)));
    Ok(findings::of(&status, &String::from_utf8_lossy(&metrics.body), disk))
}

fn tell(findings: &[findings::Finding]) -> Outcome {
    let mut out = std::io::stdout().lock();
    for finding in findings {
        writeln!(out, "{finding}")?;
    }
    match findings.iter().filter(|finding| finding.wrong).count() {
        0 => Ok(writeln!(out, "nothing is wrong that can be seen from here")?),
        1 => Err(Failure::new("one thing is wrong")),
        many => Err(Failure::new(format!("{many} things are wrong"))),
    }
}
