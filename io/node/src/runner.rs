//! The threads around a driver.

use crate::clock::{self, SystemClock};
use crate::directory::Directory;
use crate::driver::{Driver, Feed, Outlet, StoreView, Tape};
use crate::error::{CommitError, Exit, OpenError};
use crate::handle::{
    CommitReply, ExportReply, NodeHandle, OperatorReply, ReadReply, Shared, Sink, SubscriberEvent,
};
use crate::link::Admission;
use crate::options::{Fsync, Options};
use crate::peers::LinkIdentity;
use crate::recording;
use crate::scrub::{Ended, Scrub};
use crate::status::{ClockStatus, ClockStep, NodeStatus, Role, StoreStatus, VerifyState, WalStatus};
use crate::store::pages::WalkError;
use crate::store::{CheckpointError, Store, View};
use crate::wal_files::{Disk, WalCounters, WalEvent, WalWorker};
use chronos_engine::node::Start;
use chronos_engine::proto::id::{GroupId, Index, NodeId, RequestId};
use chronos_engine::proto::membership::Member;
use chronos_engine::proto::peer::{PeerHello, PeerMessage};
use chronos_engine::record::Label;
use chronos_engine::step::{
    Checkpoint, CheckpointId, Delivery, Fatal, Input, OperatorError, Published, Reply, Request, SubscriberId,
    SubscriberInput, Subscription, Token, Trace,
};
use chronos_engine::txn::{Refused, Transaction};
use chronos_engine::wal::WalOp;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// What reaches the driver thread.
pub(crate) enum Message {
    Commit {
        group: GroupId,
        transaction: Transaction,
        reply: CommitReply,
    },
    Read {
        group: GroupId,
        reply: ReadReply,
    },
    Operator {
        request: Request,
        reply: OperatorReply,
    },
    /// A node greets this one: may it take part?
    Admit {
        hello: PeerHello,
        name: String,
        answer: Admission,
    },
    /// Something about another node, of a message of so many bytes.
    Peer {
        input: Input,
        bytes: usize,
    },
    Subscribe {
        id: SubscriberId,
        subscription: Subscription,
        sink: Sink,
    },
    Subscriber {
        id: SubscriberId,
        input: SubscriberInput,
    },
    Checkpoint,
    Status(Box<dyn FnOnce(Option<NodeStatus>) + Send>),
    Export {
        group: GroupId,
        reply: ExportReply,
    },
    Stop,
    Wal(WalEvent),
    Checkpointed(CheckpointId, Result<Arc<View>, CheckpointError>),
    Scrubbed(Ended),
    ThreadDied(&'static str),
}

impl Message {
    /// Answers what will not be taken.
    pub(crate) fn refuse(self, why: CommitError) {
        match self {
            Message::Commit { reply, .. } => reply(Err(why)),
            Message::Read { reply, .. } => reply(Err(why.refused())),
            Message::Operator { reply, .. } => reply(Err(OperatorError::Refused(why.refused()))),
            Message::Subscribe { mut sink, .. } => sink(SubscriberEvent::Closed(why.to_string())),
            Message::Status(reply) => reply(None),
            Message::Export { reply, .. } => reply(None),
            _ => {}
        }
    }
}

/// How long a stop waits for what is pending.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long the end after a fatal error waits for threads that work on the disk.
const FATAL_PATIENCE: Duration = Duration::from_secs(2);
/// A start that finds more segments than this asks for a checkpoint.
const SEGMENTS_AT_START_MAX: u64 = 8;
/// The machine may sleep, and waits do not count that time: no wait for a deadline is longer.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often the kernel is asked whether its clock is synchronised.
const CLOCK_CHECK: Duration = Duration::from_secs(60);
/// How long a start tries to write to a full disk before it gives up.
const READY_PATIENCE: Duration = Duration::from_secs(10);

const DRIVER: &str = "chronos-driver";

/// What recovery found, ready to run.
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) directory: Directory,
    pub(crate) recovered: chronos_engine::wal::Recovered,
    pub(crate) store: Store,
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) verify: VerifyCell,
    /// The last run may have lost what it acknowledged.
    pub(crate) doubtful: bool,
    /// What the opening found and did, for the log.
    pub(crate) notices: Vec<String>,
}

/// How far the store has been verified; shared with who does it.
pub(crate) type VerifyCell = Arc<Mutex<VerifyState>>;

/// Starts the threads and waits for the first state.
pub(crate) fn start(parts: Parts) -> Result<NodeHandle, OpenError> {
    let Parts { options, directory, recovered, store, disk, verify, doubtful, notices } = parts;
    let dir = options.data_dir.clone();
    let seed = options.seed.unwrap_or_else(crate::directory::draw_u64);
    let begun =
        if options.cluster.is_some() { Some(directory.begin(crate::directory::draw_u64())?) } else { None };
    let boots = begun.map_or(0, |begun| begun.number);
    let last_group = recovered.groups.keys().copied().max();
    let config = chronos_engine::Config { doubtful, ..config(&options, &directory, last_group, seed, boots) };
    let link_identity = LinkIdentity {
        cluster: directory.identity.cluster,
        name: options.name.clone(),
        incarnation: directory.identity.incarnation,
        boot: boots,
    };
    let shared = Arc::new(Shared::new(options.profile.inflight_max, link_identity, &dir));
    let directory = Arc::new(directory);
    let view = store.current().clone();

    let (wal, wal_ops) = mpsc::channel();
    let wal_status = Arc::new(Mutex::new(WalStatus { segments: disk.segments(), ..WalStatus::default() }));
    let wal_thread = WalThread {
        worker: WalWorker::new(disk),
        status: wal_status.clone(),
        shared: shared.clone(),
        directory: directory.clone(),
    };
    let (checkpoints, checkpoint_work) = mpsc::channel();
    let store_status = Arc::new(StoreCounters::default());
    store_status.measure(&store);
    let checkpoint_thread = CheckpointThread {
        store,
        counters: store_status.clone(),
        shared: shared.clone(),
        directory: directory.clone(),
    };
    let (ready, first_state) = mpsc::sync_channel(1);
    let outlet = Threads {
        shared: shared.clone(),
        wal,
        checkpoints,
        replies: HashMap::new(),
        sinks: HashMap::new(),
        next_token: 0,
        fatal: None,
        damaged: None,
        notices,
        doubtful,
        trusted: true,
        unnoted: begun.filter(|begun| !begun.noted),
        node: directory.identity.node,
        clock_steps: 0,
        last_clock_step: None,
    };
    let mut spawned = vec![
        spawn("chronos-wal", &shared, move || wal_thread.run(&wal_ops))?,
        spawn("chronos-store", &shared, move || checkpoint_thread.run(&checkpoint_work))?,
    ];
    let stop_scrub = Arc::new(AtomicBool::new(false));
    if let Some(scrub) = scrub(&directory, &view, &recovered, &verify, &stop_scrub)? {
        let (shared, directory) = (shared.clone(), directory.clone());
        spawned
            .push(spawn("chronos-scrub", &shared.clone(), move || finish_scrub(scrub, &shared, &directory))?);
    }
    let (mut tape, mut recording) = (None, None);
    if let Some(record) = options.record.clone() {
        let (mut keeper, writer, watch) = recording::open(record, &options.name);
        spawned.push(spawn("chronos-record", &shared, move || writer.run())?);
        let label = Label { build: options.build.clone(), name: options.name.clone() };
        let image_max = keeper.image_max();
        tape = Some(Tape { label, image_max, keep: Box::new(move |piece| keeper.keep(piece)) });
        recording = Some(watch);
    }
    let driver_thread = DriverThread {
        outlet,
        recording,
        shared: shared.clone(),
        options,
        directory,
        wal_status,
        store_status,
        verify,
        stop_scrub,
        opened: Instant::now(),
        synchronised: false,
        ready: Some(ready),
        workers: std::mem::take(&mut spawned),
    };
    let driver = spawn(DRIVER, &shared, move || driver_thread.run(config, recovered, view, tape))?;
    shared.threads.lock().unwrap_or_else(PoisonError::into_inner).push(driver);
    let handle = NodeHandle { shared };
    let engine = |why| OpenError::Engine { dir, why };
    loop {
        match first_state.recv_timeout(READY_PATIENCE) {
            Ok(()) => return Ok(handle),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // A driver that does not answer is at work on a long log.
                if let Some(why) = handle.status().and_then(|status| status.engine.refusing) {
                    handle.stop();
                    return Err(engine(format!("the node could not write in {READY_PATIENCE:?}: {why}")));
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return match handle.stop() {
                    Exit::Fatal(why) => Err(engine(why)),
                    Exit::Stopped => Err(engine("the node stopped before it was ready".to_owned())),
                };
            }
        }
    }
}

/// The background verification, if the opening left it to do.
fn scrub(
    directory: &Directory,
    view: &Arc<View>,
    recovered: &chronos_engine::wal::Recovered,
    verify: &VerifyCell,
    stop: &Arc<AtomicBool>,
) -> Result<Option<Scrub>, OpenError> {
    if *verify.lock().unwrap_or_else(PoisonError::into_inner) != VerifyState::Pending {
        return Ok(None);
    }
    let groups = recovered.groups.keys().copied().collect();
    let dir = directory.store();
    match Scrub::new(&dir, view, groups, verify.clone(), stop.clone()) {
        Ok(scrub) => Ok(Some(scrub)),
        Err(WalkError::Io(error)) => Err(OpenError::io("cannot read", dir)(error)),
        Err(WalkError::Damage(damage)) => Err(OpenError::Damaged { file: dir, problem: damage.to_string() }),
    }
}

fn finish_scrub(scrub: Scrub, shared: &Shared, directory: &Directory) {
    let ended = scrub.run();
    let marked = match &ended {
        Ended::Values(what) | Ended::Damaged(what) => directory.mark_verify(what),
        Ended::Sound => directory.mark_verified(),
        Ended::Stopped => Ok(()),
    };
    // Without the mark the next start scrubs again, only later.
    drop(marked);
    // A driver that is gone wants no report.
    let _ = shared.inbox.report(Message::Scrubbed(ended));
}

/// `found` is the last group that the directory has something of.
fn config(
    options: &Options,
    directory: &Directory,
    found: Option<GroupId>,
    seed: u64,
    boots: u64,
) -> chronos_engine::Config {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let signed = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let (profile, identity) = (&options.profile, directory.identity);
    let (members, joins, leases) = match &options.cluster {
        Some(cluster) => (cluster.members.clone(), cluster.joins, cluster.leases),
        None => (Vec::new(), false, false),
    };
    let partitions = found.map_or(0, |group| group.0).max(options.partitions);
    chronos_engine::Config {
        groups: (0..=partitions).map(GroupId).collect(),
        members,
        joins,
        boots,
        raft: chronos_engine::raft::Settings {
            leases,
            rest_after_us: chronos_engine::node::REST_AFTER_US,
            ..Default::default()
        },
        fsync: match options.fsync {
            Fsync::Always => chronos_engine::node::Fsync::Always,
            Fsync::Interval(period) => chronos_engine::node::Fsync::Interval(micros(period)),
            Fsync::Never => chronos_engine::node::Fsync::Never,
        },
        checkpoint_wal_bytes: profile.checkpoint_wal_bytes,
        checkpoint_interval_us: micros(profile.checkpoint_interval),
        overlay_max_bytes: profile.overlay_max_bytes,
        wal_max_bytes: profile.wal_max_bytes,
        segment_bytes: profile.segment_bytes,
        inflight_max: profile.inflight_max,
        fire_ahead_max_us: signed(profile.fire_ahead_max),
        wheel_window_us: signed(profile.wheel_window),
        wheel_max: profile.wheel_max,
        ..chronos_engine::Config::new(
            identity.cluster,
            identity.node,
            identity.incarnation,
            clock::boot_id(),
            seed,
        )
    }
}

/// A named thread whose panic ends the node instead of going unnoticed.
fn spawn(
    name: &'static str,
    shared: &Arc<Shared>,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, OpenError> {
    struct Watch(&'static str, Arc<Shared>);
    impl Drop for Watch {
        fn drop(&mut self) {
            if !thread::panicking() {
                return;
            }
            self.1.keep_flight();
            if self.0 == DRIVER {
                for message in self.1.inbox.close() {
                    message.refuse(CommitError::Refused(Refused::Stopping));
                }
                self.1.exit.set(Exit::Fatal(died(self.0)));
            } else {
                // If the driver is gone too, its own end is told.
                let _ = self.1.inbox.report(Message::ThreadDied(self.0));
            }
        }
    }
    let watch = Watch(name, shared.clone());
    let run = move || {
        let _watch = watch;
        work();
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(OpenError::io("cannot start thread", name))
}

fn died(thread: &str) -> String {
    format!("the thread {thread} panicked: this is a bug, please report it with the log. Restart the node")
}

/// The outlet of the driver: channels to the other threads, and whom to answer.
struct Threads {
    shared: Arc<Shared>,
    wal: mpsc::Sender<WalOp>,
    checkpoints: mpsc::Sender<StoreWork>,
    replies: HashMap<Token, Waiting>,
    sinks: HashMap<SubscriberId, Sink>,
    next_token: u64,
    fatal: Option<String>,
    damaged: Option<String>,
    notices: Vec<String>,
    /// The last run may have lost what it acknowledged, in a group that no leader has caught up yet.
    doubtful: bool,
    /// A group was caught up in this turn, or none may have to be.
    trusted: bool,
    /// The number that the store was started with, until the cluster is known to have noted it.
    unnoted: Option<Start>,
    node: NodeId,
    clock_steps: u64,
    last_clock_step: Option<ClockStep>,
}

/// Whom to answer.
enum Waiting {
    Commit(RequestId, CommitReply),
    Read(ReadReply),
    Operator(OperatorReply),
}

impl Threads {
    fn token(&mut self, waiting: Waiting) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.replies.insert(token, waiting);
        token
    }

    /// What a message is to the engine, for the record too; none if it is only the shell's.
    fn feed(&mut self, message: Message) -> Option<Feed> {
        let feed = self.read(message)?;
        let (Feed::Input(input) | Feed::WithStore(input, _)) = &feed;
        self.shared.recorder.input(input);
        Some(feed)
    }

    fn give(&self, input: Input) -> Feed {
        self.shared.recorder.input(&input);
        Feed::Input(input)
    }

    fn read(&mut self, message: Message) -> Option<Feed> {
        let input = match message {
            Message::Commit { group, transaction, reply } => {
                let token = Token(self.next_token);
                self.next_token += 1;
                self.replies.insert(token, Waiting::Commit(transaction.request, reply));
                Input::Request { token, request: Request::Commit(group, transaction) }
            }
            Message::Read { group, reply } => {
                let token = self.token(Waiting::Read(reply));
                Input::Request { token, request: Request::Read(group) }
            }
            Message::Operator { request, reply } => {
                let token = self.token(Waiting::Operator(reply));
                Input::Request { token, request }
            }
            Message::Peer { input, bytes } => {
                self.shared.peer_taken(bytes);
                input
            }
            Message::Subscribe { id, subscription, sink } => {
                self.sinks.insert(id, sink);
                Input::Subscriber { id, event: SubscriberInput::Open(subscription) }
            }
            Message::Subscriber { id, input } => {
                // One that was closed from here has nothing more to say.
                let known = match input {
                    SubscriberInput::Close => self.sinks.remove(&id).is_some(),
                    _ => self.sinks.contains_key(&id),
                };
                if !known {
                    return None;
                }
                Input::Subscriber { id, event: input }
            }
            Message::Checkpoint => Input::Checkpoint,
            Message::Wal(WalEvent::Durable(write)) => Input::WriteDurable(write),
            Message::Wal(WalEvent::Full(write)) => Input::WriteFull(write),
            Message::Wal(WalEvent::Failed(write, error)) => Input::WriteFailed { write, error },
            Message::Checkpointed(id, Ok(view)) => {
                return Some(Feed::WithStore(Input::CheckpointDurable(id), StoreView(view)));
            }
            Message::Checkpointed(id, Err(CheckpointError::Full(_))) => Input::CheckpointFull(id),
            Message::Checkpointed(checkpoint, Err(CheckpointError::Failed(error))) => {
                Input::CheckpointFailed { checkpoint, error }
            }
            Message::Scrubbed(ended) => {
                self.scrubbed(ended);
                return None;
            }
            Message::ThreadDied(name) => {
                self.fatal.get_or_insert_with(|| died(name));
                return None;
            }
            Message::Status(_) | Message::Export { .. } | Message::Stop | Message::Admit { .. } => {
                return None;
            }
        };
        Some(Feed::Input(input))
    }

    fn scrubbed(&mut self, ended: Ended) {
        match ended {
            Ended::Sound | Ended::Stopped => {}
            Ended::Values(what) => {
                self.notices.push(format!("the store has damaged values, which are refused: {what}"))
            }
            Ended::Damaged(what) => {
                self.fatal.get_or_insert_with(|| {
                    format!("the store is damaged ({what}); the node stops before it reads there. Restart it: it verifies the whole store and rebuilds it if the WAL can, or says what is lost")
                });
                self.damaged = Some(what);
            }
        }
    }

    /// Nobody is left without an answer.
    fn abandon(&mut self, why: &str) {
        for (_, waiting) in self.replies.drain() {
            match waiting {
                Waiting::Commit(request, reply) => {
                    self.shared.request_done(request);
                    reply(Err(CommitError::Unknown(why.to_owned())));
                }
                Waiting::Read(reply) => reply(Err(Refused::Stopping)),
                Waiting::Operator(reply) => reply(Err(OperatorError::Refused(Refused::Stopping))),
            }
        }
        for (_, mut sink) in self.sinks.drain() {
            sink(SubscriberEvent::Closed(why.to_owned()));
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.abandon("the node stopped");
    }
}

impl Outlet for Threads {
    fn wal(&mut self, op: WalOp) {
        self.shared.recorder.wal(&op);
        // The channel needs no bound: the engine has one write in flight. A closed one means that its thread died,
        // which is reported.
        let _ = self.wal.send(op);
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        self.shared.recorder.checkpoint(checkpoint.id.0);
        let _ = self.checkpoints.send(StoreWork::Write(checkpoint));
    }

    fn publish(&mut self, published: Published) {
        self.shared.publish(published);
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        self.shared.recorder.reply(token, &reply);
        match (self.replies.remove(&token), reply) {
            (Some(Waiting::Commit(request, callback)), reply) => {
                self.shared.request_done(request);
                callback(match reply {
                    Reply::Commit(result) => result.map_err(CommitError::Refused),
                    Reply::Unknown(why) => Err(CommitError::Unknown(why)),
                    reply => unreachable!("a transaction was answered with {reply:?}"),
                });
            }
            (Some(Waiting::Read(callback)), Reply::Read(result)) => callback(result),
            (Some(Waiting::Operator(callback)), Reply::Operator(result)) => callback(result),
            (Some(_), reply) => unreachable!("another request was answered with {reply:?}"),
            // Its client was told already that the node stops.
            (None, _) => {}
        }
    }

    fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.shared.recorder.sent(to, message.kind());
        if let Some(peers) = self.shared.peers.get() {
            peers.send(to, message);
        }
    }

    fn refuse(&mut self, peer: NodeId, why: String) {
        self.shared.recorder.refuses(peer);
        tracing::warn!(peer = self.shared.name_of(peer), why, "peer refused");
        if let Some(peers) = self.shared.peers.get() {
            peers.refuse(peer, &why);
        }
    }

    fn members(&mut self, members: Vec<Member>) {
        let node = self.node;
        if let Some(start) = self.unnoted.take_if(|start| start.is_noted_in(node, &members)) {
            let _ = self.checkpoints.send(StoreWork::Noted(start));
        }
        self.shared.set_members(members);
    }

    fn deliver(&mut self, delivery: Delivery) {
        if let Some(sink) = self.sinks.get_mut(&delivery.subscriber) {
            sink(SubscriberEvent::Deliver(delivery));
        }
    }

    fn close_subscriber(&mut self, subscriber: SubscriberId, why: String) {
        if let Some(mut sink) = self.sinks.remove(&subscriber) {
            sink(SubscriberEvent::Closed(why));
        }
    }

    fn trace(&mut self, trace: Trace) {
        self.shared.recorder.trace(&trace);
        match trace {
            Trace::ClockStep { micros, adopted } => {
                self.clock_steps += 1;
                self.last_clock_step = Some(ClockStep { micros, adopted });
            }
            Trace::Role { group, role, term, leader } => {
                let leader = leader.map(|leader| self.shared.name_of(leader));
                tracing::info!(%group, ?role, term, leader, "role");
            }
            Trace::SnapshotSent { group, to, index, done } => {
                let to = self.shared.name_of(to);
                tracing::info!(%group, to, %index, done, "snapshot sent");
            }
            Trace::Trusted { group } => {
                tracing::info!(%group, "a leader has caught this node up: it votes again");
                self.trusted = true;
            }
            Trace::SnapshotResumed { group, index, chunk } => {
                tracing::info!(%group, %index, chunk, "a snapshot goes on where it was before the restart");
            }
            Trace::SnapshotInstalled { group, index } => {
                tracing::info!(%group, %index, "snapshot installed");
            }
            Trace::PeerRefused { peer, why } => {
                tracing::warn!(peer = self.shared.name_of(peer), why, "message refused");
            }
            Trace::Awaits(nodes) => {
                let nodes: Vec<String> = nodes.into_iter().map(|node| self.shared.name_of(node)).collect();
                match nodes.is_empty() {
                    true => {
                        tracing::info!("all that the cluster begins with were heard: this node takes part")
                    }
                    false => tracing::info!(awaits = nodes.join(", "), "{}", crate::status::AWAITS),
                }
            }
            _ => {}
        }
    }

    fn fatal(&mut self, fatal: Fatal) {
        self.shared.recorder.fatal();
        if let Fatal::StateDamaged(what) = &fatal {
            self.damaged = Some(what.clone());
        }
        self.fatal.get_or_insert_with(|| fatal.to_string());
    }
}

struct DriverThread {
    outlet: Threads,
    recording: Option<recording::Watch>,
    shared: Arc<Shared>,
    options: Options,
    directory: Arc<Directory>,
    wal_status: Arc<Mutex<WalStatus>>,
    store_status: Arc<StoreCounters>,
    verify: VerifyCell,
    stop_scrub: Arc<AtomicBool>,
    opened: Instant,
    synchronised: bool,
    ready: Option<mpsc::SyncSender<()>>,
    workers: Vec<thread::JoinHandle<()>>,
}

type NodeDriver = Driver<SystemClock>;

impl DriverThread {
    fn run(
        mut self,
        config: chronos_engine::Config,
        recovered: chronos_engine::wal::Recovered,
        view: Arc<View>,
        tape: Option<Tape>,
    ) {
        match Driver::new(config, self.shared.clock, recovered, view, tape, &mut self.outlet) {
            Ok(mut driver) => {
                self.serve(&mut driver);
                self.finish(Some(driver));
            }
            Err(fatal) => {
                self.outlet.fatal(fatal);
                self.finish(None);
            }
        }
    }

    fn serve(&mut self, driver: &mut NodeDriver) {
        let mut batch = VecDeque::new();
        let mut feeds = Vec::new();
        let mut checkpointed = false;
        let mut clock_check = Instant::now();
        let mut stop_by = None;
        loop {
            if clock_check <= Instant::now() {
                clock_check = Instant::now() + CLOCK_CHECK;
                self.synchronised = clock::synchronised();
                feeds.push(self.outlet.give(Input::ClockSynchronised(self.synchronised)));
            }
            let now = crate::clock::Clock::now(&self.shared.clock).mono;
            let until = |(at, _): (chronos_engine::proto::time::Instant, _)| at.micros_since(now);
            let wait = driver.next_deadline().map_or(WAIT_MAX, |next| Duration::from_micros(until(next)));
            let wait = if feeds.is_empty() { wait.min(WAIT_MAX) } else { Duration::ZERO };
            self.shared.inbox.take(&mut batch, Some(wait));
            for message in batch.drain(..) {
                match message {
                    Message::Status(reply) => reply(Some(self.status(driver))),
                    Message::Export { group, reply } => reply(driver.export(group)),
                    Message::Admit { hello, name, answer } => {
                        // Whoever asked may have given up.
                        let _ = answer.send(driver.node().admit_peer(&hello, &name));
                    }
                    Message::Stop if stop_by.is_none() => {
                        stop_by = Some(Instant::now() + STOP_PATIENCE);
                        feeds.push(self.outlet.give(Input::Stop));
                    }
                    message => {
                        checkpointed |= matches!(message, Message::Checkpointed(..));
                        feeds.extend(self.outlet.feed(message));
                    }
                }
            }
            driver.turn(feeds.drain(..), &mut self.outlet);
            if std::mem::take(&mut checkpointed) {
                let _ = self.outlet.checkpoints.send(StoreWork::Forget);
            }
            self.settle_doubt(driver);
            if self.outlet.fatal.is_some() {
                return;
            }
            if self.ready.is_some() {
                self.tell_ready(driver);
            }
            if let Some(by) = stop_by
                && (self.quiet(driver) || by <= Instant::now())
            {
                return;
            }
        }
    }

    /// Once every group was caught up, the run is like any other.
    fn settle_doubt(&mut self, driver: &NodeDriver) {
        if std::mem::take(&mut self.outlet.trusted)
            && !driver.node().status().groups.iter().any(|group| group.doubtful)
        {
            self.outlet.doubtful = false;
            if self.options.fsync == Fsync::Always
                && let Err(error) = self.directory.mark_trusted()
            {
                self.outlet.fatal.get_or_insert(error.to_string());
            }
        }
    }

    /// Once every group takes writes, everything that was acknowledged before is applied and published.
    fn tell_ready(&mut self, driver: &NodeDriver) {
        let status = driver.node().status();
        // A node alone leads in a moment; one among others serves as soon as it can say who does.
        let alone = self.options.cluster.is_none();
        if status.groups.is_empty() || alone && !status.groups.iter().all(|group| group.leader) {
            return;
        }
        if let Err(error) = self.directory.mark_served() {
            self.outlet.fatal.get_or_insert(error.to_string());
        } else if let Some(ready) = self.ready.take() {
            // The opener may have given up.
            let _ = ready.send(());
            self.shorten_wal();
        }
    }

    /// Each start begins a segment: many short runs would gather many of them. A checkpoint lets go of what was before
    /// the one before it.
    fn shorten_wal(&self) {
        let segments = self.wal_status.lock().unwrap_or_else(PoisonError::into_inner).segments;
        if segments > SEGMENTS_AT_START_MAX {
            // A driver hears itself.
            let _ = self.shared.inbox.report(Message::Checkpoint);
        }
    }

    /// Nothing that anybody waits for is under way.
    fn quiet(&self, driver: &NodeDriver) -> bool {
        let status = driver.node().status();
        let waits = status.inflight > 0 || status.handing_over > 0;
        self.outlet.replies.is_empty() && driver.held() == 0 && !waits
    }

    fn finish(mut self, driver: Option<NodeDriver>) {
        let fatal = self.outlet.fatal.take();
        if fatal.is_some() {
            self.shared.keep_flight();
        }
        let why = fatal.clone().unwrap_or_else(|| "the node is shutting down".to_owned());
        for message in self.shared.inbox.close() {
            message.refuse(CommitError::Refused(Refused::Stopping));
        }
        self.outlet.abandon(&why);
        if let Some(peers) = self.shared.peers.get() {
            peers.close();
        }
        if let Some(what) = &self.outlet.damaged {
            // If the mark cannot be written, the error that led here comes again at the next start.
            let _ = self.directory.mark_verify(what);
        }
        self.store_status.cancel.store(true, Ordering::Relaxed);
        self.stop_scrub.store(true, Ordering::Relaxed);
        if let Some(hash) = driver.as_ref().and_then(NodeDriver::recorded_hash) {
            tracing::info!(trace_hash = format!("{hash:016x}"), "the recording ends");
        }
        let DriverThread { outlet, shared, directory, workers, .. } = self;
        let doubtful = outlet.doubtful;
        let groups = driver.iter().flat_map(|driver| driver.node().status().groups);
        let applied: Vec<_> = groups.map(|group| (group.group, Index(group.applied))).collect();
        // Ends the other threads: their channels close.
        drop(outlet);
        drop(driver);
        shared.close_published();
        let exit = match fatal {
            Some(fatal) => {
                // They hold the lock. One that hangs in the disk must not hold up the exit.
                let by = Instant::now() + FATAL_PATIENCE;
                while workers.iter().any(|worker| !worker.is_finished()) && Instant::now() < by {
                    thread::sleep(Duration::from_millis(1));
                }
                Exit::Fatal(fatal)
            }
            None => {
                let joined = workers.into_iter().all(|worker| worker.join().is_ok());
                if shared.exit.is_set() {
                    // The last sync failed, and said so: this was no clean stop.
                    Exit::Stopped
                } else if !joined {
                    Exit::Fatal("a thread panicked while the node stopped".to_owned())
                } else if doubtful {
                    Exit::Stopped
                } else {
                    let marked = directory.mark_clean(&applied);
                    marked.map_or_else(|error| Exit::Fatal(error.to_string()), |()| Exit::Stopped)
                }
            }
        };
        // The lock goes before anyone is told.
        drop(directory);
        shared.exit.set(exit);
    }

    fn status(&self, driver: &NodeDriver) -> NodeStatus {
        let engine = driver.node().status();
        let group0 = engine.groups.iter().find(|g| g.group == GroupId(0)).cloned().unwrap_or_default();
        let now = crate::clock::Clock::now(&self.shared.clock);
        NodeStatus {
            name: self.options.name.clone(),
            cluster: self.directory.identity.cluster,
            node: self.directory.identity.node,
            incarnation: self.directory.identity.incarnation,
            data_dir: self.options.data_dir.clone(),
            fsync: self.options.fsync,
            uptime: self.opened.elapsed(),
            term: group0.term,
            role: Role::of(&group0, self.directory.identity.node),
            members: self.shared.members(),
            links: self.shared.peers.get().map(|peers| peers.status()).unwrap_or_default(),
            http: self.shared.peers.get().and_then(|peers| peers.http.clone()),
            engine,
            wal: self.wal_status.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            store: self.store_status.show(&self.verify),
            clock: ClockStatus {
                cluster: self.shared.read_time(now.mono),
                wall: now.wall,
                synchronised: self.synchronised,
                steps: self.outlet.clock_steps,
                last_step: self.outlet.last_clock_step,
            },
            recording: self.recording.as_ref().map(recording::Watch::status),
            notices: self.outlet.notices.clone(),
            fatal: self.outlet.fatal.clone(),
        }
    }
}

struct WalThread {
    worker: WalWorker<Box<dyn Disk>>,
    status: Arc<Mutex<WalStatus>>,
    shared: Arc<Shared>,
    /// Keeps the lock while a write may be under way.
    directory: Arc<Directory>,
}

impl WalThread {
    fn run(mut self, ops: &mpsc::Receiver<WalOp>) {
        while let Ok(op) = ops.recv() {
            if let Some(event) = self.worker.perform(op) {
                let failed = matches!(event, WalEvent::Failed(..));
                // A driver that is gone wants no report.
                let _ = self.shared.inbox.report(Message::Wal(event));
                self.note();
                if failed {
                    return;
                }
            }
        }
        // What a weak mode left to the operating system. After this the stop is clean.
        if let Err(error) = self.worker.finish() {
            self.shared.exit.set(Exit::Fatal(format!("the last sync of the WAL failed: {error}")));
        }
        drop(self.directory);
    }
}

impl WalThread {
    fn note(&self) {
        let WalCounters { syncs, written_bytes, full } = &self.worker.counters;
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        *status = WalStatus {
            syncs: syncs.count,
            sync_latency: syncs.clone(),
            written_bytes: *written_bytes,
            segments: self.worker.disk().segments(),
            full: *full,
        };
    }
}

/// What the store's thread is asked to do.
enum StoreWork {
    Write(Checkpoint),
    /// The engine has let go of the layer that was written: let go of it here, where it takes nobody's time.
    Forget,
    /// The cluster has noted this start.
    Noted(Start),
}

struct CheckpointThread {
    store: Store,
    counters: Arc<StoreCounters>,
    shared: Arc<Shared>,
    /// Keeps the lock while a checkpoint may be under way.
    directory: Arc<Directory>,
}

impl CheckpointThread {
    fn run(mut self, work: &mpsc::Receiver<StoreWork>) {
        let mut written = None;
        while let Ok(work) = work.recv() {
            match work {
                StoreWork::Write(checkpoint) => {
                    let begun = Instant::now();
                    let result = self.store.write(&checkpoint, &self.counters.cancel);
                    self.counters.count(&result, begun.elapsed());
                    self.counters.measure(&self.store);
                    // A driver that is gone wants no report.
                    let _ = self.shared.inbox.report(Message::Checkpointed(checkpoint.id, result));
                    written = Some(checkpoint);
                }
                StoreWork::Forget => drop(written.take()),
                StoreWork::Noted(start) => {
                    // What is not written now goes on under the same number: the next start learns of it anew.
                    if let Err(error) = self.directory.mark_noted(start) {
                        tracing::warn!(%error, "the start could not be marked as noted");
                    }
                }
            }
        }
        drop(self.directory);
    }
}

/// What the store's thread did, for the status.
#[derive(Default)]
struct StoreCounters {
    status: Mutex<StoreStatus>,
    /// A checkpoint under way is given up: the node stops.
    cancel: AtomicBool,
}

impl StoreCounters {
    fn count(&self, result: &Result<Arc<View>, CheckpointError>, took: Duration) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(_) => {
                status.checkpoints += 1;
                status.last_checkpoint_took = took;
                status.last_checkpoint_at = Some(crate::clock::Clock::now(&SystemClock).wall);
            }
            Err(CheckpointError::Full(_)) => status.checkpoints_full += 1,
            Err(_) => {}
        }
    }

    fn measure(&self, store: &Store) {
        let (file_bytes, used_bytes, old_views) = (store.file_bytes(), store.used_bytes(), store.old_views());
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.file_bytes = file_bytes;
        status.used_bytes = used_bytes;
        status.old_views = old_views;
    }

    fn show(&self, verify: &VerifyCell) -> StoreStatus {
        let verify = verify.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StoreStatus { verify, ..self.status.lock().unwrap_or_else(PoisonError::into_inner).clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal_files::FileDisk;
    use chronos_engine::proto::command::Op;
    use chronos_engine::proto::id::RelationId;
    use chronos_engine::wal::{Recovered, SegmentId};
    use std::io;

    /// Files, and something that happens before each sync.
    struct Faulty {
        files: FileDisk,
        before_sync: Box<dyn FnMut() -> io::Result<()> + Send>,
    }

    impl Disk for Faulty {
        fn create(&mut self, segment: SegmentId, bytes: u64) -> io::Result<()> {
            self.files.create(segment, bytes)
        }
        fn write(&mut self, segment: SegmentId, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.files.write(segment, offset, bytes)
        }
        fn sync(&mut self, segment: SegmentId) -> io::Result<()> {
            (self.before_sync)()?;
            self.files.sync(segment)
        }
        fn remove(&mut self, segment: SegmentId) -> io::Result<()> {
            self.files.remove(segment)
        }
        fn sync_all(&mut self) -> io::Result<()> {
            self.files.sync_all()
        }
        fn segments(&self) -> u64 {
            self.files.segments()
        }
    }

    fn node(
        dir: &std::path::Path,
        before_sync: impl FnMut() -> io::Result<()> + Send + 'static,
    ) -> NodeHandle {
        let directory = Directory::open(dir, true).unwrap();
        let store = Store::open(&directory.store(), 64 << 20).unwrap();
        let files = FileDisk::open(&directory.wal()).unwrap();
        let mut options = Options::new(dir);
        options.profile.segment_bytes = 1 << 20;
        let parts = Parts {
            options,
            directory,
            recovered: Recovered::default(),
            store,
            disk: Box::new(Faulty { files, before_sync: Box::new(before_sync) }),
            verify: Arc::new(Mutex::new(VerifyState::Verified)),
            doubtful: false,
            notices: Vec::new(),
        };
        start(parts).unwrap()
    }

    fn transaction() -> Transaction {
        // Its effect does not matter: dropping what is not there.
        Transaction { ops: vec![Op::DropRelation(RelationId(99))], ..Transaction::default() }
    }

    #[test]
    fn the_first_failed_sync_is_fatal_and_acknowledges_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let fail = Arc::new(AtomicBool::new(false));
        // The next one would succeed.
        let fails = fail.clone();
        let node = node(dir.path(), move || match fails.swap(false, Ordering::SeqCst) {
            true => Err(io::Error::other("the medium is broken")),
            false => Ok(()),
        });
        node.commit(GroupId(0), transaction()).unwrap();
        fail.store(true, Ordering::SeqCst);
        let outcome = node.commit(GroupId(0), transaction());
        assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
        let Exit::Fatal(why) = node.wait() else { panic!("it went on") };
        assert!(why.contains("the medium is broken") && why.contains("Restart"), "{why}");
        let flight = std::fs::read_to_string(dir.path().join(crate::recorder::FILE)).unwrap();
        let seen: Vec<usize> = ["<- commit", "-> committed", "<- disk failed", "-> fatal"]
            .map(|what| flight.find(what).unwrap())
            .into();
        assert!(seen.is_sorted(), "{flight}");
        let late = node.commit(GroupId(0), transaction());
        assert_eq!(late, Err(CommitError::Refused(Refused::Stopping)));
        assert!(!dir.path().join("clean").exists());
        node.stop();
        assert!(Directory::open(dir.path(), false).is_ok(), "the lock is free");
    }

    #[test]
    fn a_thread_that_panics_ends_the_node_and_leaves_nobody_without_an_answer() {
        let dir = tempfile::tempdir().unwrap();
        let fail = Arc::new(AtomicBool::new(false));
        let fails = fail.clone();
        let node = node(dir.path(), move || {
            assert!(!fails.load(Ordering::SeqCst), "on purpose");
            Ok(())
        });
        fail.store(true, Ordering::SeqCst);
        let outcome = node.commit(GroupId(0), transaction());
        assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
        let Exit::Fatal(why) = node.stop() else { panic!("it went on") };
        assert!(why.contains("chronos-wal") && why.contains("panicked"), "{why}");
        assert!(dir.path().join(crate::recorder::FILE).exists());
        assert!(Directory::open(dir.path(), false).is_ok(), "the lock is free");
    }

    #[test]
    fn a_stop_does_not_wait_for_ever_for_a_disk_that_hangs_and_answers_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let hang = Arc::new(AtomicBool::new(false));
        let (go_on, wait) = mpsc::channel::<()>();
        let hangs = hang.clone();
        let node = node(dir.path(), move || {
            if hangs.load(Ordering::SeqCst) {
                let _ = wait.recv();
            }
            Ok(())
        });
        hang.store(true, Ordering::SeqCst);
        let (send, answered) = mpsc::channel();
        let reply: CommitReply = Box::new(move |outcome| send.send(outcome).unwrap());
        node.commit_with(GroupId(0), transaction(), reply);
        let stopping = node.clone();
        let stopped = thread::spawn(move || stopping.stop());
        let outcome = answered.recv_timeout(STOP_PATIENCE * 10).expect("an answer while the disk hangs");
        assert!(matches!(outcome, Err(CommitError::Unknown(_))), "{outcome:?}");
        assert!(!dir.path().join("clean").exists(), "it has not stopped while a write is under way");
        drop(go_on);
        assert_eq!(stopped.join().unwrap(), Exit::Stopped);
        assert!(dir.path().join("clean").exists());
    }
}
