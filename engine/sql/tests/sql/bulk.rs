//! Many rows in one INSERT: whatever the order of their keys, however many buffers they take, each is looked for among
//! what is there and among those before it.

use crate::support::{World, session};
use std::collections::BTreeSet;

/// Keys in several orders, with and without those that come twice.
fn orders() -> Vec<(&'static str, Vec<i64>)> {
    let mixed = (0..3_000).map(|i| i * 7_919 % 3_001).collect();
    let runs = (0..30).flat_map(|run| (0..50).map(move |i| (run * 37 % 30) * 60 + i)).collect();
    vec![
        ("ascending", (0..3_000).collect()),
        ("descending", (0..3_000).rev().collect()),
        ("mixed", mixed),
        ("runs", runs),
        ("each twice", (0..2_000).map(|i| i / 2).collect()),
        ("above all", (9_000..10_000).collect()),
    ]
}

fn insert(table: &str, keys: &[i64], end: &str) -> String {
    let rows: Vec<String> = keys.iter().map(|k| format!("({k}, 'row {k}')")).collect();
    format!("INSERT INTO {table} VALUES {} {end}", rows.join(", "))
}

/// The keys there before, and where they are.
fn world(before: &[i64], in_store: bool) -> World {
    let mut world = World::new();
    let mut s = session();
    world.run(&mut s, "CREATE TABLE t (id INT PRIMARY KEY, x TEXT); CREATE INDEX t_x ON t (x)").unwrap();
    world.pass(1_000_000);
    if !before.is_empty() {
        world.run(&mut s, &insert("t", before, "")).unwrap();
    }
    if in_store {
        world.checkpoint();
    }
    world
}

#[test]
fn what_is_there_is_skipped_and_the_rest_inserted() {
    let thirds: Vec<i64> = (0..3_000).step_by(3).collect();
    for (name, keys) in orders() {
        for (before, in_store) in [(&[][..], false), (&thirds, false), (&thirds, true), (&[2_990][..], true)]
        {
            for block in [false, true] {
                let (mut world, mut s) = (world(before, in_store), session());
                let mut expected: BTreeSet<i64> = before.iter().copied().collect();
                let fresh = keys.iter().filter(|key| expected.insert(**key)).count();
                if block {
                    world.run(&mut s, "BEGIN").unwrap();
                }
                let sql = insert("t", &keys, "ON CONFLICT DO NOTHING");
                let inserted = world.run(&mut s, &sql).unwrap();
                assert_eq!(inserted.tag(), format!("INSERT 0 {fresh}"), "{name}");
                if block {
                    world.run(&mut s, "COMMIT").unwrap();
                }
                let there = world.run(&mut s, "SELECT id FROM t WHERE x = 'row ' || id::text ORDER BY id");
                let expected: Vec<String> = expected.iter().map(i64::to_string).collect();
                assert_eq!(there.unwrap().lines(), expected, "{name}");
                let one = world.run(&mut s, "SELECT id FROM t WHERE x = 'row 2990'").unwrap().lines();
                assert_eq!(
                    one.len(),
                    usize::from(expected.contains(&"2990".to_owned())),
                    "{name}: by the index"
                );
            }
        }
    }
}

#[test]
fn the_first_row_that_may_not_be_refuses_them_all() {
    let (mut world, mut s) = (world(&[1_500], true), session());
    let mut refused = |sql: &str| {
        let error = world.run(&mut s, sql).unwrap_err();
        let left = world.run(&mut s, "SELECT count(*) FROM t").unwrap().lines();
        assert_eq!(left, ["1"], "{sql:.40}");
        (error.code.as_str().to_owned(), error.detail.unwrap_or_default())
    };
    for (_, keys) in orders().into_iter().filter(|(_, keys)| keys.contains(&1_500)) {
        let (code, detail) = refused(&insert("t", &keys, ""));
        assert_eq!((code.as_str(), detail.as_str()), ("23505", "Key (id)=(1500) already exists."));
    }
    let twice: Vec<i64> = (0..1_000).chain([700]).collect();
    assert_eq!(refused(&insert("t", &twice, "")).1, "Key (id)=(700) already exists.");
    // In the order of the rows, whichever error it is.
    assert_eq!(refused("INSERT INTO t VALUES (1500, 'x'), (1 / 0, 'y')").0, "23505");
    assert_eq!(refused("INSERT INTO t VALUES (1 / 0, 'y'), (1500, 'x')").0, "22012");
    assert_eq!(refused("INSERT INTO t VALUES (1, 'a'), (NULL, 'b'), (1, 'c')").0, "23502");
}

#[test]
fn rows_without_a_key_keep_their_order_and_their_index() {
    let (mut world, mut s) = (World::new(), session());
    world.run(&mut s, "CREATE TABLE t (n INT, x TEXT); CREATE INDEX t_x ON t (x)").unwrap();
    world.pass(1_000_000);
    let keys: Vec<i64> = (0..2_000).collect();
    assert_eq!(world.run(&mut s, &insert("t", &keys, "")).unwrap().tag(), "INSERT 0 2000");
    let found = world.run(&mut s, "SELECT n FROM t WHERE x = 'row 1234'").unwrap().lines();
    assert_eq!(found, ["1234"]);
    let all = world.run(&mut s, "SELECT n FROM t").unwrap().lines();
    assert_eq!(all, keys.iter().map(i64::to_string).collect::<Vec<_>>());
    let returned =
        world.run(&mut s, "INSERT INTO t VALUES (1, 'a'), (2, 'b') RETURNING x, n").unwrap().lines();
    assert_eq!(returned, ["a|1", "b|2"]);
}

#[test]
fn many_rows_of_literals_are_what_one_by_one_would_be() {
    let rows = [
        "(1, 12.25, 12.25, 12.25, 'it''s', '2024-02-29 12:00:00+00', true)",
        "(2, -0.5, -0.0, -1.005, '', '2024-03-01', False)",
        "(3.5, 7, - 7, 7, NULL, NULL, NULL)",
        "(2.5, .5, 2., 123456789012345678901234567890, 'ü', 'epoch', 't')",
        "('6', '1.5', '1e3', '1e-3', 'x', '1999-01-08', 'off')",
    ];
    let create = "(id INTEGER PRIMARY KEY, f REAL, d DOUBLE PRECISION, n NUMERIC, x VARCHAR(4), ts TIMESTAMPTZ, b BOOL)";
    let (mut world, mut s) = (World::new(), session());
    for table in ["together", "alone"] {
        world.run(&mut s, &format!("CREATE TABLE {table} {create}")).unwrap();
    }
    let all = format!("INSERT INTO together VALUES {}", rows.join(", "));
    assert_eq!(world.run(&mut s, &all).unwrap().tag(), "INSERT 0 5");
    for row in rows {
        world.run(&mut s, &format!("INSERT INTO alone VALUES {row}")).unwrap();
    }
    let mut of = |table| world.run(&mut s, &format!("SELECT * FROM {table} ORDER BY id")).unwrap().lines();
    assert_eq!(of("together"), of("alone"));
    // What is wrong is said as ever, and where.
    let mut refused = |sql: &str| {
        let error = world.run(&mut s, sql).unwrap_err();
        (error.code.as_str().to_owned(), error.message, error.position)
    };
    for (bad, code, message) in [
        ("(2147483647.5, 1)", "22003", "integer out of range"),
        ("(9, 1), (2147483648, 1)", "22003", "integer out of range"),
        ("(9, 'x')", "22P02", "invalid input syntax for type real: \"x\""),
        ("(9, 1, 1)", "42601", "VALUES lists must all be the same length"),
        ("(9, true)", "42804", "column \"f\" is of type real but expression is of type boolean"),
    ] {
        let sql = format!("INSERT INTO together (id, f) VALUES (7, 1), (8, 1), {bad}");
        let (said, text, _) = refused(&sql);
        assert_eq!((said.as_str(), text.as_str()), (code, message));
    }
    for (sql, code, wrong) in [
        ("INSERT INTO alone (id) VALUES (7), (8),\n (9) RETURNING id, nosuch", "42703", "nosuch"),
        ("INSERT INTO alone (id) VALUES (7), (8) RETURNNG id", "42601", "RETURNNG"),
        (
            "INSERT INTO alone (id) VALUES (7), (8), (9); SELECT count(*), nosuch FROM alone",
            "42703",
            "nosuch",
        ),
    ] {
        let place = sql.find(wrong).map(|at| at as u32 + 1);
        let (said, _, position) = refused(sql);
        assert_eq!((said.as_str(), position), (code, place), "{sql}");
    }
}
