//! SIGKILL at random moments under a mixed load: rows, transactions, readings, scheduled events, cancels and message
//! ids that repeat. Nothing that was acknowledged may be lost or doubled, nothing that was rolled back or refused may
//! appear, and every timer that was pending at a kill fires once, and not early.
//!
//! `KILLS=n` and `KILLS_SEED=n` choose how many kills and which; without them it is a handful with a fresh seed. The
//! ignored test is the same with fifty.

mod ledger;
mod load;
mod verdict;

use chronos_tests::node::{Node, START_LIMIT};
use chronos_tests::random::Random;
use ledger::World;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EVERYDAY: u64 = 8;
const HEAVY: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills() {
    let kills = std::env::var("KILLS").map_or(EVERYDAY, |n| n.parse().expect("KILLS is a number"));
    survive(kills).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "fifty kills take a minute or two"]
async fn what_was_acknowledged_survives_fifty_kills() {
    survive(HEAVY).await;
}

async fn survive(kills: u64) {
    let seed = Random::seed_from("KILLS_SEED");
    println!("kills: {kills}, seed: {seed} (KILLS={kills} KILLS_SEED={seed} chooses the same moments)");
    let mut random = Random::new(seed);
    // Small, so that kills meet checkpoints and changes of segments too.
    let mut node =
        Node::new().env("CHRONOS_CHECKPOINT_WAL_BYTES", "200KB").env("CHRONOS_WAL_SEGMENT_BYTES", "256KB");
    node.start().await;
    let world = Arc::new(World::new(node.pg(), node.http(), random.split()));
    load::prepare(&world).await;

    let mut slowest_start = Duration::ZERO;
    let mut pending_at_kills = 0;
    for kill in 1..=kills {
        let tasks = load::start(&world);
        // Nothing is waited for: the kill comes at a random moment of the load, and of a start below.
        tokio::time::sleep(Duration::from_millis(random.within(30..700))).await;
        node.kill();
        for task in tasks {
            let ended = tokio::time::timeout(Duration::from_secs(10), task).await;
            ended.expect("a client notices that its server is gone").expect("a client does not panic");
        }
        pending_at_kills += world.ledger().pending();
        if random.one_in(4) {
            node.spawn();
            tokio::time::sleep(Duration::from_millis(random.within(0..150))).await;
            node.kill();
        }
        node.spawn();
        match node.ready(START_LIMIT).await {
            Ok(took) => slowest_start = slowest_start.max(took),
            Err(why) => panic!("after kill {kill} of seed {seed}: {why}"),
        }
    }

    load::retry(&world).await;
    let settled = Instant::now();
    let late = verdict::wait_until_fired(&world).await;
    verdict::check(&world).await;
    let received = verdict::check_subscribers(&world).await;
    assert!(node.stop().await.status.success(), "SIGTERM ends it with exit code 0: {}", node.stderr());
    node.start().await;
    verdict::check(&world).await;

    println!("{}", world.ledger().summary());
    println!(
        "timers pending at the kills: {pending_at_kills}; fired once each, none early; the last {} ms after its time \
         or the last start; received: {received}; slowest start: {} ms; waited {} s for the last timers",
        late.as_millis(),
        slowest_start.as_millis(),
        settled.elapsed().as_secs()
    );
}
