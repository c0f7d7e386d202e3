//! The scripts in `tests/scripts`: statements and what they answer.
//!
//! ```text
//! statement ok | statement TAG     a statement, and its command tag
//! statement error CODE             a statement, and the SQLSTATE it fails with
//! query [rowsort]                  a query; behind ---- its rows, as psql -At shows them
//! session NAME                     what follows runs on this connection
//! pass MICROSECONDS                time goes on
//! ```

use crate::support::{World, session};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn scripts_answer_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder of scripts")
        .map(|f| f.expect("a file").path())
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
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let mut words = line.split_whitespace();
        let command = match words.next() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some(word) => word,
        };
        let rest: Vec<&str> = words.collect();
        let mut fail = |what: String| failures.push(format!("{name}:{}: {what}", number + 1));
        match command {
            "session" => current = rest.join(" "),
            "pass" => world.pass(rest[0].parse().expect("microseconds")),
            "statement" | "query" => {
                let mut sql = String::new();
                while let Some((_, line)) = lines.next_if(|(_, l)| !l.is_empty() && *l != "----") {
                    sql.push_str(line);
                    sql.push('\n');
                }
                let session = sessions.entry(current.clone()).or_insert_with(session);
                let answer = world.run(session, &sql);
                if command == "query" {
                    let mut expected = Vec::new();
                    lines.next_if(|(_, l)| *l == "----");
                    while let Some((_, line)) = lines.next_if(|(_, l)| !l.is_empty()) {
                        expected.push(line.to_owned());
                    }
                    match answer {
                        Err(error) => fail(format!("{} {error} ({:?})\n  {sql}", error.code, error.detail)),
                        Ok(answer) => {
                            let mut found = answer.lines();
                            if rest.contains(&"rowsort") {
                                found.sort();
                                expected.sort();
                            }
                            if found != expected {
                                let sql = sql.trim();
                                fail(format!("\n  {sql}\n  expected {expected:?}\n  found    {found:?}"));
                            }
                        }
                    }
                    continue;
                }
                match (answer, rest.as_slice()) {
                    (Ok(_), ["ok"]) => {}
                    (Ok(answer), ["error", code]) => {
                        fail(format!("expected {code}, found {}\n  {sql}", answer.tag()))
                    }
                    (Ok(answer), tag) => {
                        if answer.tag() != tag.join(" ") {
                            fail(format!("expected {}, found {}\n  {sql}", tag.join(" "), answer.tag()));
                        }
                    }
                    (Err(error), ["error", code]) => {
                        if error.code.as_str() != *code {
                            fail(format!("expected {code}, found {} {error}\n  {sql}", error.code));
                        }
                    }
                    (Err(error), _) => fail(format!("{} {error} ({:?})\n  {sql}", error.code, error.detail)),
                }
            }
            other => panic!("{name}:{}: {other} is no command", number + 1),
        }
    }
}
