//! Two transactions at once: which reads conflict with which writes. The second column is committed by another session
//! between the first, a read, and the commit of a write that has nothing to do with either.

use crate::support::{World, session};

const SETUP: &str = "
    CREATE TABLE log (n INT PRIMARY KEY);
    CREATE TABLE keyed (id INT PRIMARY KEY, x INT, y INT);
    CREATE INDEX keyed_x ON keyed (x);
    CREATE TABLE hidden (x INT, y INT);
    CREATE INDEX hidden_x ON hidden (x);
    CREATE TOPIC alerts;
    INSERT INTO keyed VALUES (1, 10, 0), (2, 20, 0), (3, 30, 0);
    INSERT INTO hidden VALUES (10, 0), (20, 0), (30, 0);
    INSERT INTO alerts (message_id, payload) VALUES ('m1', 'x');
    INSERT INTO alerts (message_id, payload, deliver_at) VALUES ('t1', 'x', '2099-01-01'), ('t2', 'x', '2099-01-01');
";

/// (read, write of another, whether the reader's commit is refused)
const CASES: &[(&str, &str, bool)] = &[
    // Rows by primary key, found or not.
    ("SELECT * FROM keyed WHERE id = 1", "UPDATE keyed SET y = 1 WHERE id = 1", true),
    ("SELECT * FROM keyed WHERE id = 1", "DELETE FROM keyed WHERE id = 1", true),
    ("SELECT * FROM keyed WHERE id = 1", "UPDATE keyed SET y = 1 WHERE id = 2", false),
    ("SELECT * FROM keyed WHERE id = 9", "INSERT INTO keyed VALUES (9, 0, 0)", true),
    ("SELECT * FROM keyed WHERE id = 9", "INSERT INTO keyed VALUES (8, 0, 0)", false),
    // Rows by a scan of the key or of all.
    ("SELECT count(*) FROM keyed", "INSERT INTO keyed VALUES (9, 0, 0)", true),
    ("SELECT sum(y) FROM keyed WHERE id > 1 AND id < 3", "UPDATE keyed SET y = 1 WHERE id = 2", true),
    ("SELECT sum(y) FROM keyed WHERE id > 1 AND id < 3", "UPDATE keyed SET y = 1 WHERE id = 3", false),
    ("SELECT count(*) FROM hidden", "INSERT INTO hidden VALUES (0, 0)", true),
    ("SELECT count(*) FROM hidden", "UPDATE hidden SET y = 1 WHERE x = 10", true),
    // Rows by an index: what comes into the range, goes out of it, or changes inside.
    ("SELECT * FROM keyed WHERE x = 10", "UPDATE keyed SET y = 1 WHERE id = 1", true),
    ("SELECT * FROM keyed WHERE x = 10", "UPDATE keyed SET x = 10 WHERE id = 2", true),
    ("SELECT * FROM keyed WHERE x = 10", "UPDATE keyed SET x = 11 WHERE id = 1", true),
    ("SELECT * FROM keyed WHERE x = 10", "UPDATE keyed SET x = 11 WHERE id = 2", false),
    ("SELECT * FROM keyed WHERE x >= 10 AND x < 20", "INSERT INTO keyed VALUES (9, 19, 0)", true),
    ("SELECT * FROM keyed WHERE x >= 10 AND x < 20", "INSERT INTO keyed VALUES (9, 21, 0)", false),
    ("SELECT * FROM hidden WHERE x = 10", "INSERT INTO hidden VALUES (10, 5)", true),
    ("SELECT * FROM hidden WHERE x > 30", "INSERT INTO hidden VALUES (31, 5)", true),
    // Appending and publishing read nothing that others write.
    ("INSERT INTO hidden VALUES (1, 1)", "INSERT INTO hidden VALUES (2, 2)", false),
    ("INSERT INTO alerts (payload) VALUES ('y')", "INSERT INTO alerts (payload) VALUES ('z')", false),
    ("INSERT INTO keyed VALUES (9, 0, 0)", "INSERT INTO keyed VALUES (9, 1, 1)", true),
    ("INSERT INTO keyed VALUES (1, 0, 0) ON CONFLICT DO NOTHING", "DELETE FROM keyed WHERE id = 1", true),
    ("UPDATE keyed SET id = 9 WHERE id = 1", "INSERT INTO keyed VALUES (9, 0, 0)", true),
    // Topics and timers.
    ("SELECT * FROM alerts", "INSERT INTO alerts (payload) VALUES ('z')", true),
    (
        "SELECT count(*) FROM chronos.timers",
        "INSERT INTO alerts (payload, deliver_at) VALUES ('z', '2099-01-01')",
        true,
    ),
    (
        "SELECT * FROM chronos.timers WHERE topic = 'alerts' AND timer_id = 't1'",
        "DELETE FROM chronos.timers WHERE topic = 'alerts' AND timer_id = 't1'",
        true,
    ),
    (
        "SELECT * FROM chronos.timers WHERE topic = 'alerts' AND timer_id = 't1'",
        "UPDATE chronos.timers SET payload = 'n' WHERE topic = 'alerts' AND timer_id = 't2'",
        false,
    ),
    (
        "SELECT count(*) FROM chronos.timers",
        "CREATE TOPIC more; INSERT INTO more (payload, deliver_at) VALUES ('z', '2099-01-01')",
        true,
    ),
    (
        "SELECT count(*) FROM chronos.timers WHERE topic = 'more'",
        "CREATE TOPIC more; INSERT INTO more (payload, deliver_at) VALUES ('z', '2099-01-01')",
        true,
    ),
    // Definitions.
    ("SELECT * FROM keyed WHERE id = 1", "DROP TABLE keyed", true),
    ("SELECT * FROM keyed WHERE id = 1", "DROP TABLE hidden", false),
    ("INSERT INTO hidden VALUES (1, 1)", "DROP TABLE hidden", true),
    ("INSERT INTO hidden VALUES (1, 1)", "CREATE INDEX hidden_y ON hidden (y)", true),
    ("INSERT INTO alerts (payload) VALUES ('y')", "DROP TOPIC alerts", true),
    ("CREATE TABLE made (a INT)", "CREATE TABLE made (b TEXT)", true),
];

#[test]
fn reads_conflict_with_the_writes_that_they_would_have_seen() {
    let mut wrong = Vec::new();
    for (read, write, refused) in CASES {
        let mut world = World::new();
        let (mut one, mut other) = (session(), session());
        world.run(&mut other, SETUP).expect("the setup");
        // Indexes fill in the background.
        world.pass(1_000_000);
        world.run(&mut one, "BEGIN").expect("BEGIN");
        world.run(&mut one, read).unwrap_or_else(|error| panic!("{read}: {error}"));
        world.run(&mut one, "INSERT INTO log VALUES (1)").expect("a write of its own");
        world.run(&mut other, write).unwrap_or_else(|error| panic!("{write}: {error}"));
        let found = match world.run(&mut one, "COMMIT") {
            Ok(_) => false,
            Err(error) if error.code.as_str() == "40001" => true,
            Err(error) => panic!("{read} | {write}: {error}"),
        };
        if found != *refused {
            wrong.push(format!("{read} | {write}: {}", if found { "refused" } else { "committed" }));
        }
        let logged = world.run(&mut other, "SELECT n FROM log").expect("the log").lines();
        assert_eq!(logged.len(), usize::from(!found), "{read} | {write}: all of it or nothing");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An event that has fired is seen from its release on. Nothing is written then, and yet a transaction that did not see
/// it can no longer be put after it.
#[test]
fn a_release_between_read_and_commit_is_a_conflict() {
    for (read, passes, refused) in [
        ("SELECT count(*) FROM alerts", 1_000, true),
        ("SELECT count(*) FROM chronos.timers", 1_000, true),
        ("SELECT count(*) FROM alerts", 100, false),
        ("SELECT count(*) FROM log", 1_000, false),
    ] {
        let mut world = World::new();
        let (mut one, mut other) = (session(), session());
        world
            .run(&mut other, "CREATE TABLE log (n INT PRIMARY KEY); CREATE TOPIC alerts")
            .expect("the setup");
        // Due ten seconds after the start; fired a millisecond ahead.
        let schedule = "INSERT INTO alerts (payload, deliver_at) VALUES ('x', '2023-11-14 22:13:30 UTC')";
        world.run(&mut other, schedule).expect("a timer");
        world.pass(10_000_000 - 500);
        world.run(&mut one, "BEGIN").expect("BEGIN");
        world.run(&mut one, read).expect("a read");
        world.run(&mut one, "INSERT INTO log VALUES (1)").expect("a write of its own");
        world.pass(passes);
        let found = world.run(&mut one, "COMMIT").err().map(|error| error.code.as_str() == "40001");
        assert_eq!(found, refused.then_some(true), "{read} and {passes} us");
    }
}
