//! The binary as a node: started, talked to by its own clients, stopped.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn chronos() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHRONOS_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// A node on free ports, killed when dropped.
struct Node {
    child: Child,
    address: String,
}

impl Node {
    /// Starts one and waits until it serves.
    fn start(data: &Path, arguments: &[&str]) -> Node {
        Node::start_with(data, arguments, &[])
    }

    fn start_with(data: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Node {
        let address = free_address();
        let mut command = chronos();
        command.args(arguments).args(["--address", &address, "--data-dir"]).arg(data);
        command.envs(environment.iter().copied());
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut node = Node { child, address };
        let token = environment.first().map(|(_, token)| ["--token", token]);
        let arguments = token.iter().flatten().chain(&["-q", "-e", "SELECT 1"]).copied().collect::<Vec<_>>();
        let deadline = Instant::now() + Duration::from_secs(30);
        while node.client(&arguments).status.code() != Some(0) {
            if let Some(status) = node.child.try_wait().unwrap() {
                panic!("the node ended with {status}: {}", node.stderr());
            }
            assert!(Instant::now() < deadline, "the node does not serve");
        }
        node
    }

    fn client(&self, arguments: &[&str]) -> Output {
        self.run("client", arguments)
    }

    fn run(&self, command: &str, arguments: &[&str]) -> Output {
        chronos().args(command.split(' ')).args(["--leader", &self.address]).args(arguments).output().unwrap()
    }

    fn ok(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.run(command, arguments);
        assert_eq!(output.status.code(), Some(0), "{command} {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    fn terminate(mut self) -> (Option<i32>, Duration, String) {
        let begin = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = self.child.wait().unwrap();
        (status.code(), begin.elapsed(), self.stderr())
    }

    fn stderr(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        said
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address whose port, and those a thousand and two thousand above, are free, each time another.
fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (std::process::id().wrapping_mul(31).wrapping_add(step * 3) % 17_000) as u16;
        if is_free(port + 1000) && is_free(port + 2000) {
            return format!("127.0.0.1:{port}");
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn sql_from_the_command_line_files_and_pipes() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"), &["dev"]);
    let shown = node.ok(
        "client",
        &["-e", "CREATE TABLE t (id INT PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'one'), (2, NULL)"],
    );
    assert_eq!(shown, "CREATE TABLE\nINSERT 0 2\n");
    let csv = node.ok("sql", &["--format", "csv", "-e", "SELECT id, name FROM t ORDER BY id"]);
    assert_eq!(csv, "id,name\n1,one\n2,\n");

    let file = folder.path().join("script.sql");
    std::fs::write(
        &file,
        "-- two lines\nSELECT name\nFROM t WHERE id = 1;\n\nSELECT nothing FROM t;\nSELECT 3;\n",
    )
    .unwrap();
    let output = node.client(&["-q", "-f", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), " name\n------\n one\n");
    let said = text(&output.stderr);
    assert!(said.contains("script.sql, line 5") && said.contains("42703"), "{said}");

    let mut command = chronos();
    command.args(["client", "--leader", &node.address, "--format", "json"]);
    let mut piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"SELECT id\n, name FROM t ORDER BY id DESC;").unwrap();
    let output = piped.wait_with_output().unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows, serde_json::json!([{"id": 2, "name": null}, {"id": 1, "name": "one"}]));

    let described = node.ok("client", &["-q", "--format", "csv", "-f", "-"]);
    assert_eq!(described, "");
    let (code, took, said) = node.terminate();
    assert_eq!(code, Some(0), "{said}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_signal_has_the_node_write_down_what_it_did_last() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data, &["dev"]);
    node.ok("client", &["-q", "-e", "CREATE TABLE t (id INT PRIMARY KEY)"]);
    kill_process(Pid::from_child(&node.child), Signal::USR1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let flight = loop {
        let text = std::fs::read_to_string(data.join("flight.txt")).unwrap_or_default();
        if text.contains(" -> committed") {
            break text;
        }
        assert!(Instant::now() < deadline, "nothing is written down: {text:?}");
    };
    let before = &flight[..flight.rfind("-> committed").unwrap()];
    let places = ["<- commit ", "-> sync ", "<- durable "].map(|what| before.rfind(what));
    assert!(places.is_sorted() && places[0].is_some(), "{flight}");
    assert_eq!(node.terminate().0, Some(0), "it goes on, and stops as it should");
}

#[test]
fn the_shell_describes_relations() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"), &["dev"]);
    node.ok("client", &["-q", "-e", "CREATE TABLE t (id INT PRIMARY KEY, name TEXT NOT NULL DEFAULT 'x')"]);
    node.ok("topic create", &["alerts", "--payload", "text"]);
    let mut command = chronos();
    command.args(["client", "--leader", &node.address, "--format", "csv"]);
    let mut piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all(b"\\dt\n\\d\n\\d t\n\\q\nSELECT 1;\n").unwrap();
    let shown = text(&piped.wait_with_output().unwrap().stdout);
    assert!(shown.starts_with("name\nt\nname,kind\nalerts,topic\nt,table\n"), "{shown}");
    assert!(shown.contains("id,integer,NO,") && shown.contains("name,text,NO,"), "{shown}");
    assert!(!shown.contains("?column?"), "\\q ends the shell: {shown}");
    let topics = node.ok("topic list", &["--format", "csv"]);
    assert!(topics.contains("alerts") && !topics.contains("\nt"), "{topics}");
    assert_eq!(node.ok("topic alter", &["alerts", "--max-deliveries", "3"]), "ALTER TOPIC\n");
    let shown = node.ok("topic show", &["alerts", "--format", "csv"]);
    assert!(shown.ends_with("alerts,1,text,1 day,3,alerts.dead\n"), "{shown}");
    let letters = node.ok("topic dead list", &["alerts", "--format", "csv"]);
    assert!(letters.starts_with("place,message_id,group,") && letters.lines().count() == 1, "{letters}");
    let none = node.run("topic dead redrive", &["alerts", "0:7"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("1 of topic alerts are not redriven: 0:7"));
}

#[test]
fn events_are_published_scheduled_cancelled_and_received() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"), &["dev"]);
    assert_eq!(node.ok("topic create", &["alerts", "--payload", "text"]), "CREATE TOPIC\n");
    let said = node.ok("publish", &["alerts", "now", "--id", "a", "--key", "k", "--header", "site=barn"]);
    assert_eq!(said, "published a: partition 0, offset 0\n");
    assert!(node.ok("publish", &["alerts", "again", "--id", "a"]).starts_with("duplicate a"));
    assert!(node.ok("publish", &["alerts", "late", "--id", "b", "--in", "1h"]).starts_with("scheduled b"));
    assert!(node.ok("publish", &["alerts", "soon", "--id", "c", "--in", "300ms"]).starts_with("scheduled c"));
    let listed = node.ok("schedule list", &["--format", "csv"]);
    assert!(
        listed.lines().count() == 3 && listed.contains("alerts,b,") && listed.contains(",late,"),
        "{listed}"
    );
    assert_eq!(node.ok("schedule cancel", &["alerts", "b"]), "cancelled alerts/b\n");
    let late = node.run("schedule cancel", &["alerts", "b"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("no such pending timer"));

    let events = node.ok(
        "subscribe",
        &["alerts", "--from", "earliest", "--count", "2", "--format", "json", "--group", "g"],
    );
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0]["message_id"], &events[0]["payload"]), (&"a".into(), &"now".into()));
    assert_eq!((&events[0]["key"], &events[0]["headers"]["site"]), (&"k".into(), &"barn".into()));
    assert_eq!((&events[1]["message_id"], &events[1]["payload"]), (&"c".into(), &"soon".into()));
    assert!(events[1]["fired_at"].as_str() >= events[1]["deliver_at"].as_str());

    // What the group acknowledged does not come again: the next event is the next one published.
    let mut command = chronos();
    command.args(["subscribe", "--leader", &node.address, "alerts", "--group", "g", "--from", "earliest"]);
    command.args(["--count", "1", "--format", "payload"]);
    let mut subscriber = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(subscriber.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
    assert!(said.contains("subscribed"), "{said}");
    node.ok("publish", &["alerts", "third"]);
    let output = subscriber.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "third\n".to_owned()));
}

#[test]
fn a_second_process_on_a_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Node::start(&data, &["dev"]);
    let second =
        chronos().args(["dev", "--address", &free_address(), "--data-dir"]).arg(&data).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(said.contains("in use") && said.contains(&node.child.id().to_string()), "{said}");
    // The first one is not disturbed.
    node.ok("client", &["-q", "-e", "SELECT 1"]);
}

#[test]
fn a_named_node_keeps_its_files_in_a_folder_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut command = chronos();
    command.current_dir(folder.path()).args([
        "node",
        "--id",
        "node1",
        "--enable-ingest",
        "--address",
        &address,
    ]);
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let node = Node { child, address };
    let deadline = Instant::now() + Duration::from_secs(30);
    while node.client(&["-q", "-e", "SELECT 1"]).status.code() != Some(0) {
        assert!(Instant::now() < deadline, "the node does not serve");
    }
    assert!(folder.path().join("data/node1/wal").is_dir());
    let (code, _, said) = node.terminate();
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn peers_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |peers: &str| {
        let output = chronos()
            .args(["node", "--id", "node1", "--peers", peers])
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{peers}");
        text(&output.stderr)
    };
    assert!(refused("node2").contains("expected NAME=HOST:PORT"));
    assert!(refused("node1=127.0.0.1:8001").contains("is node node1 already"));
    assert!(refused("node2=127.0.0.1:8000").contains("a name and an address of its own"));
    assert!(refused("node2=127.0.0.1:8001,node2=127.0.0.1:8002").contains("is node node2 already"));
}

#[test]
fn beyond_loopback_insecure_is_to_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let output = chronos()
        .args(["dev", "--address", "0.0.0.0:8000", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--insecure"));
}

#[test]
fn tokens_are_asked_for_on_every_wire() {
    let folder = tempfile::tempdir().unwrap();
    let tokens =
        [("CHRONOS_AUTH_TOKEN_ADMIN", "admin-token-1"), ("CHRONOS_AUTH_TOKEN_READONLY", "reader-token-1")];
    let node = Node::start_with(&folder.path().join("data"), &["dev"], &tokens);
    let (admin, reader) = (["--token", "admin-token-1"], ["--token", "reader-token-1"]);
    let with = |token: [&'static str; 2], rest: &[&'static str]| [&token[..], rest].concat();
    node.ok("client", &with(admin, &["-q", "-e", "CREATE TABLE t (id INT PRIMARY KEY)"]));
    node.ok("topic create", &with(admin, &["alerts"]));
    node.ok("client", &with(reader, &["-q", "-e", "SELECT * FROM t"]));
    for (command, arguments, code) in [
        ("client", vec!["-e", "SELECT 1"], "--token"),
        ("client", with(["--token", "wrong-token-1"], &["-e", "SELECT 1"]), "28P01"),
        ("client", with(reader, &["-e", "INSERT INTO t VALUES (1)"]), "25006"),
        ("publish", vec!["alerts", "x"], "--token"),
        ("publish", with(reader, &["alerts", "x"]), "42501"),
    ] {
        let output = node.run(command, &arguments);
        assert_eq!(output.status.code(), Some(1), "{command} {arguments:?}");
        let said = text(&output.stderr);
        assert!(said.contains(code), "{command} {arguments:?}: {said}");
        assert!(!said.contains("admin-token"), "{said}");
    }
}

#[test]
fn verify_reads_a_stopped_nodes_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let verify = || chronos().args(["verify", "--data-dir"]).arg(&data).output().unwrap();
    assert_eq!(verify().status.code(), Some(1), "there is nothing yet");
    let node = Node::start(&data, &["dev"]);
    node.ok("client", &["-q", "-e", "CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES (1), (2)"]);
    let busy = verify();
    assert_eq!(busy.status.code(), Some(1));
    assert!(text(&busy.stderr).contains("in use"), "{}", text(&busy.stderr));
    assert_eq!(node.terminate().0, Some(0));
    let sound = verify();
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stderr));
    assert!(text(&sound.stdout).trim_end().ends_with("sound"), "{}", text(&sound.stdout));

    // A byte in the middle of what was acknowledged.
    let wal = std::fs::read_dir(data.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let segment = wal.filter(|path| path.extension().is_some_and(|kind| kind == "seg")).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let place = bytes.windows(6).position(|window| window == b"public").unwrap_or(2048 + 100);
    bytes[place] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = verify();
    assert_eq!(damaged.status.code(), Some(1), "{}", text(&damaged.stdout));
    assert!(text(&damaged.stdout).contains("DAMAGED"), "{}", text(&damaged.stdout));
}

#[test]
fn recurring_schedules_are_made_watched_and_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data"), &["dev"]);
    node.ok("topic create", &["ticks", "--payload", "text"]);
    let create = ["beat", "--every", "1 hour", "--topic", "ticks", "--key", "k", "--payload", "it's"];
    assert_eq!(node.ok("schedule create", &create), "CREATE SCHEDULE\n");
    let mut note = vec!["note", "--sql", "INSERT INTO ticks (payload) VALUES ('a')", "--if-not-exists"];
    note.extend(["--cron", "0 7 * * 1-5", "--time-zone", "Europe/Berlin", "--count", "9", "--jitter", "1 s"]);
    note.extend(["--misfire", "fire-all", "--within", "1 hour", "--overlap", "allow"]);
    node.ok("schedule create", &note);
    let listed = node.ok("schedule recurring", &["--format", "csv"]);
    assert!(listed.contains("beat,every 01:00:00,,active,"), "{listed}");
    assert!(listed.contains("note,cron 0 7 * * 1-5,Europe/Berlin,active,"), "{listed}");
    let shown = node.ok("schedule show", &["note"]);
    for line in ["fire all within 01:00:00", "allow", "00:00:01", "INSERT INTO ticks (payload) VALUES ('a')"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    node.ok("schedule pause", &["beat"]);
    node.ok("schedule trigger", &["beat"]);
    let event = node.ok("client", &["--format", "csv", "-e", "SELECT message_id, key, payload FROM ticks"]);
    assert!(event.contains("/by-hand-1,k,it's"), "{event}");
    let runs = node.ok("schedule runs", &["beat", "--format", "csv"]);
    assert!(runs.contains(",published,"), "{runs}");
    node.ok("schedule resume", &["beat"]);
    node.ok("schedule drop", &["beat"]);
    for (command, arguments, code) in [
        ("schedule show", &["beat"][..], 1),
        ("schedule pause", &["beat"], 1),
        ("schedule create", &["x", "--cron", "never", "--sql", "SELECT 1"], 1),
        ("schedule create", &["x", "--sql", "SELECT 1"], 2),
        ("schedule create", &["x", "--every", "1 s", "--topic", "ticks"], 2),
    ] {
        assert_eq!(node.run(command, arguments).status.code(), Some(code), "{command} {arguments:?}");
    }
    assert!(node.ok("schedule list", &[]).contains("deliver_at"), "single events are listed as before");
}
