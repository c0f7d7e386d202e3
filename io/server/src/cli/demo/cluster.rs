//! Three nodes in processes of their own, under one temporary directory; all go when this value goes.

use super::client::{Client, beside};
use super::http;
use super::patience::Patience;
use crate::cli::connect::{Connect, HostPort};
use crate::cli::failure::{Failure, Outcome};
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many nodes: one may be lost.
pub const NODES: usize = 3;
/// How long a node may take to serve.
const START_TIMEOUT: Duration = Duration::from_secs(40);
/// How long it may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the nodes may be without a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(40);
/// How long the nodes may take until all have applied the same.
const EQUAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at something that takes a while.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Ports are tried from here up, below those that systems give to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..29_000;

/// The processes, and where they are.
pub struct Cluster {
    directory: PathBuf,
    places: Places,
    processes: [Option<Child>; NODES],
}

/// Where all nodes are.
pub type Places = Arc<[Place]>;

/// Where a node is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// How clients reach it.
    pub connect: Connect,
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Which node.
    pub node: usize,
    /// In which term.
    pub term: u64,
}

/// How far a node's state is, and what it sums up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The log's index.
    pub index: u64,
    /// The state's digest.
    pub digest: String,
}

impl Cluster {
    /// An empty directory, and free ports for each node.
    pub fn find() -> Outcome<Cluster> {
        let unique = format!("chronos-demo-{}-{:x}", std::process::id(), crate::cli::when::now());
        let directory = std::env::temp_dir().join(unique);
        let cannot = |error| Failure::new(format!("cannot make {}: {error}", directory.display()));
        std::fs::create_dir(&directory).map_err(cannot)?;
        let mut cluster = Cluster { directory, places: Arc::new([]), processes: [const { None }; NODES] };
        cluster.move_ports(std::process::id())?;
        Ok(cluster)
    }

    /// Takes the first free ports from a starting point on.
    fn move_ports(&mut self, hint: u32) -> Outcome {
        let span = PORTS.len() as u32;
        let port = |step: u32| PORTS.start + ((u64::from(hint) + u64::from(step)) % u64::from(span)) as u16;
        let ports: Vec<u16> = (0..span).map(port).filter(|&port| is_free(port)).take(NODES).collect();
        if ports.len() < NODES {
            return Err(Failure::new("no free ports on 127.0.0.1"));
        }
        self.places = ports.iter().enumerate().map(|(node, &port)| Place::new(node, port)).collect();
        Ok(())
    }

    /// Where the nodes are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// A node's name.
    pub fn name(&self, node: usize) -> &str {
        &self.places[node].name
    }

    /// A node's process id; 0 if it has none.
    pub fn process(&self, node: usize) -> u32 {
        self.processes[node].as_ref().map_or(0, Child::id)
    }

    /// Where their data is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn log(&self, node: usize) -> PathBuf {
        self.directory.join(format!("{}.log", self.name(node)))
    }

    /// Starts all nodes and waits until each serves; says how long that took.
    pub async fn start(&mut self) -> Outcome<Duration> {
        // Somebody else may take a port between the look and the bind: then others are tried.
        for attempt in 1..=3 {
            let begin = Instant::now();
            for node in 0..NODES {
                self.processes[node] = Some(self.spawn(node)?);
            }
            match self.wait_for_all().await {
                Ok(()) => return Ok(begin.elapsed()),
                Err(_) if self.words().contains("cannot listen") && attempt < 3 => self.clear(attempt)?,
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::new("the nodes do not get their ports"))
    }

    /// Everything anew, on other ports.
    fn clear(&mut self, attempt: u32) -> Outcome {
        for node in 0..NODES {
            self.kill(node)?;
        }
        let directory = &self.directory;
        std::fs::remove_dir_all(directory)
            .and_then(|()| std::fs::create_dir(directory))
            .map_err(|error| Failure::new(format!("cannot empty {}: {error}", directory.display())))?;
        self.move_ports(std::process::id().wrapping_add(attempt * 100))
    }

    async fn wait_for_all(&mut self) -> Outcome {
        for node in 0..NODES {
            self.wait(node).await?;
        }
        Ok(())
    }

    /// Starts one that has stopped, on its own data, and waits until it serves; says how long that took.
    pub async fn restart(&mut self, node: usize) -> Outcome<Duration> {
        let begin = Instant::now();
        self.processes[node] = Some(self.spawn(node)?);
        self.wait(node).await?;
        Ok(begin.elapsed())
    }

    fn spawn(&self, node: usize) -> Outcome<Child> {
        let cannot = |what: &str, error| Failure::new(format!("cannot {what}: {error}"));
        let program = std::env::current_exe().map_err(|error| cannot("find this program", error))?;
        let log = File::options().create(true).append(true).open(self.log(node));
        let log = log.map_err(|error| cannot("make a node's log", error))?;
        let place = &self.places[node];
        let others = self.places.iter().filter(|other| other.name != place.name);
        let peers: Vec<String> =
            others.map(|other| format!("{}={}", other.name, other.connect.leader)).collect();
        let mut command = Command::new(program);
        // Nothing of the caller's configuration, so that every demo is the same.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CHRONOS_") {
                command.env_remove(name);
            }
        }
        command
            // Three of them share this machine.
            .args(["node", "--until-stdin-closes", "--profile", "small", "--id", &place.name])
            .args(["--address", &place.connect.leader.to_string(), "--peers", &peers.join(",")])
            .arg("--data-dir")
            .arg(self.directory.join(&place.name))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C is the demo's to heed: it stops the nodes itself.
            .process_group(0)
            .spawn()
            .map_err(|error| cannot("start a node", error))
    }

    /// Waits until a node answers a query that needs a leader and its own state to be up to date.
    async fn wait(&mut self, node: usize) -> Outcome {
        let mut patience = Patience::new(START_TIMEOUT);
        let mut client = Client::to(&self.places[node]);
        loop {
            self.check_alive(node)?;
            match client.attempt(&["SELECT 1".to_owned()]).await? {
                Ok(_) => return Ok(()),
                Err(refusal) if !refusal.again || patience.is_over() => {
                    let what = format!("{} does not begin to serve", self.name(node));
                    return Err(refusal.failure.during(&what));
                }
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    fn check_alive(&mut self, node: usize) -> Outcome {
        let name = self.name(node).to_owned();
        match self.processes[node].as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Ok(()),
            Some(Ok(Some(status))) => Err(Failure::new(format!("{name} stopped by itself: {status}"))),
            Some(Err(error)) => Err(Failure::new(format!("{name}: {error}"))),
            None => Err(Failure::new(format!("{name} does not run"))),
        }
    }

    /// SIGKILL: nothing in the process gets to know.
    pub fn kill(&mut self, node: usize) -> Outcome {
        let Some(mut child) = self.processes[node].take() else { return Ok(()) };
        let cannot = |error| Failure::new(format!("cannot kill {}: {error}", self.places[node].name));
        child.kill().map_err(cannot)?;
        child.wait().map_err(cannot)?;
        Ok(())
    }

    /// Asks a node to stop, and waits until it has; says how long that took.
    pub async fn stop(&mut self, node: usize) -> Outcome<Duration> {
        let begin = Instant::now();
        let Some(child) = &mut self.processes[node] else { return Ok(Duration::ZERO) };
        drop(child.stdin.take());
        let name = &self.places[node].name;
        let mut patience = Patience::new(STOP_TIMEOUT);
        while !patience.is_over() {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => {
                    self.processes[node] = None;
                    return Ok(begin.elapsed());
                }
                Ok(Some(status)) => return Err(Failure::new(format!("{name} stopped with {status}"))),
                Ok(None) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) => return Err(Failure::new(format!("{name}: {error}"))),
            }
        }
        Err(Failure::new(format!("{name} did not stop within {} s", STOP_TIMEOUT.as_secs())))
    }

    /// Stops all of them.
    pub async fn stop_all(&mut self) -> Outcome {
        for node in 0..NODES {
            self.stop(node).await?;
        }
        Ok(())
    }

    /// Returns when a node has stopped by itself: with what became of it.
    pub async fn ended(&mut self) -> Failure {
        loop {
            for node in 0..NODES {
                if let Err(failure) = self.check_alive(node) {
                    return failure;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until all nodes have applied the same entries; what they then have must be the same, too.
    pub async fn wait_until_equal(&self) -> Outcome<Applied> {
        let mut patience = Patience::new(EQUAL_TIMEOUT);
        loop {
            let mut applied = Vec::new();
            for place in self.places.iter() {
                applied.extend(place.status().await.and_then(|status| status.applied()));
            }
            let is_level = applied.len() == NODES && applied.iter().all(|one| one.index == applied[0].index);
            if is_level && applied.iter().all(|one| one.digest == applied[0].digest) {
                return Ok(applied.swap_remove(0));
            }
            if is_level {
                return Err(Failure::new(format!("the nodes' states differ at the same index: {applied:?}")));
            }
            if patience.is_over() {
                let seconds = EQUAL_TIMEOUT.as_secs();
                return Err(Failure::new(format!("after {seconds} s the nodes are not level: {applied:?}")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn words(&self) -> String {
        (0..NODES).map(|node| std::fs::read_to_string(self.log(node)).unwrap_or_default()).collect()
    }

    /// The end of each node's log.
    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for (node, place) in self.places.iter().enumerate() {
            let log = std::fs::read(self.log(node)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            for line in &lines[lines.len().saturating_sub(8)..] {
                words.push_str(&format!("{}: {line}\n", place.name));
            }
        }
        words
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            // Fails only if it is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

impl Place {
    fn new(node: usize, port: u16) -> Place {
        let connect = Connect {
            tls: Default::default(),
            leader: HostPort { host: "127.0.0.1".to_owned(), port },
            pg_address: None,
            http_address: None,
            token: None,
            user: "chronos".to_owned(),
        };
        Place { name: format!("node{}", node + 1), connect }
    }

    /// What the node says of itself; none if it says nothing.
    async fn status(&self) -> Option<Status> {
        let address = self.connect.http().ok()?.to_string();
        let answer = beside(move || http::get(&address, "/status")).await.ok()?.ok()?;
        serde_json::from_str(&answer.body).ok().map(Status)
    }
}

/// A node's `/status`.
struct Status(serde_json::Value);

impl Status {
    /// The group that holds all that the demo uses.
    fn group(&self) -> &serde_json::Value {
        &self.0["groups"][0]
    }

    /// The term in which this node leads, if it does.
    fn leads(&self) -> Option<u64> {
        self.group()["leader"].as_bool()?.then(|| self.group()["term"].as_u64())?
    }

    fn applied(&self) -> Option<Applied> {
        let group = self.group();
        let digest = group["state_digest"].as_str()?.to_owned();
        Some(Applied { index: group["applied_index"].as_u64()?, digest })
    }
}

/// Asks the nodes until one says that it leads: of two, the one of the later term.
pub async fn leader(places: &Places) -> Outcome<Leader> {
    let mut patience = Patience::new(LEADER_TIMEOUT);
    while !patience.is_over() {
        let mut found: Option<Leader> = None;
        for (node, place) in places.iter().enumerate() {
            if let Some(term) = place.status().await.and_then(|status| status.leads())
                && found.is_none_or(|other| other.term < term)
            {
                found = Some(Leader { node, term });
            }
        }
        match found {
            Some(leader) => return Ok(leader),
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
    Err(Failure::new(format!("no node leads after {} s", LEADER_TIMEOUT.as_secs())))
}

/// Whether a node could have its listeners here: QUIC on the port, HTTP and PostgreSQL above it.
fn is_free(port: u16) -> bool {
    let tcp = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    UdpSocket::bind(("127.0.0.1", port)).is_ok() && tcp(port + 1000) && tcp(port + 2000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_read() {
        let says = |leads: bool| {
            Status(serde_json::json!({"groups": [
                {"leader": leads, "term": 7, "applied_index": 12, "state_digest": "00ff"}
            ]}))
        };
        assert_eq!(says(true).leads(), Some(7));
        assert_eq!(says(false).leads(), None);
        assert_eq!(says(false).applied(), Some(Applied { index: 12, digest: "00ff".into() }));
        assert_eq!(Status(serde_json::json!({"code": "57P03"})).leads(), None);
    }
}
