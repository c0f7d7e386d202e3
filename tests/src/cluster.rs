//! Several nodes on loopback, and writers that remember what was acknowledged to them.

use crate::eventually;
use crate::http::{self, Http};
use crate::node::{Node, START_LIMIT, binary};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How long a cluster may take to have a leader again.
pub const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// Named nodes that share a data root, and with it the development authority.
pub struct Cluster {
    /// The nodes: the one called `node1` first.
    pub nodes: Vec<Node>,
    names: Vec<String>,
    root: TempDir,
}

impl Cluster {
    /// Nodes that are yet to be started: `node1`, `node2` and so on, each told of all the others.
    pub fn new(nodes: usize) -> Cluster {
        let root = tempfile::Builder::new().prefix("chronos-cluster-").tempdir();
        let mut cluster =
            Cluster { nodes: Vec::new(), names: Vec::new(), root: root.expect("a temporary directory") };
        for number in 1..=nodes {
            cluster.place(&format!("node{number}"));
        }
        for at in 0..nodes {
            let arguments = cluster.arguments(at, &[]);
            cluster.nodes[at].set_arguments(arguments);
        }
        cluster
    }

    /// The same, started and ready.
    pub async fn start(nodes: usize) -> Cluster {
        let mut cluster = Cluster::new(nodes);
        cluster.start_all().await;
        cluster
    }

    /// The same with more arguments for each node.
    pub async fn start_with(nodes: usize, more: &[&str]) -> Cluster {
        let mut cluster = Cluster::new(nodes);
        for at in 0..nodes {
            let arguments = cluster.arguments(at, more);
            cluster.nodes[at].set_arguments(arguments);
        }
        cluster.start_all().await;
        cluster
    }

    /// Starts a node that does not run, with other arguments.
    pub fn spawn_with(&mut self, at: usize, more: &[&str]) {
        let arguments = self.arguments(at, more);
        self.nodes[at].set_arguments(arguments);
        self.nodes[at].spawn();
    }

    fn place(&mut self, name: &str) {
        self.nodes.push(Node::named(name).data_dir(&self.root.path().join(name)));
        self.names.push(name.to_owned());
    }

    fn arguments(&self, at: usize, more: &[&str]) -> Vec<String> {
        let mut arguments = vec!["node".to_owned(), "--id".to_owned(), self.names[at].clone()];
        let others = (0..self.nodes.len()).filter(|other| *other != at);
        let peers: Vec<String> =
            others.map(|other| format!("{}={}", self.names[other], self.nodes[other].quic())).collect();
        if !peers.is_empty() {
            arguments.extend(["--peers".to_owned(), peers.join(",")]);
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments
    }

    /// Starts every node that does not run, all at the same time, and waits until they serve.
    pub async fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.pid().is_none()) {
            node.spawn();
        }
        for (node, name) in self.nodes.iter_mut().zip(&self.names) {
            if let Err(why) = node.ready(START_LIMIT).await {
                panic!("{name} did not become ready: {why}");
            }
        }
    }

    /// One node that founds the cluster with what is in a snapshot file; it is started and ready. Its place is returned.
    pub async fn found(&mut self, name: &str, snapshot: &Path) -> usize {
        self.place(name);
        let at = self.nodes.len() - 1;
        let mut command = std::process::Command::new(binary());
        command.args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(self.nodes[at].data());
        command.args(["--id", name, "--address"]).arg(self.nodes[at].quic().to_string());
        let output = tokio::task::spawn_blocking(move || command.output().expect("it runs"));
        let output = output.await.expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let arguments = self.arguments(at, &[]);
        self.nodes[at].set_arguments(arguments);
        self.nodes[at].start().await;
        at
    }

    /// One more node that joins; it is spawned, and yet to be added. Its place is returned.
    pub fn join(&mut self, name: &str) -> usize {
        let others: Vec<usize> = (0..self.nodes.len()).collect();
        self.join_by(name, &others)
    }

    /// The same, told of these nodes only.
    pub fn join_by(&mut self, name: &str, others: &[usize]) -> usize {
        let peers: Vec<String> = others.iter().map(|other| self.spelled(*other)).collect();
        self.place(name);
        let at = self.nodes.len() - 1;
        let arguments = ["node", "--id", name, "--join", "--peers", &peers.join(",")];
        self.nodes[at].set_arguments(arguments.map(str::to_owned).to_vec());
        self.nodes[at].spawn();
        at
    }

    /// Forgets a node: its process is killed.
    pub fn forget(&mut self, name: &str) {
        let at = self.at(name);
        self.nodes[at].kill();
        self.nodes.remove(at);
        self.names.remove(at);
    }

    /// The place of a node.
    pub fn at(&self, name: &str) -> usize {
        self.names.iter().position(|other| other == name).unwrap_or_else(|| panic!("no {name} here"))
    }

    /// A node's name.
    pub fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    /// `NAME=HOST:PORT`.
    pub fn spelled(&self, at: usize) -> String {
        format!("{}={}", self.names[at], self.nodes[at].quic())
    }

    /// Runs a command of the binary that is spoken to this node, off the runtime's threads.
    pub async fn chronos(&self, at: usize, arguments: &[&str]) -> Output {
        let mut command = std::process::Command::new(binary());
        command.args(arguments).arg("--leader").arg(self.nodes[at].quic().to_string());
        tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
    }

    /// The same, which must succeed.
    pub async fn must(&self, at: usize, arguments: &[&str]) -> String {
        let output = self.chronos(at, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "chronos {}: {said}", arguments.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Which node serves as the leader of group 0, once one does. Only nodes that run are asked.
    pub async fn leader(&self) -> usize {
        let find = || async {
            for (at, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.pid().is_some()) {
                let Ok(view) = http::get(node.http(), "/cluster").await else { continue };
                if view.status == 200 && view.json()["groups"][0]["serves"] == json!(true) {
                    return Some(at);
                }
            }
            None
        };
        eventually(LEADER_LIMIT, find).await.expect("a leader")
    }

    /// Groups whose leader, among the nodes that run, does not have exactly the voters that it is to have, or that have none.
    pub async fn groups_out_of_place(&self) -> Vec<Value> {
        let mut groups: BTreeMap<u64, Value> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
            let view = http::get(node.http(), "/cluster").await.expect("a view").json();
            for group in view["groups"].as_array().expect("groups") {
                let number = group["group"].as_u64().expect("a number");
                let known = groups.entry(number).or_insert_with(|| group.clone());
                if group["serves"] == json!(true) {
                    known.clone_from(group);
                }
            }
        }
        let in_place = |group: &Value| {
            let rest = group["outgoing"] == json!([]);
            rest && group["serves"] == json!(true) && group["voters"] == group["wanted"]
        };
        groups.into_values().filter(|group| !in_place(group)).collect()
    }

    /// Waits until all these nodes have applied the same entries and have the same state.
    pub async fn agree(&self) {
        let same = || async {
            let mut states = BTreeSet::new();
            for node in self.nodes.iter().filter(|node| node.pid().is_some()) {
                let status = http::get(node.http(), "/status").await.ok()?.json();
                let group = &status["groups"][0];
                states.insert(format!("{} {}", group["applied_index"], group["state_digest"]));
            }
            (states.len() == 1).then_some(())
        };
        eventually(LEADER_LIMIT, same).await.expect("all nodes have the same state");
    }
}

/// One statement by HTTP; an error is what the node said, or that it did not answer.
pub async fn sql(at: SocketAddr, statement: &str) -> Result<Value, String> {
    let body = json!({ "sql": statement }).to_string();
    match tokio::time::timeout(Duration::from_secs(30), http::post(at, "/sql", &body)).await {
        Ok(Ok(answer)) if answer.is_success() => Ok(answer.json()),
        Ok(Ok(answer)) => Err(answer.text()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 30 s".to_owned()),
    }
}

/// Writers of a table `load (id BIGINT PRIMARY KEY)`: every id is written once, by whichever node comes next.
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<Mutex<Done>>,
    writers: JoinSet<()>,
}

/// What became of the writes.
#[derive(Debug, Default)]
pub struct Done {
    /// Ids that were acknowledged.
    pub acknowledged: BTreeSet<i64>,
    /// Writes that failed or whose outcome is not known.
    pub failed: u64,
    /// The longest time without any acknowledgement.
    pub gap: Duration,
    last: Option<Instant>,
}

impl Load {
    /// Makes the table, and starts so many writers that go around these addresses.
    pub async fn start(writers: usize, targets: &[SocketAddr]) -> Load {
        sql(targets[0], "CREATE TABLE IF NOT EXISTS load (id BIGINT PRIMARY KEY, writer BIGINT)")
            .await
            .expect("a table");
        let begin = sql(targets[0], "SELECT coalesce(max(id), 0) FROM load").await.expect("a number");
        let begin = begin["rows"][0][0].as_i64().expect("a number");
        let next = Arc::new(AtomicI64::new(begin + 1));
        let mut load = Load { stop: Arc::default(), done: Arc::default(), writers: JoinSet::new() };
        for writer in 0..writers {
            let (stop, done, next) = (load.stop.clone(), load.done.clone(), next.clone());
            let targets = targets.to_vec();
            load.writers.spawn(async move {
                let mut at = writer;
                let mut connection: Option<Http> = None;
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let statement =
                        json!({ "sql": format!("INSERT INTO load VALUES ({id}, {writer})") }).to_string();
                    let json = [("content-type", "application/json")];
                    let asked = async {
                        if connection.is_none() {
                            connection = Some(Http::connect(targets[at % targets.len()]).await?);
                        }
                        match &mut connection {
                            Some(http) => http.send("POST", "/sql", &json, statement.as_bytes()).await,
                            None => unreachable!("it was just made"),
                        }
                    };
                    let answer = tokio::time::timeout(Duration::from_secs(20), asked).await;
                    let acknowledged = matches!(answer, Ok(Ok(answer)) if answer.is_success());
                    match (done.lock().unwrap_or_else(PoisonError::into_inner), acknowledged) {
                        (mut done, true) => done.acknowledge(id),
                        (mut done, false) => done.failed += 1,
                    }
                    if acknowledged {
                        continue;
                    }
                    // Another node, and not in a tight circle while none answers.
                    (connection, at) = (None, at + 1);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
        }
        load
    }

    /// Waits until so many more writes have been acknowledged.
    pub async fn progress(&self, more: usize) {
        let count = || self.done.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.len();
        let wanted = count() + more;
        let there = || async { (count() >= wanted).then_some(()) };
        eventually(Duration::from_secs(60), there).await.unwrap_or_else(|| {
            panic!("{} of {wanted} writes after a minute", count());
        });
    }

    /// Ends the writers.
    pub async fn stop(mut self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        while self.writers.join_next().await.is_some() {}
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Done {
    fn acknowledge(&mut self, id: i64) {
        self.acknowledged.insert(id);
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.gap = self.gap.max(now - last);
        }
    }

    /// Adds what was acknowledged before.
    pub fn and(mut self, before: Done) -> Done {
        self.acknowledged.extend(before.acknowledged);
        self
    }

    /// Fails if something that was acknowledged is missing where it is asked for.
    pub async fn check(&self, at: SocketAddr) {
        let rows = sql(at, "SELECT id FROM load").await.expect("rows");
        let rows = rows["rows"].as_array().expect("rows").iter();
        let present: BTreeSet<i64> = rows.filter_map(|row| row[0].as_i64()).collect();
        let lost: Vec<_> = self.acknowledged.difference(&present).collect();
        assert!(lost.is_empty(), "{at} has lost {} acknowledged writes: {lost:?}", lost.len());
    }
}
