//! The first thing a newcomer runs.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A demo whose temporary directory is `folder`.
fn demo(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.arg("demo").args(arguments).env("TMPDIR", folder).stdin(Stdio::null());
    command
}

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &[]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{said}");
    let facts = [
        "19,226 rows: all of them",
        "alert-1 was due",
        "SIGKILL",
        "alert-2 came once",
        "node3, ",
        "every node has every one, once",
        "0 lost, 0 doubled",
        "largest write gap: ",
    ];
    for fact in facts {
        assert!(shown.contains(fact), "no {fact:?} in\n{shown}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the directory is removed");
}

#[test]
fn interrupting_the_demo_ends_its_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let child = demo(folder.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut demo = Killed(child);
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let nodes: Vec<Pid> = lines.by_ref().filter_map(|line| process(&line.unwrap())).take(3).collect();
    assert_eq!(nodes.len(), 3, "three nodes are named");
    kill_process(Pid::from_child(&demo.0), Signal::INT).unwrap();
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = demo.0.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "the demo goes on");
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut said = String::new();
    demo.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    for node in nodes {
        assert!(test_kill_process(node).is_err(), "{node:?} goes on");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the directory is removed");
}

/// The process in a line like `node1: process 4711, …`.
fn process(line: &str) -> Option<Pid> {
    let (_, rest) = line.split_once(": process ")?;
    Pid::from_raw(rest.split(',').next()?.parse().ok()?)
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
