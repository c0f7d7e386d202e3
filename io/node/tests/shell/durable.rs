//! A node on a real directory: what was acknowledged is there after a stop, a crash, a checkpoint.

use crate::common::*;
use bytes::Bytes;
use chronos_engine::proto::command::{Event, Op};
use chronos_engine::proto::id::GroupId;
use chronos_engine::proto::time::Timestamp;
use chronos_engine::step::{Start, SubscriberInput, Subscription};
use chronos_engine::txn::{Refused, Transaction};
use chronos_node::{CommitError, Exit, Fsync, OpenError, Options, Role, SubscriberEvent};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn commits_survive_a_clean_stop() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    let status = node.status().unwrap();
    assert_eq!((status.role, status.fsync), (Role::Leader, Fsync::Always));
    create(&node);
    for n in 0..100 {
        commit(&node, vec![put(n, &n.to_le_bytes())]).unwrap();
    }
    let before = rows(&node);
    assert_eq!(before.len(), 100);
    assert!(node.status().unwrap().wal.syncs > 0);
    assert_eq!(node.stop(), Exit::Stopped);
    assert_eq!(node.stop(), Exit::Stopped, "a second stop tells the same");
    let late = commit(&node, vec![put(1000, b"late")]);
    assert_eq!(late, Err(CommitError::Refused(Refused::Stopping)));
    let node = open(dir.path());
    assert_eq!(rows(&node), before);
    assert!(node.status().unwrap().notices.is_empty(), "{:?}", node.status().unwrap().notices);
    node.stop();
}

#[test]
fn reads_after_a_stop_fail_and_do_not_show_an_empty_state() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    create(&node);
    node.stop();
    let error = node.published().snapshot.get(b"x").unwrap_err();
    assert!(error.to_string().contains("stopped"), "{error}");
}

#[test]
fn commits_survive_a_crash_at_any_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let node = open(&dir.path().join("node"));
    create(&node);
    let mut model = BTreeMap::new();
    for round in 0..6u64 {
        for n in 0..200u64 {
            let key = (n * 37 + round * 11) % 500;
            let row = [n.to_le_bytes(), round.to_le_bytes()].concat();
            commit(&node, vec![replace(&node, key, &row)]).unwrap();
            model.insert(key, bytes::Bytes::from(row));
        }
        let copy = crashed.path().join(format!("{round}"));
        copy_dir(&dir.path().join("node"), &copy);
        let again = open(&copy);
        assert_eq!(rows(&again), model, "round {round}");
        commit(&again, vec![put(10_000, b"goes on")]).unwrap();
        assert_eq!(again.stop(), Exit::Stopped);
        checkpoint(&node);
        assert_eq!(rows(&node), model, "round {round}, after the checkpoint");
    }
    let status = node.status().unwrap();
    assert_eq!(status.store.checkpoints, 6);
    assert!(status.store.file_bytes > 0 && status.store.last_checkpoint_at.is_some());
    node.stop();
    let node = open(&dir.path().join("node"));
    assert_eq!(rows(&node), model);
    node.stop();
}

#[test]
fn many_short_runs_do_not_gather_wal_segments() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..40 {
        let node = open(dir.path());
        if run == 0 {
            create(&node);
        }
        commit(&node, vec![put(run, b"short")]).unwrap();
        let segments = node.status().unwrap().wal.segments;
        assert!(segments <= 14, "run {run}: {segments} segments");
        if segments > 8 {
            until(|| node.status().unwrap().store.checkpoints > 0);
        }
        assert_eq!(node.stop(), Exit::Stopped);
    }
    let node = open(dir.path());
    assert_eq!(rows(&node).len(), 40);
    node.stop();
}

#[test]
fn a_second_opener_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    let error = chronos_node::open(options(dir.path())).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    node.stop();
    open(dir.path()).stop();
}

#[test]
fn weak_modes_work_and_say_so() {
    for fsync in [Fsync::Interval(Duration::from_millis(5)), Fsync::Never] {
        let dir = tempfile::tempdir().unwrap();
        let opened = || chronos_node::open(Options { fsync, ..options(dir.path()) }).unwrap();
        let node = opened();
        create(&node);
        for n in 0..50 {
            commit(&node, vec![put(n, b"weak")]).unwrap();
        }
        assert_eq!(node.status().unwrap().fsync, fsync);
        assert_eq!(node.stop(), Exit::Stopped);
        let node = opened();
        assert_eq!(rows(&node).len(), 50);
        node.stop();
    }
}

#[test]
fn several_nodes_live_in_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let nodes: Vec<_> = (0..3).map(|i| open(&dir.path().join(format!("{i}")))).collect();
    for (i, node) in nodes.iter().enumerate() {
        create(node);
        commit(node, vec![put(i as u64, b"mine")]).unwrap();
    }
    for (i, node) in nodes.iter().enumerate() {
        assert_eq!(rows(node).into_keys().collect::<Vec<_>>(), [i as u64]);
        assert_eq!(node.stop(), Exit::Stopped);
    }
}

#[test]
fn concurrent_commits_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    create(&node);
    let before = node.status().unwrap().wal.syncs;
    let (done, results) = mpsc::channel();
    let read_index = node.published().snapshot.applied;
    for n in 0..2_000 {
        let done = done.clone();
        let transaction = Transaction { read_index, ops: vec![put(n, b"shared")], ..Transaction::default() };
        node.commit_with(GroupId(0), transaction, Box::new(move |result| done.send(result).unwrap()));
    }
    for _ in 0..2_000 {
        results.recv().unwrap().unwrap();
    }
    assert_eq!(rows(&node).len(), 2_000);
    let syncs = node.status().unwrap().wal.syncs - before;
    assert!(syncs < 1_000, "{syncs} syncs for 2000 commits");
    node.stop();
}

#[test]
fn timers_fire_once_over_a_restart_and_reach_subscribers() {
    let dir = tempfile::tempdir().unwrap();
    let node = open(dir.path());
    create(&node);
    let soon = node.read_time() + Duration::from_millis(300);
    commit(&node, vec![schedule("soon", soon), schedule("never", soon + Duration::from_secs(3600))]).unwrap();
    node.stop();
    let node = open(dir.path());
    let (send, events) = mpsc::channel();
    let sink = Box::new(move |event| send.send(event).unwrap());
    let subscription = Subscription {
        topic: TOPIC,
        partitions: Vec::new(),
        consumer_group: Some("group".to_owned()),
        start: Start::Earliest,
        credit: 10,
        ack_timeout_ms: 60_000,
    };
    let id = node.subscribe_with(subscription, sink);
    let SubscriberEvent::Deliver(delivery) = events.recv_timeout(Duration::from_secs(10)).unwrap() else {
        panic!("closed")
    };
    assert!(node.read_time() >= soon, "delivered early");
    assert_eq!((delivery.subscriber, &delivery.offsets[..]), (id, &[(0, 0)][..]));
    let published = node.published();
    let read = published.snapshot.events(TOPIC, 0, 0, 10, node.read_time()).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].stored.event.message_id, "soon");
    node.subscriber(id, SubscriberInput::Ack(vec![(0, 0)]));
    until(|| node.published().snapshot.consumer(TOPIC, "group", 0).unwrap().floor == 1);
    assert_eq!(node.status().unwrap().engine.timers_pending, 1);
    assert_eq!(node.stop(), Exit::Stopped);
    assert!(matches!(events.recv_timeout(Duration::from_secs(10)), Ok(SubscriberEvent::Closed(_))));
}

fn schedule(id: &str, deliver_at: Timestamp) -> Op {
    let event = Event { message_id: id.to_owned(), payload: Bytes::from(id.to_owned()), ..Event::default() };
    Op::Schedule { topic: TOPIC, partition: 0, timer_id: id.to_owned(), event, deliver_at, claim: true }
}

/// Run by the test below in a process of its own: commits rows and prints each one that is acknowledged.
#[test]
fn child_commits_until_it_is_killed() {
    let Ok(dir) = std::env::var("CHRONOS_TEST_CHILD_DIR") else { return };
    let node = open(dir.as_ref());
    if node.published().snapshot.catalog.get(TABLE).is_none() {
        create(&node);
    }
    let first = rows(&node).len() as u64;
    for n in first.. {
        commit(&node, vec![put(n, &n.to_le_bytes())]).unwrap();
        println!("acked {n}");
        if n % 100 == 50 {
            node.checkpoint();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    for round in 0..5u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "durable::child_commits_until_it_is_killed", "--nocapture"])
            .env("CHRONOS_TEST_CHILD_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut wanted = 60 + round * 70;
        while wanted > 0 {
            let line = lines.next().expect("the child ended by itself").unwrap();
            wanted -= u64::from(line.contains("acked "));
        }
        child.kill().unwrap();
        let rest = lines.map_while(Result::ok).filter_map(|line| line.split("acked ").nth(1)?.parse().ok());
        acked = rest.last().map_or(acked + 60 + round * 70, |last: u64| last + 1).max(acked);
        child.wait().unwrap();
        let node = open(dir.path());
        let there = rows(&node);
        assert!(there.len() as u64 >= acked, "round {round}: {} rows of {acked}", there.len());
        assert!(there.keys().copied().eq(0..there.len() as u64), "round {round}: rows are missing");
        acked = there.len() as u64;
        assert_eq!(node.stop(), Exit::Stopped);
    }
}
