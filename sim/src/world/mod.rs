//! One run: a node or a cluster of them, their disks and clocks and the network between them, clients and
//! subscribers, what goes wrong, and who watches.
//!
//! A discrete-event loop. Everything that takes time is an event in a queue, ordered by (time, number); nothing else
//! moves the simulated time. All choices come from streams that are seeded by the run's seed, so a run is a function
//! of its knobs and its plan.
//!
//! ```text
//! machine            a computer: disk, clock, store, the process on it, what is wrong with it
//! shell              the driver around the node: steps, effects, disk operations
//! links              messages between nodes, and the links that carry them
//! clients, jobs      who asks, and what for; lists: what is asked of lists, and how that is judged
//! sql                clients that speak SQL
//! readers            subscribers, and clients that look around
//! faults             what goes wrong with one machine
//! members            what operators do: members come and go, leaders hand over
//! audit, settle      who watches, and what must be true in the end
//! ```

mod audit;
mod clients;
mod faults;
mod jobs;
mod links;
mod lists;
mod machine;
mod members;
mod readers;
mod schedules;
mod settle;
mod shell;
mod sql;

use crate::checker::clock::Truth;
use crate::checker::dedup::Dedup;
use crate::checker::delivery::Delivery;
use crate::checker::log::Log;
use crate::checker::raft::Group;
use crate::checker::requests::Requests;
use crate::checker::schedules::Schedules;
use crate::checker::serial::Saw;
use crate::checker::timers::Timers;
use crate::chronicle::{Happening, What};
use crate::knobs::Knobs;
use crate::marks::Marks;
use crate::model::Model;
use crate::network::Network;
use crate::plan::Planned;
use crate::replay;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::violation::{Class, Held, Violation};
use chronos_engine::step::{CheckpointId, Reply, SubscriberId, Token};
use chronos_proto::id::SessionId;
use chronos_proto::peer::PeerMessage;
use machine::Machine;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};

/// How long the world may take to settle once faults have stopped, in microseconds.
pub const SETTLE: u64 = 60_000_000;

/// Something that will happen. What belongs to a process names its machine and its run.
#[derive(Clone, Debug)]
enum Event {
    /// The plan's act of this place.
    Planned(usize),
    /// The driver takes what has gathered.
    Drive(usize, u64),
    /// The deadline that the node asked for, unless it has asked for another since.
    Deadline(usize, u64, u64),
    /// The disk operation in progress is done.
    DiskDone(usize, u64),
    /// The checkpoint in progress is done.
    CheckpointDone(usize, u64, CheckpointId),
    /// A message reaches the process that it was sent to.
    Deliver { from: usize, to: usize, run: u64, link: u64, message: Box<PeerMessage> },
    /// Two machines look whether they can reach each other.
    Dial(usize, usize),
    /// One end of a link learns that it stands (the other's run), or that it does not.
    Linked(usize, usize, Option<u64>),
    /// Somebody reads at a machine that the network cuts off, and somebody writes elsewhere.
    Probe(usize, u64),
    /// A partition begins.
    Cut(u64),
    /// It ends.
    Heal(u64),
    /// A request reaches a machine.
    Arrive(Token),
    /// An answer reaches a client.
    Answer(Token, Box<Reply>),
    /// A client has waited long enough for the answer to this attempt.
    Timeout(Token),
    /// A subscriber is done with an offset, or not.
    Return { id: SubscriberId, partition: u32, offset: u64, done: bool },
    /// A subscriber comes.
    Open(u64),
    /// A client says in SQL again what conflicted.
    Again(Box<sql::Again>),
    /// The armed crash happens now at the latest.
    CrashNow(usize, u64),
    /// The process starts.
    Start(usize),
    /// There is space again.
    SpaceReturns(usize),
    /// The disk is fast again.
    DiskRecovers(usize),
    /// The wall clock goes on.
    Thaw(usize),
    /// The watch looks around.
    Watch,
    /// Clients and faults stop.
    Settle,
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The first is the greatest, as the heap wants it.
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// Of the whole trace.
    pub hash: u64,
    /// Events.
    pub steps: u64,
    /// Simulated microseconds.
    pub simulated: u64,
    /// Situations reached.
    pub marks: Marks,
    /// The trace's lines, if they were wanted.
    pub lines: Vec<String>,
    /// What happened as values, if the lines were wanted.
    pub chronicle: Vec<Happening>,
    /// Acts of the plan that were performed.
    pub performed: u32,
}

/// A run in progress.
pub struct World {
    knobs: Knobs,
    plan: Vec<Planned>,
    trace: Trace,
    marks: Marks,
    now: u64,
    queue: BinaryHeap<Scheduled>,
    scheduled: u64,
    settling: Option<u64>,
    performed: u32,
    /// Whether the log is asked what clients should have seen, or histories are judged alone.
    witness: bool,

    machines: Vec<Machine>,
    network: Network,
    links: links::Links,
    /// The machines that must come to terms in the end.
    core: Vec<usize>,

    clients: Vec<clients::Client>,
    tokens: BTreeMap<Token, clients::Attempt>,
    looks: BTreeMap<Token, readers::Look>,
    lists: lists::Lists,
    saw: BTreeMap<(SessionId, u64), Vec<Saw>>,
    sql: sql::Talks,
    readers: Vec<readers::Reader>,
    last_token: u64,
    last_subscriber: u64,
    last_number: u64,

    model: Model,
    /// The log of a node that is alone; [`World::group`] is that of a cluster.
    log: Log,
    group: Group,
    requests: Requests,
    timers: Timers,
    schedules: Schedules,
    dedup: Dedup,
    delivery: Delivery,
    truth: Truth,
    watch: audit::Watch,

    disk_rng: Rng,
    net_rng: Rng,
    driver_rng: Rng,

    record: bool,
    /// A recording that was not replayed as it was made.
    unlike: Option<Violation>,
}

impl World {
    /// A world that is about to begin. `plan` may be a part of what the seed draws.
    pub fn new(knobs: Knobs, plan: Vec<Planned>, keep_trace: bool) -> World {
        let seed = knobs.seed;
        let count = knobs.machines();
        let rng = &mut Rng::new(seed, "machines");
        let machines: Vec<Machine> = (0..count).map(|m| Machine::new(m, &knobs, rng)).collect();
        let home = |client: u64| client as usize % knobs.nodes;
        World {
            network: Network::new(count, &knobs.network, seed),
            links: links::Links::new(count),
            core: (0..count).collect(),
            group: Group::new(machines.iter().map(|machine| machine.id())),
            machines,
            clients: (0..knobs.clients).map(|client| clients::Client::at(home(client))).collect(),
            tokens: BTreeMap::new(),
            looks: BTreeMap::new(),
            lists: lists::Lists::default(),
            saw: BTreeMap::new(),
            sql: sql::Talks::default(),
            readers: (0..knobs.subscribers).map(|_| readers::Reader::default()).collect(),
            last_token: 0,
            last_subscriber: 0,
            last_number: 0,
            model: Model::default(),
            log: Log::default(),
            requests: Requests::default(),
            timers: Timers::default(),
            schedules: Schedules::default(),
            dedup: Dedup::default(),
            delivery: Delivery::default(),
            truth: Truth::default(),
            watch: audit::Watch::default(),
            trace: Trace::new(keep_trace),
            marks: Marks::default(),
            now: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            settling: None,
            performed: 0,
            witness: true,
            disk_rng: Rng::new(seed, "disk"),
            net_rng: Rng::new(seed, "network"),
            driver_rng: Rng::new(seed, "driver"),
            record: false,
            unlike: None,
            knobs,
            plan,
        }
    }

    /// The same, with every process recorded and the recordings replayed, or not.
    pub fn recorded(self, record: bool) -> World {
        World { record, ..self }
    }

    /// The same, with the log as a witness of what clients should have seen, or judged by their history alone.
    pub fn witnessed_by_log(self, witness: bool) -> World {
        World { witness, ..self }
    }

    /// What the log as the witness says, if it is asked.
    fn witnessed(&self, held: Held) -> Held {
        held.or_else(|violation| if self.witness { Err(violation) } else { Ok(()) })
    }

    /// Runs to the end, to the first violation, or for so many steps.
    pub fn run(mut self, steps_max: u64) -> Outcome {
        for m in 0..self.knobs.nodes {
            self.after(0, Event::Start(m));
        }
        for m in self.knobs.nodes..self.machines.len() {
            self.after(0, Event::Start(m));
        }
        for a in 0..self.machines.len() {
            for b in a + 1..self.machines.len() {
                self.after(1_000, Event::Dial(a, b));
            }
        }
        self.after(1_000_000, Event::Watch);
        self.at(self.knobs.duration, Event::Settle);
        for place in 0..self.plan.len() {
            self.at(self.plan[place].at, Event::Planned(place));
        }
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.go(steps_max)))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        if let Err(violation) = &held {
            self.trace.line(self.now, "check", format_args!("FAILED {violation}"));
            self.trace.note(self.now, || What::Failed(violation.clone()));
        }
        let (hash, steps) = (self.trace.hash(), self.trace.step);
        let (lines, chronicle) = self.trace.into_parts();
        Outcome {
            violation: held.err(),
            hash,
            steps,
            simulated: self.now,
            marks: self.marks,
            performed: self.performed,
            lines,
            chronicle,
        }
    }

    fn go(&mut self, steps_max: u64) -> Held {
        while let Some(Scheduled { at, event, .. }) = self.queue.pop() {
            if self.trace.step >= steps_max {
                break;
            }
            self.trace.step += 1;
            self.now = at;
            let over = self.happens(event)?;
            if let Some(unlike) = self.unlike.take() {
                return Err(unlike);
            }
            if over {
                break;
            }
        }
        for m in 0..self.machines.len() {
            self.replay(m);
        }
        self.unlike.take().map_or(Ok(()), Err)
    }

    /// Steps a process' node again through what it was given so far.
    fn replay(&mut self, m: usize) {
        let recorder = self.machines[m].up.as_mut().and_then(|up| up.recorder.take());
        let Some(mut recorder) = recorder else { return };
        let violation = match replay::replay(&recorder.take(), false) {
            Ok(replay) => replay.violation,
            Err(error) => Some(Violation::safety("replay", error.to_string())),
        };
        self.unlike = self.unlike.take().or(violation);
    }

    /// True if the run is over.
    fn happens(&mut self, event: Event) -> Result<bool, Violation> {
        if let Event::Drive(m, run)
        | Event::Deadline(m, run, _)
        | Event::DiskDone(m, run)
        | Event::CheckpointDone(m, run, _)
        | Event::CrashNow(m, run) = event
        {
            let machine = &self.machines[m];
            if machine.run != run {
                return Ok(false);
            }
            // A process that is stopped by a signal does nothing until it goes on; a power cut does not wait.
            if machine.paused_until > self.now && !matches!(event, Event::CrashNow(..)) {
                self.at(machine.paused_until, event);
                return Ok(false);
            }
        }
        match event {
            Event::Planned(place) => self.perform(place)?,
            Event::Drive(m, _) => self.drive(m)?,
            Event::Deadline(m, _, number) => self.deadline(m, number)?,
            Event::DiskDone(m, _) => self.disk_done(m)?,
            Event::CheckpointDone(m, _, id) => self.checkpoint_done(m, id)?,
            Event::Deliver { from, to, run, link, message } => self.arrives(from, to, run, link, *message),
            Event::Dial(a, b) => self.dial(a, b)?,
            Event::Linked(m, peer, run) => self.linked(m, peer, run),
            Event::Probe(m, salt) => self.probe(m, salt)?,
            Event::Cut(number) => self.cut_network(number),
            Event::Heal(number) => self.heal_network(number),
            Event::Arrive(token) => self.arrive(token),
            Event::Answer(token, reply) => self.answered(token, *reply)?,
            Event::Timeout(token) => self.timed_out(token),
            Event::Return { id, partition, offset, done } => self.give_back(id, partition, offset, done),
            Event::Again(again) => self.speak_again(*again)?,
            Event::Open(reader) => self.open_reader(reader),
            Event::CrashNow(m, _) => self.crash_armed(m)?,
            Event::Start(m) => self.start(m)?,
            Event::SpaceReturns(m) => self.space_returns(m),
            Event::DiskRecovers(m) => self.disk_recovers(m),
            Event::Thaw(m) => self.thaw(m),
            Event::Watch => return self.look_around(),
            Event::Settle => self.settle()?,
        }
        Ok(false)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Scheduled { at: at.max(self.now), number: self.scheduled, event });
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    fn say(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, who, what);
    }

    fn note(&mut self, what: impl FnOnce() -> What) {
        self.trace.note(self.now, what);
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Whether there is one node, which decides alone.
    fn solo(&self) -> bool {
        self.knobs.solo()
    }

    /// Somebody is told of an entry.
    fn promise(&mut self, who: &str, index: u64) -> Held {
        match self.solo() {
            true => self.log.promise(who, index),
            false => self.group.promise(who, index),
        }
    }

    /// The machine whose node leads in the greatest term, as far as processes that run say.
    fn leader(&self) -> Option<usize> {
        let leads = |m: &usize| {
            let raft = self.machines[*m].up.as_ref()?.node.raft(shell::GROUP)?;
            (raft.role() == chronos_engine::raft::Role::Leader).then(|| raft.term())
        };
        let all = (0..self.machines.len()).filter_map(|m| Some((leads(&m)?, m)));
        all.max().map(|(_, m)| m)
    }
}

/// A panic as a verdict.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Violation {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("a panic without words").to_owned();
    Violation { class: Class::Crash, checker: "no-panic", what }
}
