//! `chronos certs`, and the binary's node and clients with what it makes.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn chronos(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHRONOS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What it says on both outputs, and its exit code.
fn run(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = chronos(arguments).current_dir(dir).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}

fn ok(dir: &Path, arguments: &[&str]) -> String {
    let (code, said) = run(dir, arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

fn fails(dir: &Path, arguments: &[&str], with: &[&str]) {
    let (code, said) = run(dir, arguments);
    assert_eq!(code, 1, "{arguments:?}: {said}");
    for words in with {
        assert!(said.contains(words), "{arguments:?} says not {words:?}: {said}");
    }
}

struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free, with those a thousand and two thousand above.
fn free_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 31_000 + (std::process::id() % 900) as u16;
    (first..33_000).find(|port| is_free(port + 1000) && is_free(port + 2000)).unwrap()
}

#[test]
fn certificates_are_made_once_shown_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fails(dir, &["certs", "node", "--name", "node1"], &["ca.crt is missing", "certs init"]);
    fails(dir, &["certs", "show", "--dir", "."], &["no certificates"]);
    let made = ok(dir, &["certs", "init"]);
    assert!(made.contains("certs/ca.crt") && made.contains("stays here"), "{made}");
    fails(dir, &["certs", "init"], &["--renew", "--force"]);
    let made = ok(dir, &["certs", "node", "--name", "node1", "--host", "localhost,10.0.0.1"]);
    assert!(made.contains("--id node1 --certs-dir certs/node1"), "{made}");
    fails(dir, &["certs", "node", "--name", "node1"], &["there already", "--force"]);
    ok(dir, &["certs", "node", "--name", "node1", "--host", "localhost", "--host", "10.0.0.1", "--force"]);
    ok(dir, &["certs", "edge", "--name", "press", "--out", "elsewhere"]);
    ok(dir, &["certs", "client", "--name", "alice"]);
    ok(dir, &["certs", "client", "--name", "bob", "--readonly"]);
    fails(dir, &["certs", "client", "--name", "a/b"], &["is no name"]);
    fails(dir, &["certs", "node", "--name", "node2", "--host", "a b"], &["neither a host name nor"]);
    assert!(!dir.join("certs/node1/ca.key").exists(), "the authority's key is not handed out");

    let shown = ok(dir, &["certs", "show"]);
    for words in
        ["role         ca", "role         node node1", "client alice", "reader bob", "localhost, 10.0.0.1"]
    {
        assert!(shown.contains(words), "{words:?}: {shown}");
    }
    let cluster = shown.lines().find(|line| line.contains("cluster")).unwrap().to_owned();
    assert!(ok(dir, &["certs", "show", "elsewhere"]).contains("role         edge press"));

    ok(dir, &["certs", "init", "--renew"]);
    let shown = ok(dir, &["certs", "show", "certs/ca.crt"]);
    assert_eq!(shown.matches(&cluster).count(), 2, "both are trusted: {shown}");
    ok(dir, &["certs", "node", "--name", "node1", "--force"]);

    fs::copy(dir.join("certs/alice/client.key"), dir.join("certs/node1/node.key")).unwrap();
    fs::write(dir.join("elsewhere/edge.crt"), "nothing").unwrap();
    fails(dir, &["certs", "show"], &["the key is not that of"]);
    fails(dir, &["certs", "show", "elsewhere", "nowhere"], &["no certificate", "nowhere is missing"]);
}

#[test]
fn a_node_and_its_clients_through_tls() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    ok(dir, &["-q", "certs", "init"]);
    ok(dir, &["-q", "certs", "node", "--name", "node1", "--host", "127.0.0.1"]);
    ok(dir, &["-q", "certs", "client", "--name", "alice"]);
    ok(dir, &["-q", "certs", "client", "--name", "bob", "--readonly"]);
    let address = format!("127.0.0.1:{}", free_port());
    let node = ["node", "--data-dir", "data", "--address", &address, "--certs-dir"];
    fails(dir, &[&node[..], &["certs/node1", "--id", "node2"]].concat(), &["node1", "node2", "of its own"]);
    fails(dir, &[&node[..], &["certs/alice", "--id", "node1"]].concat(), &["node.crt is missing"]);
    fails(dir, &[&node[..], &["nowhere", "--id", "node1"]].concat(), &["nowhere/", "is missing"]);

    let mut command = chronos(&[&node[..], &["certs/node1", "--id", "node1"]].concat());
    command.current_dir(dir).env("CHRONOS_AUTH_TOKEN", "a-token").stderr(Stdio::null());
    let node = Node(command.spawn().unwrap());
    let with = |command: &[&'static str], tls: &[&'static str], rest: &[&'static str]| {
        let mut all: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        all.extend(["--leader".to_owned(), address.clone()]);
        all.extend(tls.iter().chain(rest).map(|word| (*word).to_owned()));
        all
    };
    let words = |all: &Vec<String>| run(dir, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let select = with(&["-q", "client"], &["--certs-dir", "certs/alice"], &["-e", "SELECT 1"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while words(&select).0 != 0 {
        assert!(Instant::now() < deadline, "the node does not serve: {}", words(&select).1);
    }
    // Signals reach the node once it serves, so it has a handler for this one.
    kill_process(Pid::from_child(&node.0), Signal::HUP).unwrap();

    let succeed = |all: Vec<String>, with: &str| {
        let (code, said) = words(&all);
        assert!(code == 0 && said.contains(with), "{all:?}: {said}");
    };
    let refuse = |all: Vec<String>, with: &str| {
        let (code, said) = words(&all);
        assert!(code == 1 && said.contains(with), "{all:?}: {said}");
    };
    let alice = &["--certs-dir", "certs/alice"][..];
    let bob = &["--certs-dir", "certs/bob"][..];
    let token = &["--tls-ca", "certs/ca.crt", "--token", "a-token"][..];
    succeed(with(&["topic", "create"], alice, &["alerts"]), "");
    succeed(with(&["publish"], token, &["alerts", "one"]), "published");
    succeed(with(&["publish"], alice, &["alerts", "two"]), "published");
    let two = &["alerts", "--from", "earliest", "--count", "2", "--format", "payload"][..];
    succeed(with(&["subscribe"], bob, two), "one\ntwo");
    succeed(with(&["client"], token, &["-e", "SELECT 1 AS one"]), "one");
    refuse(with(&["publish"], bob, &["alerts", "three"]), "may only read");
    refuse(with(&["client"], bob, &["-e", "CREATE TABLE t (id INT PRIMARY KEY)"]), "25006");
    refuse(with(&["client"], &["--tls-ca", "certs/ca.crt"], &["-e", "SELECT 1"]), "--token");
    refuse(with(&["client"], &[], &["-e", "SELECT 1"]), "TLS");
    refuse(with(&["client"], &["--certs-dir", "nowhere"], &["-e", "SELECT 1"]), "is missing");

    ok(dir, &["-q", "certs", "init", "--dir", "other"]);
    ok(dir, &["-q", "certs", "client", "--dir", "other", "--name", "mallory"]);
    let stranger = &["--certs-dir", "other/mallory"][..];
    refuse(with(&["client"], stranger, &["-e", "SELECT 1"]), "another cluster");
    refuse(with(&["publish"], stranger, &["alerts", "x"]), "another cluster");
    // A node's certificate is for links between nodes.
    let node_pair = &[
        "--tls-ca",
        "certs/ca.crt",
        "--tls-cert",
        "certs/node1/node.crt",
        "--tls-key",
        "certs/node1/node.key",
    ][..];
    refuse(with(&["client"], node_pair, &["-e", "SELECT 1"]), "role does not serve");
    refuse(with(&["publish"], node_pair, &["alerts", "x"]), "role does not serve");
}
