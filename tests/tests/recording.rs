//! A real process is recorded while its cluster loses a member under load, and the recording is replayed: the same
//! commits, the same firings, the same hash.

use chronos_sim::chronicle::What;
use chronos_sim::replay::{self, Replay};
use chronos_tests::cluster::{Cluster, Load, sql};
use chronos_tests::eventually;
use chronos_tests::http;
use serde_json::json;
use std::path::Path;
use std::time::Duration;

fn replayed(dir: &Path) -> Replay {
    let files = replay::files(dir).expect("there is a recording");
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = std::fs::read(&files[0]).expect("it can be read");
    replay::replay(&bytes, true).expect("it is a recording")
}

/// What was applied, by the node's own word.
fn applied_by_flight(text: &str) -> Vec<String> {
    let applied = text
        .lines()
        .filter_map(|line| line.split_once("-> applied ").map(|(_, what)| what.trim().to_owned()));
    applied.collect()
}

/// The same, by the replay.
fn applied_by_replay(replay: &Replay) -> Vec<String> {
    use chronos_engine::step::Trace;
    let applied = replay.chronicle.iter().filter_map(|happening| match &happening.what {
        What::Engine { trace: Trace::Applied { group, index, what }, .. } => {
            Some(format!("group {group} index {index} {what}"))
        }
        _ => None,
    });
    applied.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_recorded_is_replayed_with_the_same_commits_and_firings() {
    let record = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::new(3);
    cluster.spawn_with(0, &["--record", record.path().to_str().expect("UTF-8")]);
    cluster.start_all().await;
    let recorded = cluster.nodes[0].http();
    sql(recorded, "CREATE TOPIC alerts").await.expect("a topic");
    let addresses = [recorded, cluster.nodes[1].http(), cluster.nodes[2].http()];
    let load = Load::start(4, &addresses).await;
    let soon = "INSERT INTO alerts (message_id, payload, deliver_at) VALUES ('soon', 'x', now() + INTERVAL '3 seconds')";
    sql(recorded, soon).await.expect("a timer");
    load.progress(50).await;
    let leader = cluster.leader().await;
    // The recorded node lives on, whoever it is: it follows, stands for election, or leads.
    cluster.nodes[if leader == 0 { 1 } else { leader }].kill();
    load.progress(50).await;
    let fired = || async {
        let count = sql(recorded, "SELECT count(*) FROM alerts").await.ok()?;
        (count["rows"][0][0] == json!(1)).then_some(())
    };
    eventually(Duration::from_secs(30), fired).await.expect("the timer fires");
    let done = load.stop().await;
    let flight = applied_by_flight(&http::get(recorded, "/flight").await.expect("an answer").text());
    let exit = cluster.nodes[0].stop().await;
    assert!(exit.status.success(), "{}", exit.stderr);

    let first = replayed(record.path());
    assert_eq!(first.violation, None);
    assert_eq!(first.rest, 0, "a node that stops leaves a whole recording");
    assert!(exit.stderr.contains(&format!("{:016x}", first.hash)), "{:016x}: {}", first.hash, exit.stderr);
    let applied = applied_by_replay(&first);
    assert!(
        flight.len() > 100 && done.acknowledged.len() >= 100,
        "{} {}",
        flight.len(),
        done.acknowledged.len()
    );
    assert!(flight.iter().any(|what| what.ends_with(" fire")), "{flight:?}");
    let from =
        applied.iter().position(|what| *what == flight[0]).expect("the replay applies what the node did");
    assert_eq!(applied[from..from + flight.len()], flight[..]);
    let fires = |what: &str| first.sequence.iter().filter(|line| line.contains(what)).count();
    assert!(fires("logs the firing of soon") >= 1, "{:?}", first.sequence);
    assert_eq!(fires("applies the firing"), 1, "{:?}", first.sequence);
    let second = replayed(record.path());
    assert_eq!((first.hash, first.lines, first.sequence), (second.hash, second.lines, second.sequence));
}
