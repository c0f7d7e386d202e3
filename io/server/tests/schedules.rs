//! Schedules on a node: their events, their statements, and what becomes of one that fails.

mod common;

use common::World;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The rows of a query, asked for again until they are as they should be.
fn until(world: &World, sql: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let rows = world.sql(sql)["rows"].clone();
        if wanted(&rows) {
            return rows;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{sql}: {rows}");
    }
}

#[test]
fn events_of_a_schedule_reach_topics_of_one_partition_and_of_several() {
    let world = World::with(|config| config.partitions = 3);
    world.sql("CREATE TOPIC one WITH (payload = 'text')");
    world.sql("CREATE TOPIC many WITH (partitions = 4, payload = 'text')");
    world.sql("CREATE SCHEDULE a EVERY '100 milliseconds' COUNT 5 PUBLISH TO one PAYLOAD 'tick'");
    world.sql("CREATE SCHEDULE b CRON '* * * * * *' COUNT 2 PUBLISH TO many KEY 'k' PAYLOAD 'tock'");
    for (topic, count, payload) in [("one", 5, "tick"), ("many", 2, "tock")] {
        let all = format!("SELECT count(*), count(DISTINCT message_id), min(payload) FROM {topic}");
        until(&world, &all, |rows| *rows == json!([[count, count, payload]]));
        let early = format!("SELECT count(*) FROM {topic} WHERE fired_at < deliver_at");
        assert_eq!(world.sql(&early)["rows"], json!([[0]]));
        let ids = format!(
            "SELECT count(*) FROM chronos.schedule_runs r JOIN {topic} t ON t.message_id = r.occurrence_id \
             WHERE t.deliver_at = r.due_at"
        );
        // The history is of group 0, the events of their partitions: each is read by itself.
        let runs = world.sql("SELECT count(*) FROM chronos.schedule_runs WHERE outcome = 'published'");
        assert!(runs["rows"][0][0].as_i64() >= Some(count), "{runs}");
        if topic == "one" {
            assert_eq!(world.sql(&ids)["rows"], json!([[count]]));
        }
    }
    until(&world, "SELECT DISTINCT state FROM chronos.schedules", |rows| *rows == json!([["ended"]]));
}

#[test]
fn statements_run_once_each_at_their_time_and_by_hand() {
    let world = World::start();
    world.sql("CREATE TABLE log (at TIMESTAMPTZ, who TEXT)");
    world.sql(
        "CREATE SCHEDULE s EVERY '100 milliseconds' COUNT 6 DO INSERT INTO log VALUES (now(), current_user)",
    );
    until(&world, "SELECT state, runs, running FROM chronos.schedules", |rows| {
        *rows == json!([["ended", 6, 0]])
    });
    let runs = "SELECT outcome, count(*) FROM chronos.schedule_runs GROUP BY outcome ORDER BY outcome";
    let outcomes = world.sql(runs)["rows"].clone();
    let done = outcomes[0][1].as_i64().unwrap();
    assert_eq!(outcomes[0][0], "done", "{outcomes}");
    // A slow machine may pass some over: then it says so.
    let skipped = outcomes.get(1).map_or(0, |row| row[1].as_i64().unwrap());
    assert_eq!(done + skipped, 6, "{outcomes}");
    assert_eq!(world.sql("SELECT count(*), min(who) FROM log")["rows"], json!([[done, "chronos"]]));
    let early = "SELECT count(*) FROM chronos.schedule_runs WHERE ended_at < due_at";
    assert_eq!(world.sql(early)["rows"], json!([[0]]));
    world.sql("ALTER SCHEDULE s TRIGGER");
    until(&world, "SELECT count(*) FROM log", |rows| *rows == json!([[done + 1]]));
    let last = "SELECT occurrence_id LIKE 's/%/by-hand-1', outcome FROM chronos.schedule_runs ORDER BY ended_at DESC LIMIT 1";
    until(&world, last, |rows| *rows == json!([[true, "done"]]));
}

#[test]
fn a_statement_that_fails_is_recorded_and_the_next_occurrence_comes() {
    let world = World::start();
    world.sql("CREATE TABLE t (n INT PRIMARY KEY)");
    world.sql("CREATE SCHEDULE s EVERY '100 milliseconds' DO INSERT INTO t VALUES (1)");
    let runs = "SELECT error_code, error FROM chronos.schedule_runs WHERE outcome = 'failed' ORDER BY due_at LIMIT 2";
    let failed = until(&world, runs, |rows| rows.as_array().is_some_and(|rows| rows.len() == 2));
    assert_eq!(failed[0][0], "23505", "{failed}");
    assert!(failed[0][1].as_str().unwrap().contains("duplicate key"), "{failed}");
    assert_eq!(world.sql("SELECT count(*) FROM t")["rows"], json!([[1]]));
    world.sql("DELETE FROM t");
    until(&world, "SELECT count(*) FROM t", |rows| *rows == json!([[1]]));
    world.sql("DROP SCHEDULE s");
}

#[test]
fn statements_publish_to_partitions_and_may_not_read_them() {
    let world = World::with(|config| config.partitions = 3);
    world.sql("CREATE TOPIC many WITH (partitions = 4, payload = 'text')");
    world.sql("CREATE TABLE t (n INT)");
    world.sql("INSERT INTO t VALUES (1), (2), (3)");
    world.sql(
        "CREATE SCHEDULE s EVERY '100 milliseconds' COUNT 1 \
         DO INSERT INTO many (key, payload) SELECT n::text, 'p' FROM t",
    );
    until(&world, "SELECT count(*) FROM many", |rows| *rows == json!([[3]]));
    world
        .sql("CREATE SCHEDULE r EVERY '100 milliseconds' COUNT 1 DO INSERT INTO t SELECT count(*) FROM many");
    let failed = "SELECT error_code FROM chronos.schedule_runs WHERE schedule = 'r'";
    until(&world, failed, |rows| *rows == json!([["0A000"]]));
}
