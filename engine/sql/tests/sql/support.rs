//! One node on a disk that does at once what it is told, and sessions on it.

use chronos_engine::node::{Config, Node};
use chronos_engine::step::{Action, Input, Outputs, Published, Reply, Request, Token};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::txn::{Committed, Refused};
use chronos_engine::wal::{Recovered, WalOp, WriteId};
use chronos_proto::id::{ClusterId, Incarnation, NodeId};
use chronos_proto::time::{Instant, Now, Timestamp};
use chronos_proto::{RequestId, Type, Value};
use chronos_sql::{Commit, Context, Limits, Outcome, RowSet, Session, SessionOptions, SqlError, text};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// 2023-11-14 22:13:20 UTC.
pub const START: Timestamp = Timestamp(1_700_000_000_000_000);

pub struct World {
    node: Node,
    store: MemoryStore,
    shared: SharedStore,
    pub mono: u64,
    published: Option<Published>,
    replies: Vec<(Token, Result<Committed, Refused>)>,
    token: u64,
    pub limits: Limits,
    pub cancel: AtomicBool,
}

impl World {
    pub fn new() -> World {
        let config = Config::new(ClusterId(7), NodeId(1), Incarnation(1), 1, 42);
        let shared: SharedStore = Arc::new(MemoryStore::default());
        let mut out = Outputs::default();
        let now = Now { mono: Instant(0), wall: START };
        let node =
            Node::new(config, now, Recovered::default(), &shared, &mut out).expect("an empty node starts");
        let mut world = World {
            node,
            store: MemoryStore::default(),
            shared,
            mono: 0,
            published: None,
            replies: Vec::new(),
            token: 0,
            limits: Limits::default(),
            cancel: AtomicBool::new(false),
        };
        world.perform(out);
        world
    }

    fn now(&self) -> Now {
        Now { mono: Instant(self.mono), wall: START + std::time::Duration::from_micros(self.mono) }
    }

    fn input(&mut self, input: Input) {
        let mut out = Outputs::default();
        self.node.step(self.now(), input, &self.shared, &mut out);
        self.perform(out);
    }

    fn perform(&mut self, out: Outputs) {
        let mut durable: Option<WriteId> = None;
        for effect in out.effects {
            match effect.action {
                Action::Wal(WalOp::Sync { write, .. } | WalOp::Done { write }) => durable = Some(write),
                Action::Reply(token, Reply::Commit(result)) => self.replies.push((token, result)),
                Action::Reply(..) | Action::Send { .. } | Action::Members(_) => {}
                Action::Publish(published) => self.published = Some(published),
                Action::Fatal(fatal) => panic!("{fatal}"),
                Action::Checkpoint(checkpoint) => {
                    for group in &checkpoint.groups {
                        for (key, value) in group.entries() {
                            match value {
                                Some(value) => self.store.0.insert(key, value),
                                None => self.store.0.remove(&key),
                            };
                        }
                    }
                    self.shared = Arc::new(self.store.clone());
                    self.input(Input::CheckpointDurable(checkpoint.id));
                }
                _ => {}
            }
        }
        if let Some(write) = durable {
            self.input(Input::WriteDurable(write));
        }
    }

    /// Lets time pass, ticking at each deadline on the way.
    pub fn pass(&mut self, micros: u64) {
        let until = self.mono + micros;
        while let Some((at, _)) = self.node.next_deadline().filter(|(at, _)| at.0 <= until) {
            self.mono = self.mono.max(at.0) + 1;
            self.input(Input::Tick);
            self.input(Input::QueueDrained);
        }
        self.mono = self.mono.max(until);
    }

    pub fn published(&self) -> &Published {
        self.published.as_ref().expect("a node publishes at once")
    }

    pub fn submit(&mut self, commit: &Commit) -> Result<Committed, Refused> {
        self.token += 1;
        let token = Token(self.token);
        let request = Request::Commit(commit.group, commit.transaction.clone());
        self.input(Input::Request { token, request });
        self.input(Input::QueueDrained);
        let at = self.replies.iter().position(|(t, _)| *t == token).expect("an answer");
        self.replies.swap_remove(at).1
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
            let read_time = published.clock.at(Instant(self.mono));
            let context = Context {
                snapshot: &published.snapshot,
                read_time,
                random: self.token,
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

    /// Rows as lines, columns separated by `|`, as `psql -At` shows them; NULL is `NULL`.
    pub fn lines(&self) -> Vec<String> {
        let Answer::Rows(rows) = self else { return Vec::new() };
        let mut lines = Vec::new();
        for batch in &rows.batches {
            for row in 0..batch.len() {
                let value = |column| match batch.value(row, column) {
                    chronos_sql::ValueRef::Null => "NULL".to_owned(),
                    value => text::format(value),
                };
                lines.push((0..rows.columns.len()).map(value).collect::<Vec<_>>().join("|"));
            }
        }
        lines
    }
}
