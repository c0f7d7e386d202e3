//! The node stops under a write: nobody knows its outcome, and every wire says so. In a program of its own, since the
//! disk is made to fail by a limit of the whole process.

mod common;

use common::World;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::NoTls;

const SIGXFSZ: i32 = 25;

/// Runs a client on a runtime of its own.
fn client<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.unwrap() })
}

/// From now on files may not be longer than this: the log's next write fails.
fn limit_files(bytes: Option<u64>) {
    let limit = Rlimit { current: bytes, ..getrlimit(Resource::Fsize) };
    setrlimit(Resource::Fsize, limit).unwrap();
}

#[test]
fn a_write_under_way_when_the_node_stops_has_no_known_outcome() {
    let world = World::start();
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)");
    world.sql("INSERT INTO t VALUES (1)");
    client(async {
        // A handler, so that the limit is an error of the write and not the end of the process.
        let _ignored = signal(SignalKind::from_raw(SIGXFSZ)).unwrap();
        let config = format!("host=127.0.0.1 port={} user=me dbname=chronos", world.pg_port());
        let (sql, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let limit_before = getrlimit(Resource::Fsize).current;
        limit_files(Some(0));
        let unknown = sql.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap_err();
        limit_files(limit_before);
        let said = unknown.as_db_error().unwrap_or_else(|| panic!("{unknown:?}"));
        assert_eq!(said.code().code(), "08007", "{said}");
        assert!(said.message().contains("outcome unknown"), "{said}");
        assert!(said.hint().is_some_and(|hint| hint.contains("before running it again")), "{said:?}");
        // The connection ends: there is nothing more to serve.
        let _how = connection.await.unwrap();
        assert!(sql.is_closed());
    });
    assert!(matches!(world.node.wait(), chronos_node::Exit::Fatal(_)));
    assert_eq!(world.request("GET", "/health", "").status, 503);
}
