//! Bad input gets a clear error and loses nothing: after each case the node serves, and what was there is there.

use bytes::{BufMut, BytesMut};
use chronos_server::api;
use chronos_tests::grpc;
use chronos_tests::http::{Http, get, post};
use chronos_tests::node::{Node, binary};
use chronos_tests::wire::{self, Wire};
use serde_json::json;
use std::time::Duration;
use tokio::io::AsyncReadExt;

const ADMIN: &str = "admin-token-of-the-test";
const READER: &str = "reader-token-of-the-test";

/// A node with one table and one row in it, which must outlive everything.
async fn canary(node: Node) -> Node {
    let mut node = node;
    node.start().await;
    let mut wire = Wire::connect(node.pg()).await.expect("a session");
    wire.query("CREATE TABLE canary (id BIGINT PRIMARY KEY, name TEXT NOT NULL, at TIMESTAMPTZ)")
        .await
        .expect("DDL");
    wire.query("INSERT INTO canary (id, name) VALUES (1, 'alive')").await.expect("a row");
    node
}

/// The node serves, and the row is as it was and alone.
async fn unharmed(node: &Node, after: &str) {
    let ready = get(node.http(), "/readyz").await.unwrap_or_else(|e| panic!("after {after}: {e}"));
    assert_eq!(ready.status, 200, "after {after}: {}", ready.text());
    let mut wire = Wire::connect(node.pg()).await.unwrap_or_else(|e| panic!("after {after}: {e}"));
    let rows =
        wire.query("SELECT id, name FROM canary").await.unwrap_or_else(|e| panic!("after {after}: {e}"));
    let row: Vec<&[u8]> = rows.first.iter().flatten().map(|column| &column[..]).collect();
    assert_eq!((rows.rows, row), (1, vec![&b"1"[..], b"alive"]), "after {after}");
}

/// The SQLSTATE and message that a statement is refused with, on a connection that stays usable.
async fn refusal(wire: &mut Wire, sql: &str) -> (String, String) {
    let shown = &sql[..sql.len().min(80)];
    let mut out = BytesMut::new();
    wire::put(&mut out, b'Q', |body| wire::put_text(body, sql));
    wire.send(&out).await.expect("an open connection");
    let answer = wire.answer().await.unwrap_or_else(|e| panic!("{shown}: the connection broke: {e}"));
    let error = answer.error.unwrap_or_else(|| panic!("{shown}: accepted: {:?}", answer.tags));
    let after = wire.query("SELECT 1").await.unwrap_or_else(|e| panic!("after {shown}: {e}"));
    assert_eq!(after.rows, 1, "after {shown}");
    error
}

#[tokio::test]
async fn statements_that_cannot_be() {
    let node = canary(Node::new()).await;
    let mut wire = Wire::connect(node.pg()).await.expect("a session");
    let long_key = format!("INSERT INTO named (name) VALUES ('{}')", "k".repeat(10_000));
    let too_long = format!("SELECT '{}'", "x".repeat(2 << 20));
    wire.query("CREATE TABLE named (name TEXT PRIMARY KEY)").await.expect("DDL");
    // (statement, SQLSTATE or its class, a word that the message must have)
    let cases = [
        ("SELEC 1", "42601", ""),
        ("INSERT INTO canary (id, colour) VALUES (2, 'red')", "42703", "colour"),
        ("SELECT colour FROM canary", "42703", "colour"),
        ("SELECT * FROM nowhere", "42P01", "nowhere"),
        ("INSERT INTO canary (id, name) VALUES ('two', 'x')", "22P02", "two"),
        ("INSERT INTO canary (id, name, at) VALUES (2, 'x', 'yesterdayish')", "22007", "yesterdayish"),
        ("INSERT INTO canary (id, name) VALUES (99999999999999999999, 'x')", "22003", ""),
        ("INSERT INTO canary (id) VALUES (2)", "23502", "name"),
        ("INSERT INTO canary (id, name) VALUES (1, 'again')", "23505", ""),
        ("INSERT INTO canary (id, name) VALUES (2, 'x', 3)", "42601", ""),
        ("SELECT 1 / 0", "22012", ""),
        ("UPDATE canary SET name = NULL", "23502", "name"),
        ("CREATE TABLE canary (id BIGINT)", "42P07", "canary"),
        ("CREATE TABLE bad (id NOSUCHTYPE)", "42704", ""),
        ("DROP TABLE nowhere", "42P01", "nowhere"),
        (&long_key, "54", ""),
        (&too_long, "54", ""),
    ];
    for (sql, state, word) in cases {
        let (code, message) = refusal(&mut wire, sql).await;
        let shown = &sql[..sql.len().min(80)];
        assert!(code.starts_with(state), "{shown}: {code} {message}, not {state}");
        assert!(message.contains(word), "{shown}: the message does not name {word:?}: {message}");
        assert!(message.len() > 10, "{shown}: the message says nothing: {message}");
    }
    unharmed(&node, "statements that cannot be").await;
}

#[tokio::test]
async fn statements_nested_too_deep() {
    let node = canary(Node::new()).await;
    let mut wire = Wire::connect(node.pg()).await.expect("a session");
    let nested = |open: &str, middle: &str, close: &str, depth: usize| {
        format!("SELECT {}{middle}{}", open.repeat(depth), close.repeat(depth))
    };
    let cases = [
        ("parentheses", nested("(", "1", ")", 20_000)),
        ("NOT", nested("NOT ", "true", "", 20_000)),
        ("minus", nested("- ", "1", "", 20_000)),
        ("functions", nested("abs(", "1", ")", 20_000)),
        ("CASE", nested("CASE WHEN true THEN ", "1", " END", 10_000)),
        ("subqueries", nested("(SELECT ", "1", ")", 20_000)),
        ("a left-deep sum", nested("1 + ", "1", "", 100_000)),
        ("joined conditions", nested("true AND ", "true", "", 50_000)),
        ("casts", nested("", "1", "::int", 50_000)),
    ];
    for (name, sql) in cases {
        let (code, message) = refusal(&mut wire, &sql).await;
        assert!(code.starts_with("54"), "{name}: {code} {message}");
    }
    unharmed(&node, "statements nested too deep").await;
}

#[tokio::test]
async fn readings_that_cannot_be() {
    let node = canary(Node::new()).await;
    let good = json!({"device_id": "esp-001", "ts": 1733856000, "seq": 1, "metrics": {"temp": 30.5}});
    let stored = post(node.http(), "/ingest", &good.to_string()).await.expect("an answer");
    assert!(stored.is_success(), "{}", stored.text());
    let bad = [
        "",
        "{",
        "[{]",
        "null",
        "3",
        r#"{"device_id":"a"}"#,
        r#"{"device_id":5,"ts":1733856000,"seq":2,"metrics":{"temp":1}}"#,
        r#"{"device_id":"a","ts":"noon","seq":2,"metrics":{"temp":1}}"#,
        r#"{"device_id":"a","ts":1733856000,"seq":2.5,"metrics":{"temp":1}}"#,
        r#"{"device_id":"a","ts":1733856000,"seq":2,"metrics":{"temp":"hot"}}"#,
        r#"{"device_id":"a","ts":1733856000,"seq":2,"metrics":[1]}"#,
        r#"{"device_id":"a","ts":1733856000,"seq":99999999999999999999,"metrics":{"temp":1}}"#,
        // One bad among good ones: nothing of the batch is stored.
        r#"[{"device_id":"a","ts":1733856000,"seq":3,"metrics":{"temp":1}},{"device_id":"a"}]"#,
    ];
    for body in bad {
        let answer = post(node.http(), "/ingest", body).await.unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.text().len() > 20, "{body}: the answer says nothing: {}", answer.text());
    }
    let long =
        json!({"device_id": "d".repeat(100_000), "ts": 1, "seq": 1, "metrics": {"temp": 1}}).to_string();
    let answer = post(node.http(), "/ingest", &long).await.expect("an answer");
    assert!(matches!(answer.status, 400 | 413), "a key too long: {}", answer.status);
    assert!(answer.text().contains("device") && answer.text().len() < 5_000, "it does not send the key back");
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = post(node.http(), "/ingest", &nested).await.expect("an answer");
    assert_eq!(answer.status, 400, "JSON nested too deep: {}", answer.text());

    let mut wire = Wire::connect(node.pg()).await.expect("a session");
    let count = wire.query("SELECT device_id, seq FROM readings").await.expect("a table");
    assert_eq!(count.rows, 1, "only the good reading is there");
    unharmed(&node, "bad readings").await;
}

#[tokio::test]
async fn bodies_too_large() {
    let node =
        Node::new().env("CHRONOS_INGEST_MAX_BODY_BYTES", "64KB").env("CHRONOS_MAX_MESSAGE_BYTES", "1MB");
    let node = canary(node).await;
    let reading = |seq: usize| json!({"device_id": "a", "ts": 1, "seq": seq, "metrics": {"temp": 1.0}});
    let body = serde_json::Value::Array((0..5_000).map(reading).collect()).to_string();
    let answer = post(node.http(), "/ingest", &body).await.expect("an answer");
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("65536"), "the answer names the limit: {}", answer.text());
    let sql = json!({ "sql": format!("SELECT '{}'", "x".repeat(2 << 20)) }).to_string();
    let answer = post(node.http(), "/sql", &sql).await.expect("an answer");
    assert_eq!(answer.status, 413, "{}", answer.text());
    unharmed(&node, "bodies too large").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_in_flight() {
    let node = canary(Node::new().env("CHRONOS_INGEST_MAX_INFLIGHT", "1")).await;
    let address = node.http();
    let clients = (0..16).map(|client| {
        tokio::spawn(async move {
            let mut http = Http::connect(address).await.expect("a connection");
            let (mut stored, mut refused) = (0u64, 0u64);
            for seq in 0..200 {
                let device = format!("device-{client}");
                let body =
                    json!({"device_id": device, "ts": 1, "seq": seq, "metrics": {"temp": 1.0}}).to_string();
                let answer = http.send("POST", "/ingest", &[], body.as_bytes()).await.expect("an answer");
                match answer.status {
                    200..300 => stored += 1,
                    429 => {
                        assert!(answer.header("retry-after").is_some(), "429 says when to come back");
                        refused += 1;
                    }
                    status => panic!("{status}: {}", answer.text()),
                }
            }
            (stored, refused)
        })
    });
    let (mut stored, mut refused) = (0, 0);
    for client in clients.collect::<Vec<_>>() {
        let (s, r) = client.await.expect("a client");
        (stored, refused) = (stored + s, refused + r);
    }
    assert!(refused > 0, "sixteen clients, one at once, and nobody was told to wait");
    let mut wire = Wire::connect(node.pg()).await.expect("a session");
    let rows = wire.query("SELECT device_id, seq FROM readings").await.expect("a table").rows;
    assert_eq!(rows, stored, "what was acknowledged is there, what was refused is not");
    unharmed(&node, "too many in flight").await;
}

#[tokio::test]
async fn tokens_verbs_and_methods() {
    let node = Node::new().env("CHRONOS_AUTH_TOKEN_ADMIN", ADMIN).env("CHRONOS_AUTH_TOKEN_READONLY", READER);
    let mut node = node;
    node.start().await;
    let mut http = Http::connect(node.http()).await.expect("a connection");
    let bearer = |token: &str| format!("Bearer {token}");
    let (admin, reader, stranger) = (bearer(ADMIN), bearer(READER), bearer("nobody-knows-this-one"));
    let create = json!({ "sql": "CREATE TABLE t (id BIGINT PRIMARY KEY)" }).to_string();
    let insert = json!({ "sql": "INSERT INTO t (id) VALUES (1)" }).to_string();
    let select = json!({ "sql": "SELECT id FROM t" }).to_string();
    let reading = json!({"device_id": "a", "ts": 1, "seq": 1, "metrics": {"temp": 1.0}}).to_string();
    let cases = [
        ("POST", "/sql", None, &create, 401),
        ("POST", "/sql", Some(&stranger), &create, 401),
        ("POST", "/sql", Some(&reader), &create, 403),
        ("POST", "/sql", Some(&admin), &create, 200),
        ("POST", "/sql", Some(&reader), &insert, 403),
        ("POST", "/sql", Some(&admin), &insert, 200),
        ("POST", "/sql", Some(&reader), &select, 200),
        ("POST", "/ingest", None, &reading, 401),
        ("POST", "/ingest", Some(&reader), &reading, 403),
        ("POST", "/ingest", Some(&admin), &reading, 200),
        ("GET", "/ingest", Some(&admin), &reading, 405),
        ("DELETE", "/sql", Some(&admin), &select, 405),
        ("POST", "/health", Some(&admin), &select, 405),
        ("GET", "/nowhere", Some(&admin), &select, 404),
        ("GET", "/status", None, &select, 401),
    ];
    for (method, path, token, body, status) in cases {
        let headers: Vec<(&str, &str)> = token.iter().map(|t| ("authorization", t.as_str())).collect();
        let answer = http.send(method, path, &headers, body.as_bytes()).await;
        let answer = answer.unwrap_or_else(|e| panic!("{method} {path}: {e}"));
        let expected = answer.status == status || (status == 200 && answer.is_success());
        assert!(expected, "{method} {path} {body}: {}, and not {status}: {}", answer.status, answer.text());
        match status {
            405 => assert!(answer.header("allow").is_some(), "{method} {path}: 405 names what is allowed"),
            401 => {
                assert!(answer.header("www-authenticate").is_some(), "{method} {path}: 401 names the scheme")
            }
            _ => {}
        }
        assert!(!answer.text().contains(ADMIN), "{method} {path}: the answer gives a token away");
    }

    let login = async |password: &str| {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(node.pg().port()).user("chronos").dbname("chronos").password(password);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok::<_, tokio_postgres::Error>(client)
    };
    let code = |error: tokio_postgres::Error| error.code().map(|c| c.code().to_owned());
    let stranger = login("nobody-knows-this-one").await.expect_err("a wrong password is refused");
    assert_eq!(code(stranger).as_deref(), Some("28P01"));
    let reader = login(READER).await.expect("the reader may come in");
    assert_eq!(reader.query("SELECT id FROM t", &[]).await.expect("and read").len(), 1);
    let refused = reader.execute("INSERT INTO t (id) VALUES (2)", &[]).await.expect_err("but not write");
    assert_eq!(code(refused).as_deref(), Some("25006"));
    let admin = login(ADMIN).await.expect("the admin may come in");
    assert_eq!(admin.query("SELECT id FROM t", &[]).await.expect("and read").len(), 1);

    let mut events = grpc::events(node.http()).await.expect("a channel");
    let denied = events.publish(api::PublishRequest::default()).await.expect_err("no token");
    assert_eq!(denied.code(), tonic::Code::Unauthenticated, "{denied}");
}

#[tokio::test]
async fn malformed_postgres_messages() {
    let node = canary(Node::new()).await;
    // Before a login: each is refused or cut off, at once, and the listener goes on.
    let http = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    let version_9 = [0, 0, 0, 8, 0, 9, 0, 0].to_vec();
    let starts = [
        ("HTTP", http),
        ("a huge length", vec![0xff; 64]),
        ("a negative length", vec![0x80, 0, 0, 0, 0, 3, 0, 0]),
        ("a length below its own", vec![0, 0, 0, 3, 0, 3, 0, 0]),
        ("protocol 9", version_9),
        ("startup without an end", vec![0, 0, 0, 12, 0, 3, 0, 0, b'u', b's', b'e', b'r']),
        ("half a startup", vec![0, 0, 0, 90, 0, 3]),
    ];
    for (name, bytes) in starts {
        let mut stream = tokio::net::TcpStream::connect(node.pg()).await.expect("a connection");
        tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await.expect("sent");
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.expect("sent");
        let mut answer = Vec::new();
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
        assert!(end.is_ok(), "{name}: the server keeps the connection open");
        assert!(answer.first().is_none_or(|tag| *tag == b'E'), "{name}: answered with {answer:?}");
        unharmed(&node, name).await;
    }

    // After a login: a framing that cannot be followed ends the connection, with an error first.
    let message = |tag: u8, length: u32, body: &[u8]| {
        let mut out = BytesMut::new();
        out.put_u8(tag);
        out.put_u32(length);
        out.put_slice(body);
        out
    };
    let framings = [
        ("an unknown tag", message(b'~', 4, b"")),
        ("a message of 4 GB", message(b'Q', u32::MAX, b"SELECT 1\0")),
        ("a message of 1 GB", message(b'Q', 1 << 30, b"SELECT 1\0")),
        ("a length of 2", message(b'Q', 2, b"")),
        ("a parameter beyond its message", message(b'B', 14, b"\0\0\0\0\0\x01\0\0\x01\0" as &[u8])),
        ("text that is not UTF-8", message(b'P', 19, b"\0SELECT '\xff\xfe'\0\0\0")),
    ];
    for (name, bytes) in framings {
        let mut wire = Wire::connect(node.pg()).await.expect("a session");
        wire.send(&bytes).await.expect("sent");
        let (tag, body) = tokio::time::timeout(Duration::from_secs(5), wire.message())
            .await
            .unwrap_or_else(|_| panic!("{name}: no answer"))
            .unwrap_or_else(|e| panic!("{name}: cut off without a word: {e}"));
        assert_eq!(tag, b'E', "{name}");
        let (code, said) = wire::error_fields(&body);
        assert!(code.starts_with("08") || code.starts_with("54"), "{name}: {code} {said}");
        unharmed(&node, name).await;
    }

    // After a login: a message that is wrong in itself is refused, and the connection goes on after Sync.
    let with_sync = |fill: &dyn Fn(&mut BytesMut)| {
        let mut out = BytesMut::new();
        fill(&mut out);
        wire::put_sync(&mut out);
        out
    };
    let messages: [(&str, BytesMut); 4] = [
        ("bind of no statement", with_sync(&|out| wire::put_run(out, "nobody", &[]))),
        (
            "execute of no portal",
            with_sync(&|out| wire::put(out, b'E', |b| b.put_slice(b"nobody\0\0\0\0\0"))),
        ),
        ("too few parameters", with_sync(&|out| wire::put_run(out, "one", &[]))),
        ("a parameter of the wrong type", with_sync(&|out| wire::put_run(out, "one", &["two"]))),
    ];
    for (name, bytes) in messages {
        let mut wire = Wire::connect(node.pg()).await.expect("a session");
        wire.prepare("one", "SELECT name FROM canary WHERE id = $1").await.expect("prepared");
        wire.send(&bytes).await.expect("sent");
        let answer = wire.answer().await.unwrap_or_else(|e| panic!("{name}: the connection broke: {e}"));
        let (code, said) = answer.error.unwrap_or_else(|| panic!("{name}: accepted"));
        assert!(code.len() == 5 && said.len() > 10, "{name}: {code} {said}");
        let after =
            wire.query("SELECT name FROM canary").await.unwrap_or_else(|e| panic!("after {name}: {e}"));
        assert_eq!(after.rows, 1, "after {name}");
    }
    unharmed(&node, "malformed messages").await;
}

#[tokio::test]
async fn events_that_cannot_be() {
    let node = canary(Node::new()).await;
    let mut wire = Wire::connect(node.pg()).await.expect("a session");
    wire.query("CREATE TOPIC alerts").await.expect("DDL");
    let events = grpc::events(node.http()).await.expect("a channel");
    let mut events = events.max_encoding_message_size(64 << 20);
    let event = |id: &str, bytes: usize| {
        Some(api::Event { message_id: id.into(), payload: vec![b'x'; bytes].into(), ..Default::default() })
    };
    let request =
        |topic: &str, event, at| api::PublishRequest { topic: topic.into(), event, deliver_at_micros: at };
    let year_10000 = 253_402_300_800_000_000;
    let cases = [
        ("no such topic", request("nowhere", event("a", 1), None), tonic::Code::NotFound),
        ("an id too long", request("alerts", event(&"i".repeat(600), 1), None), tonic::Code::InvalidArgument),
        ("a payload too large", request("alerts", event("b", 2 << 20), None), tonic::Code::InvalidArgument),
        ("the year 10000", request("alerts", event("c", 1), Some(year_10000)), tonic::Code::InvalidArgument),
        ("before 1970", request("alerts", event("d", 1), Some(-1)), tonic::Code::InvalidArgument),
        ("no event", request("alerts", None, None), tonic::Code::InvalidArgument),
    ];
    for (name, request, code) in cases {
        let refused = events.publish(request).await.err().unwrap_or_else(|| panic!("{name}: accepted"));
        assert_eq!(refused.code(), code, "{name}: {refused}");
        assert!(refused.message().len() > 10, "{name}: the message says nothing: {refused}");
    }
    for sql in [
        "INSERT INTO alerts (payload, deliver_at) VALUES ('x', '10000-01-01T00:00:00Z')",
        "INSERT INTO alerts (payload, fired_at) VALUES ('x', now())",
    ] {
        refusal(&mut wire, sql).await;
    }
    let rows = wire.query("SELECT message_id FROM alerts").await.expect("a topic").rows;
    let timers = wire.query("SELECT timer_id FROM chronos.timers").await.expect("timers").rows;
    assert_eq!((rows, timers), (0, 0), "nothing that was refused is there");
    unharmed(&node, "bad events").await;
}

#[tokio::test]
async fn a_second_process_on_one_directory() {
    let node = canary(Node::new()).await;
    let mut second = Node::new().data_dir(node.data());
    second.spawn();
    let exit = second.exit(Duration::from_secs(10)).await.expect("it does not stay");
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    let named = exit.stderr.contains(&node.data().display().to_string());
    assert!(named, "the message names the directory: {}", exit.stderr);
    unharmed(&node, "a second process").await;
}

#[tokio::test]
async fn a_data_directory_of_a_newer_version() {
    let mut node = canary(Node::new()).await;
    node.stop().await;
    let file = node.data().join("identity");
    let text = std::fs::read_to_string(&file).expect("a file that says the version");
    assert!(text.contains("format = 1\n"), "{text}");
    std::fs::write(&file, text.replace("format = 1\n", "format = 999\n")).expect("written");
    node.spawn();
    let exit = node.exit(Duration::from_secs(10)).await.expect("it does not start");
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    assert!(exit.stderr.contains("999"), "the message names the version: {}", exit.stderr);
    std::fs::write(&file, text).expect("written");
    node.start().await;
    unharmed(&node, "a newer version").await;
}

#[test]
fn command_lines_that_cannot_be() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(binary()).args(arguments).output().expect("chronos runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for arguments in [&["nonsense"][..], &["dev", "--nonsense"], &["dev", "--address"], &["publish"]] {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.len() > 20, "{arguments:?}: {said}");
    }
    let folder = tempfile::tempdir().expect("a directory");
    let data = folder.path().to_str().expect("a name");
    let (code, said) = run(&["dev", "--data-dir", data, "--address", "0.0.0.0:18000"]);
    assert!(matches!(code, Some(1 | 2)), "beyond loopback: {said}");
    assert!(said.contains("--insecure"), "the message says what to do: {said}");
    let (code, said) = run(&["dev", "--data-dir", data, "--fsync", "sometimes"]);
    assert!(matches!(code, Some(1 | 2)) && said.contains("sometimes"), "{code:?} {said}");
    let (code, said) = run(&["sql", "--leader", "127.0.0.1:1", "-e", "SELECT 1"]);
    assert_eq!(code, Some(1), "nobody listens: {said}");
}
