//! One node on a disk that does at once what it is told, and sessions on it.

#[path = "../../../tests/support/world.rs"]
mod world;

use chronos_engine::step::{Input, Published};
use chronos_engine::txn::{Committed, Refused};
use chronos_proto::time::Instant;
use chronos_proto::{RequestId, Type, Value};
use chronos_sql::zone::Zone;
use chronos_sql::{Commit, Context, Limits, Outcome, RowSet, Session, SessionOptions, SqlError, text};
use std::sync::atomic::AtomicBool;

/// A node, and what sessions on it run with.
pub struct World {
    node: world::World,
    /// Transactions handed in.
    commits: u64,
    pub limits: Limits,
    pub cancel: AtomicBool,
}

impl World {
    pub fn new() -> World {
        let (limits, cancel) = (Limits::default(), AtomicBool::new(false));
        World { node: world::World::new(), commits: 0, limits, cancel }
    }

    pub fn pass(&mut self, micros: u64) {
        self.node.pass(micros);
    }

    /// What was written is in the store from now on.
    pub fn checkpoint(&mut self) {
        self.node.input(Input::Checkpoint);
    }

    pub fn published(&self) -> &Published {
        self.node.published()
    }

    pub fn submit(&mut self, commit: &Commit) -> Result<Committed, Refused> {
        self.commits += 1;
        self.node.commit(commit.group, commit.transaction.clone())
    }

    /// Runs all statements of a text one after the other; gives the last one's answer.
    pub fn run(&mut self, session: &mut Session, sql: &str) -> Result<Answer, SqlError> {
        self.run_with(session, sql, &[], &[])
    }

    pub fn run_with(
        &mut self,
        session: &mut Session,
        sql: &str,
        declared: &[Option<Type>],
        params: &[Value],
    ) -> Result<Answer, SqlError> {
        let mut answer = Answer::Tag(String::new());
        for statement in chronos_sql::parse(sql)? {
            let prepared = session.prepare(&statement, declared, &self.published().snapshot)?;
            answer = self.execute(session, |session, cx| session.execute(&prepared, params, cx))?;
        }
        Ok(answer)
    }

    /// One execution, repeated while it conflicts and may be.
    pub fn execute(
        &mut self,
        session: &mut Session,
        mut work: impl FnMut(&mut Session, &Context<'_>) -> Result<Outcome, SqlError>,
    ) -> Result<Answer, SqlError> {
        loop {
            let published = self.published().clone();
            let read_time = published.clock.at(Instant(self.node.mono));
            let context = Context {
                snapshot: &published.snapshot,
                read_time,
                random: self.commits,
                request: RequestId::default(),
                cancel: &self.cancel,
                limits: self.limits,
            };
            let commit = match work(session, &context)? {
                Outcome::Rows(rows) => return Ok(Answer::Rows(rows)),
                Outcome::Tag(tag) => return Ok(Answer::Tag(tag)),
                Outcome::Commit(commit) => commit,
            };
            let answer = self.submit(&commit);
            if commit.retryable && answer == Err(Refused::Conflict) {
                continue;
            }
            return match session.committed(*commit, answer)? {
                Outcome::Rows(rows) => Ok(Answer::Rows(rows)),
                Outcome::Tag(tag) => Ok(Answer::Tag(tag)),
                Outcome::Commit(_) => panic!("a commit led to another"),
            };
        }
    }
}

pub fn session() -> Session {
    Session::new(SessionOptions::default())
}

#[derive(Debug)]
pub enum Answer {
    Rows(RowSet),
    Tag(String),
}

impl Answer {
    pub fn tag(&self) -> &str {
        match self {
            Answer::Rows(rows) => &rows.tag,
            Answer::Tag(tag) => tag,
        }
    }

    /// Rows as lines, columns separated by `|`, as `psql -At` shows them in UTC; NULL is `NULL`.
    pub fn lines(&self) -> Vec<String> {
        self.lines_in(&Zone::default())
    }

    /// The same in another time zone.
    pub fn lines_in(&self, zone: &Zone) -> Vec<String> {
        let Answer::Rows(rows) = self else { return Vec::new() };
        let mut lines = Vec::new();
        for batch in &rows.batches {
            for row in 0..batch.len() {
                let value = |column| match batch.value(row, column) {
                    chronos_sql::ValueRef::Null => "NULL".to_owned(),
                    value => text::format_in(value, zone),
                };
                lines.push((0..rows.columns.len()).map(value).collect::<Vec<_>>().join("|"));
            }
        }
        lines
    }
}
