//! One connection's state: its transaction, its settings and its plans.
//!
//! A statement outside a block is a transaction of its own: read-only ones end here, others leave as a [`Commit`] that
//! the caller may repeat on a newer snapshot when it conflicts. In a block all statements see the state of the first
//! one and their own writes, and COMMIT hands everything to the engine at once.

use crate::action::Action;
use crate::bind;
use crate::cursor::{self, CURSORS_MAX, Cursor};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::{EvalCx, eval_value};
use crate::exec::scan::store_error;
use crate::exec::statement::{Done, Job};
use crate::exec::vector::Batch;
use crate::exec::write::Writes;
use crate::exec::{Commit, Completion, Context, Outcome, RowSet};
use crate::parse::{Statement, parse};
use crate::prepared::{Kind, Prepared};
use crate::settings::{self, Settings};
use crate::types;
use crate::zone::Zone;
use chronos_engine::bugs::{Bug, active};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_engine::{Snapshot, keys};
use chronos_proto::id::{RelationId, RequestId};
use chronos_proto::schedule::{Occurrence, ScheduleAction};
use chronos_proto::time::Timestamp;
use chronos_proto::{Op, OpOutcome, Type, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Plans made anew because the catalogue moved on, kept for statements that clients hold.
const REPLANNED_MAX: usize = 64;
/// Savepoints of one transaction.
const SAVEPOINTS_MAX: usize = 64;
/// Statements that one session has prepared by name.
const PREPARED_MAX: usize = 1_000;

/// What a connection is told at its start.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// `current_user`.
    pub user: String,
    /// `current_database()`.
    pub database: String,
    /// Refuses every write with 25006.
    pub read_only: bool,
    /// `pg_backend_pid()`.
    pub backend_pid: i32,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            user: "chronos".into(),
            database: "chronos".into(),
            read_only: false,
            backend_pid: 0,
        }
    }
}

/// Where a connection stands, as ReadyForQuery tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// No transaction block is open.
    Idle,
    /// A block is open.
    InTransaction,
    /// A block is open and failed: only ROLLBACK goes on.
    Failed,
}

/// Something to tell the client beside the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// True for WARNING, false for NOTICE.
    pub warning: bool,
    /// Its SQLSTATE.
    pub code: SqlState,
    /// The words.
    pub message: String,
}

/// What functions may ask about the session.
#[derive(Clone, Debug)]
pub(crate) struct SessionInfo {
    pub user: String,
    pub database: String,
    pub backend_pid: i32,
    pub settings: Settings,
    /// Statements that PREPARE has named.
    pub prepared: BTreeMap<String, Arc<Prepared>>,
    pub cursors: BTreeMap<String, Cursor>,
    /// The last number that each sequence gave here, the last one last.
    pub given: Vec<(RelationId, i64)>,
}

impl SessionInfo {
    pub fn new(options: &SessionOptions) -> SessionInfo {
        let mut settings = Settings::default();
        settings.authorize(&options.user);
        SessionInfo {
            user: options.user.clone(),
            database: options.database.clone(),
            backend_pid: options.backend_pid,
            settings,
            prepared: BTreeMap::new(),
            cursors: BTreeMap::new(),
            given: Vec::new(),
        }
    }
}

/// One connection.
pub struct Session {
    info: SessionInfo,
    read_only: bool,
    block: Block,
    notices: Vec<Notice>,
    replanned: Vec<(Arc<Prepared>, Arc<Prepared>)>,
}

enum Block {
    None,
    Open(Open),
    /// As it was when it failed: a savepoint may bring it back.
    Failed(Open),
}

/// An open block.
struct Open {
    /// By BEGIN; else by the protocol, and ended by it.
    explicit: bool,
    read_only: bool,
    /// Set by the first statement that looks at the state.
    begun: Option<Begun>,
    savepoints: Vec<(String, Begun)>,
}

impl Open {
    fn new(explicit: bool, read_only: bool) -> Open {
        Open { explicit, read_only, begun: None, savepoints: Vec::new() }
    }
}

#[derive(Clone)]
struct Begun {
    now: Timestamp,
    writes: Box<Writes>,
    /// Nothing will be written, so nothing that is read need be guarded.
    read_only: bool,
    /// The block made a change of the catalogue.
    schema_changed: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {:?})", self.info.user, self.transaction_status())
    }
}

impl Session {
    /// The time zone that its times are shown in.
    pub fn zone(&self) -> &Zone {
        self.info.settings.zone()
    }

    /// A connection that has just been made.
    pub fn new(options: SessionOptions) -> Session {
        Session {
            info: SessionInfo::new(&options),
            read_only: options.read_only,
            block: Block::None,
            notices: Vec::new(),
            replanned: Vec::new(),
        }
    }

    /// What ReadyForQuery says.
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.block {
            Block::Open(open) if open.explicit => TransactionStatus::InTransaction,
            Block::Failed(open) if open.explicit => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        }
    }

    /// Binds and plans a statement. `declared` are the parameter types that the client gave, if any.
    /// On an error the open transaction, if any, has failed.
    pub fn prepare(
        &mut self,
        statement: &Statement,
        declared: &[Option<Type>],
        snapshot: &Snapshot,
    ) -> Result<Arc<Prepared>, SqlError> {
        let prepared = self.try_prepare(statement, declared, snapshot);
        if prepared.is_err() {
            self.fail();
        }
        prepared
    }

    /// The same, but an error leaves the open transaction as it is: the caller may try a newer snapshot.
    pub fn try_prepare(
        &self,
        statement: &Statement,
        declared: &[Option<Type>],
        snapshot: &Snapshot,
    ) -> Result<Arc<Prepared>, SqlError> {
        if let (Block::Failed(_), false) = (&self.block, ends_block(statement)) {
            return Err(aborted());
        }
        let (catalog, changed) = match &self.block {
            Block::Open(Open { begun: Some(begun), .. }) => {
                (begun.writes.view.catalog.clone(), begun.schema_changed)
            }
            _ => (snapshot.catalog.clone(), false),
        };
        prepare(statement, declared, &catalog, changed, &self.info).map(Arc::new)
    }

    /// Whether the next statement reads the snapshot that it is given: not in a block that has one already.
    pub fn reads_anew(&self) -> bool {
        !matches!(&self.block, Block::Open(Open { begun: Some(_), .. }) | Block::Failed(_))
    }

    /// Whether the next statement stands alone, so that the caller may run it again.
    pub fn stands_alone(&self) -> bool {
        matches!(self.block, Block::None)
    }

    /// Runs a prepared statement. If the catalogue has changed since, it is prepared again inside.
    ///
    /// On [`Outcome::Commit`] the caller submits the transaction to the engine and hands the answer to
    /// [`Session::committed`]; nothing else may be run on this session before.
    pub fn execute(
        &mut self,
        prepared: &Arc<Prepared>,
        params: &[Value],
        cx: &Context<'_>,
    ) -> Result<Outcome, SqlError> {
        let result = self.execute_inner(prepared, params, None, cx);
        if result.is_err() {
            self.fail();
        }
        result
    }

    /// Runs the statement of a schedule's occurrence. What it writes commits together with [`Op::Ran`], and conflicts with
    /// any other run of the occurrence. None if the occurrence does not wait to be run.
    pub fn execute_run(
        &mut self,
        schedule: RelationId,
        occurrence: Occurrence,
        cx: &Context<'_>,
    ) -> Result<Option<Outcome>, SqlError> {
        let key = keys::running(schedule, occurrence);
        let relation = cx.snapshot.catalog.get(schedule).and_then(|relation| relation.schedule());
        let Some(ScheduleAction::Statement(sql)) = relation.map(|schedule| &schedule.action) else {
            return Ok(None);
        };
        if cx.snapshot.get(&key).map_err(store_error)?.is_none() {
            return Ok(None);
        }
        let statements = parse(sql)?;
        let [statement] = statements.as_slice() else {
            return Err(SqlError::unsupported("a schedule of several statements"));
        };
        let prepared = prepare(statement, &[], &cx.snapshot.catalog, false, &self.info)?;
        if !matches!(prepared.kind, Kind::Query | Kind::Write) {
            return Err(SqlError::unsupported("this statement in a schedule"));
        }
        // What it publishes to partitions of other groups leaves through the outbox: it commits here.
        let mut writes = Writes::new(cx.snapshot.clone(), cx.read_time, cx.limits.transaction_bytes, true);
        let (prepared, now) = (&prepared, cx.read_time);
        let job = Job { prepared, params: &[], copied: None, cx, info: &self.info, now, record: true };
        job.run(&mut writes, &mut Vec::new())?;
        writes.reads.relation(schedule);
        writes.reads.point(key);
        writes.push(Op::Ran { schedule, occurrence, failure: None }, 64)?;
        let completion = Completion::Tag("DO");
        Ok(Some(Outcome::Commit(Box::new(commit(writes, cx.request, true, completion)?))))
    }

    /// Whether a COPY … FROM may run now, before its data is asked for.
    pub fn begin_copy(&mut self, prepared: &Prepared) -> Result<(), SqlError> {
        let allowed = match &self.block {
            Block::Failed(_) => Err(aborted()),
            _ => self.check_writable(prepared),
        };
        if allowed.is_err() {
            self.fail();
        }
        allowed
    }

    /// The same for a COPY … FROM, with the rows that came in.
    pub fn execute_copied(
        &mut self,
        prepared: &Arc<Prepared>,
        rows: &[Batch],
        cx: &Context<'_>,
    ) -> Result<Outcome, SqlError> {
        let result = self.execute_inner(prepared, &[], Some(rows), cx);
        if result.is_err() {
            self.fail();
        }
        result
    }

    /// Takes the engine's answer to a commit and gives the statement's outcome: a tag or rows.
    ///
    /// If the answer is [`Refused::Conflict`] and [`Commit::retryable`] was true, the caller should not call this
    /// but execute the same statement again on a newer snapshot, a bounded number of times.
    pub fn committed(
        &mut self,
        commit: Commit,
        answer: Result<Committed, Refused>,
    ) -> Result<Outcome, SqlError> {
        let committed = answer.map_err(refused)?;
        Ok(match commit.completion {
            Completion::Tag(_) | Completion::Rows(_) | Completion::Counted(..) => {
                completed(commit.completion)
            }
            Completion::Count { verb, count, rows } => {
                let void = |o: &&OpOutcome| matches!(o, OpOutcome::Duplicate { .. } | OpOutcome::TooLate);
                let count = count.saturating_sub(committed.outcomes.iter().filter(void).count());
                counted(verb, count, rows)
            }
        })
    }

    /// Says that an error happened outside (a parameter that did not decode, say): an open transaction has failed.
    pub fn fail(&mut self) {
        self.block = match std::mem::replace(&mut self.block, Block::None) {
            Block::Open(open) => Block::Failed(open),
            other => other,
        };
    }

    /// Opens an implicit transaction: all statements until [`Session::finish_implicit`] commit together, as those of
    /// one simple query, or of one pipeline up to Sync, do. BEGIN inside turns it into an explicit one.
    pub fn begin_implicit(&mut self) {
        if let Block::None = self.block {
            self.block = Block::Open(Open::new(false, false));
        }
    }

    /// Ends an implicit transaction if one is open: [`Outcome::Commit`] if it wrote, else a tag to ignore.
    /// If it failed, it is rolled back.
    pub fn finish_implicit(&mut self, cx: &Context<'_>) -> Result<Outcome, SqlError> {
        match &self.block {
            Block::Open(open) if !open.explicit => self.commit(cx.request, "COMMIT"),
            Block::Failed(open) if !open.explicit => {
                self.block = Block::None;
                Ok(Outcome::Tag("ROLLBACK".into()))
            }
            _ => Ok(Outcome::Tag("COMMIT".into())),
        }
    }

    /// The value of a setting.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.info.settings.get(name)
    }

    /// How long a transaction may be open and idle before its connection is ended; none is for ever.
    pub fn idle_in_transaction_timeout(&self) -> Option<Duration> {
        self.info.settings.idle_in_transaction_timeout()
    }

    /// How long a statement may run; none is for ever.
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.info.settings.statement_timeout()
    }

    /// Changes a setting, as the startup message does.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        self.info.settings.set(name, Some(value))
    }

    /// Settings that clients are told of (ParameterStatus): all at the start, then those that changed.
    pub fn take_parameters(&mut self) -> Vec<(String, String)> {
        self.info.settings.take_reports()
    }

    /// Notices since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    fn execute_inner(
        &mut self,
        prepared: &Arc<Prepared>,
        params: &[Value],
        copied: Option<&[Batch]>,
        cx: &Context<'_>,
    ) -> Result<Outcome, SqlError> {
        if params.is_empty() && !prepared.params.is_empty() {
            return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1"));
        }
        if params.len() != prepared.params.len() {
            return Err(SqlError::new(
                SqlState(*b"08P01"),
                format!(
                    "the statement needs {} parameters, {} were given",
                    prepared.params.len(),
                    params.len()
                ),
            ));
        }
        if let Some(outcome) = self.transaction_control(&prepared.action, cx)? {
            return Ok(outcome);
        }
        if let Block::Failed(_) = self.block {
            return Err(aborted());
        }
        if let Action::Execute { prepared, args } = &prepared.action {
            let eval = EvalCx { params, now: cx.read_time.0, ..EvalCx::bare(&self.info) };
            let values: Result<Vec<Value>, SqlError> = args.iter().map(|e| eval_value(e, &eval)).collect();
            let values = values?;
            return self.execute_inner(prepared, &values, None, cx);
        }
        if let Action::Declare { name, prepared, hold } = &prepared.action {
            return self.declare(name, prepared, *hold, cx);
        }
        if prepared.kind == Kind::Setting {
            return self.setting_action(&prepared.action);
        }
        let read_only = self.is_read_only();
        self.check_writable(prepared)?;
        self.begin_if_open(cx);
        let catalog = match &self.block {
            Block::Open(Open { begun: Some(begun), .. }) => begun.writes.view.catalog.clone(),
            _ => cx.snapshot.catalog.clone(),
        };
        let current;
        let prepared = if prepared.is_valid(&catalog) {
            prepared
        } else {
            current = self.replan(prepared, &catalog)?;
            &current
        };
        match &mut self.block {
            Block::Open(Open { begun: Some(begun), .. }) => {
                let mut notices = Vec::new();
                let job = Job {
                    prepared,
                    params,
                    copied,
                    cx,
                    info: &self.info,
                    now: begun.now,
                    record: !begun.read_only,
                };
                let done = job.run(&mut begun.writes, &mut notices);
                begun.schema_changed |= prepared.kind == Kind::Schema;
                let given = std::mem::take(&mut begun.writes.given);
                let wrote_unasked = read_only && !begun.writes.is_empty();
                self.notice_all(notices);
                self.note_given(given);
                let done = done?;
                if wrote_unasked {
                    return Err(SqlError::new(
                        SqlState::READ_ONLY,
                        "cannot execute nextval() in a read-only transaction",
                    ));
                }
                Ok(match done {
                    Done::Rows(rows) => Outcome::Rows(rows),
                    Done::Wrote(completion) => completed(completion),
                })
            }
            _ => {
                let mut writes =
                    Writes::new(cx.snapshot.clone(), cx.read_time, cx.limits.transaction_bytes, false);
                let record = prepared.kind != Kind::Query;
                let mut notices = Vec::new();
                let job = Job { prepared, params, copied, cx, info: &self.info, now: cx.read_time, record };
                let done = job.run(&mut writes, &mut notices);
                self.notice_all(notices);
                self.note_given(std::mem::take(&mut writes.given));
                match done? {
                    Done::Rows(rows) if writes.is_empty() => Ok(Outcome::Rows(rows)),
                    Done::Rows(_) if read_only => Err(SqlError::new(
                        SqlState::READ_ONLY,
                        "cannot execute nextval() in a read-only transaction",
                    )),
                    Done::Rows(rows) => {
                        let completion = Completion::Rows(rows);
                        Ok(Outcome::Commit(Box::new(commit(writes, cx.request, true, completion)?)))
                    }
                    Done::Wrote(completion) if writes.is_empty() => Ok(completed(completion)),
                    Done::Wrote(completion) => {
                        Ok(Outcome::Commit(Box::new(commit(writes, cx.request, true, completion)?)))
                    }
                }
            }
        }
    }

    fn is_read_only(&self) -> bool {
        self.read_only
            || matches!(&self.block, Block::Open(open) if open.read_only)
            || matches!(&self.block, Block::None) && self.reads_only_by_default()
    }

    fn check_writable(&self, prepared: &Prepared) -> Result<(), SqlError> {
        if !self.is_read_only() || !matches!(prepared.kind, Kind::Write | Kind::Schema) {
            return Ok(());
        }
        let what = first_words(prepared.statement.text());
        let message = format!("cannot execute {what} in a read-only transaction");
        Err(SqlError::new(SqlState::READ_ONLY, message))
    }

    fn notice_all(&mut self, messages: Vec<String>) {
        let code = SqlState(*b"00000");
        self.notices.extend(messages.into_iter().map(|message| Notice { warning: false, code, message }));
    }

    /// DECLARE: the query runs at once, and its rows are kept.
    fn declare(
        &mut self,
        name: &str,
        prepared: &Arc<Prepared>,
        hold: bool,
        cx: &Context<'_>,
    ) -> Result<Outcome, SqlError> {
        if !hold && !matches!(&self.block, Block::Open(open) if open.explicit) {
            return Err(SqlError::new(
                SqlState::NO_ACTIVE_TRANSACTION,
                "DECLARE CURSOR can only be used in transaction blocks",
            ));
        }
        if self.info.cursors.contains_key(name) {
            return Err(SqlError::new(SqlState(*b"42P03"), format!("cursor \"{name}\" already exists")));
        }
        let Outcome::Rows(rows) = self.execute_inner(prepared, &[], None, cx)? else {
            return Err(SqlError::unsupported("a cursor over a query that takes numbers of a sequence"));
        };
        let cursor = Cursor::new(rows, hold);
        let held: usize = self.info.cursors.values().map(|c| c.bytes).sum();
        if self.info.cursors.len() >= CURSORS_MAX || held + cursor.bytes > cx.limits.memory_bytes {
            return Err(SqlError::new(
                SqlState::OUT_OF_MEMORY,
                format!(
                    "the session's cursors may be {CURSORS_MAX}, and hold {} MB together",
                    cx.limits.memory_bytes >> 20
                ),
            )
            .hint("CLOSE those that are no longer used, or select fewer rows"));
        }
        self.info.cursors.insert(name.to_owned(), cursor);
        Ok(Outcome::Tag("DECLARE CURSOR".into()))
    }

    /// Keeps what sequences gave, for `currval`.
    fn note_given(&mut self, given: Vec<(RelationId, i64)>) {
        for (id, number) in given {
            self.info.given.retain(|(other, _)| *other != id);
            self.info.given.push((id, number));
        }
    }

    /// SAVEPOINT, ROLLBACK TO and RELEASE.
    fn savepoint(&mut self, action: &Action, cx: &Context<'_>) -> Result<Option<Outcome>, SqlError> {
        let undefined =
            |name: &str| SqlError::new(SqlState(*b"3B001"), format!("savepoint \"{name}\" does not exist"));
        let outside = |what: &str| {
            let message = format!("{what} can only be used in transaction blocks");
            Err(SqlError::new(SqlState::NO_ACTIVE_TRANSACTION, message))
        };
        let tag = match action {
            Action::Savepoint(name) => {
                self.begin_if_open(cx);
                let open = match &mut self.block {
                    Block::Open(open) if open.explicit => open,
                    Block::Failed(_) => return Err(aborted()),
                    _ => return outside("SAVEPOINT"),
                };
                if open.savepoints.len() >= SAVEPOINTS_MAX {
                    return Err(SqlError::new(
                        SqlState::TOO_MANY,
                        format!("a transaction may have {SAVEPOINTS_MAX} savepoints at the most"),
                    ));
                }
                if let Some(begun) = &open.begun {
                    open.savepoints.push((name.clone(), begun.clone()));
                }
                "SAVEPOINT"
            }
            Action::Release(name) => {
                let open = match &mut self.block {
                    Block::Open(open) if open.explicit => open,
                    Block::Failed(_) => return Err(aborted()),
                    _ => return outside("RELEASE SAVEPOINT"),
                };
                let at = open.savepoints.iter().rposition(|(n, _)| n == name);
                open.savepoints.truncate(at.ok_or_else(|| undefined(name))?);
                "RELEASE"
            }
            Action::RollbackTo(name) => {
                let mut open = match std::mem::replace(&mut self.block, Block::None) {
                    Block::Open(open) | Block::Failed(open) if open.explicit => open,
                    other => {
                        self.block = other;
                        return outside("ROLLBACK TO SAVEPOINT");
                    }
                };
                let Some(at) = open.savepoints.iter().rposition(|(n, _)| n == name) else {
                    self.block = Block::Failed(open);
                    return Err(undefined(name));
                };
                open.savepoints.truncate(at + 1);
                if let Some((_, saved)) = open.savepoints.last() {
                    let mut back = saved.clone();
                    // What was seen since then was seen.
                    if let Some(begun) = open.begun.take().filter(|_| !active(Bug::SavepointForgetsReads)) {
                        back.writes.reads.extend(begun.writes.reads);
                    }
                    open.begun = Some(back);
                }
                self.block = Block::Open(open);
                "ROLLBACK"
            }
            _ => return Ok(None),
        };
        Ok(Some(Outcome::Tag(tag.into())))
    }

    fn warn(&mut self, code: SqlState, message: &str) {
        self.notices.push(Notice { warning: true, code, message: message.into() });
    }

    fn reads_only_by_default(&self) -> bool {
        self.info.settings.get("default_transaction_read_only").and_then(settings::boolean) == Some(true)
    }

    /// BEGIN, COMMIT and ROLLBACK; none for any other action.
    fn transaction_control(
        &mut self,
        action: &Action,
        cx: &Context<'_>,
    ) -> Result<Option<Outcome>, SqlError> {
        let tag = |tag: &str| Ok(Some(Outcome::Tag(tag.into())));
        if matches!(action, Action::Commit | Action::Rollback) {
            self.info.cursors.retain(|_, cursor| cursor.hold);
        }
        match action {
            Action::Savepoint(_) | Action::RollbackTo(_) | Action::Release(_) => self.savepoint(action, cx),
            Action::Begin { read_only } => {
                let default = self.reads_only_by_default();
                match &mut self.block {
                    Block::Failed(_) => return Err(aborted()),
                    Block::None => {
                        let read_only = read_only.unwrap_or(default);
                        self.block = Block::Open(Open::new(true, read_only));
                    }
                    Block::Open(open) if open.explicit => {
                        self.warn(SqlState::ACTIVE_TRANSACTION, "there is already a transaction in progress");
                    }
                    Block::Open(open) => {
                        open.explicit = true;
                        open.read_only = read_only.unwrap_or(default);
                    }
                }
                tag("BEGIN")
            }
            Action::SetTransaction { read_only } => match &mut self.block {
                Block::Failed(_) => Err(aborted()),
                Block::Open(open) => {
                    let wanted = read_only.unwrap_or(open.read_only);
                    if !wanted && open.read_only && open.begun.is_some() {
                        return Err(SqlError::new(
                            SqlState::ACTIVE_TRANSACTION,
                            "transaction read-write mode must be set before any query",
                        ));
                    }
                    open.read_only = wanted;
                    tag("SET")
                }
                Block::None => {
                    self.warn(
                        SqlState::NO_ACTIVE_TRANSACTION,
                        "SET TRANSACTION can only be used in transaction blocks",
                    );
                    tag("SET")
                }
            },
            Action::Commit => match &self.block {
                Block::None => {
                    self.warn(SqlState::NO_ACTIVE_TRANSACTION, "there is no transaction in progress");
                    tag("COMMIT")
                }
                Block::Failed(_) => {
                    self.block = Block::None;
                    tag("ROLLBACK")
                }
                Block::Open(_) => self.commit(cx.request, "COMMIT").map(Some),
            },
            Action::Rollback => {
                if let Block::None = self.block {
                    self.warn(SqlState::NO_ACTIVE_TRANSACTION, "there is no transaction in progress");
                }
                self.block = Block::None;
                tag("ROLLBACK")
            }
            _ => Ok(None),
        }
    }

    fn commit(&mut self, request: RequestId, tag: &'static str) -> Result<Outcome, SqlError> {
        let block = std::mem::replace(&mut self.block, Block::None);
        match block {
            Block::Open(Open { begun: Some(begun), .. }) if !begun.writes.is_empty() => {
                Ok(Outcome::Commit(Box::new(commit(*begun.writes, request, false, Completion::Tag(tag))?)))
            }
            _ => Ok(Outcome::Tag(tag.into())),
        }
    }

    /// The first statement of a block fixes its state and time.
    fn begin_if_open(&mut self, cx: &Context<'_>) {
        if let Block::Open(open) = &mut self.block
            && open.begun.is_none()
        {
            let writes = Writes::new(cx.snapshot.clone(), cx.read_time, cx.limits.transaction_bytes, true);
            open.begun = Some(Begun {
                now: cx.read_time,
                writes: Box::new(writes),
                read_only: open.read_only,
                schema_changed: false,
            });
        }
    }

    fn setting_action(&mut self, action: &Action) -> Result<Outcome, SqlError> {
        let tag = match action {
            Action::Set { name, value } => {
                self.info.settings.set(name, value.as_deref())?;
                "SET"
            }
            Action::ResetAll => {
                self.info.settings.reset_all();
                "RESET"
            }
            Action::Discard => {
                if let Block::Open(_) = self.block {
                    return Err(SqlError::new(
                        SqlState::ACTIVE_TRANSACTION,
                        "DISCARD ALL cannot run inside a transaction block",
                    ));
                }
                self.info.settings.reset_all();
                self.info.prepared.clear();
                self.info.cursors.clear();
                self.info.given.clear();
                self.replanned.clear();
                "DISCARD ALL"
            }
            Action::Prepare { name, prepared } => {
                if self.info.prepared.contains_key(name) {
                    return Err(SqlError::new(
                        SqlState(*b"42P05"),
                        format!("prepared statement \"{name}\" already exists"),
                    ));
                }
                if self.info.prepared.len() >= PREPARED_MAX {
                    return Err(SqlError::new(
                        SqlState::TOO_MANY,
                        format!("a session may prepare {PREPARED_MAX} statements at the most"),
                    )
                    .hint("DEALLOCATE those that are no longer used"));
                }
                self.info.prepared.insert(name.clone(), prepared.clone());
                "PREPARE"
            }
            Action::Fetch { name, direction, shown } => {
                let cursor = self.info.cursors.get_mut(name).ok_or_else(|| cursor::undefined(name))?;
                let rows = cursor.fetch(*direction);
                return Ok(match shown {
                    true => Outcome::Rows(rows),
                    false => Outcome::Tag(format!("MOVE {}", rows.len())),
                });
            }
            Action::CloseCursor(None) => {
                self.info.cursors.clear();
                "CLOSE CURSOR ALL"
            }
            Action::CloseCursor(Some(name)) => {
                self.info.cursors.remove(name).ok_or_else(|| cursor::undefined(name))?;
                "CLOSE CURSOR"
            }
            Action::Deallocate(None) => {
                self.info.prepared.clear();
                "DEALLOCATE ALL"
            }
            Action::Deallocate(Some(name)) => {
                self.info.prepared.remove(name);
                "DEALLOCATE"
            }
            Action::Nothing(tag) => tag,
            _ => return Err(SqlError::unsupported("this statement")),
        };
        Ok(Outcome::Tag(tag.into()))
    }

    /// A plan for the catalogue as it is now. Its columns must be what the client was told.
    fn replan(
        &mut self,
        old: &Arc<Prepared>,
        catalog: &Arc<chronos_engine::Catalog>,
    ) -> Result<Arc<Prepared>, SqlError> {
        let known = self.replanned.iter().find(|(from, to)| Arc::ptr_eq(from, old) && to.is_valid(catalog));
        if let Some((_, to)) = known {
            return Ok(to.clone());
        }
        let declared: Vec<Option<Type>> = old.params.iter().map(|t| Some(*t)).collect();
        let changed = matches!(&self.block, Block::Open(Open { begun: Some(b), .. }) if b.schema_changed);
        let new = Arc::new(prepare(&old.statement, &declared, catalog, changed, &self.info)?);
        let same = new.columns.len() == old.columns.len()
            && new.columns.iter().zip(old.columns.iter()).all(|(a, b)| a.ty == b.ty && a.name == b.name);
        if !same {
            return Err(SqlError::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                "cached plan must not change result type",
            )
            .hint("prepare the statement again"));
        }
        self.replanned.retain(|(from, _)| !Arc::ptr_eq(from, old));
        if self.replanned.len() >= REPLANNED_MAX {
            self.replanned.remove(0);
        }
        self.replanned.push((old.clone(), new.clone()));
        Ok(new)
    }
}

pub(crate) fn prepare(
    statement: &Statement,
    declared: &[Option<Type>],
    catalog: &chronos_engine::Catalog,
    changed: bool,
    info: &SessionInfo,
) -> Result<Prepared, SqlError> {
    let bound = bind::bind(statement, declared, catalog, info)?;
    // Columns are described as they were declared: with a length, a precision and a scale.
    let columns = bound.columns.into_iter().map(|mut column| {
        let table = column.origin.and_then(|(table, id)| Some((catalog.get(table)?.table()?, id)));
        let declared = table.and_then(|(table, id)| table.column(id)).map(|c| c.ty);
        column.ty = declared.filter(|ty| types::plain(*ty) == column.ty).unwrap_or(column.ty);
        column
    });
    let version = |id: &chronos_proto::RelationId| catalog.get(*id).map(|r| (*id, r.version));
    Ok(Prepared {
        params: bound.params,
        columns: columns.collect(),
        kind: bound.kind,
        statement: statement.clone(),
        relations: bound.relations.iter().filter_map(version).collect(),
        timers: bound.timers,
        action: bound.action,
        catalog_version: (!changed).then(|| catalog.version()),
    })
}

fn aborted() -> SqlError {
    SqlError::new(
        SqlState::IN_FAILED_TRANSACTION,
        "current transaction is aborted, commands ignored until end of transaction block",
    )
}

fn ends_block(statement: &Statement) -> bool {
    use sqlparser::ast::Statement as S;
    matches!(statement.ast(), crate::parse::Ast::Sql(ast) if matches!(**ast, S::Commit { .. } | S::Rollback { .. }))
}

/// `CREATE TABLE`, `INSERT`: what a message calls a statement.
fn first_words(text: &str) -> String {
    let mut words = text.split_whitespace().map(str::to_uppercase);
    let first = words.next().unwrap_or_default();
    match (first.as_str(), words.next()) {
        ("CREATE" | "DROP", Some(second)) => format!("{first} {second}"),
        ("COPY", _) => "COPY FROM".into(),
        _ => first,
    }
}

fn refused(refused: Refused) -> SqlError {
    let message = refused.to_string();
    match refused {
        Refused::Conflict => SqlError::new(
            SqlState::SERIALIZATION_FAILURE,
            "could not serialize access due to read/write dependencies among transactions",
        )
        .detail(message)
        .hint("The transaction might succeed if retried."),
        Refused::Expired(_) => SqlError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message),
        Refused::NotLeader => SqlError::new(SqlState::CANNOT_CONNECT_NOW, message),
        Refused::Full(_) => SqlError::new(SqlState::DISK_FULL, message),
        Refused::Overloaded(_) => SqlError::new(SqlState::TOO_MANY, message),
        Refused::TooLarge { .. } => SqlError::new(SqlState::LIMIT_EXCEEDED, message),
        Refused::Stopping => SqlError::new(SqlState::SHUTDOWN, message),
    }
}

fn completed(completion: Completion) -> Outcome {
    match completion {
        Completion::Tag(tag) => Outcome::Tag(tag.into()),
        Completion::Rows(rows) => Outcome::Rows(rows),
        Completion::Counted(verb, count) => Outcome::Tag(format!("{verb} {count}")),
        Completion::Count { verb, count, rows } => counted(verb, count, rows),
    }
}

fn counted(verb: &str, count: usize, rows: Option<RowSet>) -> Outcome {
    let tag = format!("{verb} {count}");
    match rows {
        Some(rows) => Outcome::Rows(RowSet { tag, ..rows }),
        None => Outcome::Tag(tag),
    }
}

fn commit(
    writes: Writes,
    request: RequestId,
    retryable: bool,
    completion: Completion,
) -> Result<Commit, SqlError> {
    let (group, read_index) = writes.home()?;
    let (reads, ops) = writes.into_parts();
    let (reads, valid_until) = reads.into_parts();
    let transaction = Transaction { request, read_index, reads, valid_until, ops };
    Ok(Commit { transaction, group, retryable, completion })
}
