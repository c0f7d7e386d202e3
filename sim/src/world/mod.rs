//! One run: a node, its disk and clocks, its clients and subscribers, what goes wrong, and who watches.
//!
//! A discrete-event loop. Everything that takes time is an event in a queue, ordered by (time, number); nothing else
//! moves the simulated time. All choices come from streams that are seeded by the run's seed, so a run is a function
//! of its knobs and its plan.

mod audit;
mod clients;
mod faults;
mod jobs;
mod readers;
mod shell;

use crate::checker::clock::ClusterTime;
use crate::checker::dedup::Dedup;
use crate::checker::delivery::Delivery;
use crate::checker::log::Log;
use crate::checker::requests::Requests;
use crate::checker::serial::Saw;
use crate::checker::timers::Timers;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::knobs::Knobs;
use crate::marks::Marks;
use crate::model::Model;
use crate::plan::Planned;
use crate::rng::Rng;
use crate::store::SimStore;
use crate::trace::Trace;
use crate::violation::{Class, Held, Violation};
use chronos_engine::step::{CheckpointId, SubscriberId, Token};
use chronos_engine::store::SharedStore;
use chronos_engine::txn::{Committed, Refused};
use chronos_proto::id::SessionId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// How long the world may take to settle once faults have stopped, in microseconds.
pub const SETTLE: u64 = 60_000_000;

/// Something that will happen.
#[derive(Clone, Debug)]
enum Event {
    /// The plan's act of this place.
    Planned(usize),
    /// The driver takes what has gathered. Events of the node carry the run of the process they belong to.
    Drive(u64),
    /// The deadline that the node asked for, unless it has asked for another since.
    Deadline(u64, u64),
    /// The disk operation in progress is done.
    DiskDone(u64),
    /// The checkpoint in progress is done.
    CheckpointDone(u64, CheckpointId),
    /// A request reaches the node's machine.
    Arrive(Token),
    /// An answer reaches a client.
    Answer(Token, Box<Result<Committed, Refused>>),
    /// A client has waited long enough for the answer to this attempt.
    Timeout(Token),
    /// A subscriber is done with an offset, or not.
    Return { id: SubscriberId, partition: u32, offset: u64, done: bool },
    /// A subscriber comes.
    Open(u64),
    /// The armed crash happens now at the latest.
    CrashNow(u64),
    /// The process starts.
    Start,
    /// There is space again.
    SpaceReturns,
    /// The disk is fast again.
    DiskRecovers,
    /// The wall clock goes on.
    Thaw,
    /// The watch looks around.
    Watch,
    /// Clients and faults stop.
    Settle,
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
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    scheduled: u64,
    settling: Option<u64>,
    performed: u32,

    clock: Clock,
    disk: Disk,
    store: SimStore,
    shared: SharedStore,
    up: Option<shell::Up>,
    run: u64,
    ills: faults::Ills,

    clients: Vec<clients::Client>,
    tokens: BTreeMap<Token, clients::Attempt>,
    saw: BTreeMap<(SessionId, u64), Vec<Saw>>,
    readers: Vec<readers::Reader>,
    last_token: u64,
    last_subscriber: u64,
    last_number: u64,

    model: Model,
    log: Log,
    requests: Requests,
    timers: Timers,
    dedup: Dedup,
    delivery: Delivery,
    cluster_time: ClusterTime,
    watch: audit::Watch,

    disk_rng: Rng,
    net_rng: Rng,
    driver_rng: Rng,
}

impl World {
    /// A world that is about to begin. `plan` may be a part of what the seed draws.
    pub fn new(knobs: Knobs, plan: Vec<Planned>, keep_trace: bool) -> World {
        let seed = knobs.seed;
        let store = SimStore::default();
        World {
            clock: Clock::new(knobs.drift_ppm, knobs.wall_offset, knobs.synchronised),
            disk: Disk::default(),
            shared: Arc::new(store.clone()),
            store,
            up: None,
            run: 0,
            ills: faults::Ills::default(),
            clients: (0..knobs.clients).map(|_| clients::Client::default()).collect(),
            tokens: BTreeMap::new(),
            saw: BTreeMap::new(),
            readers: (0..knobs.subscribers).map(|_| readers::Reader::default()).collect(),
            last_token: 0,
            last_subscriber: 0,
            last_number: 0,
            model: Model::default(),
            log: Log::default(),
            requests: Requests::default(),
            timers: Timers::default(),
            dedup: Dedup::default(),
            delivery: Delivery::default(),
            cluster_time: ClusterTime::default(),
            watch: audit::Watch::default(),
            trace: Trace::new(keep_trace),
            marks: Marks::default(),
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            settling: None,
            performed: 0,
            disk_rng: Rng::new(seed, "disk"),
            net_rng: Rng::new(seed, "network"),
            driver_rng: Rng::new(seed, "driver"),
            knobs,
            plan,
        }
    }

    /// Runs to the end, to the first violation, or for so many steps.
    pub fn run(mut self, steps_max: u64) -> Outcome {
        self.after(0, Event::Start);
        self.after(1_000_000, Event::Watch);
        self.at(self.knobs.duration, Event::Settle);
        for place in 0..self.plan.len() {
            self.at(self.plan[place].at, Event::Planned(place));
        }
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.go(steps_max)))
            .unwrap_or_else(|panic| Err(panicked(&*panic)));
        if let Err(violation) = &held {
            self.trace.line(self.now, "check", format_args!("FAILED {violation}"));
        }
        Outcome {
            violation: held.err(),
            hash: self.trace.hash(),
            steps: self.trace.step,
            simulated: self.now,
            marks: self.marks,
            performed: self.performed,
            lines: self.trace.into_lines(),
        }
    }

    fn go(&mut self, steps_max: u64) -> Held {
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else { continue };
            if self.trace.step >= steps_max {
                return Ok(());
            }
            self.trace.step += 1;
            self.now = at;
            if self.happens(event)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// True if the run is over.
    fn happens(&mut self, event: Event) -> Result<bool, Violation> {
        match event {
            Event::Planned(place) => self.perform(place)?,
            Event::Drive(run) if run == self.run => self.drive()?,
            Event::Deadline(run, number) if run == self.run => self.deadline(number)?,
            Event::DiskDone(run) if run == self.run => self.disk_done()?,
            Event::CheckpointDone(run, id) if run == self.run => self.checkpoint_done(id)?,
            Event::Arrive(token) => self.arrive(token),
            Event::Answer(token, reply) => self.answered(token, *reply)?,
            Event::Timeout(token) => self.timed_out(token),
            Event::Return { id, partition, offset, done } => self.give_back(id, partition, offset, done),
            Event::Open(reader) => self.open_reader(reader),
            Event::CrashNow(run) if run == self.run => self.crash_armed()?,
            Event::Start => self.start()?,
            Event::SpaceReturns => self.space_returns(),
            Event::DiskRecovers => self.disk_recovers(),
            Event::Thaw => self.thaw(),
            Event::Watch => return self.look_around(),
            Event::Settle => self.settle()?,
            Event::Drive(_)
            | Event::Deadline(..)
            | Event::DiskDone(_)
            | Event::CheckpointDone(..)
            | Event::CrashNow(_) => {}
        }
        Ok(false)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((at.max(self.now), self.scheduled)));
        self.events.insert(self.scheduled, event);
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    fn say(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, who, what);
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

/// A panic as a verdict.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Violation {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let what = text.unwrap_or("a panic without words").to_owned();
    Violation { class: Class::Crash, checker: "no-panic", what }
}
