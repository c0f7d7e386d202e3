//! What no statement may do: panic, overflow the stack, run on past a cancel, or use more memory than it is given.

use crate::support::{Answer, World, session};
use chronos_proto::{Type, Value};
use chronos_sql::SqlState;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

fn code(sql: &str) -> SqlState {
    let (mut world, mut session) = (World::new(), session());
    match world.run(&mut session, sql) {
        Ok(answer) => panic!("{} was taken: {answer:?}", &sql[..sql.len().min(80)]),
        Err(error) => error.code,
    }
}

#[test]
fn statements_nested_too_deep_are_refused() {
    let many = |s: &str| s.repeat(100_000);
    for sql in [
        format!("SELECT {}1{}", many("("), many(")")),
        format!("SELECT 1{}", many("+1")),
        format!("SELECT {}true", many("NOT ")),
        format!("SELECT {}1", many("- ")),
        format!("SELECT true{}", many(" AND true")),
        format!("SELECT 1{}", many("::int")),
        format!("SELECT a{}", many(".a")),
        format!("SELECT a{}", many("[1]")),
        format!("SELECT 1{}", many(" IS NULL")),
        format!("SELECT {}1{}", many("CASE WHEN true THEN "), many(" END")),
        format!("SELECT {}1{}", many("abs("), many(")")),
        format!("{}SELECT 1{}", many("SELECT * FROM ("), many(") t")),
        format!("SELECT 1{}", many(" UNION SELECT 1")),
        format!("{}SELECT 1", many("EXPLAIN ")),
        format!("SELECT 'a'{}", many(" || 'a'")),
        format!("SELECT 1 FROM a{}", many(" JOIN a ON true")),
        format!("SELECT 1 FROM {}a{}", many("("), many(")")),
        format!("SELECT {}1{}", many("ARRAY["), many("]")),
        format!("SELECT {}1{}", many("interval "), many(" day")),
        format!("SELECT 1 WHERE 1 IN {}1{}", many("(SELECT 1 WHERE 1 IN "), many(")")),
        format!("SELECT {}", many("date ")),
        format!("CREATE TABLE t (x {}", many("int[]")),
    ] {
        let found = code(&sql);
        let expected = [SqlState::TOO_COMPLEX, SqlState::LIMIT_EXCEEDED, SqlState::SYNTAX_ERROR];
        assert!(expected.contains(&found), "{found} for {}", &sql[..60]);
    }
}

#[test]
fn deep_but_allowed_expressions_run() {
    let (mut world, mut session) = (World::new(), session());
    let chain = format!("SELECT 0{}", "+1".repeat(900));
    assert_eq!(world.run(&mut session, &chain).expect("a chain").lines(), ["900"]);
    let nested = format!("SELECT {}1{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(world.run(&mut session, &nested).expect("parentheses").lines(), ["1"]);
    let list = format!("SELECT 7 IN ({}7)", "1, ".repeat(20_000));
    assert_eq!(world.run(&mut session, &list).expect("a list").lines(), ["t"]);
}

#[test]
fn long_statements_and_zero_bytes_are_refused() {
    assert_eq!(code(&format!("SELECT '{}'", "x".repeat(2 << 20))), SqlState::LIMIT_EXCEEDED);
    assert_eq!(code("SELECT '\0'"), SqlState::CHARACTER_NOT_IN_REPERTOIRE);
}

#[test]
fn memory_is_bounded() {
    let (mut world, mut session) = (World::new(), session());
    world.limits.memory_bytes = 1 << 20;
    for sql in [
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT n FROM generate_series(1, 1000000000) AS n ORDER BY n DESC",
        "SELECT n, count(*) FROM generate_series(1, 1000000000) AS n GROUP BY n",
        "SELECT DISTINCT n FROM generate_series(1, 1000000000) AS n",
        "SELECT 1 FROM generate_series(1, 3) a JOIN generate_series(1, 1000000000) b ON a = b",
        "SELECT string_agg('xxxxxxxxxxxx', ',') FROM generate_series(1, 1000000000)",
    ] {
        let error = world.run(&mut session, sql).expect_err(sql);
        assert_eq!(error.code, SqlState::OUT_OF_MEMORY, "{sql}: {error}");
    }
    // A top-k over much needs little.
    let top = "SELECT n FROM generate_series(1, 200000) AS n ORDER BY n DESC LIMIT 3";
    assert_eq!(world.run(&mut session, top).expect("a top-k").lines(), ["200000", "199999", "199998"]);
}

#[test]
fn a_transaction_is_bounded() {
    let (mut world, mut session) = (World::new(), session());
    world.limits.transaction_bytes = 1 << 20;
    world.run(&mut session, "CREATE TABLE t (id INT PRIMARY KEY)").expect("a table");
    let error = world
        .run(&mut session, "INSERT INTO t SELECT n FROM generate_series(1, 1000000) AS n")
        .expect_err("too much");
    assert_eq!(error.code, SqlState::LIMIT_EXCEEDED);
}

#[test]
fn a_cancelled_statement_ends() {
    let (mut world, mut session) = (World::new(), session());
    world.cancel.store(true, Ordering::Relaxed);
    let sql = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    assert_eq!(world.run(&mut session, sql).expect_err("cancelled").code, SqlState::CANCELED);
    world.cancel.store(false, Ordering::Relaxed);
    assert_eq!(world.run(&mut session, "SELECT 1").expect("the session goes on").lines(), ["1"]);
}

#[test]
fn parameters_take_their_types_from_where_they_stand() {
    let (mut world, mut session) = (World::new(), session());
    world
        .run(&mut session, "CREATE TABLE t (id INT PRIMARY KEY, at TIMESTAMPTZ, x FLOAT, name TEXT)")
        .expect("ok");
    let cases: [(&str, &[Type]); 7] = [
        ("SELECT * FROM t WHERE id = $1 AND at > $2", &[Type::Integer, Type::Timestamp]),
        ("INSERT INTO t VALUES ($1, $2, $3, $4)", &[Type::Integer, Type::Timestamp, Type::Float, Type::Text]),
        ("UPDATE t SET x = $1 WHERE id IN ($2, $3)", &[Type::Float, Type::Integer, Type::Integer]),
        ("SELECT $1", &[Type::Text]),
        ("SELECT id FROM t LIMIT $1 OFFSET $2", &[Type::Int, Type::Int]),
        ("SELECT x + $1, name || $2 FROM t", &[Type::Float, Type::Text]),
        ("SELECT $1::int + 1, coalesce($2, 1.5)", &[Type::Integer, Type::Numeric]),
    ];
    for (sql, types) in cases {
        let statement = chronos_sql::parse(sql).expect(sql).remove(0);
        let prepared = session.prepare(&statement, &[], &world.published().snapshot).expect(sql);
        assert_eq!(prepared.params, types, "{sql}");
    }
    let params = [Value::Int(1), Value::Null, Value::Float(2.5), Value::Text("x".into())];
    world.run_with(&mut session, "INSERT INTO t VALUES ($1, $2, $3, $4)", &[], &params).expect("an insert");
    let found = world.run_with(&mut session, "SELECT x, name FROM t WHERE id = $1", &[], &[Value::Int(1)]);
    assert_eq!(found.expect("a row").lines(), ["2.5|x"]);
}

#[test]
fn a_held_plan_follows_the_catalogue() {
    let (mut world, mut session) = (World::new(), session());
    world
        .run(&mut session, "CREATE TABLE t (id INT PRIMARY KEY, x INT); INSERT INTO t VALUES (1, 2)")
        .expect("ok");
    let statement = chronos_sql::parse("SELECT x FROM t WHERE x::int = $1").expect("sql").remove(0);
    let prepared = session.prepare(&statement, &[], &world.published().snapshot).expect("a plan");
    let ask = |world: &mut World, session: &mut chronos_sql::Session| {
        world.execute(session, |s, cx| s.execute(&prepared, &[Value::Int(2)], cx)).map(|a| a.lines())
    };
    assert_eq!(ask(&mut world, &mut session).expect("rows"), ["2"]);
    world.run(&mut session, "CREATE INDEX ON t (x)").expect("an index");
    world.pass(5_000_000);
    assert_eq!(ask(&mut world, &mut session).expect("rows by the index"), ["2"]);
    world.run(&mut session, "DROP TABLE t").expect("gone");
    assert_eq!(ask(&mut world, &mut session).expect_err("no table").code, SqlState::UNDEFINED_TABLE);
    world.run(&mut session, "CREATE TABLE t (x TEXT)").expect("another");
    let error = ask(&mut world, &mut session).expect_err("another type");
    assert_eq!(error.code, SqlState::FEATURE_NOT_SUPPORTED, "{error}");
}

#[test]
fn statements_of_an_implicit_transaction_commit_together() {
    let (mut world, mut session) = (World::new(), session());
    world.run(&mut session, "CREATE TABLE t (id INT PRIMARY KEY)").expect("a table");
    session.begin_implicit();
    world.run(&mut session, "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)").expect("two rows");
    let mut other = crate::support::session();
    assert_eq!(world.run(&mut other, "SELECT count(*) FROM t").expect("a count").lines(), ["0"]);
    let end = world.execute(&mut session, |s, cx| s.finish_implicit(cx)).expect("a commit");
    assert!(matches!(end, Answer::Tag(tag) if tag == "COMMIT"));
    assert_eq!(world.run(&mut other, "SELECT count(*) FROM t").expect("a count").lines(), ["2"]);
    session.begin_implicit();
    world.run(&mut session, "INSERT INTO t VALUES (3); INSERT INTO t VALUES (1)").expect_err("a duplicate");
    world.execute(&mut session, |s, cx| s.finish_implicit(cx)).expect("rolled back");
    assert_eq!(world.run(&mut other, "SELECT count(*) FROM t").expect("a count").lines(), ["2"]);
}

#[test]
fn errors_say_where() {
    let (mut world, mut session) = (World::new(), session());
    for (sql, position) in [
        ("SELECT 1,\n  nothing", Some(13)),
        ("SELECT * FROM nowhere", Some(15)),
        ("SELECT 1 FROM WHERE", Some(15)),
        ("SELECT nofunction(1)", Some(8)),
    ] {
        let error = world.run(&mut session, sql).expect_err(sql);
        assert_eq!(error.position, position, "{sql}: {error}");
    }
}

/// Words that make statements which are often nearly right.
const WORDS: &str = r#"
    SELECT ¦ FROM ¦ WHERE ¦ GROUP BY ¦ ORDER BY ¦ HAVING ¦ LIMIT ¦ t ¦ u ¦ id ¦ x ¦ name ¦ at ¦ j ¦ * ¦
    , ¦ ( ¦ ) ¦ = ¦ < ¦ + ¦ - ¦ / ¦ || ¦ AND ¦ OR ¦ NOT ¦ IS NULL ¦ IN ¦ BETWEEN ¦ LIKE ¦ CASE WHEN ¦
    THEN ¦ ELSE ¦ END ¦ count(*) ¦ sum(x) ¦ avg( ¦ 1 ¦ 0 ¦ -9223372036854775808 ¦ 1.5 ¦ 'a' ¦
    '2024-01-01' ¦ NULL ¦ true ¦ ::int ¦ ::text ¦ ::timestamptz ¦ ::jsonb ¦ JOIN ¦ LEFT JOIN ¦ ON ¦
    USING (id) ¦ DISTINCT ¦ INSERT INTO ¦ VALUES ¦ UPDATE ¦ SET ¦ DELETE FROM ¦ RETURNING ¦
    interval '1 day' ¦ now() ¦ extract(epoch FROM ¦ date_trunc('day', ¦ $1 ¦ $2 ¦ AS ¦ DESC ¦
    generate_series(1, 3) ¦ substr( ¦ repeat( ¦ lpad( ¦ split_part( ¦ chronos.timers ¦ topic ¦ -> ¦ ; ¦
    BEGIN ¦ COMMIT ¦ ROLLBACK ¦ EXPLAIN ¦ CREATE TABLE ¦ DROP TABLE ¦ power( ¦ round( ¦ % ¦ IS TRUE ¦
    pg_class ¦ information_schema.columns ¦ coalesce( ¦ DEFAULT ¦ ON CONFLICT DO NOTHING ¦ " ¦ ' ¦ $$"#;

fn fragment() -> impl Strategy<Value = String> {
    let words: Vec<&'static str> = WORDS.split('¦').map(str::trim).collect();
    prop_oneof![9 => proptest::sample::select(words).prop_map(str::to_owned), 1 => "[ -~]{1,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(words in proptest::collection::vec(fragment(), 1..24)) {
        thread_local! {
            static WORLD: std::cell::RefCell<(World, chronos_sql::Session)> = std::cell::RefCell::new(fresh());
        }
        let sql = words.join(" ");
        WORLD.with(|world| {
            let (world, session) = &mut *world.borrow_mut();
            let _ = world.run_with(session, &sql, &[], &[]);
            let _ = world.run_with(session, &sql, &[], &[Value::Int(1)]);
            let _ = world.run(session, "ROLLBACK");
        });
    }

    #[test]
    fn no_bytes_panic_the_readers_of_text(text in "\\PC{0,24}") {
        use Type::*;
        for ty in [Bool, Int, Float, Text, Bytes, Timestamp, Date, Interval, Json, Uuid] {
            if let Ok(value) = chronos_sql::text::parse(&text, ty) {
                let shown = chronos_sql::text::format((&value).into());
                let again = chronos_sql::text::parse(&shown, ty).expect("what was written reads");
                prop_assert_eq!(again, value, "{} as {}", text, ty);
            }
        }
    }
}

fn fresh() -> (World, chronos_sql::Session) {
    let (mut world, mut session) = (World::new(), session());
    world.limits.memory_bytes = 4 << 20;
    world
        .run(
            &mut session,
            "CREATE TABLE t (id INT PRIMARY KEY, x FLOAT, name TEXT, at TIMESTAMPTZ, j JSONB);
             CREATE TABLE u (id INT, name TEXT); CREATE INDEX ON t (name); CREATE TOPIC topic;
             INSERT INTO t VALUES (1, 1.5, 'one', now(), '{}'), (2, NULL, NULL, NULL, NULL);
             INSERT INTO u VALUES (1, 'a'), (NULL, NULL)",
        )
        .expect("tables");
    (world, session)
}
