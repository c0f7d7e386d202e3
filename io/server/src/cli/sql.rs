//! `chronos client`: SQL from the command line, from files, from a pipe, or typed.

use super::connect::{Connect, explain};
use super::failure::{Failure, Outcome};
use super::pg::{Pg, PgError, Transaction};
use super::print::{Format, Printer};
use super::shell;
use super::split::{Split, split};
use std::io::{self, BufRead, IsTerminal, StdoutLock, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs SQL on a node: a shell, or statements from -e, -f or standard input
#[derive(Debug, clap::Args)]
pub struct SqlArgs {
    #[command(flatten)]
    connect: Connect,
    /// Run these statements and leave; may be repeated
    #[arg(short, long, value_name = "SQL")]
    execute: Vec<String>,
    /// Run the statements of this file and leave; `-` is standard input; may be repeated
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// How to show rows
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub fn run(args: SqlArgs, quiet: bool) -> Outcome {
    let mut session = Session::open(args.connect, args.format, quiet)?;
    if args.execute.is_empty() && args.file.is_empty() {
        let input = io::stdin();
        return match input.is_terminal() {
            true => shell::run(session),
            false => session.stream(input.lock()),
        };
    }
    for script in &args.execute {
        session.script("-e", script)?;
    }
    for path in &args.file {
        match path == Path::new("-") {
            true => session.stream(io::stdin().lock())?,
            false => {
                let script = std::fs::read_to_string(path)
                    .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
                session.script(&path.display().to_string(), &script)?;
            }
        }
    }
    Ok(())
}

/// A connection and how to show what comes from it.
pub struct Session {
    connect: Connect,
    pg: Option<Pg>,
    printer: Printer<io::BufWriter<StdoutLock<'static>>>,
    timing: bool,
    quiet: bool,
}

/// What a line that begins with a backslash or a dot comes to.
pub enum Meta {
    /// Go on.
    Done,
    /// Leave.
    Quit,
}

impl Session {
    /// Connects.
    pub fn open(connect: Connect, format: Format, quiet: bool) -> Outcome<Session> {
        let pg = Some(connect.sql()?);
        let printer = Printer::new(io::BufWriter::new(io::stdout().lock()), format, quiet);
        Ok(Session { connect, pg, printer, timing: false, quiet })
    }

    /// Where the SQL goes.
    pub fn address(&self) -> Outcome<String> {
        Ok(self.connect.sql_target()?.address)
    }

    /// Whether to say no more than was asked.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The connection, if there is one.
    pub fn pg(&self) -> Option<&Pg> {
        self.pg.as_ref()
    }

    /// The names of relations and columns; none if they cannot be had now.
    pub fn names(&mut self) -> Option<Vec<String>> {
        let pg = self.pg.as_mut().filter(|pg| pg.transaction() == Transaction::Idle)?;
        let rows = pg.query(shell::LIST_NAMES).ok()?;
        let names = rows.rows.into_iter().flatten().flatten();
        Some(names.chain(["chronos.timers".to_owned()]).collect())
    }

    /// Runs one statement and prints what it returns.
    pub fn execute(&mut self, statement: &str) -> Outcome {
        let begin = Instant::now();
        let mut pg = match self.pg.take() {
            Some(pg) => pg,
            None => self.connect.sql()?,
        };
        let result = pg.run(statement, &mut self.printer);
        if !matches!(&result, Err(error) if error.is_fatal()) {
            self.pg = Some(pg);
        }
        if let Err(error) = result {
            if let PgError::Output(error) = error {
                return Err(error.into());
            }
            self.printer.abandon()?;
            return Err(match &error {
                PgError::Refused(report) => Failure::new(report.explain(statement)),
                PgError::Lost(_) => explain(&error)
                    .hint("the outcome of the last statement is unknown; look before you run it again"),
                _ => explain(&error),
            });
        }
        if self.timing {
            let millis = begin.elapsed().as_secs_f64() * 1e3;
            writeln!(self.printer.out(), "Time: {millis:.3} ms")?;
            self.printer.out().flush()?;
        }
        Ok(())
    }

    /// Runs a whole script; the first error ends it.
    pub fn script(&mut self, name: &str, script: &str) -> Outcome {
        let mut rest = script;
        while let Some((statement, after)) = next(rest) {
            let line = 1 + script[..offset(script, statement)].matches('\n').count();
            let result = match meta_line(statement) {
                Some(meta) => self.meta(meta).map(|_| ()),
                None => self.execute(statement),
            };
            result.map_err(|failure| match failure.is_silent() || script.lines().count() < 2 {
                true => failure,
                false => failure.during(&format!("{name}, line {line}")),
            })?;
            rest = after;
        }
        Ok(())
    }

    /// Runs statements as they arrive; the first error ends it.
    pub fn stream(&mut self, mut input: impl BufRead) -> Outcome {
        let unreadable = |error| Failure::new(format!("cannot read standard input: {error}"));
        let mut pending = String::new();
        loop {
            let begin = pending.len();
            let read = input.read_line(&mut pending).map_err(unreadable)?;
            if read == 0 {
                return self.script("standard input", &pending);
            }
            // Only a semicolon ends a statement, and only at the beginning of one may a meta command stand.
            let line = &pending[begin..];
            let is_meta = meta_line(line).is_some() && matches!(split(&pending[..begin]), Split::Blank);
            if !is_meta && !line.contains(';') {
                continue;
            }
            while let Some((statement, after)) = complete(&pending) {
                match meta_line(statement) {
                    Some(meta) => {
                        if let Meta::Quit = self.meta(meta)? {
                            return Ok(());
                        }
                    }
                    None => self.execute(statement)?,
                }
                let rest = pending.len() - after.len();
                pending.drain(..rest);
            }
        }
    }

    /// Runs a meta command.
    pub fn meta(&mut self, line: &str) -> Outcome<Meta> {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let argument = words.next();
        match (name, argument) {
            ("\\q" | ".quit" | ".exit", None) => return Ok(Meta::Quit),
            ("\\?" | ".help", None) => self.say(shell::HELP)?,
            ("\\dt" | ".tables", None) => self.execute(shell::LIST_TABLES)?,
            ("\\d", None) => self.execute(shell::LIST_RELATIONS)?,
            ("\\d" | ".schema", Some(relation)) => self.describe(relation)?,
            ("\\timing", choice) => {
                self.timing = match choice {
                    None => !self.timing,
                    Some("on") => true,
                    Some("off") => false,
                    Some(other) => {
                        return Err(Failure::new(format!("\\timing {other}: expected on or off")));
                    }
                };
                self.say(if self.timing { "Timing is on." } else { "Timing is off." })?;
            }
            ("\\format", None) => {
                let text = format!("Format is {:?}.", self.printer.format()).to_lowercase();
                self.say(&text)?
            }
            ("\\format", Some(name)) => match <Format as clap::ValueEnum>::from_str(name, true) {
                Ok(format) => self.printer.set_format(format),
                Err(_) => {
                    return Err(Failure::new(format!("\\format {name}: expected table, csv or json")));
                }
            },
            _ => return Err(Failure::new(format!("{line}: no such command; \\? lists them"))),
        }
        Ok(Meta::Done)
    }

    fn describe(&mut self, relation: &str) -> Outcome {
        let relation = relation.trim_end_matches(';');
        let name = match relation.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
            Some(quoted) => quoted.replace("\"\"", "\""),
            None => relation.to_lowercase(),
        };
        for query in shell::describe(&name) {
            self.execute(&query)?;
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> Outcome {
        if !self.quiet {
            writeln!(self.printer.out(), "{text}")?;
            self.printer.out().flush()?;
        }
        Ok(())
    }
}

/// The meta command that a line is, if it is one.
pub fn meta_line(line: &str) -> Option<&str> {
    let line = line.trim();
    let is_dot =
        line.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    (line.starts_with('\\') || is_dot).then_some(line)
}

/// The next statement or meta command of a script, and what follows; the last one needs no semicolon.
fn next(script: &str) -> Option<(&str, &str)> {
    complete(script).or_else(|| match split(script) {
        Split::Open(statement) => Some((statement.trim_end(), "")),
        _ => None,
    })
}

/// The next statement that has its semicolon, or meta command that has its line, and what follows.
fn complete(script: &str) -> Option<(&str, &str)> {
    let begin = script.trim_start();
    if meta_line(begin).is_some() {
        return Some(begin.split_once('\n').unwrap_or((begin, "")));
    }
    match split(script) {
        Split::Statement(statement, rest) => Some((statement, rest)),
        _ => None,
    }
}

/// Where `part` begins in `whole`, of which it is a part.
fn offset(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize).min(whole.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_mix_statements_and_meta_commands() {
        let script = "\\timing on\nselect 1;\n.tables\n-- the end\nselect '\n\\q\n'";
        let mut parts = Vec::new();
        let mut rest = script;
        while let Some((part, after)) = next(rest) {
            parts.push(part);
            rest = after;
        }
        assert_eq!(parts, ["\\timing on", "select 1", ".tables", "select '\n\\q\n'"]);
    }

    #[test]
    fn a_number_is_no_meta_command() {
        assert_eq!(meta_line(".5 + 1"), None);
        assert_eq!(meta_line("  .tables "), Some(".tables"));
    }
}
