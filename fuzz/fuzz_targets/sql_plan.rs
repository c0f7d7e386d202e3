#![no_main]
#[path = "../../engine/tests/support/world.rs"]
mod world;

use chronos_proto::RequestId;
use chronos_sql::{Context, Limits, Outcome, Session, SessionOptions};
use std::cell::RefCell;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const TABLES: [&str; 5] = [
    "CREATE TABLE t (a INT PRIMARY KEY, b TEXT, c FLOAT, d TIMESTAMPTZ, e BOOLEAN, f BYTEA, g JSONB)",
    "CREATE TABLE u (x INT, y TEXT, PRIMARY KEY (x, y))",
    "CREATE INDEX i ON t (b, c)",
    "CREATE TOPIC topic",
    "INSERT INTO t VALUES (1, 'one', 1.5, now(), true, 'x', '{}'), (2, NULL, NULL, NULL, NULL, NULL, NULL)",
];

/// A node with tables; what the fuzzer writes is planned and evaluated over them, and never committed.
fn node() -> world::World {
    let mut node = world::World::new();
    node.pass(1_000_000);
    let (mut session, cancel) = (Session::new(SessionOptions::default()), AtomicBool::new(false));
    for sql in TABLES {
        for statement in chronos_sql::parse(sql).expect(sql) {
            let published = node.published().clone();
            let prepared = session.prepare(&statement, &[], &published.snapshot).expect(sql);
            let cx = context(&published, &cancel);
            if let Outcome::Commit(commit) = session.execute(&prepared, &[], &cx).expect(sql) {
                let answer = node.commit(commit.group, commit.transaction.clone());
                session.committed(*commit, answer).expect(sql);
            }
        }
        node.pass(Duration::from_secs(1).as_micros() as u64);
    }
    node
}

fn context<'a>(published: &'a chronos_engine::step::Published, cancel: &'a AtomicBool) -> Context<'a> {
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let read_time = published.clock.time;
    Context {
        snapshot: &published.snapshot,
        read_time,
        random: 7,
        request: RequestId::default(),
        cancel,
        limits,
    }
}

thread_local! {
    static NODE: RefCell<world::World> = RefCell::new(node());
}

// SQL text, through parser, binder, planner and, with no parameters, the executor.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Thousands of generated rows take long and show nothing new.
    if text.contains("generate_series") {
        return;
    }
    let Ok(statements) = chronos_sql::parse(text) else { return };
    NODE.with_borrow(|node| {
        let (mut session, cancel) = (Session::new(SessionOptions::default()), AtomicBool::new(false));
        let published = node.published();
        for statement in statements.iter().take(4) {
            let Ok(prepared) = session.prepare(statement, &[], &published.snapshot) else { continue };
            let _ = session.execute(&prepared, &[], &context(published, &cancel));
        }
    });
});
