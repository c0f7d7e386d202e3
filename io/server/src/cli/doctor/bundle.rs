//! What is known of a node, in one tar file. Settings are in it without secrets; a recording holds what clients wrote, and
//! the command says so.

use super::{DoctorArgs, findings, tar};
use crate::cli::admin::ask;
use crate::cli::connect::Connect;
use crate::cli::failure::{Failure, Outcome};
use axum::http::Method;
use chronos_engine::record::EXTENSION;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// So much of a log's end is taken along.
const LOG_TAIL_BYTES: u64 = 4 << 20;

/// One file of the bundle.
#[derive(Debug)]
pub enum Part {
    /// What somebody said.
    Text(&'static str, Vec<u8>),
    /// A recording.
    Recording(PathBuf),
}

/// What a node that runs says of itself, and what is on this machine of it. What it does not say is told in its place.
pub async fn of_running(args: &DoctorArgs) -> Outcome<Vec<Part>> {
    let connect = &args.connect;
    // Without this there is nobody to ask.
    let status = ask(connect, Method::GET, "/status", None).await?.good()?;
    let known: Value = status.json()?;
    let metrics = said(connect, "/metrics").await;
    let disk = known["data_dir"].as_str().and_then(|dir| findings::free_space(Path::new(dir)));
    let found = findings::of(&known, &String::from_utf8_lossy(&metrics), disk);
    let mut parts = vec![
        Part::Text("version.txt", version(known["version"].as_str().unwrap_or("unknown"))),
        Part::Text("findings.txt", lines(&found)),
        Part::Text("status.json", status.body),
        Part::Text("metrics.txt", metrics),
        Part::Text("cluster.json", said(connect, "/cluster").await),
        Part::Text("config.txt", said(connect, "/config").await),
        Part::Text("flight.txt", said(connect, "/flight").await),
    ];
    let recording = known["recording"]["file"].as_str().map(PathBuf::from);
    // It is on the node's machine, which may be another one.
    parts.extend(recording.filter(|file| file.exists() && !args.no_recording).map(Part::Recording));
    log_tail(args, &mut parts)?;
    Ok(parts)
}

/// What is in the directory of a node that does not run.
pub fn of_stopped(dir: &Path, args: &DoctorArgs) -> Outcome<Vec<Part>> {
    if !dir.is_dir() {
        return Err(Failure::new(format!("{}: no such directory", dir.display())));
    }
    let verified = match chronos_node::verify(dir, &mut |_, _, _| ()) {
        Ok(report) => report.to_string(),
        Err(error) => error.to_string(),
    };
    let mut parts = vec![
        Part::Text("version.txt", version("not running")),
        Part::Text("findings.txt", lines(&findings::of_directory(dir))),
        Part::Text("verify.txt", verified.into_bytes()),
        Part::Text("files.txt", files(dir).map_err(|error| cannot("list", dir, &error))?.into_bytes()),
    ];
    if let Ok(flight) = std::fs::read(dir.join("flight.txt")) {
        parts.push(Part::Text("flight.txt", flight));
    }
    if let Some(record) = args.record.as_deref().filter(|_| !args.no_recording) {
        let entries = std::fs::read_dir(record).map_err(|error| cannot("read", record, &error))?;
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let recordings =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
        parts.extend(recordings.max().map(Part::Recording));
    }
    log_tail(args, &mut parts)?;
    Ok(parts)
}

/// Writes the bundle, for its owner alone to read.
pub fn write(file: &Path, parts: &[Part]) -> Outcome {
    let failed = |error: io::Error| cannot("write", file, &error);
    let now = u64::try_from(crate::cli::when::now() / 1_000_000).unwrap_or(0);
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut out = options.map_err(failed)?;
    let mut stderr = std::io::stderr();
    for part in parts {
        match part {
            Part::Text(name, text) => {
                let name = format!("chronos-doctor/{name}");
                tar::append(&mut out, &name, text.len() as u64, now, Cursor::new(text)).map_err(failed)?;
            }
            Part::Recording(path) => {
                let recording = File::open(path).map_err(|error| cannot("read", path, &error))?;
                let bytes = recording.metadata().map_err(|error| cannot("read", path, &error))?.len();
                let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
                let name = format!("chronos-doctor/{name}");
                tar::append(&mut out, &name, bytes, now, recording).map_err(failed)?;
                writeln!(
                    stderr,
                    "{name} holds keys and values that clients wrote; --no-recording leaves it out"
                )?;
            }
        }
    }
    tar::finish(&mut out).map_err(failed)?;
    Ok(writeln!(stderr, "{}: {} files", file.display(), parts.len())?)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

/// An answer, or why there is none.
async fn said(connect: &Connect, path: &str) -> Vec<u8> {
    let answer = ask(connect, Method::GET, path, None).await.and_then(|answer| answer.good());
    answer.map_or_else(|failure| failure.to_string().into_bytes(), |answer| answer.body)
}

fn version(node: &str) -> Vec<u8> {
    format!("doctor {}\nnode {node}\n", env!("CARGO_PKG_VERSION")).into_bytes()
}

fn lines(found: &[findings::Finding]) -> Vec<u8> {
    found.iter().map(|finding| format!("{finding}\n")).collect::<String>().into_bytes()
}

fn log_tail(args: &DoctorArgs, parts: &mut Vec<Part>) -> Outcome {
    let Some(path) = &args.log_file else { return Ok(()) };
    let read = || {
        let mut file = File::open(path)?;
        let from = file.metadata()?.len().saturating_sub(LOG_TAIL_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut text = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut text)?;
        Ok(text)
    };
    parts.push(Part::Text("log.txt", read().map_err(|error| cannot("read", path, &error))?));
    Ok(())
}

/// Every file of a directory and those below it, with its size.
fn files(dir: &Path) -> io::Result<String> {
    let mut out = String::new();
    let mut ahead = vec![dir.to_owned()];
    while let Some(at) = ahead.pop() {
        for entry in std::fs::read_dir(&at)? {
            let entry = entry?;
            match entry.metadata()? {
                meta if meta.is_dir() => ahead.push(entry.path()),
                meta => {
                    let path = entry.path();
                    let path = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
                    out += &format!("{:>14} {path}\n", meta.len());
                }
            }
        }
    }
    Ok(out)
}
