//! Schedules of real processes: each occurrence once, whatever is killed, and the policy kept.

use chronos_tests::cluster::{Cluster, sql};
use chronos_tests::eventually;
use chronos_tests::node::Node;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

async fn rows(at: SocketAddr, statement: &str) -> Option<Value> {
    sql(at, statement).await.ok().map(|answer| answer["rows"].clone())
}

/// Waits until a count is as large as that.
async fn at_least(at: SocketAddr, statement: &str, wanted: i64) -> i64 {
    let counted = eventually(LIMIT, || async {
        rows(at, statement).await?[0][0].as_i64().filter(|count| *count >= wanted)
    });
    counted.await.unwrap_or_else(|| panic!("{statement} does not come to {wanted}"))
}

async fn one(at: SocketAddr, statement: &str) -> Value {
    rows(at, statement).await.expect(statement)[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_keeps_each_schedules_policy_and_fires_nothing_twice() {
    let mut node = Node::dev().await;
    let http = node.http();
    sql(http, "CREATE TOPIC ticks WITH (payload = 'text')").await.expect("a topic");
    for (name, misfire) in [("once", "FIRE ONCE"), ("each", "FIRE ALL"), ("none", "SKIP")] {
        let create = format!(
            "CREATE SCHEDULE {name} EVERY '1 second' MISFIRE {misfire} PUBLISH TO ticks KEY '{name}' PAYLOAD 'x'"
        );
        sql(http, &create).await.expect("a schedule");
    }
    let count = "SELECT count(*) FROM ticks WHERE key = 'each'";
    let mut ticks = at_least(http, count, 2).await;
    for _ in 0..2 {
        node.kill();
        // Occurrences are missed while nobody is there.
        tokio::time::sleep(Duration::from_millis(3_200)).await;
        node.start().await;
        ticks = at_least(node.http(), count, ticks + 5).await;
    }
    let http = node.http();
    for name in ["once", "each", "none"] {
        let pause = format!("ALTER SCHEDULE {name} PAUSE");
        sql(http, &pause).await.expect("it is paused");
    }
    let all = "SELECT count(*) = count(DISTINCT message_id), min(CASE WHEN fired_at < deliver_at THEN 0 ELSE 1 END) \
               FROM ticks";
    assert_eq!(one(http, all).await, json!([true, 1]), "each once, and none early");
    let of = |name: &str| {
        format!(
            "SELECT s.runs = count(*), s.missed, s.runs + s.missed = \
             (extract(epoch FROM max(t.deliver_at) - min(t.deliver_at)))::int + 1 \
             FROM chronos.schedules s JOIN ticks t ON t.key = s.schedule WHERE s.schedule = '{name}' \
             GROUP BY s.runs, s.missed"
        )
    };
    assert_eq!(one(http, &of("each")).await, json!([true, 0, true]), "all are made up for");
    for name in ["once", "none"] {
        let counts = one(http, &of(name)).await;
        let missed = counts[1].as_i64().expect("a count");
        assert!(counts[0] == json!(true) && counts[2] == json!(true) && missed >= 2, "{name}: {counts}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_runs_once_for_each_occurrence_while_leaders_are_killed() {
    let mut cluster = Cluster::start(3).await;
    let at = cluster.nodes[0].http();
    sql(at, "CREATE TABLE log (id BIGINT GENERATED ALWAYS AS IDENTITY, at TIMESTAMPTZ)")
        .await
        .expect("a table");
    let create = "CREATE SCHEDULE note EVERY '200 milliseconds' MISFIRE FIRE ALL OVERLAP ALLOW \
                  DO INSERT INTO log (at) VALUES (now())";
    sql(at, create).await.expect("a schedule");
    let count = "SELECT count(*) FROM log";
    let mut noted = at_least(at, count, 3).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill();
        let other = cluster.nodes[(leader + 1) % 3].http();
        noted = at_least(other, count, noted + 5).await;
        cluster.nodes[leader].start().await;
    }
    let at = cluster.nodes[cluster.leader().await].http();
    sql(at, "ALTER SCHEDULE note PAUSE").await.expect("it is paused");
    let all_ran = eventually(LIMIT, || async {
        let running = one(at, "SELECT running FROM chronos.schedules").await;
        (running[0] == json!(0)).then_some(())
    });
    all_ran.await.expect("all that fired has run");
    let sums = "SELECT s.runs - s.skipped - s.failed = (SELECT count(*) FROM log), s.failed, s.missed \
                FROM chronos.schedules s";
    assert_eq!(one(at, sums).await, json!([true, 0, 0]), "a row for each run, and no other");
    let history = "SELECT count(*) = count(DISTINCT occurrence_id), \
                   min(CASE WHEN ended_at < due_at THEN 0 ELSE 1 END) FROM chronos.schedule_runs";
    assert_eq!(one(at, history).await, json!([true, 1]));
    cluster.agree().await;
}
