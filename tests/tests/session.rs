//! One node from end to end, as its users meet it: rows, readings, events and timers over every listener, a stop and a
//! start in between.

use chronos_server::api;
use chronos_tests::grpc::{self, Subscriber};
use chronos_tests::http::{get, post};
use chronos_tests::node::{Node, binary, sql_at};
use chronos_tests::{eventually, micros_now, micros_of, time_of};
use serde_json::json;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};
use tokio_postgres::Client;

async fn run(sql: &Client, statements: &[&str]) {
    for statement in statements {
        sql.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
}

async fn number(sql: &Client, question: &str) -> i64 {
    sql.query_one(question, &[]).await.unwrap_or_else(|e| panic!("{question}: {e:?}")).get(0)
}

#[tokio::test]
async fn rows_readings_and_events_outlive_a_restart() {
    let mut node = Node::dev().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    run(&sql, &["CREATE TABLE plants (id BIGINT PRIMARY KEY, name TEXT NOT NULL, height DOUBLE PRECISION)"])
        .await;
    run(&sql, &["CREATE INDEX plants_name ON plants (name)", "CREATE TOPIC alerts"]).await;
    let insert =
        sql.prepare("INSERT INTO plants (id, name, height) VALUES ($1, $2, $3)").await.expect("prepared");
    for id in 0..50i64 {
        let told = sql.execute(&insert, &[&id, &format!("plant {}", id % 5), &(id as f64 / 4.0)]).await;
        assert_eq!(told.expect("inserted"), 1);
    }
    let reading = |seq: i64| json!({"device_id": "esp-001", "ts": 1733856000 + seq, "seq": seq, "metrics": {"temp": 30.5, "humidity": 40.2}});
    let batch = json!([reading(1), reading(2), reading(3)]).to_string();
    for _ in 0..2 {
        let stored = post(node.http(), "/ingest", &batch).await.expect("an answer");
        assert!(stored.is_success(), "{}", stored.text());
    }
    run(&sql, &["BEGIN", "UPDATE plants SET height = height + 1 WHERE id < 10"]).await;
    run(&sql, &["INSERT INTO alerts (message_id, payload) VALUES ('watered', 'ten plants')", "COMMIT"]).await;
    run(
        &sql,
        &["BEGIN", "DELETE FROM plants", "INSERT INTO alerts (payload) VALUES ('all dead')", "ROLLBACK"],
    )
    .await;
    let later =
        "INSERT INTO alerts (message_id, payload, deliver_at) VALUES ('later', 'x', '2099-01-01T00:00:00Z')";
    run(&sql, &[later]).await;

    for round in ["before the restart", "after it", "after a kill"] {
        let sql = sql_at(node.pg()).await.expect("a session");
        let by_name = sql
            .query("SELECT name, count(*), sum(height) FROM plants GROUP BY name ORDER BY name", &[])
            .await;
        let by_name = by_name.expect("an aggregate");
        assert_eq!(by_name.len(), 5, "{round}");
        let first: (String, i64, f64) = (by_name[0].get(0), by_name[0].get(1), by_name[0].get(2));
        assert_eq!(first, ("plant 0".into(), 10, 56.25 + 2.0), "{round}");
        assert_eq!(number(&sql, "SELECT count(*) FROM plants WHERE name = 'plant 3'").await, 10, "{round}");
        assert_eq!(number(&sql, "SELECT count(*) FROM readings").await, 6, "{round}");
        assert_eq!(number(&sql, "SELECT count(*) FROM alerts").await, 1, "{round}");
        assert_eq!(number(&sql, "SELECT count(*) FROM chronos.timers").await, 1, "{round}");
        match round {
            "before the restart" => {
                let exit = node.stop().await;
                assert!(exit.status.success(), "SIGTERM ends it with exit code 0: {}", exit.stderr);
                node.start().await;
            }
            "after it" => {
                node.kill();
                node.start().await;
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_scheduled_event_arrives_once_and_not_early() {
    let node = Node::dev().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    run(&sql, &["CREATE TOPIC alerts", "CREATE TABLE readings_kept (id BIGINT PRIMARY KEY)"]).await;
    let mut subscriber = Subscriber::open(node.http(), "alerts", "watch", 10).await.expect("a subscription");
    let due = micros_now() + 400_000;
    run(&sql, &["BEGIN", "INSERT INTO readings_kept (id) VALUES (1)"]).await;
    let insert = "INSERT INTO alerts (message_id, key, payload, deliver_at) VALUES ('a', 'k', $1::bytea, $2)";
    sql.execute(insert, &[&&b"too warm"[..], &time_of(due)]).await.expect("scheduled");
    assert_eq!(
        number(&sql, "SELECT count(*) FROM chronos.timers").await,
        1,
        "a transaction sees its own timer"
    );
    run(&sql, &["COMMIT"]).await;
    assert_eq!(number(&sql, "SELECT count(*) FROM alerts").await, 0, "it is not there before its time");

    let next = tokio::time::timeout(Duration::from_secs(10), subscriber.next()).await;
    let event = next.expect("it arrives").expect("an event");
    let now = micros_now();
    let fired = event.fired_at_micros.expect("it was fired");
    assert_eq!(event.deliver_at_micros, Some(due));
    assert!(fired >= due && now >= due, "due {due}, fired {fired}, received {now}");
    assert_eq!(event.event.as_ref().expect("an event").payload, "too warm");
    subscriber.ack(&event).await.expect("acknowledged");

    let row = sql.query_one("SELECT deliver_at, fired_at FROM alerts WHERE message_id = 'a'", &[]).await;
    let row = row.expect("the topic shows it, once");
    assert_eq!(micros_of(row.get::<_, SystemTime>(0)), due);
    assert_eq!(micros_of(row.get::<_, SystemTime>(1)), fired);
    assert_eq!(number(&sql, "SELECT count(*) FROM chronos.timers").await, 0);

    // What it acknowledged does not come again to its group.
    drop(subscriber);
    let mut again = Subscriber::open(node.http(), "alerts", "watch", 10).await.expect("a subscription");
    run(&sql, &["INSERT INTO alerts (message_id, payload) VALUES ('b', 'next')"]).await;
    let next = tokio::time::timeout(Duration::from_secs(10), again.next()).await;
    let event = next.expect("the next arrives").expect("an event").event.expect("an event");
    assert_eq!(event.message_id, "b");
}

#[tokio::test]
async fn timers_are_cancelled_and_moved() {
    let node = Node::dev().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    run(&sql, &["CREATE TOPIC alerts"]).await;
    let mut events = grpc::events(node.http()).await.expect("a channel");
    let far = micros_now() + 3_600_000_000;
    for timer_id in ["moved", "cancelled by sql", "cancelled by grpc", "stays"] {
        let event =
            Some(api::Event { message_id: timer_id.into(), payload: "x".into(), ..Default::default() });
        let request = api::ScheduleRequest {
            topic: "alerts".into(),
            timer_id: timer_id.into(),
            event,
            deliver_at_micros: far,
        };
        let told = events.schedule(request).await.expect("scheduled").into_inner();
        let scheduled = matches!(told.outcome, Some(api::schedule_response::Outcome::Scheduled(_)));
        assert!(scheduled, "{timer_id}: {told:?}");
    }
    let cancel = "DELETE FROM chronos.timers WHERE topic = 'alerts' AND timer_id = 'cancelled by sql'";
    assert_eq!(sql.execute(cancel, &[]).await.expect("cancelled"), 1);
    assert_eq!(sql.execute(cancel, &[]).await.expect("answered"), 0, "a second cancel is too late");
    for expected in [api::cancel_response::Outcome::Done, api::cancel_response::Outcome::TooLate] {
        let timer_id = "cancelled by grpc".into();
        let request = api::CancelRequest { topic: "alerts".into(), timer_id, if_version: None };
        let told = events.cancel(request).await.expect("answered").into_inner();
        assert_eq!(told.outcome(), expected);
    }
    let shift = "UPDATE chronos.timers SET deliver_at = $1 WHERE topic = 'alerts' AND timer_id = 'moved'";
    let soon = micros_now() + 200_000;
    assert_eq!(sql.execute(shift, &[&time_of(soon)]).await.expect("moved"), 1);
    let fired = || async { (number(&sql, "SELECT count(*) FROM alerts").await == 1).then_some(()) };
    assert!(eventually(Duration::from_secs(10), fired).await.is_some(), "the moved timer fires");
    let row = sql.query_one("SELECT message_id, fired_at FROM alerts", &[]).await.expect("one");
    assert_eq!(row.get::<_, &str>(0), "moved");
    assert!(micros_of(row.get(1)) >= soon);
    assert_eq!(
        sql.execute(shift, &[&time_of(far)]).await.expect("answered"),
        0,
        "a fired timer cannot be moved"
    );
    assert_eq!(number(&sql, "SELECT count(*) FROM chronos.timers").await, 1);
}

#[tokio::test]
async fn one_message_id_is_one_event() {
    let mut node = Node::dev().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    run(&sql, &["CREATE TOPIC alerts"]).await;
    let publish = async |node: &Node, id: &str| {
        let event = api::Event { message_id: id.into(), payload: "x".into(), ..Default::default() };
        let request =
            api::PublishRequest { topic: "alerts".into(), event: Some(event), deliver_at_micros: None };
        let mut events = grpc::events(node.http()).await.expect("a channel");
        events.publish(request).await.expect("answered").into_inner().outcome.expect("an outcome")
    };
    use api::publish_response::Outcome;
    let Outcome::Published(first) = publish(&node, "a").await else { panic!("the first is published") };
    assert_eq!(publish(&node, "a").await, Outcome::Duplicate(api::Duplicate { first: Some(first) }));
    node.kill();
    node.start().await;
    assert_eq!(publish(&node, "a").await, Outcome::Duplicate(api::Duplicate { first: Some(first) }));
    let Outcome::Published(second) = publish(&node, "b").await else { panic!("another id is another event") };
    assert_eq!(second.offset, first.offset + 1);
}

#[tokio::test]
async fn conflicting_transactions() {
    let node = Node::dev().await;
    let (one, two) =
        (sql_at(node.pg()).await.expect("a session"), sql_at(node.pg()).await.expect("a session"));
    run(&one, &["CREATE TABLE stock (id BIGINT PRIMARY KEY, n BIGINT)", "INSERT INTO stock VALUES (1, 10)"])
        .await;
    run(&one, &["BEGIN"]).await;
    assert_eq!(number(&one, "SELECT n FROM stock WHERE id = 1").await, 10);
    run(&two, &["UPDATE stock SET n = 5 WHERE id = 1"]).await;
    assert_eq!(number(&one, "SELECT n FROM stock WHERE id = 1").await, 10, "a transaction reads one moment");
    let told = async {
        one.batch_execute("UPDATE stock SET n = 9 WHERE id = 1").await?;
        one.batch_execute("COMMIT").await
    };
    let refused = told.await.expect_err("the second to write what both read is refused");
    assert_eq!(refused.code().map(|c| c.code()), Some("40001"), "{refused:?}");
    run(&one, &["ROLLBACK"]).await;
    assert_eq!(number(&one, "SELECT n FROM stock WHERE id = 1").await, 5);
}

#[tokio::test]
async fn what_an_operator_asks() {
    let mut node = Node::dev().await;
    let health = get(node.http(), "/health").await.expect("an answer");
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!((&health["status"], &health["role"]), (&json!("ok"), &json!("Leader")), "{health}");
    assert!(health["term"].as_u64().is_some_and(|term| term > 0), "{health}");
    for path in ["/livez", "/readyz", "/status", "/metrics"] {
        let answer = get(node.http(), path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    assert!(get(node.http(), "/status").await.expect("an answer").json().is_object());
    let told = post(node.http(), "/sql", &json!({"sql": "SELECT 40 + 2 AS answer"}).to_string()).await;
    let told = told.expect("an answer");
    assert_eq!(told.status, 200, "{}", told.text());
    assert!(told.text().contains("42"), "{}", told.text());

    // A stop closes what is open, says so, and takes less than ten seconds.
    let mut wire = chronos_tests::wire::Wire::connect(node.pg()).await.expect("a session");
    wire.query("BEGIN").await.expect("a transaction");
    let exit = node.stop().await;
    assert!(exit.status.success(), "{}: {}", exit.status, exit.stderr);
    let (tag, body) = wire.message().await.expect("a last word");
    assert_eq!((tag, chronos_tests::wire::error_fields(&body).0.as_str()), (b'E', "57P01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line() {
    let node = Node::dev().await;
    let leader = node.quic().to_string();
    let chronos = |arguments: &[&str]| -> Output {
        Command::new(binary()).args(arguments).args(["--leader", &leader]).output().expect("chronos runs")
    };
    let text = |output: &Output| {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {out}{err}", output.status);
        out.into_owned()
    };
    text(&chronos(&["sql", "-e", "CREATE TOPIC alerts"]));
    text(&chronos(&["publish", "alerts", "hello", "--id", "one"]));
    text(&chronos(&["publish", "alerts", "later", "--id", "two", "--in", "1h"]));
    let listed = text(&chronos(&["schedule", "list"]));
    assert!(listed.contains("two"), "{listed}");
    text(&chronos(&["schedule", "cancel", "alerts", "two"]));
    let counted = text(&chronos(&["client", "-e", "SELECT count(*) AS pending FROM chronos.timers"]));
    assert!(counted.contains("pending") && counted.contains('0'), "{counted}");
    let failed = chronos(&["sql", "-e", "SELECT * FROM nowhere"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("nowhere"));
}
