//! A process on a simulated host: the production driver and links, between a disk and clocks of the simulator's.
//!
//! What outlives the process is a [`Machine`]; what is seen of it goes to the [`World`]'s ledger.

use crate::certs::{self, CLUSTER, Certificates, Elapsed};
use crate::ledger::Ledger;
use crate::marks::Mark;
use crate::socket::{Simulated, Socket, Tally, Weather};
use bytes::Bytes;
use chronos_engine::step::{
    Checkpoint, Delivery, Fatal, Input, Published, Reply, SubscriberId, Token, Trace,
};
use chronos_engine::store::SharedStore;
use chronos_engine::wal::{self, Identity, SegmentId, WalOp};
use chronos_engine::{Config, node::GroupStatus};
use chronos_node::clock::Clock as _;
use chronos_node::driver::{Driver, Feed, Outlet, StoreView};
use chronos_node::link::{
    Admission, Lane, LinkConfig, LinkEvents, LinkState, LinkStatus, Links, PeerAddress, PeerHello, Receipt,
};
use chronos_node::tls::{Credentials, TlsError};
use chronos_proto::codec;
use chronos_proto::id::{Incarnation, NodeId};
use chronos_proto::membership::Member;
use chronos_proto::peer::{KIND_MESSAGE, PeerMessage};
use chronos_proto::time::{Now, Timestamp};
use chronos_sim::clock::Clock;
use chronos_sim::disk::{Disk, Survival};
use chronos_sim::rng::Rng;
use chronos_sim::store::SimStore;
use chronos_sim::violation::Violation;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// The UDP port of every node.
pub const PORT: u16 = 7_400;
/// How long a process waits at most before it looks at its clock again.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Turns at one moment that are taken for a driver that spins.
const SPIN_MAX: u32 = 20_000;

/// Locks what no panic leaves broken: a run ends with its first one.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all hosts of a run share.
pub struct World {
    /// Time.
    pub elapsed: Elapsed,
    /// The cluster, as each node is told of it at its start.
    pub members: Vec<Member>,
    /// Whether leaders answer reads by lease.
    pub leases: bool,
    /// Bytes of WAL after which a checkpoint is begun.
    pub checkpoint_wal_bytes: u64,
    /// What becomes of datagrams.
    pub weather: Arc<Mutex<Weather>>,
    /// What became of them.
    pub tally: Arc<Mutex<Tally>>,
    /// The authority.
    pub certificates: Mutex<Certificates>,
    /// Checks and trace.
    pub ledger: Mutex<Ledger>,
    /// One a node.
    pub machines: Vec<Mutex<Machine>>,
}

/// A computer: what stays when its process ends.
pub struct Machine {
    /// Its clocks.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    store: SimStore,
    /// Counts the starts of its process.
    pub starts: u64,
    rng: Rng,
    /// What a sync takes, in milliseconds, on average.
    sync_ms: u64,
    /// The process that runs on it.
    pub up: Option<Up>,
}

/// A running process, as the world around it sees it.
pub struct Up {
    inbox: Arc<Inbox>,
    links: Weak<Links>,
    credentials: Arc<Credentials>,
    /// It was asked to stop.
    pub stopping: bool,
    /// What it published last.
    pub published: Option<Published>,
    /// Of group 0, after the last turn.
    pub status: GroupStatus,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(clock: Clock, sync_ms: u64, rng: Rng) -> Machine {
        let (disk, store) = (Disk::default(), SimStore::default());
        Machine { clock, disk, store, starts: 0, rng, sync_ms, up: None }
    }

    /// The process is gone; with the power, so is what was not synced.
    fn ended(&mut self, at: u64, power: bool) {
        self.up = None;
        if power {
            let survival = Survival::draw(&mut self.rng);
            self.disk.power_cut(survival, &mut self.rng);
            self.clock.reboot(at);
        }
    }

    /// An input for the process, if one runs.
    pub fn give(&self, input: Input) {
        if let Some(up) = &self.up {
            up.inbox.push(Feed::Input(input));
        }
    }

    /// The links of the process, if one runs.
    pub fn links(&self) -> Vec<LinkStatus> {
        let links = self.up.as_ref().and_then(|up| up.links.upgrade());
        links.map(|links| links.status()).unwrap_or_default()
    }

    /// Has the process look at its certificate files.
    pub fn reload(&self) -> Result<Option<Timestamp>, TlsError> {
        match &self.up {
            Some(up) => certs::reload(&up.credentials),
            None => Ok(None),
        }
    }

    /// Asks the process to stop.
    pub fn stop(&mut self) {
        if let Some(up) = &mut self.up {
            up.stopping = true;
            up.inbox.push(Feed::Input(Input::Stop));
        }
    }
}

/// The queue into a driver.
#[derive(Default)]
struct Inbox {
    feeds: Mutex<VecDeque<Feed>>,
    arrived: Notify,
}

impl Inbox {
    fn push(&self, feed: Feed) {
        lock(&self.feeds).push_back(feed);
        self.arrived.notify_one();
    }

    fn take(&self) -> VecDeque<Feed> {
        std::mem::take(&mut lock(&self.feeds))
    }
}

impl World {
    /// A node's name.
    pub fn name(&self, at: usize) -> &str {
        &self.members[at].name
    }

    /// The place of a node.
    pub fn place(&self, node: NodeId) -> Option<usize> {
        self.members.iter().position(|member| member.node == node)
    }

    /// Simulated microseconds, to the millisecond within a host and to the tick outside.
    pub fn now(&self) -> u64 {
        let within = turmoil::sim_elapsed().and_then(|elapsed| u64::try_from(elapsed.as_micros()).ok());
        within.unwrap_or_else(|| self.elapsed.micros())
    }

    /// A line of the trace.
    pub fn say(&self, who: &str, what: std::fmt::Arguments<'_>) {
        lock(&self.ledger).trace.line(self.now(), who, what);
    }

    /// A process is gone, and with it the answers that it owed.
    pub fn ended(&self, at: usize, power: bool) {
        lock(&self.machines[at]).ended(self.now(), power);
        lock(&self.ledger).lost(at);
    }

    /// Something does not hold. The first one counts.
    pub fn broken(&self, violation: Violation) {
        lock(&self.ledger).broken(violation);
    }
}

/// A host's clock: the machine's, at simulated time.
#[derive(Clone)]
struct HostClock {
    world: Arc<World>,
    at: usize,
}

impl chronos_node::clock::Clock for HostClock {
    fn now(&self) -> Now {
        let now = self.world.now();
        lock(&self.world.machines[self.at]).clock.now(now)
    }
}

/// Runs the node of a machine until it stops, or is ended from outside.
pub async fn run(world: Arc<World>, at: usize) -> turmoil::Result {
    match Process::start(&world, at).await {
        Ok(Some(process)) => match process.serve().await {
            Ok(()) => world.ended(at, false),
            Err(violation) => world.broken(violation),
        },
        Ok(None) => {}
        Err(violation) => world.broken(violation),
    }
    Ok(())
}

struct Process {
    world: Arc<World>,
    at: usize,
    driver: Driver<HostClock>,
    clock: HostClock,
    outlet: Performer,
    inbox: Arc<Inbox>,
    links: Arc<Links>,
}

impl Process {
    /// None if it refuses to start, as it should.
    async fn start(world: &Arc<World>, at: usize) -> Result<Option<Process>, Violation> {
        let name = world.name(at).to_owned();
        let unable = |what: &str, why: String| Violation::safety("start", format!("{name}: {what}: {why}"));
        let loaded = lock(&world.certificates).load(&name);
        let credentials = match loaded {
            Ok(credentials) => Arc::new(credentials),
            Err(TlsError::Expired { at, .. }) => {
                world.say(&name, format_args!("does not start: its certificate expired at {at}"));
                lock(&world.ledger).marks.hit(Mark::ExpiredNotStarted);
                return Ok(None);
            }
            Err(error) => return Err(unable("certificates", error.to_string())),
        };
        lock(&world.ledger).started(&name, credentials.current().certificate.not_after);
        let clock = HostClock { world: world.clone(), at };
        let identity =
            Identity { cluster: CLUSTER, node: world.members[at].node, incarnation: Incarnation(1) };
        let (images, store, starts, boot, mut rng) = {
            let mut machine = lock(&world.machines[at]);
            machine.starts += 1;
            let images: BTreeMap<SegmentId, Vec<u8>> = machine.disk.images().collect();
            let rng = Rng::new(machine.rng.bits(), "process");
            (images, machine.store.clone(), machine.starts, machine.clock.boot, rng)
        };
        let recovered =
            wal::recover(identity, &images).map_err(|damage| unable("recovery", damage.to_string()))?;
        drop(images);
        world.say(&name, format_args!("start {starts} of boot {boot}, cut {:?}", recovered.cut));

        let inbox = Arc::new(Inbox::default());
        let events = Arc::new(Events { world: world.clone(), at, inbox: inbox.clone() });
        let mut config = LinkConfig::new(CLUSTER, &name, identity.incarnation, starts, credentials.clone());
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|byte| *byte = rng.bits() as u8);
        config.rng_seed = Some(seed);
        let datagrams = Rng::new(rng.bits(), "datagrams");
        let socket = Socket::bind(PORT, world.weather.clone(), world.tally.clone(), datagrams).await;
        let socket = socket.map_err(|error| unable("socket", error.to_string()))?;
        let links = Links::start(config, socket, Arc::new(Simulated), events);
        let links = Arc::new(links.map_err(|error| unable("links", error.to_string()))?);
        lock(&world.machines[at]).up = Some(Up {
            inbox: inbox.clone(),
            links: Arc::downgrade(&links),
            credentials,
            stopping: false,
            published: None,
            status: GroupStatus::default(),
        });

        let disk = Rng::new(rng.bits(), "disk");
        let mut outlet = Performer::new(world.clone(), at, inbox.clone(), links.clone(), disk);
        let mut settings = Config::new(CLUSTER, identity.node, identity.incarnation, boot, rng.bits());
        settings.boots = starts;
        settings.members.clone_from(&world.members);
        settings.raft.leases = world.leases;
        settings.segment_bytes = 1 << 18;
        settings.checkpoint_wal_bytes = world.checkpoint_wal_bytes;
        let store: SharedStore = Arc::new(store);
        let driver = Driver::new(settings, clock.clone(), recovered, store, None, &mut outlet)
            .map_err(|fatal| unable("the node", fatal.to_string()))?;
        inbox.push(Feed::Input(Input::ClockSynchronised(true)));
        Ok(Some(Process { world: world.clone(), at, driver, clock, outlet, inbox, links }))
    }

    async fn serve(mut self) -> Result<(), Violation> {
        let mut spins = (0, 0);
        let mut stopping = false;
        loop {
            let now = self.clock.now().mono;
            spins = if spins.0 == now.0 { (now.0, spins.1 + 1) } else { (now.0, 0) };
            if spins.1 > SPIN_MAX {
                let why = format!("{}: {:?}", self.world.name(self.at), self.driver.next_deadline());
                return Err(Violation::liveness("no-spinning", why));
            }
            let due = self.driver.next_deadline().map_or(u64::MAX, |(at, _)| at.micros_since(now));
            let wait = WAIT_MAX.min(Duration::from_micros(due));
            tokio::select! {
                biased;
                () = self.inbox.arrived.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            let feeds = self.inbox.take();
            stopping |= feeds.iter().any(|feed| matches!(feed, Feed::Input(Input::Stop)));
            self.driver.turn(feeds, &mut self.outlet);
            if let Some(fatal) = self.outlet.fatal.take() {
                let what = format!("{} stops: {fatal}", self.world.name(self.at));
                return Err(Violation::safety("no-false-alarm", what));
            }
            let status = self.driver.node().status();
            let quiet = status.inflight == 0 && status.handing_over == 0 && self.driver.held() == 0;
            if let Some(group) = status.groups.into_iter().next() {
                lock(&self.world.ledger).stepped(self.world.name(self.at), &group);
                if let Some(up) = &mut lock(&self.world.machines[self.at]).up {
                    up.status = group;
                }
            }
            if stopping && quiet {
                break;
            }
        }
        self.links.close();
        self.links.closed().await;
        self.world.say(self.world.name(self.at), format_args!("has stopped"));
        Ok(())
    }
}

/// What links tell: the production bridge, with a note in the trace.
struct Events {
    world: Arc<World>,
    at: usize,
    inbox: Arc<Inbox>,
}

impl LinkEvents for Events {
    fn admit(&self, _: PeerHello, _: String, answer: Admission) {
        // The node decides when it hears of the link, and has it closed.
        let _gone = answer.send(Ok(()));
    }

    fn up(&self, hello: PeerHello) {
        let here = self.world.name(self.at);
        let Some(place) = self.world.place(hello.node) else {
            return self.world.broken(Violation::safety("links", format!("{here} links with {hello:?}")));
        };
        let there = self.world.name(place);
        self.world.say(here, format_args!("link to {there} up, its start {}", hello.boot));
        lock(&self.world.ledger).link_up(here, there, self.world.elapsed.wall());
        self.inbox.push(Feed::Input(Input::PeerUp(hello)));
    }

    fn down(&self, peer: NodeId, why: &str) {
        let there = self.world.place(peer).map_or("nobody", |place| self.world.name(place));
        self.world.say(self.world.name(self.at), format_args!("link to {there} down: {why}"));
        self.inbox.push(Feed::Input(Input::PeerDown(peer)));
    }

    fn received(&self, from: NodeId, lane: Lane, kind: u8, body: Bytes) -> Receipt {
        let here = self.world.name(self.at);
        if kind != KIND_MESSAGE {
            return Receipt::Refused(format!("a frame of kind {kind}"));
        }
        let there = self.world.place(from).map_or("nobody", |place| self.world.name(place));
        let digest = codec::digest(b"frame", &body);
        self.world.say(here, format_args!("<- {there} {lane:?} {} bytes {digest:016x}", body.len()));
        match codec::decode::<PeerMessage>("a peer's message", &body) {
            Ok(message) => {
                lock(&self.world.ledger).received(lane);
                self.inbox.push(Feed::Input(Input::Peer { from, message }));
                Receipt::Taken
            }
            Err(error) => {
                let what = format!("{here} cannot read what {there} sent: {error}");
                self.world.broken(Violation::safety("wire", what));
                Receipt::Refused(error.to_string())
            }
        }
    }

    fn refused(&self, _: SocketAddr, why: &str) {
        self.world.say(self.world.name(self.at), format_args!("refuses a link: {why}"));
        lock(&self.world.ledger).refused(why);
    }
}

/// Performs what the node asks for.
struct Performer {
    world: Arc<World>,
    at: usize,
    links: Arc<Links>,
    wal: mpsc::UnboundedSender<WalOp>,
    checkpoints: mpsc::UnboundedSender<Checkpoint>,
    fatal: Option<Fatal>,
}

impl Performer {
    fn new(world: Arc<World>, at: usize, inbox: Arc<Inbox>, links: Arc<Links>, rng: Rng) -> Performer {
        let (wal, ops) = mpsc::unbounded_channel();
        let (checkpoints, work) = mpsc::unbounded_channel();
        tokio::spawn(write(world.clone(), at, inbox.clone(), ops, rng.clone()));
        tokio::spawn(checkpoint(world.clone(), at, inbox, work, rng));
        Performer { world, at, links, wal, checkpoints, fatal: None }
    }
}

impl Outlet for Performer {
    fn wal(&mut self, op: WalOp) {
        let _gone = self.wal.send(op);
    }

    fn checkpoint(&mut self, checkpoint: Checkpoint) {
        let _gone = self.checkpoints.send(checkpoint);
    }

    fn publish(&mut self, published: Published) {
        if let Some(up) = &mut lock(&self.world.machines[self.at]).up {
            up.published = Some(published);
        }
    }

    fn reply(&mut self, token: Token, reply: Reply) {
        let published = lock(&self.world.machines[self.at]).up.as_ref().and_then(|up| up.published.clone());
        let now = self.world.now();
        lock(&self.world.ledger).answered(now, self.world.name(self.at), token, &reply, published.as_ref());
    }

    fn deliver(&mut self, _: Delivery) {}

    fn close_subscriber(&mut self, _: SubscriberId, _: String) {}

    fn send(&mut self, to: NodeId, message: PeerMessage) {
        let (lane, body) = (message.lane(), Bytes::from(codec::encode(&message)));
        let _lost = self.links.send(to, lane, KIND_MESSAGE, body);
    }

    fn refuse(&mut self, peer: NodeId, why: String) {
        self.world.say(self.world.name(self.at), format_args!("refuses {peer}: {why}"));
        self.links.refuse(peer, &why);
    }

    fn members(&mut self, members: Vec<Member>) {
        let address = |member: Member| {
            (member.node, PeerAddress { name: member.name.clone(), address: member.address.clone() })
        };
        self.links.set_peers(members.into_iter().map(address).collect());
    }

    fn trace(&mut self, trace: Trace) {
        let name = self.world.name(self.at);
        if !matches!(trace, Trace::Applied { .. }) {
            self.world.say(name, format_args!("{trace:?}"));
        }
        lock(&self.world.ledger).traced(name, &trace);
    }

    fn fatal(&mut self, fatal: Fatal) {
        self.fatal.get_or_insert(fatal);
    }
}

/// The WAL's disk: one operation after the other, each of which takes its time.
async fn write(
    world: Arc<World>,
    at: usize,
    inbox: Arc<Inbox>,
    mut ops: mpsc::UnboundedReceiver<WalOp>,
    mut rng: Rng,
) {
    while let Some(op) = ops.recv().await {
        if matches!(op, WalOp::Sync { .. } | WalOp::Create { .. }) {
            let mean = lock(&world.machines[at]).sync_ms;
            tokio::time::sleep(Duration::from_millis(rng.latency(mean))).await;
        }
        let mut machine = lock(&world.machines[at]);
        let done = match &op {
            WalOp::Create { segment, bytes } => {
                machine.disk.create(*segment, *bytes as usize);
                true
            }
            WalOp::Write { segment, offset, bytes, .. } => {
                machine.disk.write(*segment, *offset, bytes.clone())
            }
            WalOp::Sync { segment, .. } => machine.disk.sync(*segment),
            WalOp::Done { .. } => true,
            WalOp::Remove { segment } => {
                machine.disk.remove(*segment);
                true
            }
        };
        drop(machine);
        if !done {
            world.broken(Violation::safety("log", format!("{op:?} is outside any file")));
        }
        if let WalOp::Sync { write, .. } | WalOp::Done { write } = op {
            inbox.push(Feed::Input(Input::WriteDurable(write)));
        }
    }
}

/// The store: each checkpoint takes its place at once, after a while.
async fn checkpoint(
    world: Arc<World>,
    at: usize,
    inbox: Arc<Inbox>,
    mut work: mpsc::UnboundedReceiver<Checkpoint>,
    mut rng: Rng,
) {
    while let Some(checkpoint) = work.recv().await {
        tokio::time::sleep(Duration::from_millis(rng.range(1, 50))).await;
        let mut machine = lock(&world.machines[at]);
        machine.store = machine.store.with(&checkpoint);
        let view: SharedStore = Arc::new(machine.store.clone());
        drop(machine);
        inbox.push(Feed::WithStore(Input::CheckpointDurable(checkpoint.id), StoreView(view)));
    }
}

/// Whether a status says that a link is up, in both directions.
pub fn is_up(status: &LinkStatus) -> bool {
    status.state == LinkState::Connected && status.heard
}
