//! Topics of several partitions on one node: by SQL, by gRPC, in transactions with rows.

mod common;

use chronos_server::api::events_client::EventsClient;
use chronos_server::api::publish_response::Outcome;
use chronos_server::api::subscribe_request::{self, Open, Request, open::Start};
use chronos_server::api::subscribe_response::Response;
use chronos_server::api::{self, Event};
use common::World;
use serde_json::json;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

fn client<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.unwrap() })
}

fn world() -> World {
    World::with(|config| config.partitions = 3)
}

/// The first row's first column, asked for again until it is as it should be.
fn until(world: &World, sql: &str, wanted: serde_json::Value) {
    let begun = std::time::Instant::now();
    loop {
        let found = world.sql(sql)["rows"][0][0].clone();
        if found == wanted {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{sql}: {found}, not {wanted}");
    }
}

fn refusal(world: &World, sql: &str) -> (String, String) {
    let response = world.request("POST", "/sql", sql);
    assert_ne!(response.status, 200, "{sql}: {}", response.body);
    (response.code(), response.body)
}

#[test]
fn a_node_without_groups_for_them_says_so() {
    let world = World::with(|config| config.partitions = 0);
    let (code, why) = refusal(&world, "CREATE TOPIC t WITH (partitions = 4)");
    assert_eq!(code, "0A000");
    assert!(why.contains("--partitions"), "{why}");
    world.sql("CREATE TOPIC t WITH (partitions = 1)");
}

#[test]
fn events_are_inserted_and_selected_over_all_partitions() {
    let world = world();
    world.sql("CREATE TOPIC orders WITH (partitions = 6, payload = 'text')");
    for n in 0..12 {
        // Alone it goes straight to its partition, and is read at once.
        world.sql(&format!("INSERT INTO orders (key, payload) VALUES ('k{}', 'p{n}')", n % 4));
        assert_eq!(world.sql("SELECT count(*) FROM orders")["rows"], json!([[n + 1]]));
    }
    let by_key = "SELECT count(*) FROM (SELECT DISTINCT key, partition FROM orders) AS d";
    assert_eq!(world.sql(by_key)["rows"], json!([[4]]), "a key is in one partition");
    let partitions = world.sql("SELECT DISTINCT partition FROM orders ORDER BY partition");
    let some = partitions["rows"][0][0].as_i64().unwrap();
    let one =
        world.sql(&format!("SELECT count(*) FROM orders WHERE partition = {some} AND \"offset\" < 100"));
    assert!(one["rows"][0][0].as_i64().unwrap() > 0);
    // Many together are one transaction, whose events follow.
    world.sql("INSERT INTO orders (message_id) SELECT 'many' || i FROM generate_series(1, 50) AS g(i)");
    until(&world, "SELECT count(*) FROM orders", json!(62));
    world.sql("INSERT INTO orders (message_id) SELECT 'many' || i FROM generate_series(1, 50) AS g(i)");
    world.sql("INSERT INTO orders (message_id) VALUES ('many7')");
    world.sql("INSERT INTO orders (message_id) VALUES ('last')");
    until(&world, "SELECT count(*) FROM orders", json!(63));
    world.sql("DROP TOPIC orders");
    assert_eq!(refusal(&world, "SELECT * FROM orders").0, "42P01");
    world.sql("CREATE TOPIC orders WITH (partitions = 2)");
    assert_eq!(world.sql("SELECT count(*) FROM orders")["rows"], json!([[0]]));
}

#[test]
fn timers_of_partitions_are_listed_changed_and_fired() {
    let world = world();
    world.sql("CREATE TOPIC orders WITH (partitions = 6, payload = 'text')");
    for n in 0..9 {
        world.sql(&format!(
            "INSERT INTO orders (message_id, payload, deliver_at) VALUES ('t{n}', 'p', now() + interval '1 hour')"
        ));
    }
    assert_eq!(world.sql("SELECT count(*) FROM chronos.timers")["rows"], json!([[9]]));
    let cancelled = world.sql("DELETE FROM chronos.timers WHERE topic = 'orders' AND timer_id = 't3'");
    assert_eq!(cancelled["tag"], json!("DELETE 1"), "{cancelled}");
    let again = world.sql("DELETE FROM chronos.timers WHERE topic = 'orders' AND timer_id = 't3'");
    assert_eq!(again["tag"], json!("DELETE 0"));
    let moved = "UPDATE chronos.timers SET deliver_at = now() WHERE topic = 'orders' AND timer_id = 't4'";
    assert_eq!(world.sql(moved)["tag"], json!("UPDATE 1"));
    until(&world, "SELECT count(*) FROM orders", json!(1));
    assert_eq!(world.sql("SELECT message_id FROM orders")["rows"], json!([["t4"]]));
    assert_eq!(world.sql("SELECT count(*) FROM chronos.timers")["rows"], json!([[7]]));
    let (code, why) = refusal(&world, "DELETE FROM chronos.timers");
    assert_eq!(code, "0A000", "{why}");
    client(async {
        let mut events = EventsClient::connect(world.grpc()).await.unwrap();
        let request = api::ListSchedulesRequest { topic: "orders".into(), limit: 0 };
        let listed = events.list_schedules(request).await.unwrap().into_inner().timers;
        assert_eq!(listed.len(), 7);
        assert!(listed.is_sorted_by_key(|timer| timer.deliver_at_micros));
        let request = api::CancelRequest { topic: "orders".into(), timer_id: "t5".into(), if_version: None };
        let answer = events.cancel(request.clone()).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), api::cancel_response::Outcome::Done);
        let answer = events.cancel(request).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), api::cancel_response::Outcome::TooLate);
    });
}

#[test]
fn rows_and_events_commit_together() {
    let world = world();
    world.sql("CREATE TOPIC orders WITH (partitions = 6, payload = 'text')");
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)");
    client(async {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(world.pg_port()).user("u").dbname("chronos");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
        client
            .batch_execute("INSERT INTO orders (message_id, payload) VALUES ('a', 'x'), ('b', 'y')")
            .await
            .unwrap();
        client.batch_execute("COMMIT").await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        client.batch_execute("INSERT INTO orders (message_id) VALUES ('c')").await.unwrap();
        client.batch_execute("ROLLBACK").await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        let refused = client.batch_execute("SELECT * FROM orders").await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "0A000");
        client.batch_execute("ROLLBACK").await.unwrap();
        // A statement that a client has prepared, by the extended protocol.
        let insert = client.prepare("INSERT INTO orders (message_id, key) VALUES ($1, $2)").await.unwrap();
        client.execute(&insert, &[&"d", &"k"]).await.unwrap();
        let rows = client.query("SELECT message_id FROM orders WHERE key = $1", &[&"k"]).await.unwrap();
        assert_eq!(rows.len(), 1);
    });
    until(&world, "SELECT count(*) FROM orders", json!(3));
    assert_eq!(
        world.sql("SELECT message_id FROM orders ORDER BY message_id")["rows"],
        json!([["a"], ["b"], ["d"]])
    );
    let (code, _) = refusal(&world, "INSERT INTO t SELECT 7 FROM orders WHERE message_id = 'a'");
    assert_eq!(code, "0A000");
}

#[test]
fn events_published_by_grpc_are_delivered_from_every_partition() {
    let world = world();
    world.sql("CREATE TOPIC orders WITH (partitions = 6)");
    client(async {
        let mut events = EventsClient::connect(world.grpc()).await.unwrap();
        let open = Open {
            topic: "orders".into(),
            group: "g".into(),
            start: Some(Start::Earliest(true)),
            credit: 100,
            ..Open::default()
        };
        let (requests, receive) = mpsc::unbounded_channel();
        requests.send(api::SubscribeRequest { request: Some(Request::Open(open)) }).unwrap();
        let mut responses =
            events.subscribe(UnboundedReceiverStream::new(receive)).await.unwrap().into_inner();
        let item = |n: usize| api::publish_batch_request::Item {
            event: Some(Event {
                message_id: format!("m{n}"),
                key: Some(format!("k{n}")),
                ..Event::default()
            }),
            deliver_at_micros: None,
        };
        let items = (0..40).map(item).collect();
        let batch = api::PublishBatchRequest { topic: "orders".into(), items };
        let results = events.publish_batch(batch).await.unwrap().into_inner().results;
        let mut published = BTreeSet::new();
        for (n, result) in results.iter().enumerate() {
            let Some(Outcome::Published(position)) = result.outcome else { panic!("{result:?}") };
            assert_eq!(result.message_id, format!("m{n}"), "results are in the order of the items");
            assert!(published.insert((position.partition, position.offset)));
        }
        let partitions: BTreeSet<u32> = published.iter().map(|(partition, _)| *partition).collect();
        assert!(partitions.len() > 3, "{partitions:?}");
        let mut delivered = BTreeSet::new();
        while delivered.len() < 40 {
            let Some(Response::Event(event)) = responses.message().await.unwrap().unwrap().response else {
                continue;
            };
            let position = event.position.unwrap();
            assert!(delivered.insert((position.partition, position.offset)));
            let ack = subscribe_request::Ack { positions: vec![position] };
            requests.send(api::SubscribeRequest { request: Some(Request::Ack(ack)) }).unwrap();
        }
        assert_eq!(delivered, published);
    });
}

#[test]
fn savepoints_and_prepared_statements_decide_what_the_outbox_gets() {
    let world = world();
    world.sql("CREATE TABLE t (id BIGINT PRIMARY KEY)");
    world.sql("CREATE TOPIC orders WITH (partitions = 6)");
    client(async {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(world.pg_port()).user("u").dbname("chronos");
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        for statement in [
            "PREPARE put (text) AS INSERT INTO orders (message_id) VALUES ($1)",
            "BEGIN",
            "INSERT INTO t VALUES (1)",
            "EXECUTE put('kept')",
            "SAVEPOINT s",
            "EXECUTE put('undone')",
            "INSERT INTO t VALUES (2)",
            "ROLLBACK TO s",
            "EXECUTE put('kept too')",
            "COMMIT",
            "BEGIN",
            "EXECUTE put('never')",
            "ROLLBACK",
            "EXECUTE put('alone')",
        ] {
            client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
        }
    });
    until(&world, "SELECT count(*) FROM orders", json!(3));
    let ids = world.sql("SELECT message_id FROM orders ORDER BY message_id");
    assert_eq!(ids["rows"], json!([["alone"], ["kept"], ["kept too"]]));
    assert_eq!(world.sql("SELECT id FROM t")["rows"], json!([[1]]));
}
