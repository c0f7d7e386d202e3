//! Topics of several partitions on clusters of real processes: served by every node, once over the loss of leaders, and
//! moved when nodes come and go.

use chronos_tests::cluster::{Cluster, sql};
use chronos_tests::eventually;
use chronos_tests::http;
use chronos_tests::node::{Node, START_LIMIT};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(40);

/// A statement that is tried until it is taken.
async fn must(at: SocketAddr, statement: &str) -> Value {
    let tried = eventually(PATIENCE, || async { sql(at, statement).await.ok() }).await;
    match tried {
        Some(answer) => answer,
        None => panic!("{statement}: {:?}", sql(at, statement).await),
    }
}

/// Waits until a query's first column is this, at every node.
async fn everywhere(cluster: &Cluster, query: &str, wanted: Value) {
    for node in cluster.nodes.iter().filter(|node| node.pid().is_some()) {
        let found = || async {
            let answer = sql(node.http(), query).await.ok()?;
            let rows = answer["rows"].as_array()?.iter().map(|row| row[0].clone());
            (Value::Array(rows.collect()) == wanted).then_some(())
        };
        if eventually(PATIENCE, found).await.is_none() {
            panic!("{query} at {}: {:?}, not {wanted}", node.http(), sql(node.http(), query).await);
        }
    }
}

/// The voters of every group beside group 0, as any node tells them.
async fn voters(node: &Node) -> Vec<BTreeSet<String>> {
    let view = http::get(node.http(), "/cluster").await.expect("a view").json();
    let groups = view["groups"].as_array().expect("groups").iter().skip(1);
    let names = |group: &Value| {
        let names = group["voters"].as_array().expect("voters").iter();
        names.map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    groups.map(names).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_five_serves_every_partition() {
    let cluster = Cluster::start(5).await;
    let at = |n: usize| cluster.nodes[n % 5].http();
    must(at(0), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await;
    must(at(0), "CREATE TOPIC orders WITH (partitions = 8, payload = 'text')").await;
    let mut ids = BTreeSet::new();
    for n in 0..20 {
        must(at(n), &format!("INSERT INTO orders (message_id, key) VALUES ('m{n}', 'k{n}')")).await;
        ids.insert(format!("m{n}"));
        let count = must(at(n + 1), "SELECT count(*) FROM orders").await;
        assert_eq!(count["rows"][0][0], json!(n + 1), "what was acknowledged is read anywhere");
    }
    for n in 0..10 {
        let both = format!(
            "BEGIN; INSERT INTO t VALUES ({n}); INSERT INTO orders (message_id, key) VALUES ('a{n}', 'k{n}'), ('b{n}', 'j{n}'); COMMIT"
        );
        let client = chronos_tests::node::sql_at(cluster.nodes[n % 5].pg()).await.expect("a session");
        client.batch_execute(&both).await.unwrap_or_else(|e| panic!("{e:?}"));
        ids.extend([format!("a{n}"), format!("b{n}")]);
    }
    let later = "INSERT INTO orders (message_id, deliver_at) SELECT 't' || i, now() + interval '1 hour' FROM generate_series(1, 9) AS g(i)";
    must(at(3), later).await;
    everywhere(&cluster, "SELECT count(*) FROM chronos.timers WHERE topic = 'orders'", json!([9])).await;
    for n in 1..5 {
        let cancelled =
            must(at(n), &format!("DELETE FROM chronos.timers WHERE topic = 'orders' AND timer_id = 't{n}'"))
                .await;
        assert_eq!(cancelled["tag"], json!("DELETE 1"), "{cancelled}");
        let id = n + 4;
        let moved = format!(
            "UPDATE chronos.timers SET deliver_at = now() WHERE topic = 'orders' AND timer_id = 't{id}'"
        );
        assert_eq!(must(at(n), &moved).await["tag"], json!("UPDATE 1"));
        ids.insert(format!("t{id}"));
    }
    let all: Vec<String> = ids.into_iter().collect();
    everywhere(&cluster, "SELECT message_id FROM orders ORDER BY message_id", json!(all)).await;
    everywhere(&cluster, "SELECT timer_id FROM chronos.timers", json!(["t9"])).await;
    let settled = || async { voters(&cluster.nodes[0]).await.iter().all(|v| v.len() == 3).then_some(()) };
    eventually(PATIENCE, settled).await.expect("three vote in each group of partitions");
    cluster.must(1, &["cluster", "rebalance"]).await;
    // One subscriber, told of any node, receives from the leaders of all partitions.
    let count = all.len().to_string();
    let received = cluster
        .must(
            2,
            &[
                "subscribe",
                "orders",
                "--group",
                "g",
                "--from",
                "earliest",
                "--format",
                "json",
                "--count",
                &count,
            ],
        )
        .await;
    let received: BTreeSet<String> = received
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["message_id"]
                .as_str()
                .expect("an id")
                .to_owned()
        })
        .collect();
    assert_eq!(received.into_iter().collect::<Vec<_>>(), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_and_their_events_arrive_once_although_leaders_are_killed() {
    let mut cluster = Cluster::start(3).await;
    must(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await;
    must(cluster.nodes[0].http(), "CREATE TOPIC orders WITH (partitions = 6)").await;
    let mut tried = 0;
    for _ in 0..4 {
        let leader = cluster.leader().await;
        for n in 0..10 {
            let id = tried;
            tried += 1;
            let to = cluster.nodes[n % 3].pg();
            if let Ok(client) = chronos_tests::node::sql_at(to).await {
                // A key that is taken refuses a second attempt; what became of the first is read in the end.
                let both = format!(
                    "BEGIN; INSERT INTO t VALUES ({id}); INSERT INTO orders (message_id, key) VALUES ('a{id}', 'k{id}'), ('b{id}', 'j{id}'); COMMIT"
                );
                let _either = client.batch_execute(&both).await;
            }
            if n == 6 {
                cluster.nodes[leader].kill();
            }
        }
        cluster.nodes[leader].start().await;
    }
    let rows = must(cluster.nodes[0].http(), "SELECT id FROM t ORDER BY id").await;
    let rows: Vec<i64> =
        rows["rows"].as_array().expect("rows").iter().filter_map(|row| row[0].as_i64()).collect();
    println!("{} of {tried} transactions are there", rows.len());
    assert!(rows.len() > 20, "{rows:?}");
    let mut wanted: Vec<String> = rows.iter().flat_map(|id| [format!("a{id}"), format!("b{id}")]).collect();
    wanted.sort();
    everywhere(&cluster, "SELECT message_id FROM orders ORDER BY message_id", json!(wanted)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_to_a_node_that_joins_and_from_one_that_leaves() {
    let mut cluster = Cluster::start(3).await;
    must(cluster.nodes[0].http(), "CREATE TOPIC orders WITH (partitions = 8)").await;
    let publish = |n: usize| format!("INSERT INTO orders (message_id, key) VALUES ('m{n:03}', 'k{n}')");
    for n in 0..30 {
        must(cluster.nodes[n % 3].http(), &publish(n)).await;
    }
    let fourth = cluster.join("node4");
    let spelled = cluster.spelled(fourth);
    cluster.must(0, &["cluster", "add", &spelled, "--timeout", "90s"]).await;
    let joined = voters(&cluster.nodes[0]).await;
    assert_eq!(joined.len(), 8);
    assert!(joined.iter().all(|voters| voters.len() == 3), "{joined:?}");
    assert!(joined.iter().any(|voters| voters.contains("node4")), "{joined:?}");
    for n in 30..40 {
        must(cluster.nodes[n % 4].http(), &publish(n)).await;
    }
    cluster.must(0, &["cluster", "remove", "node2", "--timeout", "90s"]).await;
    let left: BTreeSet<String> = ["node1", "node3", "node4"].map(str::to_owned).into();
    assert!(voters(&cluster.nodes[0]).await.iter().all(|voters| *voters == left));
    cluster.forget("node2");
    let at = cluster.at("node4");
    cluster.nodes[at].ready(START_LIMIT).await.unwrap_or_else(|why| panic!("{why}"));
    for n in 40..50 {
        must(cluster.nodes[n % 3].http(), &publish(n)).await;
    }
    let wanted: Vec<String> = (0..50).map(|n| format!("m{n:03}")).collect();
    everywhere(&cluster, "SELECT message_id FROM orders ORDER BY message_id", json!(wanted)).await;
}
