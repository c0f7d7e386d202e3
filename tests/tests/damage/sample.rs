//! A stopped node's directory, and what it must answer.

use chronos_tests::eventually;
use chronos_tests::http::{get, post};
use chronos_tests::node::{Node, sql_at};
use serde_json::json;
use std::cell::Cell;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::SimpleQueryMessage;

/// Rows of the table, before the last write.
const ROWS: i64 = 900;
/// Rows of the last write: several pages of the log.
const LAST_ROWS: i64 = 400;

/// Every question and its answer, or the server's refusal to answer it.
pub type Answers = Vec<(String, Result<Vec<String>, String>)>;

/// A directory to be copied and damaged.
pub struct Sample {
    /// How it was stopped.
    pub name: &'static str,
    /// The directory.
    pub data: PathBuf,
    /// An earlier copy of its store.
    pub older_store: Option<PathBuf>,
    /// What it must answer.
    pub answers: Answers,
    /// What it answered before its last write.
    pub answers_before_last: Answers,
    /// Where its last write begins: a file's name and an offset.
    pub last_write: Option<(String, u64)>,
    _temporary: TempDir,
}

impl Sample {
    /// Stopped by SIGTERM.
    pub async fn stopped() -> Sample {
        let (mut node, temporary) = loaded().await;
        let before = answers(node.pg()).await.expect("the node answers");
        last_write(node.pg()).await;
        let answers = answers(node.pg()).await.expect("the node answers");
        assert!(node.stop().await.status.success(), "a clean stop: {}", node.stderr());
        let data = temporary.path().join("data");
        copy(node.data(), &data).expect("a copy");
        Sample {
            name: "SIGTERM",
            data,
            older_store: None,
            answers,
            answers_before_last: before,
            last_write: None,
            _temporary: temporary,
        }
    }

    /// Stopped by SIGKILL, when all of its log was marked as synced.
    pub async fn killed() -> Sample {
        let (mut node, temporary) = loaded().await;
        let store = temporary.path().join("older.mdb");
        fs::copy(node.data().join("store/data.mdb"), &store).expect("a copy");
        // More than a checkpoint's worth, so that the older store is older.
        fill(node.pg(), "more", 0..600).await;
        let before = answers(node.pg()).await.expect("the node answers");
        idle(&node).await;
        let old_log = temporary.path().join("wal");
        copy(&node.data().join("wal"), &old_log).expect("a copy");
        last_write(node.pg()).await;
        let answers = answers(node.pg()).await.expect("the node answers");
        idle(&node).await;
        node.kill();
        let data = temporary.path().join("data");
        copy(node.data(), &data).expect("a copy");
        Sample {
            name: "SIGKILL",
            last_write: first_difference(&old_log, &data.join("wal")),
            data,
            older_store: Some(store),
            answers,
            answers_before_last: before,
            _temporary: temporary,
        }
    }

    /// The directory's files by path below it, those that a stopped node needs.
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        list(&self.data, "", &mut files).expect("a directory");
        files
    }
}

/// The log's mark of what is synced follows 200 ms after the last write; a kill before it would test another thing. It
/// is there once the log has been quiet for several times as long.
async fn idle(node: &Node) {
    const QUIET: Duration = Duration::from_secs(1);
    let last = Cell::new((0, Instant::now()));
    let quiet = eventually(Duration::from_secs(30), async || {
        let status = get(node.http(), "/status").await.ok()?.json();
        let written = status["wal"]["written_bytes"].as_u64()?;
        let (before, since) = last.get();
        if written != before {
            last.set((written, Instant::now()));
        }
        (written == before && since.elapsed() >= QUIET).then_some(())
    });
    quiet.await.expect("a log that is idle is quiet");
}

async fn loaded() -> (Node, TempDir) {
    let mut node = small(Node::new());
    node.start().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    for statement in [
        "CREATE TABLE facts (id BIGINT PRIMARY KEY, name TEXT NOT NULL, value DOUBLE PRECISION)",
        "CREATE INDEX facts_name ON facts (name)",
        "CREATE TABLE more (id BIGINT PRIMARY KEY, name TEXT NOT NULL, value DOUBLE PRECISION)",
        "CREATE TOPIC alerts",
    ] {
        sql.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    fill(node.pg(), "facts", 0..ROWS).await;
    for event in 0..60 {
        let later =
            if event % 2 == 0 { "NULL".to_owned() } else { format!("'2099-01-01T00:00:{event:02}Z'") };
        let insert = format!(
            "INSERT INTO alerts (message_id, key, payload, deliver_at) VALUES ('event-{event}', 'k', 'payload of {event}', {later})"
        );
        sql.batch_execute(&insert).await.unwrap_or_else(|e| panic!("{insert}: {e:?}"));
    }
    let reading = |seq| json!({"device_id": "esp-001", "ts": seq, "seq": seq, "metrics": {"temp": 30.5}});
    let readings = serde_json::Value::Array((0..100).map(reading).collect()).to_string();
    let stored = post(node.http(), "/ingest", &readings).await.expect("an answer");
    assert!(stored.is_success(), "{}", stored.text());
    (node, tempfile::tempdir().expect("a directory"))
}

/// Small segments and frequent checkpoints: a little data makes several of each.
pub fn small(node: Node) -> Node {
    node.env("CHRONOS_WAL_SEGMENT_BYTES", "256KB").env("CHRONOS_CHECKPOINT_WAL_BYTES", "64KB")
}

async fn fill(pg: SocketAddr, table: &str, ids: std::ops::Range<i64>) {
    let sql = sql_at(pg).await.expect("a session");
    let ids: Vec<i64> = ids.collect();
    for chunk in ids.chunks(20) {
        let rows: Vec<String> = chunk.iter().map(|id| row(*id)).collect();
        let insert = format!("INSERT INTO {table} (id, name, value) VALUES {}", rows.join(", "));
        sql.batch_execute(&insert).await.unwrap_or_else(|e| panic!("{insert}: {e:?}"));
    }
}

fn row(id: i64) -> String {
    format!("({id}, 'name {}', {}.25)", id % 97, id * 3)
}

async fn last_write(pg: SocketAddr) {
    let sql = sql_at(pg).await.expect("a session");
    let rows: Vec<String> = (ROWS..ROWS + LAST_ROWS).map(row).collect();
    let insert = format!("INSERT INTO facts (id, name, value) VALUES {}", rows.join(", "));
    sql.batch_execute(&insert).await.expect("the last write");
}

/// Asks everything. None if the connection breaks on the way.
pub async fn answers(pg: SocketAddr) -> Option<Answers> {
    let sql = sql_at(pg).await.ok()?;
    let mut questions: Vec<String> = [
        "SELECT id, name, value FROM facts ORDER BY id",
        "SELECT count(*), sum(value) FROM more",
        "SELECT id, name, value FROM more ORDER BY id DESC",
        "SELECT message_id, key, payload, deliver_at FROM alerts ORDER BY message_id",
        "SELECT timer_id, payload, deliver_at FROM chronos.timers WHERE topic = 'alerts' ORDER BY timer_id",
        "SELECT device_id, seq, metric, value FROM readings ORDER BY seq",
    ]
    .map(str::to_owned)
    .into();
    // By the index, and by the key: what a scan notices, these might miss.
    questions.extend((0..97).map(|n| format!("SELECT id FROM facts WHERE name = 'name {n}' ORDER BY id")));
    questions
        .extend((0..ROWS + LAST_ROWS).step_by(7).map(|id| format!("SELECT name FROM facts WHERE id = {id}")));
    let mut answers = Vec::new();
    for question in questions {
        let answer = match sql.simple_query(&question).await {
            Ok(messages) => Ok(messages.iter().filter_map(row_text).collect()),
            Err(error) => match error.as_db_error() {
                Some(said) => Err(format!("{}: {}", said.code().code(), said.message())),
                None => return None,
            },
        };
        answers.push((question, answer));
    }
    Some(answers)
}

fn row_text(message: &SimpleQueryMessage) -> Option<String> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    let columns: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("NULL")).collect();
    Some(columns.join("|"))
}

/// Copies a directory.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

/// The first file and offset where the newer of two logs has something else.
fn first_difference(old: &Path, new: &Path) -> Option<(String, u64)> {
    let mut files = Vec::new();
    list(new, "", &mut files).expect("a directory");
    for file in files {
        let fresh = fs::read(new.join(&file)).expect("a file");
        let known = fs::read(old.join(&file)).unwrap_or_default();
        let same = fresh.iter().zip(known.iter()).position(|(a, b)| a != b);
        if let Some(at) = same.or((known.len() < fresh.len()).then_some(known.len())) {
            return Some((format!("wal/{file}"), at as u64));
        }
    }
    None
}
