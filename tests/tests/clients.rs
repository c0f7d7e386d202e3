//! The second suite: clients that others wrote, and a disk that fills. What it needs must be there: psql 15, Python
//! with psycopg 3 (`CHRONOS_TEST_PYTHON` or `python3`), promtool, PostgreSQL 15 itself, and root for a small tmpfs.
//! `tests/clients.sh` runs it.

use chronos_tests::eventually;
use chronos_tests::http::{get, post};
use chronos_tests::node::{Node, binary, sql_at};
use chronos_tests::postgres::Postgres;
use serde_json::json;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// What a tool said, on both of its outputs; a tool that is missing is a failure.
async fn tool(mut command: Command, input: Vec<u8>) -> Output {
    let run = move || {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|e| panic!("{command:?} is needed and cannot run: {e}"));
        child.stdin.take().expect("an input").write_all(&input).expect("written");
        child.wait_with_output().expect("it ends")
    };
    tokio::task::spawn_blocking(run).await.expect("a tool's thread")
}

/// Variables for libpq, which psql and psycopg speak by.
type Libpq<'a> = &'a [(&'a str, &'a str)];

async fn psql(address: SocketAddr, libpq: Libpq<'_>) -> String {
    let version = tool(version_of("psql"), Vec::new()).await;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.contains(" 15."), "psql 15 is needed, and this is {version}");
    let mut command = Command::new("psql");
    command.args([
        "-X",
        "-a",
        "-h",
        "127.0.0.1",
        "-p",
        &address.port().to_string(),
        "-U",
        "chronos",
        "chronos",
    ]);
    command.args(["-f", script("session.sql").to_str().expect("a name")]);
    command
        .envs(libpq.iter().copied())
        .env("PGTZ", "UTC")
        .env("PGCLIENTENCODING", "UTF8")
        .env("LC_ALL", "C.UTF-8");
    // One stream, so that errors stand where they happened.
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("exec \"$@\" 2>&1").arg("sh").arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = tool(shell, Vec::new()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "psql: {}\n{text}", output.status);
    let prefix = format!("psql:{}:", script("session.sql").display());
    text.replace(&prefix, "psql:")
}

fn version_of(program: &str) -> Command {
    let mut command = Command::new(program);
    command.arg("--version");
    command
}

/// The whole of two texts, line by line, so that the difference is what is printed.
fn same(what: &str, got: &str, expected: &str) {
    let differs = got.lines().zip(expected.lines()).position(|(a, b)| a != b);
    let at = differs.or((got.lines().count() != expected.lines().count()).then_some(usize::MAX));
    let Some(at) = at else { return };
    let around = |text: &str| {
        let count = text.lines().count();
        let from = at.min(count).saturating_sub(6);
        text.lines().skip(from).take(12).collect::<Vec<_>>().join("\n")
    };
    panic!("{what}: at line {at}:\n{}\n--- and not:\n{}", around(got), around(expected));
}

#[tokio::test]
async fn a_psql_session_is_as_on_postgresql() {
    let node = Node::dev().await;
    let expected = std::fs::read_to_string(script("session.out")).expect("the expected session");
    same("psql on chronos", &psql(node.pg(), &[]).await, &expected);
}

/// Keeps `session.out` honest: it is what PostgreSQL 15 says. `UPDATE_EXPECTED=1` writes it.
#[tokio::test]
async fn the_expected_psql_session_is_postgresqls() {
    let postgres = Postgres::start(&std::env::temp_dir()).await.expect("PostgreSQL 15");
    let got = psql(postgres.address(), &[]).await;
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(script("session.out"), &got).expect("written");
    }
    let expected = std::fs::read_to_string(script("session.out")).expect("the expected session");
    same("psql on PostgreSQL", &got, &expected);
}

async fn psycopg(address: SocketAddr, libpq: Libpq<'_>) {
    let python = std::env::var("CHRONOS_TEST_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut command = Command::new(python);
    command.envs(libpq.iter().copied());
    command.arg(script("session.py")).arg("127.0.0.1").arg(address.port().to_string());
    let output = tool(command, Vec::new()).await;
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{}\n{said}\n{errors}", output.status);
}

#[tokio::test]
async fn a_psycopg_session() {
    psycopg(Node::dev().await.pg(), &[]).await;
}

#[tokio::test]
async fn the_psycopg_session_holds_on_postgresql() {
    let postgres = Postgres::start(&std::env::temp_dir()).await.expect("PostgreSQL 15");
    psycopg(postgres.address(), &[]).await;
}

/// Keeps the answers that the language is tested against honest: they are what PostgreSQL 15 says.
#[tokio::test]
async fn the_expected_answers_are_postgresqls() {
    let postgres = Postgres::start(&std::env::temp_dir()).await.expect("PostgreSQL 15");
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/sql/tests/postgres/record.py"));
    command.arg("--check").env("PGHOST", "127.0.0.1").env("PGPORT", postgres.address().port().to_string());
    command.env("PGUSER", "chronos").env("PGDATABASE", "chronos").env("PGCLIENTENCODING", "UTF8");
    let output = tool(command, Vec::new()).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// By password and by certificate; and what does not get in.
#[tokio::test]
async fn sessions_through_tls_are_the_same() {
    let folder = tempfile::tempdir().expect("a directory");
    let dir = folder.path().to_str().expect("a name").to_owned();
    let certs = |arguments: &'static [&'static str]| {
        let mut command = Command::new(binary());
        command.arg("certs").args(arguments).args(["--dir", &dir]);
        tool(command, Vec::new())
    };
    for arguments in
        [&["init"][..], &["node", "--name", "node1", "--host", "127.0.0.1"], &["client", "--name", "alice"]]
    {
        let made = certs(arguments).await;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }
    let (node_dir, ca) = (format!("{dir}/node1"), format!("{dir}/ca.crt"));
    let (certificate, key) = (format!("{dir}/alice/client.crt"), format!("{dir}/alice/client.key"));
    let verify = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", ca.as_str())];
    let by_password = [&verify[..], &[("PGPASSWORD", "a token")]].concat();
    let by_certificate =
        [&verify[..], &[("PGSSLCERT", certificate.as_str()), ("PGSSLKEY", key.as_str())]].concat();

    let log_in = async |node: &Node, libpq: Libpq<'_>| {
        let mut command = Command::new("psql");
        let port = node.pg().port().to_string();
        command.args(["-X", "-h", "127.0.0.1", "-p", &port, "-U", "me", "-d", "chronos", "-Atc", "SELECT 1"]);
        command.envs(libpq.iter().copied());
        let output = tool(command, Vec::new()).await;
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).trim().to_owned()
    };
    let start = async || {
        let mut node = Node::new().arg("--certs-dir").arg(&node_dir).env("CHRONOS_AUTH_TOKEN", "a token");
        node.spawn();
        let ready = async || (log_in(&node, &by_password).await == "1").then_some(());
        assert!(
            eventually(Duration::from_secs(30), ready).await.is_some(),
            "{}",
            log_in(&node, &by_password).await
        );
        node
    };
    let expected = std::fs::read_to_string(script("session.out")).expect("the expected session");
    let node = start().await;
    same("psql through TLS, by password", &psql(node.pg(), &by_password).await, &expected);
    for (libpq, says) in [
        (&[&verify[..], &[("PGPASSWORD", "a guess")]].concat()[..], "password authentication failed"),
        (&[("PGSSLMODE", "disable"), ("PGPASSWORD", "a token")], "sslmode"),
        (&[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &certificate)], "certificate verify failed"),
        (&[&by_password[..], &[("PGCHANNELBINDING", "require")]].concat(), "channel binding is required"),
    ] {
        let said = log_in(&node, libpq).await;
        assert!(said.contains(says), "{libpq:?}: {said}");
    }
    psycopg(node.pg(), &by_certificate).await;
    let node = start().await;
    same("psql through TLS, by certificate", &psql(node.pg(), &by_certificate).await, &expected);
    psycopg(node.pg(), &by_password).await;
}

#[tokio::test]
async fn metrics_are_as_prometheus_wants_them() {
    let node = Node::dev().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    for statement in
        ["CREATE TABLE t (id BIGINT PRIMARY KEY)", "INSERT INTO t VALUES (1)", "CREATE TOPIC alerts"]
    {
        sql.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e:?}"));
    }
    let metrics = get(node.http(), "/metrics").await.expect("an answer");
    assert!(metrics.text().lines().count() > 20, "{}", metrics.text());
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    let output = tool(command, metrics.body.clone()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

/// A small file system in memory, unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Tmpfs {
        let folder = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output()
            .expect("mount runs");
        let said = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "a tmpfs is needed, and so is root: {said}");
        Tmpfs(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space there is but so many bytes; gives it back when the file is removed.
    fn fill_but(&self, left: u64) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).expect("a file");
        let chunk = vec![1; 64 << 10];
        while file.write_all(&chunk).is_ok() {}
        let length = file.metadata().expect("a length").len();
        file.set_len(length.saturating_sub(left)).expect("shortened");
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_nothing() {
    let disk = Tmpfs::mount("64m");
    let mut node = Node::new()
        .data_dir(&disk.path().join("data"))
        .env("CHRONOS_WAL_SEGMENT_BYTES", "1MB")
        .env("CHRONOS_CHECKPOINT_WAL_BYTES", "2MB");
    node.start().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    sql.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, pad TEXT NOT NULL)").await.expect("DDL");
    let insert = sql.prepare("INSERT INTO t (id, pad) VALUES ($1, $2)").await.expect("prepared");
    let pad = "x".repeat(8 << 10);
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    for id in 0..50i64 {
        sql.execute(&insert, &[&id, &pad]).await.expect("there is space");
        acknowledged.push(id);
    }

    for round in 0..2i64 {
        let filler = disk.fill_but(3 << 20);
        let mut refused = None;
        for id in (round + 1) * 100_000..(round + 1) * 100_000 + 5_000 {
            let Err(error) = sql.execute(&insert, &[&id, &pad]).await else {
                acknowledged.push(id);
                continue;
            };
            let said = error.as_db_error().unwrap_or_else(|| panic!("the connection broke: {error:?}"));
            assert!(said.message().contains("full"), "{said:?}");
            match said.code().code() {
                // The one that was under way: it is kept until there is space.
                "08007" if refused.is_none() => unknown.push(id),
                "53100" => {
                    refused = Some(id);
                    break;
                }
                other => panic!("{other}: {said:?}"),
            }
        }
        assert!(refused.is_some(), "40 MB do not fit into 3");
        let reading = json!({"device_id": "a", "ts": 1, "seq": round, "metrics": {"t": 1.0}}).to_string();
        let status = post(node.http(), "/ingest", &reading).await.expect("an answer").status;
        assert_eq!(status, 507, "/ingest on a full disk");
        let count = sql.query_one("SELECT count(*) FROM t", &[]).await.expect("reads go on").get::<_, i64>(0);
        assert!(count >= acknowledged.len() as i64, "{count} of {} acknowledged", acknowledged.len());
        assert_eq!(get(node.http(), "/livez").await.expect("an answer").status, 200);

        std::fs::remove_file(filler).expect("removed");
        let id = -1 - round;
        let resumed = || async { sql.execute(&insert, &[&id, &pad]).await.ok() };
        assert!(
            eventually(Duration::from_secs(20), resumed).await.is_some(),
            "writes resume when there is space"
        );
        acknowledged.push(id);
    }

    drop(sql);
    node.kill();
    node.start().await;
    let sql = sql_at(node.pg()).await.expect("a session");
    let there = sql.query("SELECT id FROM t ORDER BY id", &[]).await.expect("reads");
    let there: Vec<i64> = there.iter().map(|row| row.get(0)).collect();
    let lost: Vec<&i64> = acknowledged.iter().filter(|id| there.binary_search(id).is_err()).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let known = |id: &&i64| !acknowledged.contains(id) && !unknown.contains(id);
    let extra: Vec<&i64> = there.iter().filter(known).collect();
    assert!(extra.is_empty(), "refused and there: {extra:?}");
    assert!(unknown.len() <= 2, "only what was under way is unknown: {unknown:?}");
    node.kill();
}
