//! What operators ask of real processes. Snapshot files: made while writes go on, restored to one node that founds a new
//! cluster, and refused wherever a byte is not what was written. And a bound on the log's files.

use chronos_tests::cluster::{Cluster, Load, sql};
use chronos_tests::eventually;
use chronos_tests::http;
use chronos_tests::node::{Node, START_LIMIT, binary, sql_at};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

async fn chronos(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("CHRONOS_AUTH_TOKEN");
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
}

async fn must(arguments: &[&str]) -> String {
    let output = chronos(arguments).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "chronos {}: {said}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn refused(arguments: &[&str], why: &str) {
    let output = chronos(arguments).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "chronos {}: {said}", arguments.join(" "));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}

async fn group0(at: SocketAddr) -> Value {
    http::get(at, "/status").await.expect("a status").json()["groups"][0].clone()
}

/// The digest that a shown file names.
fn digest_of(shown: &str) -> &str {
    let at = shown.find("data digest ").expect("a digest") + "data digest ".len();
    &shown[at..at + 16]
}

/// A table, a topic with a published event, and one that is due in a week.
async fn fill(at: SocketAddr, rows: i64) {
    sql(at, "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await.expect("a table");
    sql(at, "CREATE TOPIC alerts").await.expect("a topic");
    for chunk in (0..rows).collect::<Vec<_>>().chunks(500) {
        let values: Vec<String> = chunk.iter().map(|id| format!("({id}, 'row {id}')")).collect();
        sql(at, &format!("INSERT INTO t VALUES {}", values.join(","))).await.expect("rows");
    }
    sql(at, "INSERT INTO alerts (message_id, payload) VALUES ('first', 'now')").await.expect("an event");
    let later = "INSERT INTO alerts (message_id, payload, deliver_at) VALUES ('late', 'x', now() + INTERVAL '7 days')";
    sql(at, later).await.expect("a timer");
}

async fn rows(at: SocketAddr, statement: &str) -> Value {
    sql(at, statement).await.unwrap_or_else(|why| panic!("{statement}: {why}"))["rows"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_restored_with_exactly_its_state() {
    let node = Node::dev().await;
    fill(node.http(), 2_000).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("all.snapshot");
    let address = node.quic().to_string();
    must(&["snapshot", "create", "--addr", &address, text(&file)]).await;
    refused(&["snapshot", "create", "--addr", &address, text(&file)], "is there already").await;
    let elsewhere = text(folder.path());
    let create =
        ["snapshot", "create", "--leader", &address, "--force", "--output", text(&file), "--data-dir"];
    refused(&[&create[..], &[elsewhere]].concat(), "has its data in").await;
    must(&[&create[..], &[text(node.data())]].concat()).await;
    let left = std::fs::read_dir(folder.path()).expect("a list").count();
    assert_eq!(left, 1, "no half file is left");
    let shown = must(&["snapshot", "show", text(&file)]).await;
    let before = group0(node.http()).await;
    assert_eq!(digest_of(&shown), before["data_digest"], "{shown}");
    assert!(shown.contains(&format!("entry {} of term", before["applied_index"])), "{shown}");

    let data = folder.path().join("restored");
    must(&["snapshot", "restore", "--input", text(&file), "--data-dir", text(&data)]).await;
    refused(&["snapshot", "restore", text(&file), "--data-dir", text(&data)], "--force").await;
    let mut restored = Node::new().data_dir(&data);
    restored.start().await;
    let after = group0(restored.http()).await;
    assert_eq!(after["data_digest"], before["data_digest"], "{before} {after}");
    assert_eq!(after["state_digest"], before["state_digest"]);
    for statement in [
        "SELECT * FROM t ORDER BY id",
        "SELECT payload FROM alerts",
        "SELECT timer_id, deliver_at FROM chronos.timers",
    ] {
        assert_eq!(rows(restored.http(), statement).await, rows(node.http(), statement).await, "{statement}");
    }
    // What was claimed stays claimed.
    let again = "INSERT INTO alerts (message_id, payload) VALUES ('first', 'again')";
    let _answered_either_way = sql(restored.http(), again).await;
    assert_eq!(rows(restored.http(), "SELECT count(*) FROM alerts").await[0][0], json!(1));
    sql(restored.http(), "INSERT INTO t VALUES (-1, 'new')").await.expect("it takes writes");
    restored.kill();
    restored.start().await;
    assert_eq!(rows(restored.http(), "SELECT count(*) FROM t").await[0][0], json!(2_001));
    let exit = restored.stop().await;
    assert!(exit.status.success());
    let sound = must(&["verify", "--data-dir", text(&data)]).await;
    assert!(sound.contains("sound"), "{sound}");
    // Over what is there.
    must(&["snapshot", "restore", text(&file), "--data-dir", text(&data), "--force"]).await;
    restored.start().await;
    assert_eq!(group0(restored.http()).await["data_digest"], before["data_digest"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_under_load_founds_a_cluster_that_others_join() {
    let cluster = Cluster::start(3).await;
    fill(cluster.nodes[0].http(), 500).await;
    let addresses: Vec<SocketAddr> = cluster.nodes.iter().map(Node::http).collect();
    let load = Load::start(4, &addresses).await;
    load.progress(200).await;
    let acknowledged =
        rows(addresses[0], "SELECT count(*) FROM load").await[0][0].as_i64().expect("a number");
    let folder = tempfile::tempdir().expect("a folder");
    let leader = cluster.leader().await;
    let file = folder.path().join("all.snapshot");
    // Any node will do: one that follows has all that was acknowledged before, too.
    let follower = cluster.nodes[(leader + 1) % 3].quic().to_string();
    must(&["snapshot", "create", "--addr", &follower, text(&file)]).await;
    load.progress(200).await;
    let done = load.stop().await;
    assert!(done.failed == 0, "{} writes failed", done.failed);
    let shown = must(&["snapshot", "show", text(&file)]).await;

    let mut second = Cluster::new(0);
    let at = second.found("node1", &file).await;
    let held = group0(second.nodes[at].http()).await;
    assert_eq!(digest_of(&shown), held["data_digest"], "{shown}");
    let there =
        rows(second.nodes[at].http(), "SELECT count(*) FROM load").await[0][0].as_i64().expect("a number");
    assert!(there >= acknowledged, "{there} of {acknowledged}");
    for name in ["node2", "node3"] {
        let joined = second.join(name);
        let spelled = second.spelled(joined);
        second.must(0, &["cluster", "add", &spelled, "--timeout", "90s"]).await;
        second.nodes[joined].ready(START_LIMIT).await.unwrap_or_else(|why| panic!("{why}"));
    }
    let client = sql_at(second.nodes[2].pg()).await.expect("a session");
    client.batch_execute("INSERT INTO t VALUES (-1, 'new')").await.expect("a write");
    second.agree().await;
    // What was published is recognised on nodes that never hashed it themselves.
    let leader = second.leader().await;
    second.nodes[leader].kill();
    let next = second.leader().await;
    let again = "INSERT INTO alerts (message_id, payload) VALUES ('first', 'again')";
    let _answered_either_way = sql(second.nodes[next].http(), again).await;
    for (statement, wanted) in [
        ("SELECT count(*) FROM t", json!(501)),
        ("SELECT count(*) FROM load", json!(there)),
        ("SELECT count(*) FROM alerts", json!(1)),
    ] {
        assert_eq!(rows(second.nodes[next].http(), statement).await[0][0], wanted, "{statement}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_or_changed_file_is_refused_before_anything_is_touched() {
    let node = Node::dev().await;
    fill(node.http(), 20).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("all.snapshot");
    must(&["snapshot", "create", "--addr", &node.quic().to_string(), text(&file)]).await;
    let whole = std::fs::read(&file).expect("the file");
    let data = folder.path().join("data");
    let broken = folder.path().join("broken.snapshot");
    let arguments = ["snapshot", "restore", text(&broken), "--data-dir", text(&data)];
    let step = (whole.len() / 24).max(1);
    for at in (0..whole.len()).step_by(step).chain([whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&broken, &bytes).expect("a file");
        refused(&arguments, "broken.snapshot: ").await;
        std::fs::write(&broken, &whole[..at]).expect("a file");
        refused(&arguments, "broken.snapshot: ").await;
        assert!(!data.exists(), "nothing was touched");
    }
    std::fs::write(&broken, [&whole[..], b"x"].concat()).expect("a file");
    refused(&arguments, &format!("byte {}: there is something behind the end", whole.len())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_administrators_make_snapshots() {
    let mut node =
        Node::new().env("CHRONOS_AUTH_TOKEN_ADMIN", "write").env("CHRONOS_AUTH_TOKEN_READONLY", "read");
    node.start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("all.snapshot");
    let address = node.quic().to_string();
    refused(&["snapshot", "create", "--addr", &address, text(&file)], "28000").await;
    refused(&["snapshot", "create", "--addr", &address, "--token", "read", text(&file)], "42501").await;
    assert_eq!(std::fs::read_dir(folder.path()).expect("a list").count(), 0);
    must(&["snapshot", "create", "--addr", &address, "--token", "write", text(&file)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_on_disk_stays_below_its_bound() {
    let bound = 2 << 20;
    let mut node = Node::new()
        .arg("--wal-max-bytes")
        .arg(bound.to_string())
        .arg("--wal-segment-bytes")
        .arg("64KB")
        .arg("--fsync")
        .arg("never");
    node.start().await;
    sql(node.http(), "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)").await.expect("a table");
    let note = "x".repeat(1_000);
    let (mut most, rounds) = (0, 120);
    for round in 0..rounds {
        let values: Vec<String> = (0..100).map(|n| format!("({}, '{note}')", round * 100 + n)).collect();
        let insert = format!("INSERT INTO t VALUES {}", values.join(","));
        // A log at its bound takes nothing until the checkpoint that is under way is done.
        let done = || async {
            match sql(node.http(), &insert).await {
                Err(why) if why.contains("53100") => None,
                told => Some(told.expect("rows")),
            }
        };
        eventually(Duration::from_secs(30), done).await.expect("room");
        let files = std::fs::read_dir(node.data().join("wal")).expect("a list");
        let length =
            |file: std::io::Result<std::fs::DirEntry>| file.ok()?.metadata().ok().map(|meta| meta.len());
        most = most.max(files.filter_map(length).sum::<u64>());
    }
    let wal = http::get(node.http(), "/status").await.expect("a status").json()["wal"].clone();
    println!("{most} bytes of files at the most, {wal}");
    assert!(wal["written_bytes"].as_u64() > Some(12_000_000), "{wal}");
    // The segment that is made ahead is not counted, and one more is being filled while a checkpoint ends.
    assert!(most <= bound + (512 << 10), "{most}");
    assert!(wal["kept_bytes"].as_u64() <= Some(bound), "{wal}");
    node.kill();
    node.start().await;
    assert_eq!(rows(node.http(), "SELECT count(*) FROM t").await[0][0], json!(rounds * 100));
    let refused = chronos(&["dev", "--wal-max-bytes", "64KB", "--data-dir", "nowhere"]).await;
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
}
