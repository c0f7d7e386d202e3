//! A full disk: writes are refused with a reason, reads go on, nothing acknowledged is lost, and service resumes when
//! there is space again. Needs root, for a small file system of its own: `cargo test -p chronos-node -- --ignored`.

use crate::common::*;
use chronos_engine::proto::id::GroupId;
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_node::{CommitError, Exit, NodeHandle, Options, Profile};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Tmpfs {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mount.expect("mount runs").success(), "mount needs root");
        Tmpfs(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn open(dir: &Path) -> NodeHandle {
    let options = options(dir);
    let profile = Profile { segment_bytes: 64 << 10, checkpoint_wal_bytes: 1 << 20, ..options.profile };
    chronos_node::open(Options { profile, ..options }).unwrap()
}

/// Takes all the space there is, and gives none back meanwhile: a node may be after it too.
fn fill(path: &Path) {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    let mut size = 8 << 20;
    while size >= 4096 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}

type Outcome = mpsc::Receiver<Result<Committed, CommitError>>;

fn send(node: &NodeHandle, n: u64) -> Outcome {
    let (send, outcome) = mpsc::sync_channel(1);
    let read_index = node.published().snapshot.applied;
    let transaction =
        Transaction { read_index, ops: vec![put(n, &[n as u8; 2_000])], ..Transaction::default() };
    node.commit_with(GroupId(0), transaction, Box::new(move |result| send.send(result).unwrap()));
    outcome
}

/// What a write came to, if it did.
fn settle(
    acked: &mut BTreeSet<u64>,
    refused: &mut BTreeSet<u64>,
    n: u64,
    result: Result<Committed, CommitError>,
) {
    match result {
        Ok(_) => acked.insert(n),
        Err(CommitError::Refused(Refused::Full(why))) => {
            assert!(why.contains("full"), "{why}");
            refused.insert(n)
        }
        Err(other) => panic!("{other}"),
    };
}

#[test]
#[ignore = "needs root: mounts a small tmpfs"]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = Tmpfs::mount("24m");
    let dir = disk.0.path().join("data");
    let ballast = disk.0.path().join("ballast");
    let node = open(&dir);
    create(&node);
    let (mut acked, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut numbers = 0..;
    for round in 0..3 {
        fill(&ballast);
        let mut waiting: Vec<(u64, Outcome)> = Vec::new();
        let refused_before = refused.len();
        while refused.len() == refused_before {
            let n = numbers.next().unwrap();
            waiting.push((n, send(&node, n)));
            // The driver answers this behind what was sent before.
            node.status();
            waiting.retain(|(n, outcome)| match outcome.try_recv() {
                Ok(result) => {
                    settle(&mut acked, &mut refused, *n, result);
                    false
                }
                Err(_) => true,
            });
        }
        assert!(acked.iter().all(|n| rows(&node).contains_key(n)), "round {round}: reads go on");
        assert!(node.status().unwrap().engine.refusing.is_some());
        fs::remove_file(&ballast).unwrap();
        for (n, outcome) in waiting {
            settle(&mut acked, &mut refused, n, outcome.recv().unwrap());
        }
        until(|| {
            let n = numbers.next().unwrap();
            let result = send(&node, n).recv().unwrap();
            settle(&mut acked, &mut refused, n, result);
            acked.contains(&n)
        });
        checkpoint(&node);
    }
    let there: BTreeSet<u64> = rows(&node).into_keys().collect();
    assert_eq!(there, acked);
    assert!(acked.is_disjoint(&refused) && !refused.is_empty());
    assert_eq!(node.stop(), Exit::Stopped);
    let node = open(&dir);
    assert_eq!(rows(&node).into_keys().collect::<BTreeSet<_>>(), acked);
    assert_eq!(node.stop(), Exit::Stopped);
}

#[test]
#[ignore = "needs root: mounts a small tmpfs"]
fn a_checkpoint_that_finds_no_space_is_written_when_there_is_some() {
    let disk = Tmpfs::mount("24m");
    let dir = disk.0.path().join("data");
    let ballast = disk.0.path().join("ballast");
    let node = open(&dir);
    create(&node);
    commit(&node, (0..400).map(|n| put(n, &[n as u8; 2_000])).collect()).unwrap();
    fill(&ballast);
    node.checkpoint();
    until(|| node.status().unwrap().store.checkpoints_full > 0);
    assert_eq!(node.status().unwrap().store.checkpoints, 0);
    assert_eq!(rows(&node).len(), 400);
    fs::remove_file(&ballast).unwrap();
    until(|| node.status().unwrap().store.checkpoints == 1);
    assert_eq!(rows(&node).len(), 400);
    assert_eq!(node.stop(), Exit::Stopped);
    let node = open(&dir);
    assert_eq!(rows(&node).len(), 400);
    assert_eq!(node.stop(), Exit::Stopped);
}

#[test]
#[ignore = "needs root: mounts a small tmpfs"]
fn a_start_on_a_full_disk_says_so_and_loses_nothing() {
    let disk = Tmpfs::mount("24m");
    let dir = disk.0.path().join("data");
    let ballast = disk.0.path().join("ballast");
    let node = open(&dir);
    create(&node);
    commit(&node, vec![put(1, b"kept")]).unwrap();
    assert_eq!(node.stop(), Exit::Stopped);
    fill(&ballast);
    let error = chronos_node::open(options(&dir)).unwrap_err().to_string();
    assert!(error.contains("full") || error.contains("space"), "{error}");
    fs::remove_file(&ballast).unwrap();
    let node = open(&dir);
    assert_eq!(rows(&node).len(), 1);
    assert_eq!(node.stop(), Exit::Stopped);
}
