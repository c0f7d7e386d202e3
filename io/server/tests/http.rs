//! The HTTP port: statements, readings, probes, metrics, and every way to be turned away.

mod common;

use common::World;
use std::io::{Read, Write};

const READING: &str =
    r#"{"device_id":"esp-001","ts":1733856000,"seq":42,"metrics":{"temp":30.5,"humidity":40.2}}"#;

#[test]
fn probes_and_status_tell_role_and_readiness() {
    let world = World::start();
    let health = world.request("GET", "/health", "");
    assert_eq!(health.status, 200);
    assert_eq!(health.json()["status"], "ok");
    assert_eq!(health.json()["role"], "Leader");
    assert!(health.json()["term"].as_u64().unwrap() >= 1);
    assert_eq!(world.request("GET", "/livez", "").status, 200);
    assert_eq!(world.request("GET", "/readyz", "").status, 200);
    let status = world.request("GET", "/status", "").json();
    assert_eq!(status["ready"], true);
    assert_eq!(status["fsync"], "always");
    assert_eq!(status["warnings"], serde_json::json!([]));
    assert!(status["notices"].is_array(), "{status}");
    assert_eq!((&status["clock"]["steps"], &status["clock"]["last_step"]), (&0.into(), &None::<u8>.into()));
}

#[test]
fn a_weak_fsync_mode_is_warned_about() {
    let world = World::with(|config| config.fsync = chronos_node::Fsync::Never);
    let status = world.request("GET", "/status", "").json();
    assert!(status["warnings"][0].as_str().unwrap().contains("power cut"), "{status}");
}

#[test]
fn wrong_methods_and_unknown_paths() {
    let world = World::start();
    let wrong = world.request("GET", "/ingest", "");
    assert_eq!((wrong.status, wrong.code().as_str()), (405, "method_not_allowed"));
    assert!(wrong.head.contains("allow: post"), "{}", wrong.head);
    assert_eq!(world.request("DELETE", "/health", "").status, 405);
    let unknown = world.request("GET", "/colour", "");
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "not_found"));
}

#[test]
fn tokens_are_asked_for_and_told_apart() {
    let world = World::with_tokens();
    let with = |path: &str, token: &str, body: &str| {
        let header = format!("Bearer {token}");
        let method = if body.is_empty() { "GET" } else { "POST" };
        world.request_with(method, path, &[("authorization", &header)], body).status
    };
    let missing = world.request("POST", "/ingest", READING);
    assert_eq!(missing.status, 401);
    assert!(missing.head.contains("www-authenticate: bearer"));
    assert_eq!(world.request("GET", "/metrics", "").status, 401);
    assert_eq!(world.request("POST", "/sql", "SELECT 1").status, 401);
    assert_eq!(world.request("GET", "/health", "").status, 200);
    assert_eq!(with("/ingest", "wrong", READING), 401);
    assert_eq!(with("/ingest", "reader token", READING), 403);
    assert_eq!(with("/ingest", "admin token", READING), 202);
    assert_eq!(with("/metrics", "reader token", ""), 200);
    assert_eq!((with("/flight", "reader token", ""), with("/flight", "admin token", "")), (403, 200));
    assert_eq!(with("/sql", "reader token", "SELECT count(*) FROM readings"), 200);
    assert_eq!(with("/sql", "reader token", "DELETE FROM readings"), 403);
}

#[test]
fn statements_with_parameters_and_typed_results() {
    let world = World::start();
    world.sql(
        "CREATE TABLE t (id INT PRIMARY KEY, name TEXT, x FLOAT, at TIMESTAMPTZ, ok BOOLEAN, doc JSONB)",
    );
    let insert = r#"{"sql": "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6)",
        "params": [7, "sea \"x\"", 0.1, "2024-12-10 18:40:00+00", true, {"a": [1, null]}]}"#;
    let inserted = world.request("POST", "/sql", insert);
    assert_eq!(
        (inserted.status, inserted.json()["tag"].as_str()),
        (200, Some("INSERT 0 1")),
        "{}",
        inserted.body
    );
    let all = world.sql("SELECT * FROM t");
    assert_eq!(all["columns"][0], serde_json::json!({"name": "id", "type": "integer"}));
    let doc = serde_json::json!({"a": [1, null]});
    let row = serde_json::json!([7, "sea \"x\"", 0.1, "2024-12-10T18:40:00.000000Z", true, doc]);
    assert_eq!(all["rows"], serde_json::json!([row]));
    assert_eq!(all["tag"], "SELECT 1");
}

#[test]
fn statements_that_fail_say_why() {
    let world = World::start();
    let failed = |sql: &str| {
        let response = world.request("POST", "/sql", sql);
        assert!(response.head.contains("application/problem+json"), "{}", response.head);
        (response.status, response.code())
    };
    assert_eq!(failed("SELEC 1"), (400, "42601".into()));
    assert_eq!(failed("SELECT * FROM nothing"), (404, "42P01".into()));
    assert_eq!(failed("SELECT 1; SELECT 2"), (400, "42601".into()));
    assert_eq!(failed("BEGIN"), (501, "0A000".into()));
    assert_eq!(failed(r#"{"sql": 3}"#), (400, "22P02".into()));
    assert_eq!(failed(r#"{"sql": "SELECT $1::int", "params": ["x"]}"#), (400, "22P02".into()));
    assert_eq!(failed(r#"{"sql": "SELECT $1::int", "params": []}"#), (400, "42P02".into()));
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)");
    world.sql("INSERT INTO t VALUES (1)");
    assert_eq!(failed("INSERT INTO t VALUES (1)"), (409, "23505".into()));
}

#[test]
fn readings_are_stored_once() {
    let world = World::start();
    let counts = |body: &str| {
        let response = world.request("POST", "/ingest", body);
        assert_eq!(response.status, 202, "{}", response.body);
        let json = response.json();
        ["accepted", "inserted", "duplicates"].map(|name| json[name].as_u64().unwrap())
    };
    assert_eq!(counts(READING), [2, 2, 0]);
    assert_eq!(counts(READING), [2, 0, 2]);
    let more = READING.replace("42", "43");
    assert_eq!(counts(&format!("[{READING},{more},{more}]")), [6, 2, 4]);
    assert_eq!(counts("[]"), [0, 0, 0]);
    let rows =
        world.sql("SELECT device_id, ts, seq, metric, value FROM readings WHERE seq = 42 ORDER BY metric");
    let expected = serde_json::json!([
        ["esp-001", 1_733_856_000, 42, "humidity", 40.2],
        ["esp-001", 1_733_856_000, 42, "temp", 30.5]
    ]);
    assert_eq!(rows["rows"], expected);
}

#[test]
fn readings_keep_the_indexes_of_their_table() {
    let world = World::start();
    assert_eq!(world.request("POST", "/ingest", READING).status, 202);
    world.sql("CREATE INDEX by_ts ON readings (ts)");
    assert_eq!(
        world.request("POST", "/ingest", &READING.replace("1733856000", "5").replace("42", "1")).status,
        202
    );
    let rows = world.sql("SELECT seq FROM readings WHERE ts = 5");
    assert_eq!(rows["rows"], serde_json::json!([[1], [1]]));
}

#[test]
fn a_table_of_another_shape_is_refused() {
    let world = World::start();
    world.sql("CREATE TABLE readings (device_id TEXT PRIMARY KEY, value TEXT)");
    let refused = world.request("POST", "/ingest", READING);
    assert_eq!((refused.status, refused.code().as_str()), (400, "42809"));
    assert!(refused.body.contains("seq"), "{}", refused.body);
}

#[test]
fn bad_readings_are_refused_and_nothing_of_them_is_kept() {
    let world = World::with(|config| config.ingest_max_body_bytes = 1000);
    assert_eq!(world.request("POST", "/ingest", READING).status, 202);
    let broken = world.request("POST", "/ingest", &READING[..50]);
    assert_eq!(broken.status, 400);
    assert!(broken.body.contains("line 1 column 50"), "{}", broken.body);
    let good = READING.replace("42", "99");
    let wrong = world.request("POST", "/ingest", &format!("[{good},{}]", READING.replace("30.5", "\"hot\"")));
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("esp-001") && wrong.body.contains("temp"), "{}", wrong.body);
    assert_eq!(world.request("POST", "/ingest", &READING.replace("30.5", "1e999")).status, 400);
    let long = READING.replace("esp-001", &"x".repeat(800));
    assert_eq!(world.request("POST", "/ingest", &long).status, 413);
    assert_eq!(world.request("POST", "/ingest", &" ".repeat(1001)).status, 413);
    assert_eq!(world.sql("SELECT count(*) FROM readings")["rows"], serde_json::json!([[2]]));
}

#[test]
fn too_many_requests_at_once_are_turned_away() {
    let world = World::with(|config| config.ingest_max_inflight = 1);
    let mut first = world.http();
    let head = "POST /ingest HTTP/1.1\r\nhost: test\r\nconnection: close\r\nexpect: 100-continue\r\n";
    first.write_all(format!("{head}content-length: {}\r\n\r\n", READING.len()).as_bytes()).unwrap();
    // The server asks for the body once the request is being worked on.
    let mut go_on = [0; 25];
    first.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    let second = world.request("POST", "/ingest", READING);
    assert_eq!((second.status, second.code().as_str()), (429, "53400"));
    assert!(second.head.contains("retry-after: 1"));
    first.write_all(READING.as_bytes()).unwrap();
    let mut answer = String::new();
    first.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(world.request("POST", "/ingest", READING).status, 202);
}

#[test]
fn metrics_count_what_happened() {
    let world = World::start();
    world.sql("SELECT 1");
    assert_eq!(world.request("POST", "/sql", "SELEC").status, 400);
    assert_eq!(world.request("POST", "/ingest", READING).status, 202);
    let metrics = world.request("GET", "/metrics", "");
    assert!(metrics.head.contains("text/plain; version=0.0.4"));
    for line in [
        "chronos_sql_requests_total{kind=\"query\"} 1",
        "chronos_sql_errors_total{code=\"42601\"} 1",
        "chronos_ingest_readings_total{result=\"inserted\"} 2",
        "chronos_raft_role 2",
        "# TYPE chronos_storage_size_bytes gauge",
        "# TYPE chronos_wal_fsync_duration_seconds histogram",
        "# TYPE chronos_fire_lateness_seconds histogram",
    ] {
        assert!(metrics.body.lines().any(|l| l == line), "{line} is not in\n{}", metrics.body);
    }
    let bare = |l: &str| l.split(['{', ' ']).next().unwrap().to_owned();
    for line in metrics.body.lines().filter(|l| !l.starts_with('#')) {
        let name = bare(line);
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)).unwrap_or(&name);
        assert!(metrics.body.contains(&format!("# HELP {family} ")), "{name} has no HELP line");
    }
}
