//! `chronos snapshot`: the whole state in one file, made while the cluster runs, and a data directory made of one.
//!
//! A file is made beside its name and renamed when it is whole and synced, so that what has the name is whole. Each
//! group's state comes from a node that has it, group 0 first: what its entries send to other groups is in these, or is
//! sent again and recognised.

use super::admin::{ask, begin};
use super::connect::{Connect, HostPort};
use super::failure::{Failure, Outcome};
use axum::body::Bytes;
use axum::http::Method;
use chronos_node::backup::{self, Head, Part, Reader, Summary, Target, Writer};
use chronos_node::tls::{Credentials, Development, Files, Role};
use chronos_proto::id::{ClusterId, GroupId, NodeId};
use chronos_proto::membership::Member;
use chronos_server::config::{Address, node_name};
use chronos_server::signals;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt;

/// For how long a node that can give a group's state is looked for.
const LEADER_WAIT: Duration = Duration::from_secs(20);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// A node that sends nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(60);
/// Parts that wait to be written.
const PARTS: usize = 16;

/// Backs up a running cluster to a file, and restores one
#[derive(Debug, clap::Subcommand)]
pub enum SnapshotCommand {
    /// Writes the state of the running node or cluster to a file
    Create {
        #[command(flatten)]
        connect: Connect,
        /// Refuse if the node that answers has its data elsewhere
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Replace the file if it is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        file: Output,
    },
    /// Makes a data directory of a file; the node that starts with it is a new cluster with exactly that state
    Restore {
        #[command(flatten)]
        file: Input,
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// The node's name, for `chronos node`; without it the directory is for `chronos dev`
        #[arg(long, value_name = "NAME", value_parser = node_name)]
        id: Option<String>,
        /// Where other nodes will reach it, as in `chronos node --address`
        #[arg(long, value_name = "HOST:PORT", value_parser = Address::parse, default_value = "127.0.0.1:8000")]
        address: Address,
        /// The node's certificates, if it has any; else it shares the development authority of the directory's siblings
        #[arg(long, value_name = "DIR", env = "CHRONOS_CERTS_DIR", hide_env_values = true, requires = "id")]
        certs_dir: Option<PathBuf>,
        /// Replace the data that is there
        #[arg(long)]
        force: bool,
    },
    /// Reads and checks all of a file, and prints what is in it
    #[command(visible_alias = "verify")]
    Show {
        /// The file
        file: PathBuf,
    },
}

/// The file to write, named either way.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Output {
    /// The file
    file: Option<PathBuf>,
    /// The file too
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The file to read, named either way.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Input {
    /// The file
    file: Option<PathBuf>,
    /// The file too
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

fn named(one: Option<PathBuf>, other: Option<PathBuf>) -> Outcome<PathBuf> {
    one.or(other).ok_or_else(|| Failure::usage("no file is named"))
}

/// Runs the command.
pub fn run(command: SnapshotCommand, quiet: bool) -> Outcome {
    match command {
        SnapshotCommand::Create { connect, data_dir, force, file } => {
            let file = named(file.file, file.output)?;
            super::block_on(async {
                if let Some(data_dir) = data_dir {
                    lives_in(&connect, &data_dir).await?;
                }
                create(connect, file, force, quiet).await
            })
        }
        SnapshotCommand::Show { file } => {
            let summary = checked(&file, quiet)?;
            show(&file, &summary)
        }
        SnapshotCommand::Restore { file, data_dir, id, address, certs_dir, force } => {
            let certified = match (&id, certs_dir) {
                (Some(id), Some(dir)) => Some(authority(&dir, id)?),
                _ => None,
            };
            let node = id.map(|id| (id, address));
            let file = named(file.file, file.input)?;
            restore(&file, &data_dir, node, certified, force, quiet)
        }
    }
}

/// Whether the node that answers keeps its data there.
async fn lives_in(connect: &Connect, data_dir: &Path) -> Outcome {
    let status = ask(connect, Method::GET, "/status", None).await?.good()?.json()?;
    let theirs = status["data_dir"].as_str().unwrap_or_default();
    if fs::canonicalize(data_dir).ok() == fs::canonicalize(theirs).ok() {
        return Ok(());
    }
    let (node, data_dir) = (connect.http()?, data_dir.display());
    Err(Failure::new(format!("the node at {node} has its data in {theirs}, not in {data_dir}"))
        .hint("a snapshot is made of a running node: --leader HOST:PORT names another"))
}

/// A line that is written over again and again, on a terminal.
struct Progress {
    shows: bool,
    last: Instant,
}

impl Progress {
    fn new(quiet: bool) -> Progress {
        Progress { shows: !quiet && io::stderr().is_terminal(), last: Instant::now() }
    }

    fn say(&mut self, text: impl FnOnce() -> String) {
        if self.shows && self.last.elapsed() > Duration::from_millis(100) {
            self.last = Instant::now();
            // A progress line that cannot be shown hinders nobody.
            let _ = write!(io::stderr(), "\r{}\x1b[K", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shows {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

// Looking at a file

fn checked(file: &Path, quiet: bool) -> Outcome<Summary> {
    let mut progress = Progress::new(quiet);
    let checked = backup::check(file, &mut |done, of| {
        progress.say(|| format!("checking: {} of {}", megabytes(done), megabytes(of)))
    });
    checked.map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

fn show(file: &Path, summary: &Summary) -> Outcome {
    let mut out = io::stdout().lock();
    let Summary { head, groups, bytes } = summary;
    writeln!(out, "{}", file.display())?;
    writeln!(out, "  format   {}, written by chronos {}", backup::FORMAT_VERSION, head.release)?;
    writeln!(out, "  cluster  {:032x}", head.cluster.0)?;
    writeln!(out, "  taken    {}", head.time)?;
    for (group, end) in groups {
        writeln!(
            out,
            "  group {}  entry {} of term {}, {}; {} keys, {}; data digest {:016x}",
            group.group,
            group.last.index,
            group.last.term,
            group.time,
            end.entries,
            megabytes(end.bytes),
            end.data_digest
        )?;
    }
    writeln!(out, "  sound    all {bytes} bytes were read and checked")?;
    Ok(out.flush()?)
}

// Making one

/// A file that is being made; what there is of it goes if it does not come to its end.
struct Making {
    file: PathBuf,
    temporary: PathBuf,
    writer: Option<Writer<BufWriter<File>>>,
    cluster: Option<ClusterId>,
    groups: Vec<GroupId>,
    done: bool,
}

impl Drop for Making {
    fn drop(&mut self) {
        if !self.done {
            // It may not even have been made.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

impl Making {
    fn new(file: PathBuf, groups: Vec<GroupId>) -> Outcome<Making> {
        let name =
            file.file_name().ok_or_else(|| Failure::usage(format!("{}: no file name", file.display())))?;
        let temporary = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        let temporary = file.with_file_name(temporary);
        Ok(Making { file, temporary, writer: None, cluster: None, groups, done: false })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::new(format!("cannot write {}: {error}", self.file.display()))
            .hint("nothing is left of it; give a place with more room, or another name")
    }

    fn begin(&mut self, head: &Head) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.temporary)?;
        let head = Head { groups: self.groups.clone(), ..head.clone() };
        self.cluster = Some(head.cluster);
        self.writer = Some(Writer::begin(BufWriter::with_capacity(1 << 20, file), &head)?);
        Ok(())
    }

    /// Takes in the file of one group, all of it.
    fn take(mut self, group: GroupId, input: Incoming, progress: &mut Progress) -> Outcome<Making> {
        let wrong = |error: backup::ReadError| match error {
            backup::ReadError::Io(error) => Failure::new(format!("the node's answer broke off: {error}")),
            error => Failure::new(format!("the node's answer: {error}")),
        };
        let mut reader = Reader::open(input).map_err(wrong)?;
        let head = reader.head();
        if head.groups != [group] || self.cluster.is_some_and(|cluster| cluster != head.cluster) {
            return Err(Failure::new(format!(
                "the node's answer is not of group {group} of this cluster: do all addresses belong to one?"
            )));
        }
        if self.writer.is_none() {
            let head = head.clone();
            self.begin(&head).map_err(|error| self.failed(&error))?;
        }
        loop {
            let part = reader.next_part().map_err(wrong)?;
            let Some(writer) = &mut self.writer else { unreachable!("it was begun above") };
            let written = match part {
                Part::Group(head) => writer.group(&head),
                Part::Entries(entries) => {
                    progress.say(|| format!("group {group}: {}", megabytes(writer.written())));
                    entries.iter().try_for_each(|(key, value)| writer.entry(key, value))
                }
                Part::GroupEnd(_) => writer.end_group().map(drop),
                Part::End => return Ok(self),
            };
            written.map_err(|error| self.failed(&error))?;
        }
    }

    /// Gives the file its name, once it is on the disk.
    fn finish(mut self) -> Outcome<u64> {
        let Some(writer) = self.writer.take() else { return Err(Failure::new("the cluster has no groups")) };
        let end = || -> io::Result<u64> {
            let file = writer.seal()?.into_inner().map_err(|error| error.into_error())?;
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            fs::rename(&self.temporary, &self.file)?;
            self.done = true;
            let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(bytes)
        };
        let ended = end();
        ended.map_err(|error| self.failed(&error))
    }
}

/// What a node sends, as it comes in.
struct Incoming {
    parts: mpsc::Receiver<Result<Bytes, String>>,
    part: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.recv() {
                Ok(Ok(part)) => self.part = part,
                Ok(Err(why)) => return Err(io::Error::other(why)),
                Err(_) => return Ok(0),
            }
        }
        let taken = self.part.len().min(out.len());
        out[..taken].copy_from_slice(&self.part.split_to(taken));
        Ok(taken)
    }
}

async fn create(connect: Connect, file: PathBuf, force: bool, quiet: bool) -> Outcome {
    if file.exists() && !force {
        return Err(Failure::new(format!("{} is there already", file.display()))
            .hint("give another name, or say --force to replace it"));
    }
    let begun = Instant::now();
    let view = ask(&connect, Method::GET, "/cluster", None).await?.good()?.json()?;
    let groups = view["groups"].as_array().into_iter().flatten();
    let groups = groups.filter_map(|group| u32::try_from(group["group"].as_u64()?).ok().map(GroupId));
    let mut groups: Vec<GroupId> = groups.collect();
    groups.sort();
    let mut making = Making::new(file.clone(), groups.clone())?;
    for group in groups {
        let progress = Progress::new(quiet);
        making = fetch(&connect, group, making, progress).await?;
    }
    let bytes = tokio::task::spawn_blocking(|| making.finish());
    let bytes = bytes.await.map_err(|error| Failure::new(error.to_string()))??;
    if !quiet {
        let (shown, took) = (megabytes(bytes), begun.elapsed().as_secs_f64());
        writeln!(io::stdout(), "{}: {shown} in {took:.1} s", file.display())?;
    }
    Ok(())
}

/// Adds the state of a group, from a node that has it.
async fn fetch(connect: &Connect, group: GroupId, making: Making, mut progress: Progress) -> Outcome<Making> {
    let path = format!("/snapshot/{group}");
    let mut at = connect.http()?;
    let deadline = Instant::now() + LEADER_WAIT;
    let response = loop {
        let connect = Connect { http_address: Some(at.clone()), ..connect.clone() };
        let response = begin(&connect, Method::GET, &path, None).await?;
        let Err(answer) = response else { break response.unwrap_or_else(|_| unreachable!("it is no error")) };
        let late = Instant::now() >= deadline;
        let leader: Option<HostPort> = match answer.status {
            421 => answer.json()?["leader"]["http_address"].as_str().and_then(|text| text.parse().ok()),
            503 => Some(connect.http()?),
            _ => None,
        };
        match leader.filter(|_| !late) {
            Some(leader) => at = leader,
            None => {
                answer.good()?;
                return Err(Failure::new(format!("{at}: no answer to {path}")));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let (send, parts) = mpsc::sync_channel(PARTS);
    let writing = tokio::task::spawn_blocking(move || {
        making.take(group, Incoming { parts, part: Bytes::new() }, &mut progress)
    });
    let pumped = tokio::select! {
        () = pump(response, send) => Ok(()),
        () = signals::stop() => Err(Failure::new("interrupted: nothing is left of the file")),
    };
    // What was written goes before the command does.
    let written = writing.await.map_err(|error| Failure::new(error.to_string()))?;
    pumped?;
    written
}

/// Hands on what comes in.
async fn pump(body: axum::body::Body, send: mpsc::SyncSender<Result<Bytes, String>>) {
    let mut body = body.into_data_stream();
    loop {
        let part = match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(None) => return,
            Ok(Some(Ok(part))) => Ok(part),
            Ok(Some(Err(error))) => Err(error.to_string()),
            Err(_) => Err(format!("nothing came for {} s", SILENCE.as_secs())),
        };
        let ends = part.is_err();
        let sent = tokio::task::block_in_place(|| send.send(part));
        if sent.is_err() || ends {
            return;
        }
    }
}

// Restoring one

/// The cluster of a node's certificates.
fn authority(dir: &Path, id: &str) -> Outcome<ClusterId> {
    let credentials = Credentials::load(Files::in_dir(dir, Role::Node), &[Role::Node], Some(id));
    credentials.map(|credentials| credentials.cluster()).map_err(|error| Failure::new(error.to_string()))
}

fn restore(
    file: &Path,
    data_dir: &Path,
    node: Option<(String, Address)>,
    certified: Option<ClusterId>,
    force: bool,
    quiet: bool,
) -> Outcome {
    let summary = checked(file, quiet)?;
    let node = match node {
        None => None,
        Some((name, address)) => {
            let cluster = match certified {
                Some(cluster) => cluster,
                None => siblings(data_dir)?,
            };
            let number = NodeId::of_name(&name);
            Some((
                cluster,
                Member { node: number, name, address: address.to_string(), incarnation: None, boot: 0 },
            ))
        }
    };
    let target = Target { data_dir: data_dir.to_owned(), node: node.clone(), force };
    let mut progress = Progress::new(quiet);
    let restored = backup::restore(file, summary, &target, &mut |done, of| {
        progress.say(|| format!("restoring: {} of {}", megabytes(done), megabytes(of)))
    });
    drop(progress);
    let restored = restored.map_err(|error| Failure::new(error.to_string()))?;
    if quiet {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    let groups = restored.summary.groups.len();
    writeln!(out, "{}: {groups} groups restored, as of {}", data_dir.display(), restored.summary.head.time)?;
    let dir = data_dir.display();
    let line = match node {
        Some((_, member)) => {
            format!("chronos node --id {} --address {} --data-dir {dir}", member.name, member.address)
        }
        None => format!("chronos dev --data-dir {dir}"),
    };
    let last = restored.summary.groups.last().map_or(0, |(head, _)| head.group.0);
    let partitions = if last > 0 { format!(" --partitions {last}") } else { String::new() };
    writeln!(out, "start it with: {line}{partitions}")?;
    Ok(out.flush()?)
}

/// The cluster of the development authority that nodes beside this directory share.
fn siblings(data_dir: &Path) -> Outcome<ClusterId> {
    let root = data_dir.parent().filter(|root| !root.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: chronos_node::tls::TlsError| Failure::new(error.to_string());
    Ok(Development::open(root).map_err(failed)?.authority().cluster())
}
