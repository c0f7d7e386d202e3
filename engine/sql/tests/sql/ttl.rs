//! Rows that expire: what is seen of them, and that their space comes back.

use crate::support::{Answer, World, session};
use chronos_engine::keys;
use chronos_sql::Session;
use proptest::prelude::*;
use std::collections::BTreeMap;

const SECOND: u64 = 1_000_000;

/// Keys of the state that belong to a table: its rows and its index entries.
fn keys_of(world: &World, table: &str) -> (usize, usize) {
    let snapshot = &world.published().snapshot;
    let relation = snapshot.catalog.by_name(table).expect("the table").clone();
    let rows = snapshot.scan(&keys::rows(relation.id), false).count();
    let indexes = &relation.table().expect("a table").indexes;
    let entries = |i: &chronos_proto::schema::SecondaryIndex| {
        snapshot.scan(&keys::index_entries(relation.id, i.id), false).count()
    };
    (rows, indexes.iter().map(entries).sum())
}

fn rows(world: &mut World, session: &mut Session, sql: &str) -> Vec<String> {
    world.run(session, sql).expect("a query").lines()
}

#[test]
fn the_space_of_expired_rows_comes_back_in_slices() {
    let (mut world, mut session) = (World::new(), session());
    let table = "CREATE TABLE r (id INT PRIMARY KEY, v INT) WITH TTL=60s; CREATE INDEX ON r (v)";
    world.run(&mut session, table).expect("a table");
    let insert = "INSERT INTO r SELECT i, i % 7 FROM generate_series(1, 1000) i";
    world.run(&mut session, insert).expect("rows");
    world.checkpoint();
    world.run(&mut session, "INSERT INTO r SELECT i, 0 FROM generate_series(1001, 1500) i").expect("rows");
    assert_eq!(keys_of(&world, "r"), (1500, 3000));

    world.pass(59 * SECOND);
    assert_eq!(keys_of(&world, "r"), (1500, 3000), "nothing goes early");
    world.run(&mut session, "INSERT INTO r VALUES (2000, 1)").expect("a row");
    let mut seconds = 0;
    let mut left = Vec::new();
    while keys_of(&world, "r").0 > 1 {
        assert!(seconds < 30, "they do not go: {left:?}");
        world.pass(SECOND);
        seconds += 1;
        left.push(keys_of(&world, "r").0);
    }
    assert_eq!(keys_of(&world, "r"), (1, 2));
    assert_eq!(rows(&mut world, &mut session, "SELECT id FROM r"), ["2000"]);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u64),
    Upsert(u8, u64),
    Touch(u8),
    Move(u8, u8),
    Delete(u8),
    Pass(u64),
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0u8..6;
    // How old a row is when it comes, around its ten seconds.
    let age = || prop_oneof![Just(0), 0..12 * SECOND, Just(10 * SECOND), Just(10 * SECOND - 1)];
    prop_oneof![
        (id(), age()).prop_map(|(id, age)| Step::Insert(id, age)),
        (id(), age()).prop_map(|(id, age)| Step::Upsert(id, age)),
        id().prop_map(Step::Touch),
        (id(), id()).prop_map(|(from, to)| Step::Move(from, to)),
        id().prop_map(Step::Delete),
        prop_oneof![Just(SECOND), 0..3 * SECOND, Just(1)].prop_map(Step::Pass),
        Just(Step::Checkpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a_table_with_a_ttl_shows_what_a_list_of_times_shows(steps in prop::collection::vec(step(), 1..40)) {
        let (mut world, mut session) = (World::new(), session());
        let create = "CREATE TABLE r (id INT PRIMARY KEY, v INT, ts TIMESTAMPTZ) WITH (ttl = '10 s', ttl_column = 'ts');
                      CREATE INDEX ON r (v)";
        world.run(&mut session, create).expect("a table");
        // By id: the time it expires at.
        let mut model: BTreeMap<u8, u64> = BTreeMap::new();
        // `now()` counts from here.
        let mut now = 0u64;
        let since = |age: u64| format!("now() - interval '{age} microseconds'");
        let lives = |age: u64, now: u64| (now + 10 * SECOND).checked_sub(age);
        for step in steps {
            let alive = |model: &BTreeMap<u8, u64>, id: &u8| model.get(id).is_some_and(|end| *end > now);
            let (sql, expected) = match step {
                Step::Pass(micros) => {
                    world.pass(micros);
                    now += micros;
                    continue;
                }
                Step::Checkpoint => {
                    world.checkpoint();
                    continue;
                }
                Step::Insert(id, age) => {
                    let fits = !alive(&model, &id);
                    if fits {
                        model.insert(id, lives(age, now).unwrap_or(0));
                    }
                    (format!("INSERT INTO r VALUES ({id}, 1, {})", since(age)), fits.then_some(1))
                }
                Step::Upsert(id, age) => {
                    model.insert(id, lives(age, now).unwrap_or(0));
                    let sql = format!(
                        "INSERT INTO r VALUES ({id}, 2, {}) ON CONFLICT (id) DO UPDATE SET v = 3, ts = excluded.ts",
                        since(age)
                    );
                    (sql, Some(1))
                }
                Step::Touch(id) => {
                    let there = alive(&model, &id);
                    if there {
                        model.insert(id, now + 10 * SECOND);
                    }
                    (format!("UPDATE r SET ts = now(), v = v + 1 WHERE id = {id}"), Some(usize::from(there)))
                }
                Step::Move(from, to) => {
                    let there = alive(&model, &from);
                    let fits = from == to || !there || !alive(&model, &to);
                    if let (true, true, Some(end)) = (fits, there, model.get(&from).copied()) {
                        model.remove(&from);
                        model.insert(to, end);
                    }
                    (format!("UPDATE r SET id = {to} WHERE id = {from}"), fits.then_some(usize::from(there)))
                }
                Step::Delete(id) => {
                    let there = alive(&model, &id);
                    if there {
                        model.remove(&id);
                    }
                    (format!("DELETE FROM r WHERE id = {id}"), Some(usize::from(there)))
                }
            };
            let answer = world.run(&mut session, &sql);
            match (answer, expected) {
                (Ok(Answer::Tag(tag)), Some(count)) => {
                    let told = tag.rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
                    prop_assert_eq!(told, Some(count), "{}: {}", sql, tag);
                }
                (Err(error), None) => prop_assert_eq!(error.code.as_str(), "23505", "{}", sql),
                (answer, expected) => prop_assert!(false, "{}: {:?}, not {:?}", sql, answer, expected),
            }
            let shown = rows(&mut world, &mut session, "SELECT id FROM r ORDER BY id");
            let by_index = rows(&mut world, &mut session, "SELECT id FROM r WHERE v IN (1, 2, 3, 4, 5, 6, 7, 8, 9) ORDER BY id");
            let alive: Vec<String> =
                model.iter().filter(|(_, end)| **end > now).map(|(id, _)| id.to_string()).collect();
            prop_assert_eq!(&shown, &alive, "after {}", sql);
            prop_assert_eq!(by_index.len().min(shown.len()), by_index.len());
        }
        // In the end nothing is left of them.
        for _ in 0..40 {
            world.pass(SECOND);
        }
        prop_assert_eq!(keys_of(&world, "r"), (0, 0));
    }
}
