//! Clients that speak SQL: a session's statements over what its node has, as the gateway of `io/server` runs them.
//!
//! A block reads one state, that of its first statement, so all its statements are run at that moment and only its
//! commit is on its way for a while. A conflict is tried again on a newer state, a few times; what came to an unknown
//! end stays unknown.

use super::clients::Built;
use super::jobs::holds_dead_letters;
use super::machine::NAMES;
use super::{Event, World, lists};
use crate::checker::requests::Name;
use crate::checker::sql as check;
use crate::knobs::Job;
use crate::marks::Mark;
use crate::rng::Rng;
use crate::sql::draw::Draw;
use crate::sql::oracle::After;
use crate::sql::script::{Spoken, Statement, Told};
use crate::violation::{Held, Violation};
use chronos_engine::Snapshot;
use chronos_engine::step::Published;
use chronos_engine::txn::Committed;
use chronos_proto::command::Entry;
use chronos_proto::id::RequestId;
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use chronos_sql::{Commit, Context, Limits, Outcome, RowSet, Session, SessionOptions, SqlError, SqlState};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

/// How often a client tries again what conflicts.
const RETRIES: u32 = 3;
/// How long it waits for what was in its way.
const PATIENCE: u64 = 5_000;

/// A transaction that was handed to a node.
#[derive(Debug)]
struct Talk {
    spoken: Spoken,
    /// What tells its client the end.
    open: Option<(Session, Box<Commit>)>,
    /// What that must be.
    expected: Option<Told>,
    job: Job,
    retries: u32,
}

/// Transactions in SQL that were handed to a node, by the names of their requests.
#[derive(Debug, Default)]
pub(super) struct Talks(BTreeMap<Name, Talk>);

/// A client's script, to be said on a newer state.
#[derive(Clone, Debug)]
pub(super) struct Again {
    client: u64,
    job: Job,
    script: Vec<Statement>,
    retries: u32,
}

impl World {
    /// A client says something in SQL.
    pub(super) fn speak(&mut self, m: usize, client: u64, job: Job, view: &Published, rng: &mut Rng) -> Held {
        let now = view.read_time(self.machines[m].clock.now(self.now).mono);
        let mut draw = self.draw_sql(&view.snapshot, now, rng);
        let script = if job == Job::SqlSchema { draw.schema() } else { draw.transaction() };
        // A change of the catalogue may be none on a newer one.
        let retries = if job == Job::SqlSchema { 0 } else { RETRIES };
        self.converse(m, view, now, Again { client, job, script, retries }, rng.bits())
    }

    /// What conflicted is said again, on what the client's node has by now.
    pub(super) fn speak_again(&mut self, again: Again) -> Held {
        let m = self.clients[again.client as usize].home();
        let Some(view) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
            return Ok(());
        };
        let now = view.read_time(self.machines[m].clock.now(self.now).mono);
        self.marks.hit(Mark::SqlRetried);
        let salt = self.net_rng.bits();
        self.converse(m, &view, now, again, salt)
    }

    /// A client reads, on a state that holds all that was acknowledged.
    pub(super) fn query(&mut self, m: usize, view: &Published, now: Timestamp, rng: &mut Rng) -> Held {
        let script = self.draw_sql(&view.snapshot, now, rng).query();
        let spoken = match self.say_all(m, "reader", &view.snapshot, now, script, rng.bits())? {
            Some((spoken, None)) => spoken,
            _ => return Ok(()),
        };
        self.check_at_once(view, &spoken)
    }

    fn draw_sql<'a>(&'a mut self, snapshot: &'a Snapshot, now: Timestamp, rng: &'a mut Rng) -> Draw<'a> {
        Draw {
            catalog: &snapshot.catalog,
            is_open: |relation| relation.name != lists::TABLE && !holds_dead_letters(relation),
            now,
            keys: self.knobs.keys,
            shared_ids: self.knobs.shared_ids,
            spread: self.knobs.timer_spread,
            ttl: self.knobs.ttl,
            numbers: &mut self.last_number,
            rng,
        }
    }

    fn converse(&mut self, m: usize, view: &Published, now: Timestamp, said: Again, salt: u64) -> Held {
        let Again { client, job, script, retries } = said;
        let who = format!("c{client}");
        let Some((spoken, open)) = self.say_all(m, &who, &view.snapshot, now, script, salt)? else {
            return Ok(());
        };
        let Some((session, mut commit)) = open else {
            return self.check_at_once(view, &spoken);
        };
        let transaction = std::mem::take(&mut commit.transaction);
        let built = Built {
            ops: transaction.ops,
            reads: transaction.reads,
            saw: Vec::new(),
            lists: Vec::new(),
            valid_until: transaction.valid_until,
        };
        let name = self.ask(m, client, job, view, built);
        let talk = Talk { spoken, open: Some((session, commit)), expected: None, job, retries };
        self.sql.0.insert(name, talk);
        Ok(())
    }

    /// Runs a script; none if the state could not be read. The last of its answers is missing if it is to be committed.
    #[expect(clippy::type_complexity)]
    fn say_all(
        &mut self,
        m: usize,
        who: &str,
        snapshot: &Snapshot,
        now: Timestamp,
        script: Vec<Statement>,
        salt: u64,
    ) -> Result<Option<(Spoken, Option<(Session, Box<Commit>)>)>, Violation> {
        let mut session = Session::new(SessionOptions::default());
        let (rng, mut commit) = (&mut Rng::new(salt, "sql"), None);
        let mut told = Vec::with_capacity(script.len());
        for statement in &script {
            let (text, outcome) = say(&mut session, statement, snapshot, now, rng.bits());
            let answer = match outcome {
                Ok(Outcome::Rows(rows)) => {
                    self.say(who, format_args!("says at {}: {text}: {} rows", NAMES[m], rows.len()));
                    told.push(rows_of(&rows));
                    continue;
                }
                Ok(Outcome::Tag(tag)) => Told::Tag(tag),
                Ok(Outcome::Commit(made)) => {
                    self.say(who, format_args!("says at {}: {text}: to be committed", NAMES[m]));
                    commit = Some(made);
                    continue;
                }
                Err(error) => match error.code {
                    SqlState::DATA_CORRUPTED | SqlState::IO_ERROR => {
                        self.damage_read(m, &error.to_string())?;
                        return Ok(None);
                    }
                    SqlState::UNIQUE_VIOLATION | SqlState::IN_FAILED_TRANSACTION => {
                        self.marks.hit(Mark::SqlRefused);
                        Told::Error(error.code.to_string())
                    }
                    SqlState::SERIALIZATION_FAILURE => return Ok(None),
                    _ => Told::Error(error.code.to_string()),
                },
            };
            self.say(who, format_args!("says at {}: {text}: {answer:?}", NAMES[m]));
            told.push(answer);
        }
        let spoken = Spoken { script, now, told };
        Ok(Some((spoken, commit.map(|commit| (session, commit)))))
    }

    /// A transaction that wrote nothing read one state; if that is the model's, its answers are held against it.
    fn check_at_once(&mut self, view: &Published, spoken: &Spoken) -> Held {
        if self.witness && view.snapshot.applied.0 == self.model.applied && !spoken.script.is_empty() {
            self.marks.hit(Mark::SqlRead);
            check::answers(&self.model, spoken, spoken.now)?;
        }
        Ok(())
    }

    /// A transaction's entry is about to be applied.
    pub(super) fn sql_applies(&mut self, name: Name, entry: &Entry) -> Result<Option<After>, Violation> {
        let Some(talk) = self.sql.0.get_mut(&name).filter(|_| self.witness) else { return Ok(None) };
        let (after, expected) = check::answers(&self.model, &talk.spoken, entry.time)?;
        talk.expected = expected;
        self.marks.hit(Mark::SqlCommitted);
        Ok(Some(after))
    }

    /// A client gets the answer to its commit.
    pub(super) fn sql_committed(&mut self, name: Name, committed: &Committed) -> Held {
        let Some(Talk { spoken, open: Some((mut session, commit)), expected, .. }) = self.sql.0.remove(&name)
        else {
            return Ok(());
        };
        let told = match session.committed(*commit, Ok(committed.clone())) {
            Ok(Outcome::Rows(rows)) => rows_of(&rows),
            Ok(Outcome::Tag(tag)) => Told::Tag(tag),
            Ok(Outcome::Commit(_)) => return Err(Violation::safety("sql", "a commit led to another")),
            Err(error) => Told::Error(error.code.to_string()),
        };
        expected.map_or(Ok(()), |expected| check::committed(&spoken, &told, &expected))
    }

    /// A client is told that its transaction conflicts with another.
    pub(super) fn sql_conflicted(&mut self, client: u64, name: Name) {
        let Some(Talk { spoken, job, retries, .. }) = self.sql.0.remove(&name) else { return };
        if retries > 0 && self.settling.is_none() {
            let again = Again { client, job, script: spoken.script, retries: retries - 1 };
            let delay = self.net_rng.latency(PATIENCE);
            self.after(delay, Event::Again(Box::new(again)));
        }
    }
}

/// Runs one statement.
fn say(
    session: &mut Session,
    statement: &Statement,
    snapshot: &Snapshot,
    now: Timestamp,
    random: u64,
) -> (String, Result<Outcome, SqlError>) {
    let (text, params) = statement.text();
    let cancel = AtomicBool::new(false);
    let (request, limits) = (RequestId::default(), Limits::default());
    let cx = Context { snapshot, read_time: now, random, request, cancel: &cancel, limits };
    let outcome = chronos_sql::parse(&text).and_then(|parsed| {
        let parsed = parsed.first().ok_or_else(|| SqlError::new(SqlState::SYNTAX_ERROR, "no statement"))?;
        let declared: Vec<Option<Type>> = params.iter().map(Value::ty).collect();
        let prepared = session.prepare(parsed, &declared, snapshot)?;
        session.execute(&prepared, &params, &cx)
    });
    (text, outcome)
}

fn rows_of(rows: &RowSet) -> Told {
    let mut out = Vec::with_capacity(rows.len());
    for batch in &rows.batches {
        for row in 0..batch.len() {
            let columns = 0..rows.columns.len();
            out.push(columns.map(|column| batch.value(row, column).to_value()).collect());
        }
    }
    Told::rows(out)
}
