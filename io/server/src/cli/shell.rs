//! The shell: statements typed at a prompt, over as many lines as they take.

use super::complete::Words;
use super::failure::{Failure, Outcome};
use super::pg::Transaction;
use super::split::{Split, split};
use super::sql::{Meta, Session, meta_line};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::path::PathBuf;

/// What `\?` says.
pub const HELP: &str = r"A statement ends with a semicolon and may take many lines.
  \d               tables and topics        \timing [on|off]  how long each statement takes
  \d NAME          a relation's columns     \format [table|csv|json]
  \dt, .tables     tables                   \?, .help         this
  \q, .quit        leave (also Ctrl-D)      Ctrl-C            forget what is typed";

/// What `\dt` runs.
pub const LIST_TABLES: &str = "SELECT table_name AS name FROM information_schema.tables \
    WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name";

/// What `\d` runs.
pub const LIST_RELATIONS: &str = "SELECT table_name AS name, CASE table_type WHEN 'TOPIC' THEN 'topic' ELSE 'table' END \
    AS kind FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name";

/// What `chronos topic list` runs.
pub const LIST_TOPICS: &str = "SELECT * FROM chronos.topics ORDER BY topic";

/// Names worth completing.
pub const LIST_NAMES: &str = "SELECT DISTINCT table_name, column_name FROM information_schema.columns \
    WHERE table_schema = 'public'";

/// What `\d NAME` runs.
pub fn describe(relation: &str) -> Vec<String> {
    let name = super::quote(relation);
    vec![format!(
        "SELECT column_name AS \"column\", data_type AS type, is_nullable AS nullable, column_default AS \"default\" \
         FROM information_schema.columns WHERE table_name = {name} ORDER BY ordinal_position"
    )]
}

/// Reads and runs until the end.
pub fn run(mut session: Session) -> Outcome {
    let terminal = |error: ReadlineError| Failure::new(format!("cannot read the terminal: {error}"));
    let config =
        Config::builder().max_history_size(10_000).map_err(terminal)?.auto_add_history(false).build();
    let mut editor: Editor<Words, FileHistory> = Editor::with_config(config).map_err(terminal)?;
    let mut words = Words::default();
    words.set_names(session.names().unwrap_or_default());
    editor.set_helper(Some(words));
    let history = history_path();
    if let Some(path) = &history {
        // The first session has none to load.
        let _ = editor.load_history(path);
    }
    if !session.is_quiet() {
        println!("chronos {} at {}. \\? for help.", env!("CARGO_PKG_VERSION"), session.address()?);
    }
    let mut typed = String::new();
    loop {
        match editor.readline(&prompt(&session, &typed)) {
            Ok(line) => {
                typed.push_str(&line);
                typed.push('\n');
            }
            Err(ReadlineError::Interrupted) => {
                typed.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(terminal(error)),
        }
        let entry = typed.trim().to_owned();
        if let Some(meta) = meta_line(&entry) {
            remember(&mut editor, &entry);
            typed.clear();
            match session.meta(meta) {
                Ok(Meta::Quit) => break,
                Ok(Meta::Done) => {}
                Err(failure) => complain(failure)?,
            }
            continue;
        }
        let mut ran = false;
        while let Split::Statement(statement, rest) = split(&typed) {
            let (statement, rest) = (statement.to_owned(), rest.to_owned());
            ran = true;
            match session.execute(&statement) {
                Err(failure) => complain(failure)?,
                Ok(()) if is_ddl(&statement) => {
                    if let (Some(words), Some(names)) = (editor.helper_mut(), session.names()) {
                        words.set_names(names);
                    }
                }
                Ok(()) => {}
            }
            typed = rest;
        }
        if ran {
            remember(&mut editor, &entry);
        }
        if let Split::Blank = split(&typed) {
            typed.clear();
        }
    }
    if let Some(path) = &history {
        // A shell that cannot keep its history is still a shell.
        let _ = editor.save_history(path);
    }
    Ok(())
}

fn is_ddl(statement: &str) -> bool {
    let verb = statement.split_whitespace().next().unwrap_or_default();
    ["create", "drop", "alter"].iter().any(|ddl| verb.eq_ignore_ascii_case(ddl))
}

fn remember(editor: &mut Editor<Words, FileHistory>, entry: &str) {
    let _ = editor.add_history_entry(entry);
}

fn complain(failure: Failure) -> Outcome {
    match failure.is_silent() {
        true => Err(failure),
        false => {
            eprintln!("{failure}");
            Ok(())
        }
    }
}

fn prompt(session: &Session, typed: &str) -> String {
    let state = match session.pg().map(|pg| pg.transaction()) {
        Some(Transaction::Idle) => "",
        Some(Transaction::Open) => "*",
        Some(Transaction::Failed) => "!",
        None => "?",
    };
    let more = if typed.is_empty() { "=" } else { "-" };
    format!("chronos{more}{state}> ")
}

/// `CHRONOS_HISTORY` (none if empty), else a file in the home directory.
fn history_path() -> Option<PathBuf> {
    match std::env::var_os("CHRONOS_HISTORY") {
        Some(path) if path.is_empty() => None,
        Some(path) => Some(path.into()),
        None => Some(PathBuf::from(std::env::var_os("HOME")?).join(".chronos_history")),
    }
}
