//! The scripts in `tests/scripts`, statements and what they answer, and those in `tests/postgres`, whose answers are
//! what PostgreSQL 15 gave (`record.py` there asks it).
//!
//! ```text
//! known WHY                        what follows is answered in another way, for this reason
//! statement ok | statement TAG     a statement, and its command tag
//! statement error CODE             a statement, and the SQLSTATE it fails with
//! query [rowsort]                  a query; behind ---- its rows, as psql -At shows them; a line that would be empty
//!                                  is (empty), a line feed inside of a value \n
//! session NAME                     what follows runs on this connection
//! pass MICROSECONDS                time goes on
//! ```

use crate::support::{Answer, World, session};
use chronos_sql::SqlError;
use chronos_sql::zone::Zone;
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn scripts_answer_as_written() {
    answer_as_written("tests/scripts");
}

#[test]
fn answers_are_postgresqls() {
    answer_as_written("tests/postgres");
}

fn answer_as_written(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of scripts")
        .map(|f| f.expect("a file").path())
        .filter(|f| f.extension().is_some_and(|e| e == "test"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no scripts found");
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a script");
        run(&file.file_name().unwrap_or_default().to_string_lossy(), &text, &mut failures);
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn run(name: &str, text: &str, failures: &mut Vec<String>) {
    let mut world = World::new();
    let mut sessions = BTreeMap::new();
    let mut current = "main".to_owned();
    let mut known = false;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let mut words = line.split_whitespace();
        let command = match words.next() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some(word) => word,
        };
        let rest: Vec<&str> = words.collect();
        match command {
            "known" => known = true,
            "session" => current = rest.join(" "),
            "pass" => world.pass(rest[0].parse().expect("microseconds")),
            "statement" | "query" => {
                let mut sql = String::new();
                while let Some((_, line)) = lines.next_if(|(_, l)| !l.is_empty() && *l != "----") {
                    sql.push_str(line);
                    sql.push('\n');
                }
                let mut expected = Vec::new();
                lines.next_if(|(_, l)| *l == "----");
                while let Some((_, line)) = lines.next_if(|(_, l)| !l.is_empty()) {
                    expected.push(line.to_owned());
                }
                let session = sessions.entry(current.clone()).or_insert_with(session);
                let answer = world.run(session, &sql);
                let agrees = if command == "query" {
                    rows_agree(answer, session.zone(), expected, rest.contains(&"rowsort"))
                } else {
                    outcome_agrees(answer, &rest)
                };
                let sql = sql.trim();
                match (std::mem::take(&mut known), agrees) {
                    (false, Err(why)) => failures.push(format!("{name}:{}: {why}\n  {sql}", number + 1)),
                    (true, Ok(())) => {
                        failures.push(format!("{name}:{}: agrees, and is said not to\n  {sql}", number + 1))
                    }
                    _ => {}
                }
            }
            other => panic!("{name}:{}: {other} is no command", number + 1),
        }
    }
}

fn rows_agree(
    answer: Result<Answer, SqlError>,
    zone: &Zone,
    mut expected: Vec<String>,
    sorted: bool,
) -> Result<(), String> {
    let answer = answer.map_err(|error| format!("{} {error} ({:?})", error.code, error.detail))?;
    let shown = |line: &String| match line.as_str() {
        "" => "(empty)".to_owned(),
        line => line.replace('\n', "\\n"),
    };
    let mut found: Vec<String> = answer.lines_in(zone).iter().map(shown).collect();
    if sorted {
        found.sort();
        expected.sort();
    }
    if found == expected { Ok(()) } else { Err(format!("expected {expected:?}\n  found    {found:?}")) }
}

fn outcome_agrees(answer: Result<Answer, SqlError>, expected: &[&str]) -> Result<(), String> {
    match (answer, expected) {
        (Ok(_), ["ok"]) => Ok(()),
        (Ok(answer), ["error", code]) => Err(format!("expected {code}, found {}", answer.tag())),
        (Ok(answer), tag) if answer.tag() == tag.join(" ") => Ok(()),
        (Ok(answer), tag) => Err(format!("expected {}, found {}", tag.join(" "), answer.tag())),
        (Err(error), ["error", code]) if error.code.as_str() == *code => Ok(()),
        (Err(error), _) => {
            Err(format!("expected {}, found {} {error} ({:?})", expected.join(" "), error.code, error.detail))
        }
    }
}
