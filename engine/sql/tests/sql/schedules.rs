//! Schedules that run statements: once, at their time, whoever else tries.

use crate::support::{World, session};
use chronos_engine::txn::Refused;
use chronos_proto::RelationId;
use chronos_proto::schedule::Occurrence;
use chronos_sql::{Outcome, Session};

const SECOND: u64 = 1_000_000;

fn world(clauses: &str) -> (World, Session) {
    let (mut world, mut s) = (World::new(), session());
    let sql = format!(
        "CREATE TABLE log (at TIMESTAMPTZ, n INT); CREATE TABLE numbers (n INT PRIMARY KEY); \
         INSERT INTO numbers VALUES (1); CREATE SCHEDULE tidy EVERY '10 seconds' {clauses} \
         DO INSERT INTO log SELECT now(), n FROM numbers"
    );
    world.run(&mut s, &sql).unwrap();
    (world, s)
}

fn waiting(world: &World) -> Vec<(RelationId, Occurrence)> {
    let running = world.published().snapshot.running(None);
    running.map(|running| running.map(|(id, occurrence, _)| (id, occurrence)).unwrap()).collect()
}

fn run_all(world: &mut World) {
    for (id, occurrence) in waiting(world) {
        let run = |s: &mut Session, cx: &chronos_sql::Context<'_>| {
            Ok(s.execute_run(id, occurrence, cx)?.expect("it waits"))
        };
        world.execute(&mut session(), run).unwrap();
    }
}

#[test]
fn a_statement_runs_as_one_transaction_with_its_occurrence() {
    let (mut world, mut s) = world("");
    world.pass(9 * SECOND);
    assert!(waiting(&world).is_empty());
    world.pass(SECOND);
    assert_eq!(world.published().snapshot.statements_due, 1);
    run_all(&mut world);
    assert_eq!(world.published().snapshot.statements_due, 0);
    assert_eq!(world.run(&mut s, "SELECT * FROM log").unwrap().lines(), ["2023-11-14 22:13:30+00|1"]);
    let runs = "SELECT occurrence_id, outcome, ended_at FROM chronos.schedule_runs";
    let runs = world.run(&mut s, runs).unwrap().lines();
    assert_eq!(runs, ["tidy/18/1700000010000000|done|2023-11-14 22:13:30+00"]);
    assert_eq!(
        world.run(&mut s, "SELECT runs, failed, running FROM chronos.schedules").unwrap().lines(),
        ["1|0|0"]
    );
}

#[test]
fn of_two_runs_of_an_occurrence_one_has_an_effect() {
    let (mut world, mut s) = world("");
    world.pass(10 * SECOND);
    let (id, occurrence) = waiting(&world)[0];
    let mut second = None;
    let run = |other: &mut Session, cx: &chronos_sql::Context<'_>| {
        // Both are worked out on the same state; the other one is submitted first.
        let Some(Outcome::Commit(commit)) = session().execute_run(id, occurrence, cx)? else {
            panic!("it waits")
        };
        second = Some(commit);
        Ok(other.execute_run(id, occurrence, cx)?.expect("it waits"))
    };
    world.execute(&mut session(), run).unwrap();
    assert_eq!(world.submit(&second.unwrap()), Err(Refused::Conflict));
    assert_eq!(world.run(&mut s, "SELECT count(*) FROM log").unwrap().lines(), ["1"]);
    let again = |s: &mut Session, cx: &chronos_sql::Context<'_>| {
        Ok(s.execute_run(id, occurrence, cx)?.unwrap_or(Outcome::Tag("it has run".into())))
    };
    assert_eq!(world.execute(&mut session(), again).unwrap().tag(), "it has run");
}

#[test]
fn an_occurrence_does_not_run_while_an_earlier_one_does_unless_it_may() {
    let (mut one, mut s) = world("");
    one.pass(35 * SECOND);
    assert_eq!(waiting(&one).len(), 1);
    let counts = "SELECT runs, skipped, running FROM chronos.schedules";
    assert_eq!(one.run(&mut s, counts).unwrap().lines(), ["3|2|1"]);
    let runs = "SELECT due_at, outcome FROM chronos.schedule_runs ORDER BY due_at";
    assert_eq!(
        one.run(&mut s, runs).unwrap().lines(),
        [
            "2023-11-14 22:13:30+00|running",
            "2023-11-14 22:13:40+00|skipped",
            "2023-11-14 22:13:50+00|skipped"
        ]
    );
    run_all(&mut one);
    one.pass(10 * SECOND);
    assert_eq!(waiting(&one).len(), 1);

    let (mut all, mut s) = world("OVERLAP ALLOW");
    all.pass(35 * SECOND);
    assert_eq!(waiting(&all).len(), 3);
    run_all(&mut all);
    assert_eq!(all.run(&mut s, "SELECT count(*) FROM log").unwrap().lines(), ["3"]);
    // No more than a bound run at once: the others are passed over, and said to be.
    all.pass(200 * SECOND);
    assert_eq!(all.run(&mut s, counts).unwrap().lines(), ["23|4|16"]);
}

#[test]
fn what_a_statement_needs_may_come_later_and_a_dropped_schedule_runs_no_more() {
    let (mut world, mut s) = world("");
    world.run(&mut s, "DROP TABLE numbers").unwrap();
    world.pass(10 * SECOND);
    let (id, occurrence) = waiting(&world)[0];
    let run = |s: &mut Session, cx: &chronos_sql::Context<'_>| {
        Ok(s.execute_run(id, occurrence, cx)?.unwrap_or(Outcome::Tag("nothing to run".into())))
    };
    let error = world.execute(&mut session(), run).unwrap_err();
    assert_eq!(error.code.as_str(), "42P01");
    world.run(&mut s, "CREATE TABLE numbers (n INT); INSERT INTO numbers VALUES (7)").unwrap();
    assert_eq!(world.execute(&mut session(), run).unwrap().tag(), "DO");
    assert_eq!(world.run(&mut s, "SELECT n FROM log").unwrap().lines(), ["7"]);
    world.pass(10 * SECOND);
    let (id, occurrence) = waiting(&world)[0];
    world.run(&mut s, "DROP SCHEDULE tidy").unwrap();
    let run = |s: &mut Session, cx: &chronos_sql::Context<'_>| {
        Ok(s.execute_run(id, occurrence, cx)?.unwrap_or(Outcome::Tag("nothing to run".into())))
    };
    assert_eq!(world.execute(&mut session(), run).unwrap().tag(), "nothing to run");
    world.pass(30 * SECOND);
    assert_eq!(world.published().snapshot.statements_due, 0);
    assert!(waiting(&world).is_empty());
}

#[test]
fn the_last_hundred_runs_are_remembered() {
    let (mut world, mut s) = world("");
    for _ in 0..130 {
        world.pass(10 * SECOND);
        run_all(&mut world);
    }
    let runs = "SELECT count(*), min(due_at) FROM chronos.schedule_runs";
    assert_eq!(world.run(&mut s, runs).unwrap().lines(), ["100|2023-11-14 22:18:30+00"]);
    assert_eq!(world.run(&mut s, "SELECT runs FROM chronos.schedules").unwrap().lines(), ["130"]);
}
