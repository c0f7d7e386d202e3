//! Nodes as real processes, each with a directory and a log file of its own, and the network between them.
//!
//! A node's process ends with this one: it reads the end of its standard input, is killed when the cluster is
//! dropped, and is known by its process id alone.

use crate::network::Network;
use chronos_tests::http;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take to say what it is.
const STATUS_LIMIT: Duration = Duration::from_millis(500);
/// How long a stop may take: the promise is ten seconds.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Where a node is reached.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// Its own address: QUIC.
    pub quic: SocketAddr,
    /// HTTP and gRPC.
    pub http: SocketAddr,
    /// The PostgreSQL wire.
    pub pg: SocketAddr,
}

impl Place {
    /// The listeners follow from the address.
    pub fn new(nth: usize, quic: SocketAddr) -> Place {
        let above = |ports: u16| SocketAddr::new(quic.ip(), quic.port() + ports);
        Place { name: format!("n{}", nth + 1), quic, http: above(1000), pg: above(2000) }
    }
}

/// How nodes are run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The `chronos` under test.
    pub binary: PathBuf,
    /// Where the run keeps its files.
    pub folder: PathBuf,
    /// The library that gives each node a wall clock of its own, if clocks are to be wrong.
    pub faketime: Option<PathBuf>,
    /// The size of each node's disk, in bytes, if disks are to become full.
    pub disk: Option<u64>,
}

/// What a node's process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    Running,
    /// It is stopped by SIGSTOP.
    Paused,
    /// It was killed or stopped, or is yet to be started.
    Down,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// It says that it leads group 0.
    pub leads: bool,
    /// Its term in group 0.
    pub term: u64,
    /// It serves.
    pub ready: bool,
    /// Applied index and digest of each group.
    pub groups: BTreeMap<u64, (u64, String)>,
}

struct Member {
    place: Place,
    peers: String,
    process: Option<(Child, Option<ChildStdin>)>,
    condition: Condition,
    disk: Option<Disk>,
    /// It joins a cluster that is there.
    joins: bool,
    /// It may end by itself: it is not what it says it is.
    may_end: bool,
}

/// All nodes.
pub struct Cluster {
    settings: Settings,
    network: Network,
    members: Vec<Member>,
    /// How many it begins with; those behind them are spare.
    size: usize,
    failures: Vec<String>,
}

impl Cluster {
    /// Nodes that are yet to be started: so many that the cluster begins with, and the network's others to spare.
    pub fn new(settings: Settings, network: Network, size: usize) -> Result<Cluster, String> {
        let places = network.places();
        let mut members = Vec::new();
        for (nth, place) in places.iter().enumerate() {
            let peer = |other: &usize| format!("{}={}", places[*other].name, network.known_as(*other));
            let peers: Vec<String> = (0..size).filter(|other| *other != nth).map(|o| peer(&o)).collect();
            let data = settings.folder.join(&place.name);
            fs::create_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
            let disk = settings.disk.map(|bytes| Disk::mount(data, bytes)).transpose()?;
            let (process, condition) = (None, Condition::Down);
            let (place, peers, joins, may_end) = (place.clone(), peers.join(","), nth >= size, false);
            members.push(Member { place, peers, process, condition, disk, joins, may_end });
        }
        let cluster = Cluster { settings, network, members, size, failures: Vec::new() };
        (0..cluster.members.len()).try_for_each(|node| cluster.set_clock(node, "+0"))?;
        Ok(cluster)
    }

    /// How many nodes it has, without those to spare.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many nodes elect a leader.
    pub fn majority(&self) -> usize {
        self.size / 2 + 1
    }

    /// A node that is not of the cluster, if there is one.
    pub fn spare(&self) -> Option<usize> {
        (self.size < self.members.len()).then_some(self.size)
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Where the nodes are reached, without those to spare.
    pub fn places(&self) -> Vec<Place> {
        self.members[..self.size].iter().map(|member| member.place.clone()).collect()
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        &self.members[node].place.name
    }

    /// What its process is doing.
    pub fn condition(&self, node: usize) -> Condition {
        self.members[node].condition
    }

    /// Starts a node that is down.
    pub fn start(&mut self, node: usize) -> Result<(), String> {
        let log = self.log(node);
        let member = &mut self.members[node];
        let log = OpenOptions::new().create(true).append(true).open(&log);
        let log = log.map_err(|e| format!("{}: no log file: {e}", member.place.name))?;
        let clone = |file: &File| file.try_clone().map_err(|e| e.to_string());
        let mut command = self.network.command(node, &self.settings.binary);
        command.args(["node", "--until-stdin-closes", "--id", &member.place.name]);
        command.arg("--address").arg(member.place.quic.to_string());
        if !member.peers.is_empty() {
            command.arg("--peers").arg(&member.peers);
        }
        if member.joins {
            command.arg("--join");
        }
        let known_as = self.network.known_as(node);
        if known_as != member.place.quic {
            command.arg("--advertise-address").arg(known_as.to_string());
        }
        if self.network.is_open() {
            command.arg("--insecure");
        }
        // One root for all, so that they share a development authority.
        command.env("CHRONOS_DATA_DIR", &self.settings.folder);
        // Small, so that faults meet checkpoints, new segments and snapshots too.
        command.env("CHRONOS_CHECKPOINT_WAL_BYTES", "200KB").env("CHRONOS_WAL_SEGMENT_BYTES", "128KB");
        if let Some(library) = &self.settings.faketime {
            command.env("LD_PRELOAD", library);
            command.env("FAKETIME_TIMESTAMP_FILE", self.settings.folder.join(clock_file(&member.place.name)));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("FAKETIME_NO_CACHE", "1");
        }
        command.stdin(Stdio::piped()).stdout(clone(&log)?).stderr(log).process_group(0);
        let told = command.spawn();
        let mut child = told.map_err(|e| format!("cannot run {}: {e}", self.settings.binary.display()))?;
        let stdin = child.stdin.take();
        member.process = Some((child, stdin));
        member.condition = Condition::Running;
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self, node: usize) {
        let member = &mut self.members[node];
        member.condition = Condition::Down;
        if let Some((mut child, _)) = member.process.take() {
            // A paused process dies too.
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _ = child.wait();
        }
    }

    /// Sends SIGSTOP.
    pub fn pause(&mut self, node: usize) {
        self.signal(node, Signal::STOP, Condition::Paused);
    }

    /// Sends SIGCONT.
    pub fn resume(&mut self, node: usize) {
        self.signal(node, Signal::CONT, Condition::Running);
    }

    /// Sends SIGTERM and waits for the end, which must come in time and be a success.
    pub async fn stop(&mut self, node: usize) {
        self.signal(node, Signal::TERM, Condition::Down);
        let Some((mut child, stdin)) = self.members[node].process.take() else { return };
        let start = Instant::now();
        let failure = loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return,
                Ok(Some(status)) => break format!("ended with {status} after SIGTERM"),
                Ok(None) if start.elapsed() > STOP_LIMIT => {
                    break format!("did not stop within {STOP_LIMIT:?}");
                }
                Ok(None) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(e) => break format!("cannot be waited for: {e}"),
            }
        };
        drop(stdin);
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
        self.fail(node, &failure);
    }

    /// A command that changes the members: `cluster add NAME=HOST:PORT` or `cluster remove NAME`, asked of a node.
    pub fn change(&self, asked: usize, verb: &str, node: usize, limit: Duration) -> std::process::Command {
        let mut command = std::process::Command::new(&self.settings.binary);
        let name = self.name(node);
        let member = match verb {
            "add" => format!("{name}={}", self.network.known_as(node)),
            _ => name.to_owned(),
        };
        command.args(["cluster", verb, "--leader", &self.members[asked].place.quic.to_string()]);
        command.args(["--timeout", &format!("{}s", limit.as_secs()), &member]).stdin(Stdio::null());
        command
    }

    /// From its next start on a node joins a cluster that is there; and it is a member, which must not end by itself.
    pub fn joins(&mut self, node: usize) {
        self.members[node].joins = true;
        self.members[node].may_end = false;
    }

    /// A node has lost what made it a member, and does not know: it may be refused, and end.
    pub fn may_end(&mut self, node: usize) {
        self.members[node].may_end = true;
    }

    fn signal(&mut self, node: usize, signal: Signal, then: Condition) {
        let member = &mut self.members[node];
        if let Some((child, _)) = &member.process {
            // It may have ended by itself; that is found when it is looked for.
            let _ = kill_process(Pid::from_child(child), signal);
            member.condition = then;
        }
    }

    /// Looks for processes that ended by themselves, and starts them again: that they ended is a failure.
    pub fn look_after(&mut self) -> Result<(), String> {
        for node in 0..self.members.len() {
            let ended = match &mut self.members[node].process {
                Some((child, _)) => child.try_wait().map_err(|e| e.to_string())?,
                None => None,
            };
            if let Some(status) = ended {
                self.members[node].process = None;
                self.members[node].condition = Condition::Down;
                if self.members[node].may_end {
                    continue;
                }
                self.fail(node, &format!("ended by itself: {status}"));
                self.start(node)?;
            }
        }
        Ok(())
    }

    fn fail(&mut self, node: usize, what: &str) {
        let log = self.log(node);
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        let failure =
            format!("{} {what}; the end of {}: {}", self.name(node), log.display(), last.join(" | "));
        eprintln!("chaos: {failure}");
        self.failures.push(failure);
    }

    /// What nodes did that no node may: ended by themselves, would not stop, or panicked.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.failures.clone();
        failures.extend(self.network.complaint());
        for node in 0..self.members.len() {
            let text = String::from_utf8_lossy(&fs::read(self.log(node)).unwrap_or_default()).into_owned();
            let panics = text.lines().filter(|line| line.contains("panicked at"));
            failures.extend(panics.map(|line| format!("{} panicked: {line}", self.name(node))));
        }
        failures
    }

    fn log(&self, node: usize) -> PathBuf {
        self.settings.folder.join(format!("{}.log", self.name(node)))
    }

    /// Removes all that a node, which is down, has stored.
    pub fn wipe(&self, node: usize) -> Result<(), String> {
        let data = self.settings.folder.join(self.name(node));
        let failed = |e: std::io::Error| format!("{}: {e}", data.display());
        for entry in fs::read_dir(&data).map_err(failed)? {
            // The folder itself may be where a disk is mounted.
            let path = entry.map_err(failed)?.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(failed)?;
        }
        Ok(())
    }

    /// Sets a node's wall clock: `+30`, `-3600`, or `+0 x1.5` for one that runs fast.
    pub fn set_clock(&self, node: usize, to: &str) -> Result<(), String> {
        if self.settings.faketime.is_none() {
            return Ok(());
        }
        let path = self.settings.folder.join(clock_file(self.name(node)));
        // It is read at any moment: never half a file.
        let fresh = path.with_extension("next");
        let written = fs::write(&fresh, to).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Fills a node's disk to the last byte, or gives the space back.
    pub fn fill_disk(&self, node: usize, full: bool) -> Result<(), String> {
        match &self.members[node].disk {
            Some(disk) => disk.fill(full),
            None => Err("disks have no bounds in this run".into()),
        }
    }

    /// What each node says of itself; none if it does not answer at once.
    pub async fn statuses(&self) -> Vec<Option<Status>> {
        let mut asked = tokio::task::JoinSet::new();
        for (node, member) in self.members.iter().enumerate() {
            let address = member.place.http;
            asked.spawn(async move { (node, status(address).await) });
        }
        let mut statuses = vec![None; self.members.len()];
        while let Some(told) = asked.join_next().await {
            if let Ok((node, status)) = told {
                statuses[node] = status;
            }
        }
        statuses
    }

    /// The node that leads, as far as they say: of several that say so, the one of the highest term.
    pub async fn leader(&self) -> Option<usize> {
        let statuses = self.statuses().await;
        let leaders = statuses
            .iter()
            .enumerate()
            .filter_map(|(n, s)| s.as_ref().filter(|s| s.leads).map(|s| (s.term, n)));
        leaders.max().map(|(_, node)| node)
    }

    /// Removes what the nodes stored; histories and logs stay.
    pub fn clean(&mut self) {
        for node in 0..self.members.len() {
            self.kill(node);
            self.members[node].disk = None;
            // A directory that stays is only untidy.
            let _ = fs::remove_dir_all(self.settings.folder.join(self.name(node)));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|node| self.kill(node));
    }
}

fn clock_file(name: &str) -> String {
    format!("{name}.clock")
}

async fn status(http: SocketAddr) -> Option<Status> {
    let answer = tokio::time::timeout(STATUS_LIMIT, http::get(http, "/status")).await.ok()?.ok()?;
    let told: Value = serde_json::from_slice(&answer.body).ok()?;
    let group = |group: &Value| {
        let digest = group["state_digest"].as_str()?.to_owned();
        Some((group["group"].as_u64()?, (group["applied_index"].as_u64()?, digest)))
    };
    Some(Status {
        leads: told["role"].as_str()? == "Leader",
        term: told["term"].as_u64()?,
        ready: told["ready"].as_bool()?,
        groups: told["groups"].as_array()?.iter().filter_map(group).collect(),
    })
}

/// A small file system in memory. Dropped, it is unmounted.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn mount(folder: PathBuf, bytes: u64) -> Result<Disk, String> {
        let size = format!("size={bytes}");
        run(
            "mount",
            &[
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                size.as_ref(),
                "chronos-chaos".as_ref(),
                &folder,
            ],
        )
        .map_err(|e| format!("a disk that can be full wants root and tmpfs: {e}"))?;
        Ok(Disk { folder })
    }

    fn fill(&self, full: bool) -> Result<(), String> {
        use std::io::Write;
        let path = self.folder.join("ballast");
        if !full {
            return match fs::remove_file(&path) {
                // A node that lost all it had lost this too.
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", path.display())),
                _ => Ok(()),
            };
        }
        let mut file = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        // The end is the error that is wanted: no space.
        for piece in [1 << 20, 4096] {
            while file.write_all(&vec![0; piece]).is_ok() {}
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that was just killed may still hold it.
        if let Err(e) = run("umount", &["-l".as_ref(), &self.folder]) {
            eprintln!("chaos: {e}");
        }
    }
}

/// Runs a tool of the system; its own words if it fails.
pub fn run(tool: &str, arguments: &[&Path]) -> Result<(), String> {
    let told = std::process::Command::new(tool).args(arguments).stdin(Stdio::null()).output();
    let told = told.map_err(|e| format!("{tool}: {e}"))?;
    match told.status.success() {
        true => Ok(()),
        false => Err(format!("{tool} {arguments:?}: {}", String::from_utf8_lossy(&told.stderr).trim())),
    }
}
