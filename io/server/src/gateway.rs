//! What every listener speaks to: runs statements on the node and says how they ended.
//!
//! A statement reads the newest published snapshot at cluster time; what it writes goes to the engine as one
//! transaction, and its answer comes when that is durable. A conflict of a statement outside a transaction is
//! retried on a newer snapshot, since nothing was shown to anybody; inside one it is the client's to retry.
//!
//! A statement that touches a handful of rows runs on the thread that serves its connection; any other beside it, so
//! that the connections of that thread go on.

use crate::auth::Role as Access;
use crate::config::Config;
use crate::metrics::Metrics;
use chronos_engine::Snapshot;
use chronos_engine::step::Fresh;
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_node::{CommitError, NodeHandle, NodeStatus};
use chronos_proto::id::{GroupId, Index, RequestId};
use chronos_proto::schema::Relation;
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use chronos_sql::{
    Batch, Context, Kind, Limits, Outcome, Prepared, RowSet, Session, SessionOptions, SqlError, SqlState,
    Statement,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How long a statement waits for a leader before it fails with 57P03.
pub const LEADER_WAIT: Duration = Duration::from_secs(10);
/// How long a client waits for a write that was under way when the disk became full.
const FULL_WAIT: Duration = Duration::from_secs(5);
/// For how long conflicts are retried for the client.
const CONFLICT_WAIT: Duration = Duration::from_secs(5);
/// Between looks whether the write that was in the way is published.
const CONFLICT_POLL: Duration = Duration::from_millis(1);
/// Between looks for a leader.
const LEADER_POLL: Duration = Duration::from_millis(20);

/// What a statement came to.
#[derive(Debug)]
pub enum Answer {
    /// Rows, and the tag after them.
    Rows(RowSet),
    /// A tag alone.
    Tag(String),
}

/// Until when a request is tried again, from its first refusal on.
#[derive(Default)]
struct Patience {
    conflicts: Option<Instant>,
    leaderless: Option<Instant>,
}

/// The one object that all listeners share.
#[derive(Debug)]
pub struct Gateway {
    node: NodeHandle,
    metrics: Metrics,
    limits: Limits,
    random: AtomicU64,
    read_mode: ReadMode,
    ready: watch::Sender<bool>,
}

/// How reads are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMode {
    /// A quorum confirms the leader first: nothing acknowledged before is missed, whatever clocks do.
    #[default]
    Linearizable,
    /// The leader answers by its lease, if it holds one: as good, if clocks run at about the same rate.
    Lease,
    /// From what this node has, which may be old.
    Local,
}

impl ReadMode {
    /// From its name.
    pub fn parse(text: &str) -> Option<ReadMode> {
        match text {
            "linearizable" => Some(ReadMode::Linearizable),
            "lease" => Some(ReadMode::Lease),
            "local" => Some(ReadMode::Local),
            _ => None,
        }
    }
}

impl Gateway {
    /// A gateway to a node.
    pub fn new(node: NodeHandle, config: &Config) -> Gateway {
        Gateway {
            node,
            metrics: Metrics::new(config.profile.segment_bytes),
            limits: Limits { memory_bytes: config.result_max_bytes, ..Limits::default() },
            random: AtomicU64::new(seed()),
            read_mode: config.read_mode,
            ready: watch::Sender::new(false),
        }
    }

    /// The node.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether the node has had a leader since it was started: until then PostgreSQL connections are refused.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits for a leader, at most [`LEADER_WAIT`]; from then on the gateway is ready.
    pub async fn wait_for_leader(&self) -> Result<(), SqlError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            if self.status().await.is_some_and(|status| status.has_leader()) {
                self.ready.send_replace(true);
                return Ok(());
            }
            if Instant::now() > deadline {
                let message =
                    format!("no leader after {} s: nothing was done; try again", LEADER_WAIT.as_secs());
                return Err(SqlError::new(SqlState::CANNOT_CONNECT_NOW, message));
            }
            tokio::time::sleep(LEADER_POLL).await;
        }
    }

    /// Waits for the first leader after the start, if there was none yet.
    pub async fn wait_until_ready(&self) -> Result<(), SqlError> {
        if self.is_ready() { Ok(()) } else { self.wait_for_leader().await }
    }

    /// The node at this moment; none if it has stopped.
    pub async fn status(&self) -> Option<NodeStatus> {
        let (send, receive) = oneshot::channel();
        self.node.status_with(Box::new(move |status| {
            // Whoever asked may have gone.
            let _ = send.send(status);
        }));
        receive.await.ok().flatten()
    }

    /// The newest snapshot and the time to read it at.
    pub fn read(&self) -> (Snapshot, Timestamp) {
        let published = self.node.published();
        let read_time = published.read_time(self.node.mono());
        (published.snapshot, read_time)
    }

    /// The newest state of a group, and the time to read it at.
    pub fn read_of(&self, group: GroupId) -> Result<(Snapshot, Timestamp), SqlError> {
        let published = self.node.published_of(group).ok_or_else(|| no_replica(group))?;
        let read_time = published.clock.at(self.node.mono());
        Ok((published.snapshot, read_time))
    }

    /// Waits a while until the groups that keep partitions know their topics, so that the next statement writes to them.
    async fn homes_know(&self) {
        let catalog = self.node.published().snapshot.catalog;
        for topic in catalog.iter().filter(|relation| relation.is_partitioned()) {
            // It is made, whether or not they all know it yet.
            let _ = self.wait_for_homes(topic).await;
        }
    }

    /// Waits until the groups that keep a topic's partitions know it, which takes a moment after it was made.
    pub async fn wait_for_homes(&self, topic: &Relation) -> Result<(), SqlError> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let known = |group: &GroupId| {
                self.read_of(*group).map(|(state, _)| state.catalog.get(topic.id).is_some())
            };
            let homes = topic.homes().iter().map(known).collect::<Result<Vec<bool>, _>>()?;
            if homes.into_iter().all(|known| known) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let message =
                    format!("the partitions of topic {} have no leaders yet: try again", topic.name);
                return Err(SqlError::new(SqlState::CANNOT_CONNECT_NOW, message));
            }
            tokio::time::sleep(LEADER_POLL).await;
        }
    }

    /// A number that nobody can guess from others: a step of a seeded sequence, mixed.
    pub fn random(&self) -> u64 {
        let mut z = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A snapshot that holds everything which was acknowledged anywhere before this call, and the time to read it at.
    pub async fn read_newest(&self, mode: ReadMode) -> Result<(Snapshot, Timestamp), SqlError> {
        self.read_newest_of(GroupId(0), mode).await
    }

    /// The states of other groups beside that of group 0, each the newest by itself.
    async fn beside(
        &self,
        snapshot: Snapshot,
        read_time: Timestamp,
        groups: BTreeSet<GroupId>,
        mode: ReadMode,
    ) -> Result<(Snapshot, Timestamp), SqlError> {
        let (mut others, mut latest) = (BTreeMap::new(), read_time);
        let reads = groups.into_iter().filter(|group| *group != snapshot.group).map(|group| async move {
            self.read_newest_of(group, mode).await.map(|(snapshot, time)| (group, snapshot, time))
        });
        for read in futures_util::future::try_join_all(reads).await? {
            let (group, snapshot, time) = read;
            latest = latest.max(time);
            others.insert(group, snapshot);
        }
        Ok((snapshot.with(others), latest))
    }

    /// The same of any group.
    pub async fn read_newest_of(
        &self,
        group: GroupId,
        mode: ReadMode,
    ) -> Result<(Snapshot, Timestamp), SqlError> {
        let published = self.node.published_of(group).ok_or_else(|| no_replica(group))?;
        let here = match (mode, published.fresh) {
            (ReadMode::Local, _) | (_, Fresh::Alone) => true,
            (ReadMode::Lease, Fresh::Until(until)) => self.node.mono() < until,
            _ => false,
        };
        if here {
            let read_time = published.read_time(self.node.mono());
            return Ok((published.snapshot, read_time));
        }
        drop(published);
        let (send, receive) = oneshot::channel();
        let reply = Box::new(move |at| {
            // A client that went away wants no answer.
            let _ = send.send(at);
        });
        self.node.read_with(group, reply);
        let at = receive.await.unwrap_or(Err(Refused::Stopping)).map_err(|refused| refusal(&refused))?;
        let snapshot = self.node.published_of(group).ok_or_else(|| no_replica(group))?.snapshot;
        let read_time = at.time.max(snapshot.applied_time);
        Ok((snapshot, read_time))
    }

    /// Finds something in the state that is here or, if it is not there, in the newest: it may have been made on
    /// another node a moment ago.
    pub async fn find<T>(&self, find: impl Fn(&Snapshot) -> Result<T, SqlError>) -> Result<T, SqlError> {
        self.find_by(self.read_mode, find).await
    }

    async fn find_by<T>(
        &self,
        mode: ReadMode,
        find: impl Fn(&Snapshot) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        let (found, is_newest) = {
            let published = self.node.published();
            (find(&published.snapshot), published.fresh == Fresh::Alone || mode == ReadMode::Local)
        };
        match found {
            Err(error) if !is_newest => match self.read_newest(mode).await {
                Ok((snapshot, _)) => find(&snapshot),
                Err(_) => Err(error),
            },
            found => found,
        }
    }

    /// How reads are answered unless a session says otherwise.
    pub fn default_read_mode(&self) -> ReadMode {
        self.read_mode
    }

    /// How a session reads.
    fn read_mode(&self, session: &Session) -> ReadMode {
        session.setting("chronos.read_mode").and_then(ReadMode::parse).unwrap_or(self.read_mode)
    }

    /// Binds and plans a statement.
    pub async fn prepare(
        &self,
        session: &mut Session,
        statement: &Statement,
        declared: &[Option<Type>],
    ) -> Result<Arc<Prepared>, SqlError> {
        let try_on = |snapshot: &Snapshot| session.try_prepare(statement, declared, snapshot);
        let prepared = match session.reads_anew() {
            true => self.find_by(self.read_mode(session), try_on).await,
            // A block has a catalogue of its own.
            false => try_on(&self.node.published().snapshot),
        };
        if prepared.is_err() {
            session.fail();
        }
        prepared.inspect_err(|e| self.count(e))
    }

    /// Runs a prepared statement, its commit included.
    pub async fn execute(
        &self,
        session: &mut Session,
        prepared: &Arc<Prepared>,
        params: &[Value],
        cancel: &AtomicBool,
    ) -> Result<Answer, SqlError> {
        let began = Instant::now();
        let run = |session: &mut Session, cx: &Context<'_>| {
            let mut work = || session.execute(prepared, params, cx);
            if prepared.is_short() { work() } else { tokio::task::block_in_place(work) }
        };
        let answer = self.run(session, prepared.kind, Some(prepared), cancel, run).await;
        self.metrics.statement(prepared.kind, began.elapsed());
        answer.inspect_err(|e| self.count(e))
    }

    /// Runs a COPY … FROM with the rows that came in, its commit included.
    pub async fn copy(
        &self,
        session: &mut Session,
        prepared: &Arc<Prepared>,
        rows: &[Batch],
        cancel: &AtomicBool,
    ) -> Result<Answer, SqlError> {
        let began = Instant::now();
        let run = |session: &mut Session, cx: &Context<'_>| {
            tokio::task::block_in_place(|| session.execute_copied(prepared, rows, cx))
        };
        let answer = self.run(session, prepared.kind, Some(prepared), cancel, run).await;
        self.metrics.statement(prepared.kind, began.elapsed());
        answer.inspect_err(|e| self.count(e))
    }

    /// Runs one statement as a transaction of its own, as the interfaces without sessions do. `read` reads parameter
    /// number (from 1), as it was given, as the type that the statement wants.
    pub async fn execute_alone<P>(
        &self,
        role: Access,
        sql: &str,
        given: Vec<P>,
        read: impl Fn(usize, P, Type) -> Result<Value, SqlError>,
    ) -> Result<Answer, SqlError> {
        self.wait_until_ready().await?;
        let mut statements = chronos_sql::parse(sql).inspect_err(|e| self.count(e))?;
        let statement = match (statements.pop(), statements.len()) {
            (Some(statement), 0) => statement,
            (None, _) => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "there is no statement")),
            _ => return Err(SqlError::new(SqlState::SYNTAX_ERROR, "one statement at a time")),
        };
        let options = SessionOptions { read_only: role == Access::ReadOnly, ..SessionOptions::default() };
        let mut session = Session::new(options);
        let prepared = self.prepare(&mut session, &statement, &[]).await?;
        if prepared.kind == Kind::Transaction {
            return Err(SqlError::unsupported("a transaction over several requests")
                .hint("use the PostgreSQL port, or put the work into one statement"));
        }
        if prepared.params.len() != given.len() {
            let (wanted, given) = (prepared.params.len(), given.len());
            let message = format!("the statement has {wanted} parameters, {given} were given");
            return Err(SqlError::new(SqlState::UNDEFINED_PARAMETER, message));
        }
        let params = given.into_iter().zip(&prepared.params).enumerate();
        let params = params.map(|(i, (value, ty))| read(i + 1, value, *ty)).collect::<Result<Vec<_>, _>>()?;
        // Only a PostgreSQL connection has a key to cancel by.
        let cancel = AtomicBool::new(false);
        self.execute(&mut session, &prepared, &params, &cancel).await
    }

    /// Ends an implicit transaction: its commit included.
    pub async fn finish_implicit(
        &self,
        session: &mut Session,
        cancel: &AtomicBool,
    ) -> Result<Answer, SqlError> {
        let finish = |session: &mut Session, cx: &Context<'_>| session.finish_implicit(cx);
        let answer = self.run(session, Kind::Transaction, None, cancel, finish).await;
        answer.inspect_err(|e| self.count(e))
    }

    pub(crate) async fn run(
        &self,
        session: &mut Session,
        kind: Kind,
        prepared: Option<&Prepared>,
        cancel: &AtomicBool,
        mut work: impl FnMut(&mut Session, &Context<'_>) -> Result<Outcome, SqlError>,
    ) -> Result<Answer, SqlError> {
        let mut patience = Patience::default();
        let writes = matches!(kind, Kind::Write | Kind::Schema);
        // A write is checked when it commits, so it may be worked out on what is here. What comes to nothing, or to an
        // error, is believed only on a state that is the newest.
        let mut newest = !(writes && session.stands_alone());
        loop {
            let reads = matches!(kind, Kind::Query) || writes;
            let sure = newest && reads && session.reads_anew();
            let (snapshot, read_time, alone) = match sure {
                true => {
                    let (snapshot, read_time) = self.read_newest(self.read_mode(session)).await?;
                    (snapshot, read_time, false)
                }
                false => {
                    let published = self.node.published();
                    let read_time = published.read_time(self.node.mono());
                    (published.snapshot, read_time, published.fresh == Fresh::Alone)
                }
            };
            let groups = match prepared.filter(|_| reads && session.stands_alone()) {
                Some(prepared) => prepared.groups(&snapshot.catalog),
                None => BTreeSet::new(),
            };
            let (snapshot, read_time) = match groups.is_empty() {
                true => (snapshot, read_time),
                false => self.beside(snapshot, read_time, groups, self.read_mode(session)).await?,
            };
            let (random, request, limits) = (self.random(), RequestId::default(), self.limits);
            let cx = Context { snapshot: &snapshot, read_time, random, request, cancel, limits };
            let outcome = work(session, &cx);
            if !newest && !alone && !matches!(outcome, Ok(Outcome::Commit(_))) {
                newest = true;
                continue;
            }
            let outcome = outcome?;
            // It pins a view of the store, which nothing needs while the commit is awaited.
            drop(snapshot);
            let mut commit = match outcome {
                Outcome::Rows(rows) => return Ok(Answer::Rows(rows)),
                Outcome::Tag(tag) => return Ok(Answer::Tag(tag)),
                Outcome::Commit(commit) => commit,
            };
            let read_at = (commit.group, commit.transaction.read_index);
            let answer = self.commit(commit.group, std::mem::take(&mut commit.transaction)).await?;
            if let Err(refused) = &answer
                && commit.retryable
                && self.may_retry(refused, read_at, &mut patience).await
            {
                continue;
            }
            if kind == Kind::Schema && answer.is_ok() {
                self.homes_know().await;
            }
            return match session.committed(*commit, answer)? {
                Outcome::Rows(rows) => Ok(Answer::Rows(rows)),
                Outcome::Tag(tag) => Ok(Answer::Tag(tag)),
                Outcome::Commit(_) => Err(SqlError::new(SqlState::INTERNAL, "a commit led to another")),
            };
        }
    }

    /// Hands a transaction to the engine. The inner result is definite; an error means that the outcome is unknown.
    pub async fn commit(
        &self,
        group: GroupId,
        transaction: Transaction,
    ) -> Result<Result<Committed, Refused>, SqlError> {
        let began = Instant::now();
        let (send, receive) = oneshot::channel();
        let reply = Box::new(move |result| {
            // A client that went away does not undo its commit.
            let _ = send.send(result);
        });
        self.node.commit_with(group, transaction, reply);
        match self.outcome(receive).await {
            Ok(committed) => {
                self.metrics.commit(began.elapsed());
                Ok(Ok(committed))
            }
            Err(CommitError::Refused(refused)) => {
                if refused == Refused::Conflict {
                    self.metrics.conflict();
                }
                Ok(Err(refused))
            }
            Err(CommitError::Unknown(why)) => Err(SqlError::new(
                SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
                format!("outcome unknown: {why}"),
            )
            .hint("look whether the transaction took effect before running it again")),
        }
    }

    /// Waits for an outcome. A write that met a full disk is kept and done when there is space; its client is not.
    async fn outcome(
        &self,
        mut receive: oneshot::Receiver<Result<Committed, CommitError>>,
    ) -> Result<Committed, CommitError> {
        loop {
            match tokio::time::timeout(FULL_WAIT, &mut receive).await {
                Ok(answer) => {
                    return answer.unwrap_or_else(|_| Err(CommitError::Unknown("the node is gone".into())));
                }
                Err(_) => {
                    if let Some(why) = self.status().await.and_then(|status| status.engine.refusing) {
                        return Err(CommitError::Unknown(why));
                    }
                }
            }
        }
    }

    /// Builds a transaction on the newest snapshot and commits it; again on a newer one if it conflicts. One that
    /// turns out to write nothing is not committed: what it read is durable.
    pub async fn write<T>(
        &self,
        group: GroupId,
        mut build: impl FnMut(&Snapshot, Timestamp) -> Result<(Transaction, T), SqlError>,
    ) -> Result<(Option<Committed>, T), SqlError> {
        let mut patience = Patience::default();
        loop {
            let (snapshot, read_time) = self.read_of(group)?;
            let read_at = (group, snapshot.applied);
            let (transaction, extra) = build(&snapshot, read_time)?;
            drop(snapshot);
            if transaction.ops.is_empty() {
                return Ok((None, extra));
            }
            match self.commit(group, transaction).await? {
                Ok(committed) => return Ok((Some(committed), extra)),
                Err(refused) if self.may_retry(&refused, read_at, &mut patience).await => {}
                Err(refused) => return Err(refusal(&refused)),
            }
        }
    }

    /// Whether something that was refused may be tried again now. It waits for what was in the way: a write that may
    /// still be on its way to the disk, or a leader.
    async fn may_retry(
        &self,
        refused: &Refused,
        (group, read_index): (GroupId, Index),
        patience: &mut Patience,
    ) -> bool {
        let now = Instant::now();
        match refused {
            Refused::Conflict => {
                let deadline = *patience.conflicts.get_or_insert(now + CONFLICT_WAIT);
                let applied =
                    || self.node.published_of(group).map_or(Index(0), |published| published.snapshot.applied);
                while applied() <= read_index {
                    if Instant::now() >= deadline {
                        return false;
                    }
                    tokio::time::sleep(CONFLICT_POLL).await;
                }
                now < deadline
            }
            Refused::NotLeader => {
                let deadline = *patience.leaderless.get_or_insert(now + LEADER_WAIT);
                tokio::time::sleep(LEADER_POLL).await;
                now < deadline
            }
            _ => false,
        }
    }

    /// Counts a failure. One that an operator should see is logged too.
    pub fn count(&self, error: &SqlError) {
        let code = error.code.as_str();
        self.metrics.error(code);
        if code.starts_with("XX") || code.starts_with("58") {
            tracing::error!(code, detail = error.detail, "{error}");
        }
    }
}

/// A refusal in SQL's words.
pub fn refusal(refused: &Refused) -> SqlError {
    let code = match refused {
        Refused::Conflict => SqlState::SERIALIZATION_FAILURE,
        Refused::Expired(_) => SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        Refused::NotLeader => SqlState::CANNOT_CONNECT_NOW,
        Refused::Full(_) => SqlState::DISK_FULL,
        Refused::Overloaded(_) => SqlState::TOO_MANY,
        Refused::TooLarge { .. } => SqlState::LIMIT_EXCEEDED,
        Refused::Stopping => SqlState::SHUTDOWN,
    };
    SqlError::new(code, refused.to_string())
}

fn no_replica(group: GroupId) -> SqlError {
    let message = format!("this node has no replica of group {group}, which keeps a partition of the topic");
    SqlError::new(SqlState::CANNOT_CONNECT_NOW, message).hint("ask another node of the cluster")
}

/// From the operating system; a machine without its generator still serves, with one seeded by time.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since.as_nanos() as u64
    })
}
