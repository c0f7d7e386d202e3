//! Clusters of real processes: they form, serve everywhere, outlive the loss of any minority and of all at once, and
//! change their members while they are written to.

use chronos_tests::cluster::{Cluster, Load, sql};
use chronos_tests::eventually;
use chronos_tests::http::{self, Http};
use chronos_tests::node::{Node, START_LIMIT, binary, sql_at};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;

fn addresses(cluster: &Cluster) -> Vec<SocketAddr> {
    cluster.nodes.iter().map(Node::http).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_and_each_serves_what_the_others_were_told() {
    let cluster = Cluster::start(3).await;
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY, by TEXT)").await.expect("a table");
    for round in 0..10 {
        for (at, node) in cluster.nodes.iter().enumerate() {
            let id = round * 3 + at;
            let client = sql_at(node.pg()).await.expect("a session");
            let told = client.batch_execute(&format!("INSERT INTO t VALUES ({id}, 'node {at}')")).await;
            told.unwrap_or_else(|e| panic!("{e:?}"));
            for other in &cluster.nodes {
                let count = sql(other.http(), "SELECT count(*) FROM t").await.expect("a count");
                assert_eq!(
                    count["rows"][0][0],
                    json!(id + 1),
                    "a write that was acknowledged is read anywhere"
                );
            }
        }
    }
    cluster.agree().await;
    let leader = cluster.leader().await;
    for (at, node) in cluster.nodes.iter().enumerate() {
        let health = http::get(node.http(), "/health").await.expect("health").json();
        assert_eq!(health["role"], json!(if at == leader { "Leader" } else { "Follower" }), "{health}");
        let shown = cluster.must(at, &["cluster", "status"]).await;
        assert!(shown.contains(&format!("leader {}", cluster.name(leader))), "{shown}");
        assert!(shown.contains("3 of 3 voters reachable"), "{shown}");
        let told = cluster.must(at, &["client", "-e", "SELECT count(*) FROM t"]).await;
        assert!(told.contains("30"), "{told}");
    }
    let other = (leader + 1) % 3;
    cluster.must((leader + 2) % 3, &["cluster", "transfer", cluster.name(other)]).await;
    assert_eq!(cluster.leader().await, other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(8, &addresses(&cluster)).await;
    for round in 0..3 {
        load.progress(100).await;
        let leader = cluster.leader().await;
        cluster.nodes[leader].kill();
        load.progress(100).await;
        let next = cluster.leader().await;
        assert_ne!(leader, next);
        cluster.nodes[leader].start().await;
        println!("round {round}: {} led, then {}", cluster.name(leader), cluster.name(next));
    }
    load.progress(100).await;
    let done = load.stop().await;
    println!("{} acknowledged, {} failed, longest gap {:?}", done.acknowledged.len(), done.failed, done.gap);
    for node in &cluster.nodes {
        done.check(node.http()).await;
    }
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_and_go_while_the_cluster_is_written_to() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(4, &addresses(&cluster)[..2]).await;
    load.progress(100).await;
    let fourth = cluster.join("node4");
    let spelled = cluster.spelled(fourth);
    cluster.must(0, &["cluster", "add", &spelled, "--timeout", "90s"]).await;
    assert_eq!(cluster.groups_out_of_place().await, Vec::<serde_json::Value>::new());
    load.progress(100).await;
    // The one that serves none of the writers, leader or not.
    cluster.must(0, &["cluster", "remove", "node3", "--timeout", "90s"]).await;
    load.progress(100).await;
    cluster.forget("node3");
    assert_eq!(cluster.groups_out_of_place().await, Vec::<serde_json::Value>::new());
    let fifth = cluster.join("node5");
    let spelled = cluster.spelled(fifth);
    let output = cluster.chronos(1, &["cluster", "add", &spelled, "--timeout", "90s"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    // It tells what it waits for, and in the end that nothing is left to be done.
    assert!(said.lines().count() > 1 && said.contains("all groups are in place"), "{said}");
    assert_eq!(cluster.groups_out_of_place().await, Vec::<serde_json::Value>::new());
    load.progress(100).await;
    let done = load.stop().await;
    println!("{} acknowledged, {} failed, longest gap {:?}", done.acknowledged.len(), done.failed, done.gap);
    for node in &mut cluster.nodes {
        node.ready(START_LIMIT).await.unwrap_or_else(|why| panic!("{why}"));
        done.check(node.http()).await;
    }
    cluster.agree().await;
    let shown = cluster.must(0, &["cluster", "status"]).await;
    assert!(shown.contains("4 of 4 voters reachable") && !shown.contains("node3"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_serve_http_elsewhere_are_found() {
    let mut cluster = Cluster::new(3);
    cluster.nodes[..2].iter_mut().for_each(Node::serve_http_elsewhere);
    cluster.start_all().await;
    let (first, third) = (cluster.nodes[0].http(), cluster.nodes[2].http());
    cluster.must(2, &["cluster", "transfer", "node1"]).await;
    assert_eq!(cluster.leader().await, 0);
    let mut connection = Http::connect(third).await.expect("a connection");
    let answer = connection.send("DELETE", "/cluster/members/node2", &[], b"").await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["leader"]["http_address"]), (421, &json!(first.to_string())));
    for node in &cluster.nodes {
        let view = http::get(node.http(), "/cluster").await.expect("a view").json();
        let members = view["members"].as_array().expect("members").iter();
        let told: Vec<_> = members.map(|member| member["http_address"].clone()).collect();
        assert_eq!(told, addresses(&cluster).iter().map(|at| json!(at.to_string())).collect::<Vec<_>>());
    }
    let shown = cluster.must(2, &["cluster", "status"]).await;
    assert!(shown.contains(&first.to_string()), "{shown}");
    // Asked at the third, done by the first.
    cluster.must(2, &["cluster", "remove", "node2", "--timeout", "60s"]).await;
    cluster.forget("node2");
    assert_eq!(cluster.groups_out_of_place().await, Vec::<serde_json::Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_make_no_sense_are_refused_in_words() {
    let mut cluster = Cluster::start(2).await;
    let leader = cluster.leader().await;
    let (at, other) = (cluster.nodes[leader].http(), 1 - leader);
    let refused = |arguments: Vec<String>, why: &'static str| {
        let cluster = &cluster;
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = cluster.chronos(other, &arguments).await;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            assert!(said.contains(why), "{arguments:?}: {said}");
        }
    };
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    refused(words("cluster remove nobody"), "there is no node \"nobody\"").await;
    refused(words("cluster transfer nobody"), "there is no node \"nobody\"").await;
    refused(words("cluster transfer --group 99 node1"), "there is no group 99").await;
    refused(words("cluster add node1=127.0.0.1:1"), "node1 is a member at").await;
    let taken = cluster.nodes[other].quic();
    refused(words(&format!("cluster add node3={taken}")), "is a member at").await;
    // A node that is not there yet is being added: nothing else may change but its removal.
    let absent = "cluster add absent=127.0.0.1:1 --timeout 1s";
    refused(words(absent), "start it with `chronos node --id absent").await;
    refused(words("cluster add node3=127.0.0.1:2"), "node absent is being added").await;
    refused(words(&format!("cluster remove {}", cluster.name(other))), "node absent is being added").await;
    cluster.must(other, &["cluster", "remove", "absent", "--timeout", "30s"]).await;
    // A node that does not lead says who does.
    let mut connection = Http::connect(cluster.nodes[other].http()).await.expect("a connection");
    let answer = connection.send("DELETE", "/cluster/members/node1", &[], b"").await.expect("an answer");
    assert_eq!(answer.status, 421, "{}", answer.text());
    assert_eq!(answer.json()["leader"]["name"], json!(cluster.name(leader)));
    assert_eq!(answer.json()["leader"]["http_address"], json!(at.to_string()));
    // Without the other there is no majority to remove the leader by, nor anything else.
    let (leads, follows) = (cluster.name(leader).to_owned(), cluster.name(other).to_owned());
    cluster.must(leader, &["cluster", "remove", &follows, "--timeout", "30s"]).await;
    cluster.forget(&follows);
    let output = cluster.chronos(0, &["cluster", "remove", &leads]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("last voter"), "{said}");
    sql(cluster.nodes[0].http(), "CREATE TABLE alone (id BIGINT PRIMARY KEY)")
        .await
        .expect("it serves alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_and_the_end_of_all_nodes_at_once_lose_nothing() {
    let mut cluster = Cluster::start(3).await;
    let load = Load::start(4, &addresses(&cluster)).await;
    for at in 0..3 {
        load.progress(50).await;
        let exit = cluster.nodes[at].stop().await;
        assert!(exit.status.success(), "{}", exit.stderr);
        cluster.nodes[at].start().await;
    }
    load.progress(50).await;
    for node in &mut cluster.nodes {
        node.kill();
    }
    let before = load.stop().await;
    println!(
        "{} acknowledged, {} failed, longest gap {:?}",
        before.acknowledged.len(),
        before.failed,
        before.gap
    );
    cluster.start_all().await;
    let load = Load::start(4, &addresses(&cluster)).await;
    load.progress(50).await;
    let done = load.stop().await.and(before);
    for node in &cluster.nodes {
        done.check(node.http()).await;
    }
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_and_a_stranger_are_refused_by_name() {
    let mut cluster = Cluster::start(3).await;
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.expect("a table");
    cluster.agree().await;
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    let name = cluster.name(victim).to_owned();
    cluster.nodes[victim].kill();
    std::fs::remove_dir_all(cluster.nodes[victim].data()).expect("its files go");
    cluster.nodes[victim].spawn();
    let http = cluster.nodes[leader].http();
    let problem = || async {
        let view = http::get(http, "/cluster").await.ok()?.json();
        let member = view["members"].as_array()?.iter().find(|member| member["name"] == json!(name))?.clone();
        member["link_problem"].as_str().filter(|why| why.contains("wiped or replaced")).map(str::to_owned)
    };
    let why = eventually(Duration::from_secs(20), problem).await.expect("the leader says why");
    assert!(why.contains("remove it from the cluster"), "{why}");
    let said = || async { cluster.nodes[victim].stderr().contains("wiped or replaced").then_some(()) };
    eventually(Duration::from_secs(20), said).await.expect("the node says why");
    let ready = http::get(cluster.nodes[victim].http(), "/readyz").await.expect("an answer");
    assert_eq!(ready.status, 503, "it does not serve");
    // The two others go on; the wiped one comes back under another name.
    sql(cluster.nodes[leader].http(), "INSERT INTO t VALUES (1)").await.expect("a quorum is left");
    cluster.must(leader, &["cluster", "remove", &name, "--timeout", "60s"]).await;
    cluster.forget(&name);
    let at = cluster.join("node4");
    let spelled = cluster.spelled(at);
    cluster.must(0, &["cluster", "add", &spelled, "--timeout", "60s"]).await;
    cluster.nodes[at].ready(START_LIMIT).await.unwrap_or_else(|why| panic!("{why}"));
    let count = sql(cluster.nodes[at].http(), "SELECT count(*) FROM t").await.expect("it serves");
    assert_eq!(count["rows"][0][0], json!(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_contradict_the_membership_and_other_clusters_are_refused() {
    let mut cluster = Cluster::start(3).await;
    cluster.agree().await;
    let exit = cluster.nodes[2].stop().await;
    assert!(exit.status.success());
    let (first, second) = (cluster.nodes[0].quic(), cluster.nodes[1].quic());
    for (peers, why) in [
        (format!("node1={first},node9={second}"), "node9 is not a member of this cluster"),
        (format!("node1=127.0.0.1:1,node2={second}"), "but the cluster knows it at"),
    ] {
        cluster.nodes[2]
            .set_arguments(["node", "--id", "node3", "--peers", &peers].map(str::to_owned).to_vec());
        cluster.nodes[2].spawn();
        let exit = cluster.nodes[2].exit(START_LIMIT).await.expect("it ends by itself");
        assert_eq!(exit.status.code(), Some(2), "{}", exit.stderr);
        assert!(exit.stderr.contains(why), "{}", exit.stderr);
    }
    let peers = format!("node1={first},node2={second}");
    cluster.nodes[2].set_arguments(["node", "--id", "node3", "--peers", &peers].map(str::to_owned).to_vec());
    cluster.nodes[2].start().await;
    // A node under another authority, which calls itself as one of these.
    let mut stranger = Node::named("node3").arg("--peers").arg(&peers);
    stranger.spawn();
    let said = || async { stranger.stderr().contains("certificate").then_some(()) };
    eventually(Duration::from_secs(20), said).await.expect("the stranger is told why");
    let heard = || async { cluster.nodes[0].stderr().contains("certificate").then_some(()) };
    eventually(Duration::from_secs(20), heard).await.expect("the member says why");
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        .await
        .expect("the cluster goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_at_any_node_gets_every_event_over_the_loss_of_the_leader() {
    const EVENTS: usize = 20;
    let mut cluster = Cluster::start(3).await;
    sql(cluster.nodes[0].http(), "CREATE TOPIC alerts").await.expect("a topic");
    cluster.agree().await;
    let leader = cluster.leader().await;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let at = cluster.nodes[follower].quic().to_string();
    let subscriber = tokio::task::spawn_blocking(move || {
        let mut command = std::process::Command::new(binary());
        let count = EVENTS.to_string();
        command.args(["subscribe", "alerts", "--from", "earliest", "--format", "payload", "--count", &count]);
        command.args(["--leader", &at]).output().expect("it runs")
    });
    for number in 0..EVENTS {
        if number == EVENTS / 2 {
            cluster.nodes[leader].kill();
        }
        // By its id, so that it is there once whatever became of an attempt.
        let statement = format!(
            "INSERT INTO alerts (message_id, payload) VALUES ('id {number}', 'event {number}') ON CONFLICT DO NOTHING"
        );
        let to = cluster.nodes[if number % 2 == 0 { follower } else { other }].http();
        let publish = || async { sql(to, &statement).await.ok() };
        eventually(Duration::from_secs(30), publish).await.expect("published");
    }
    let ended = tokio::time::timeout(Duration::from_secs(60), subscriber).await.expect("it gets them all");
    let output = ended.expect("it ends");
    let (got, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let expected: String = (0..EVENTS).map(|number| format!("event {number}\n")).collect();
    assert_eq!(got, expected, "{said}");
    cluster.nodes[leader].start().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_says_so() {
    let mut cluster = Cluster::start(3).await;
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.expect("a table");
    let leader = cluster.leader().await;
    for at in (0..3).filter(|at| *at != leader) {
        cluster.nodes[at].kill();
    }
    let http = cluster.nodes[leader].http();
    let knows = || async {
        let ready = http::get(http, "/readyz").await.ok()?;
        let health = http::get(http, "/health").await.ok()?.json();
        (ready.status == 503 && health["role"] != json!("Leader")).then_some(())
    };
    eventually(Duration::from_secs(10), knows).await.expect("a leader without a majority leads no more");
    let lost = || async {
        let metrics = http::get(http, "/metrics").await.ok()?.text();
        let lines = ["chronos_raft_quorum{group=\"0\"} 0", "chronos_raft_is_leader{group=\"0\"} 0"];
        lines.iter().all(|line| metrics.lines().any(|other| other == *line)).then_some(metrics)
    };
    let metrics = eventually(Duration::from_secs(10), lost).await.expect("the metrics say it too");
    assert!(metrics.contains("chronos_raft_voters{group=\"0\"} 3"), "{metrics}");
    let status = cluster.chronos(leader, &["cluster", "status"]).await;
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert!(!status.status.success() && said.contains("knows of no leader"), "{said}");
    cluster.start_all().await;
    sql(http, "INSERT INTO t VALUES (1)").await.expect("it serves again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_may_have_lost_acknowledged_writes_waits_for_a_leader_or_an_operator() {
    let mut cluster = Cluster::start_with(3, &["--fsync", "never"]).await;
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.expect("a table");
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let doubtful = |http: SocketAddr| async move {
        let status = http::get(http, "/status").await.ok()?.json();
        status["groups"][0]["doubtful"].as_bool()
    };
    // A clean stop syncs all; after a kill a leader has to catch the node up, and does.
    let exit = cluster.nodes[follower].stop().await;
    assert!(exit.status.success(), "{}", exit.stderr);
    cluster.nodes[follower].start().await;
    assert!(!cluster.nodes[follower].stderr().contains("did not end cleanly"));
    cluster.nodes[follower].kill();
    sql(cluster.nodes[leader].http(), "INSERT INTO t VALUES (1)").await.expect("a majority is left");
    cluster.nodes[follower].start().await;
    let said = cluster.nodes[follower].stderr();
    assert!(said.contains("did not end cleanly") && said.contains("--accept-loss"), "{said}");
    let http = cluster.nodes[follower].http();
    let trusted = || async { (doubtful(http).await == Some(false)).then_some(()) };
    eventually(Duration::from_secs(20), trusted).await.expect("it is caught up");
    assert!(cluster.nodes[follower].stderr().contains("it votes again"));
    // With all of them killed nobody leads, until an operator takes a majority as it is.
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::spawn);
    for node in &cluster.nodes {
        let warned = || async {
            let status = http::get(node.http(), "/status").await.ok()?.json();
            status["warnings"].to_string().contains("neither votes nor leads").then_some(status)
        };
        let status = eventually(Duration::from_secs(20), warned).await.expect("it says so");
        assert_eq!(status["groups"][0]["leader_node"], json!(null), "{status}");
    }
    for at in 0..2 {
        cluster.nodes[at].kill();
        cluster.spawn_with(at, &["--fsync", "never", "--accept-loss"]);
    }
    for node in &mut cluster.nodes {
        node.ready(START_LIMIT).await.unwrap_or_else(|why| panic!("{why}"));
    }
    assert!(cluster.nodes[0].stderr().contains("by --accept-loss"));
    let count = sql(cluster.nodes[2].http(), "SELECT count(*) FROM t").await.expect("it serves");
    assert_eq!(count["rows"][0][0], json!(1), "a killed process loses nothing that it had written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_majority_begins_no_second_cluster() {
    let mut cluster = Cluster::start(3).await;
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.expect("a table");
    cluster.agree().await;
    let survivor = cluster.leader().await;
    let wiped: Vec<usize> = (0..3).filter(|at| *at != survivor).collect();
    for at in &wiped {
        cluster.nodes[*at].kill();
        std::fs::remove_dir_all(cluster.nodes[*at].data()).expect("its files go");
    }
    wiped.iter().for_each(|at| cluster.nodes[*at].spawn());
    for at in &wiped {
        let http = cluster.nodes[*at].http();
        let name = cluster.name(survivor);
        let says = || async {
            let ready = http::get(http, "/readyz").await.ok()?.text();
            let status = http::get(http, "/status").await.ok()?.json();
            let said = [ready, status["warnings"].to_string()];
            let both = |said: &String| said.contains("has nothing") && said.contains("wiped or replaced");
            said.iter().all(|said| both(said) && said.contains(name)).then_some(status)
        };
        let status =
            eventually(Duration::from_secs(20), says).await.expect("it says whom it waits for, and why");
        assert_eq!((&status["term"], &status["leader"]), (&json!(0), &json!(null)), "{status}");
        assert!(cluster.nodes[*at].stderr().contains("this node has nothing"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_need_be_told_of_one_member_only() {
    let mut cluster = Cluster::start(3).await;
    sql(cluster.nodes[0].http(), "CREATE TABLE t (id BIGINT PRIMARY KEY)").await.expect("a table");
    let follower = (cluster.leader().await + 1) % 3;
    let at = cluster.join_by("node4", &[follower]);
    let spelled = cluster.spelled(at);
    cluster.must(0, &["cluster", "add", &spelled, "--timeout", "60s"]).await;
    cluster.nodes[at].ready(START_LIMIT).await.unwrap_or_else(|why| panic!("{why}"));
    sql(cluster.nodes[at].http(), "INSERT INTO t VALUES (1)").await.expect("it serves");
    cluster.agree().await;
}
