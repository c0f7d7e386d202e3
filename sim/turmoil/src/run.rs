//! One seed: hosts, clients and faults for a while, then everything heals and must come together.

use crate::certs::{Certificates, Elapsed};
use crate::host::{self, Machine, PORT, World, is_up, lock};
use crate::ledger::{Asked, Ledger};
use crate::marks::{Mark, Marks};
use crate::plan::{self, Fault, Knobs};
use crate::socket::{Tally, Weather};
use bytes::Bytes;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::raft::Role;
use chronos_engine::step::{Input, Request, Token};
use chronos_engine::txn::Transaction;
use chronos_node::tls::TlsError;
use chronos_proto::command::Op;
use chronos_proto::id::{ColumnId, GroupId, NodeId, RelationId};
use chronos_proto::membership::Member;
use chronos_proto::schema::{Column, Relation, RelationKind, Table};
use chronos_proto::value::{Type, Value};
use chronos_proto::{key, row};
use chronos_sim::clock::Clock;
use chronos_sim::rng::Rng;
use chronos_sim::violation::{Class, Violation};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use turmoil::Sim;

const GROUP: GroupId = GroupId(0);
const TICK: Duration = Duration::from_millis(1);
/// What healed must have come together within this, in milliseconds.
const SETTLE_MS: u64 = 60_000;
/// A certificate that is not meant to expire lasts for so long.
const LONG: Duration = Duration::from_secs(30 * 86_400);
/// Requests that may wait for an answer at once.
const WAITING_MAX: usize = 200;
/// Cut off for so long, links end: they are idle for four seconds.
const BEYOND_IDLE_MS: u64 = 5_500;

thread_local! {
    /// The panics of this thread's run: those of tasks would go unnoticed.
    pub static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What a run came to.
pub struct Outcome {
    /// What does not hold.
    pub violation: Option<Violation>,
    /// Of the trace.
    pub hash: u64,
    /// The trace, if it was kept.
    pub lines: Vec<String>,
    /// Situations that were reached.
    pub marks: Marks,
    /// Simulated milliseconds.
    pub simulated_ms: u64,
    /// From the healing until all links stood and all nodes agreed, in milliseconds.
    pub settled_ms: Option<u64>,
    /// Writes that were acknowledged.
    pub committed: u64,
    /// Reads that were answered.
    pub reads: u64,
}

/// Runs a seed on a thread of its own.
pub fn seed(seed: u64, keep_lines: bool) -> Outcome {
    let run = std::thread::Builder::new().name(format!("seed {seed:#x}")).spawn(move || {
        PANICS.take();
        Run::new(&Knobs::draw(seed), keep_lines).map_or_else(
            |violation| Outcome {
                violation: Some(violation),
                hash: 0,
                lines: Vec::new(),
                marks: Marks::default(),
                simulated_ms: 0,
                settled_ms: None,
                committed: 0,
                reads: 0,
            },
            Run::finish,
        )
    });
    match run.map(std::thread::JoinHandle::join) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => panic!("no thread for seed {seed:#x}: {error}"),
    }
}

/// What is to happen later.
#[derive(Clone, Copy, Debug)]
enum Later {
    Release(usize, usize),
    Rejoin(usize),
    Start(usize),
    Bounce(usize),
    Weather,
    Latency(usize, usize),
    /// The certificate of a node has expired: let its links be dialled again.
    Redial(usize),
    Rotate(usize),
    Trust(usize),
}

struct Run {
    knobs: Knobs,
    world: Arc<World>,
    sim: Sim<'static>,
    rng: Rng,
    now_ms: u64,
    later: BTreeMap<(u64, u64), Later>,
    planned: u64,
    next_token: u64,
    next_row: i64,
}

impl Run {
    fn new(knobs: &Knobs, keep_lines: bool) -> Result<Run, Violation> {
        let knobs = knobs.clone();
        let mut rng = Rng::new(knobs.seed, "turmoil");
        let mut sim = turmoil::Builder::new()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(86_400))
            .rng_seed(rng.bits())
            .min_message_latency(Duration::ZERO)
            .max_message_latency(Duration::from_millis(knobs.latency_ms))
            .udp_capacity(4_096)
            .build();
        let elapsed = Elapsed::default();
        let names: Vec<String> = (1..=knobs.nodes).map(|n| format!("n{n}")).collect();
        let members: Vec<Member> = names
            .iter()
            .map(|name| Member {
                node: NodeId::of_name(name),
                name: name.clone(),
                address: format!("{}:{PORT}", sim.lookup(name.as_str())),
                incarnation: None,
                boot: 0,
            })
            .collect();
        let unable = |error: TlsError| Violation::safety("certificates", error.to_string());
        let certificates = Certificates::new(elapsed.clone()).map_err(unable)?;
        let mut machines = Vec::new();
        for name in &names {
            certificates.issue(name, LONG).map_err(unable)?;
            let drift = rng.range(0, 100) as i64 - 50;
            let offset = rng.range(0, 200_000) as i64 - 100_000;
            let own = Rng::new(rng.bits(), name);
            machines.push(Mutex::new(Machine::new(Clock::new(drift, offset, true), knobs.sync_ms, own)));
        }
        let world = Arc::new(World {
            elapsed,
            members,
            leases: knobs.leases,
            checkpoint_wal_bytes: knobs.checkpoint_wal_bytes,
            weather: Arc::default(),
            tally: Arc::default(),
            certificates: Mutex::new(certificates),
            ledger: Mutex::new(Ledger::new(keep_lines)),
            machines,
        });
        for (at, name) in names.iter().enumerate() {
            let world = world.clone();
            sim.host(name.as_str(), move || host::run(world.clone(), at));
        }
        Ok(Run {
            knobs,
            world,
            sim,
            rng,
            now_ms: 0,
            later: BTreeMap::new(),
            planned: 0,
            next_token: 1,
            next_row: 1,
        })
    }

    fn finish(mut self) -> Outcome {
        self.trouble();
        let settled_ms = if self.held() { self.settle() } else { None };
        let Tally { lost, doubled, late } = *lock(&self.world.tally);
        let mut ledger = lock(&self.world.ledger);
        ledger.marks.count(Mark::DatagramLost, lost);
        ledger.marks.count(Mark::DatagramDoubled, doubled);
        ledger.marks.count(Mark::DatagramLate, late);
        let ledger = std::mem::replace(&mut *ledger, Ledger::new(false));
        Outcome {
            violation: ledger.violation,
            hash: ledger.trace.hash(),
            marks: ledger.marks,
            simulated_ms: self.now_ms,
            settled_ms,
            committed: ledger.committed,
            reads: ledger.reads,
            lines: ledger.trace.into_parts().0,
        }
    }

    fn held(&self) -> bool {
        lock(&self.world.ledger).violation.is_none()
    }

    fn hit(&self, mark: Mark) {
        lock(&self.world.ledger).marks.hit(mark);
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.world.say("world", what);
    }

    /// A millisecond of all hosts.
    fn tick(&mut self) {
        let stepped = self.sim.step();
        self.now_ms += 1;
        self.world.elapsed.set(self.now_ms * 1_000);
        lock(&self.world.ledger).trace.step = self.now_ms;
        let panicked = PANICS.take().into_iter().next();
        let failed = stepped.err().map(|error| error.to_string());
        if let Some(what) = panicked.or(failed) {
            self.world.broken(Violation { class: Class::Crash, checker: "no-panic", what });
        }
    }

    fn plan(&mut self, in_ms: u64, what: Later) {
        self.planned += 1;
        self.later.insert((self.now_ms + in_ms, self.planned), what);
    }

    /// Clients and faults, until the time is up or something does not hold.
    fn trouble(&mut self) {
        let mut next_fault = self.rng.exponential(self.knobs.every_ms * 2);
        let mut next_request = 0;
        let weights: Vec<u32> = self.knobs.faults.iter().map(|(_, weight)| *weight).collect();
        while self.now_ms < self.knobs.trouble_ms && self.held() {
            self.tick();
            if next_request <= self.now_ms {
                next_request = self.now_ms + 1 + self.rng.exponential(self.knobs.request_ms);
                let at = self.rng.below(self.knobs.nodes as u64) as usize;
                let reads = self.rng.chance(self.knobs.reads);
                self.request(at, reads);
            }
            if next_fault <= self.now_ms && !weights.is_empty() {
                next_fault = self.now_ms + 1 + self.rng.exponential(self.knobs.every_ms);
                let fault = self.knobs.faults[self.rng.weighted(&weights)].0;
                self.strike(fault);
            }
            while let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
                let what = entry.remove();
                self.happen(what);
            }
        }
    }

    fn pair(&mut self) -> (usize, usize) {
        let nodes = self.knobs.nodes as u64;
        let a = self.rng.below(nodes);
        let b = (a + self.rng.range(1, nodes - 1)) % nodes;
        (a as usize, b as usize)
    }

    fn name(&self, at: usize) -> String {
        self.world.name(at).to_owned()
    }

    fn is_running(&self, at: usize) -> bool {
        lock(&self.world.machines[at]).up.is_some()
    }

    fn strike(&mut self, fault: Fault) {
        let (a, b) = self.pair();
        let (from, to) = (self.name(a), self.name(b));
        let lasts = *self.rng.pick(&[300, 2_000, BEYOND_IDLE_MS, 9_000]);
        match fault {
            Fault::Cut => {
                self.say(format_args!("cuts {from} and {to} off for {lasts} ms"));
                self.hit(Mark::Cut);
                self.sim.partition(from, to);
                self.plan(lasts, Later::Release(a, b));
            }
            Fault::OneWay => {
                self.say(format_args!("{from} does not reach {to} for {lasts} ms"));
                self.hit(Mark::CutOneWay);
                self.sim.partition_oneway(from, to);
                self.plan(lasts, Later::Release(a, b));
            }
            Fault::Hold => {
                self.say(format_args!("holds what {from} and {to} send for {lasts} ms"));
                self.hit(Mark::Held);
                self.sim.hold(from, to);
                self.plan(lasts, Later::Release(a, b));
            }
            Fault::Isolate => {
                self.say(format_args!("isolates {from} for {lasts} ms"));
                self.isolate(a, lasts);
            }
            Fault::Kill | Fault::Power | Fault::Bounce if self.is_running(a) => {
                let power = fault == Fault::Power;
                self.say(format_args!("{fault:?} of {from}, back in {lasts} ms"));
                self.end(a, power);
                match fault {
                    Fault::Bounce => {
                        self.hit(Mark::Bounced);
                        self.start(a);
                    }
                    _ => {
                        self.hit(if power { Mark::PowerCut } else { Mark::Killed });
                        self.plan(lasts, Later::Start(a));
                    }
                }
            }
            Fault::Stop if self.is_running(a) => {
                self.say(format_args!("stops {from}"));
                self.hit(Mark::Stopped);
                lock(&self.world.machines[a]).stop();
                self.plan(lasts.max(2_000), Later::Start(a));
            }
            Fault::Kill | Fault::Power | Fault::Bounce | Fault::Stop => {}
            Fault::Weather => {
                let weather = plan::weather(&mut self.rng);
                self.say(format_args!("{weather:?} for {lasts} ms"));
                *lock(&self.world.weather) = weather;
                self.plan(lasts, Later::Weather);
            }
            Fault::Latency => {
                let ms = self.rng.range(1, 250);
                self.say(format_args!("{from} and {to} are {ms} ms apart for {lasts} ms"));
                self.sim.set_link_latency(from, to, Duration::from_millis(ms));
                self.plan(lasts, Later::Latency(a, b));
            }
            Fault::Expire => {
                let seconds = self.rng.range(2, 5);
                self.say(format_args!("gives {from} a certificate for {seconds} s"));
                self.certify(a, Duration::from_secs(seconds));
                self.plan(seconds * 1_000 + 100, Later::Redial(a));
                if self.rng.chance(300) {
                    self.plan(seconds * 1_000 + 1_200, Later::Bounce(a));
                }
                self.plan(seconds * 1_000 + BEYOND_IDLE_MS + lasts + 3_000, Later::Rotate(a));
            }
            Fault::Rotate => self.certify(a, LONG),
            Fault::Authority => {
                self.say(format_args!("renews the authority"));
                let renewed = lock(&self.world.certificates).renew_authority();
                if let Err(error) = renewed {
                    self.world.broken(Violation::safety("certificates", error.to_string()));
                }
                self.hit(Mark::AuthorityRenewed);
                for at in 0..self.knobs.nodes {
                    let (trusts, rotates) = (self.rng.range(0, 1_500), self.rng.range(2_000, 5_000));
                    self.plan(trusts, Later::Trust(at));
                    self.plan(rotates, Later::Rotate(at));
                }
            }
        }
    }

    fn isolate(&mut self, at: usize, lasts: u64) {
        for other in (0..self.knobs.nodes).filter(|other| *other != at) {
            let (here, there) = (self.name(at), self.name(other));
            self.sim.partition(here, there);
        }
        self.plan(lasts, Later::Rejoin(at));
    }

    fn release(&mut self, a: usize, b: usize) {
        let (from, to) = (self.name(a), self.name(b));
        self.sim.release(from, to);
    }

    fn happen(&mut self, what: Later) {
        match what {
            Later::Release(a, b) => self.release(a, b),
            Later::Rejoin(a) => (0..self.knobs.nodes).filter(|b| *b != a).for_each(|b| self.release(a, b)),
            Later::Start(at) => {
                let overdue = lock(&self.world.machines[at]).up.as_ref().is_some_and(|up| up.stopping);
                if overdue {
                    self.end(at, false);
                }
                self.start(at);
            }
            Later::Bounce(at) => {
                if self.is_running(at) {
                    self.end(at, false);
                }
                self.start(at);
            }
            Later::Weather => *lock(&self.world.weather) = Weather::default(),
            Later::Latency(a, b) => {
                let (from, to) = (self.name(a), self.name(b));
                self.sim.set_link_latency(from, to, Duration::from_millis(self.knobs.latency_ms));
            }
            Later::Redial(at) => self.isolate(at, BEYOND_IDLE_MS),
            Later::Rotate(at) => {
                self.certify(at, LONG);
                self.start(at);
            }
            Later::Trust(at) => {
                let name = self.name(at);
                let trusted = lock(&self.world.certificates).trust(&name);
                if let Err(error) = trusted {
                    self.world.broken(Violation::safety("certificates", error.to_string()));
                }
                self.reload(at);
            }
        }
    }

    /// A node gets a certificate that lasts for so long, and looks at its files.
    fn certify(&mut self, at: usize, lasts: Duration) {
        let name = self.name(at);
        let issued = lock(&self.world.certificates).issue(&name, lasts);
        match issued {
            Ok(()) => self.say(format_args!("{name} gets a certificate for {lasts:?}")),
            Err(error) => self.world.broken(Violation::safety("certificates", error.to_string())),
        }
        self.reload(at);
    }

    fn reload(&self, at: usize) {
        let name = self.world.name(at);
        let loaded = lock(&self.world.machines[at]).reload();
        match loaded {
            Ok(Some(expires)) => lock(&self.world.ledger).rotated(name, expires),
            Ok(None) => {}
            // It keeps what it has.
            Err(TlsError::Expired { at, .. }) => self.say(format_args!("{name} keeps what expired at {at}")),
            Err(error) => self.world.broken(Violation::safety("certificates", format!("{name}: {error}"))),
        }
    }

    fn end(&mut self, at: usize, power: bool) {
        let name = self.name(at);
        self.sim.crash(name);
        self.world.ended(at, power);
    }

    fn start(&mut self, at: usize) {
        if !self.is_running(at) {
            let name = self.name(at);
            self.sim.bounce(name);
        }
    }

    /// A client asks a node for something.
    fn request(&mut self, at: usize, reads: bool) {
        let world = self.world.clone();
        let machine = lock(&world.machines[at]);
        let Some(published) = machine.up.as_ref().and_then(|up| up.published.clone()) else { return };
        let mut ledger = lock(&world.ledger);
        if ledger.waiting() >= WAITING_MAX {
            return;
        }
        let token = Token(self.next_token);
        self.next_token += 1;
        let read_index = published.snapshot.applied;
        let table = published.snapshot.catalog.iter().next().map(|table| table.id);
        let (asked, request) = match table {
            None => {
                let ops = vec![Op::PutRelation(relation(published.snapshot.catalog.next_id()))];
                let reads = vec![keys::catalog_all()];
                (
                    Asked::Table,
                    Request::Commit(GROUP, Transaction { read_index, reads, ops, ..Transaction::default() }),
                )
            }
            Some(_) if reads => (ledger.read(), Request::Read(GROUP)),
            Some(table) => {
                let id = self.next_row;
                self.next_row += 1;
                let (key, row) = row(id, self.knobs.row_bytes);
                let reads =
                    vec![KeyRange::point(keys::catalog(table)), KeyRange::point(keys::row(table, &key))];
                let ops = vec![Op::PutRow { relation: table, key, row, replaces: 0, indexes: Vec::new() }];
                (
                    Asked::Write(id),
                    Request::Commit(GROUP, Transaction { read_index, reads, ops, ..Transaction::default() }),
                )
            }
        };
        ledger.asked(token, asked, at);
        drop(ledger);
        machine.give(Input::Request { token, request });
    }

    /// Everything that was broken is mended.
    fn heal(&mut self) {
        self.say(format_args!("heals"));
        self.later.clear();
        *lock(&self.world.weather) = Weather::default();
        for a in 0..self.knobs.nodes {
            for b in a + 1..self.knobs.nodes {
                self.release(a, b);
                let (from, to) = (self.name(a), self.name(b));
                self.sim.set_link_latency(from, to, Duration::from_millis(self.knobs.latency_ms));
            }
        }
        (0..self.knobs.nodes).for_each(|at| self.certify(at, LONG));
    }

    /// Milliseconds until all is well; none if something does not hold.
    fn settle(&mut self) -> Option<u64> {
        self.heal();
        let begun = self.now_ms;
        let first = self.next_row;
        let mut missing = String::new();
        while self.now_ms - begun < SETTLE_MS && self.held() {
            (0..100).for_each(|_| self.tick());
            let down = (0..self.knobs.nodes).filter(|at| !self.is_running(*at)).collect::<Vec<_>>();
            down.into_iter().for_each(|at| self.start(at));
            missing = match self.missing(first) {
                None => {
                    let took = self.now_ms - begun;
                    self.say(format_args!("settled after {took} ms"));
                    self.last_look();
                    return self.held().then_some(took);
                }
                Some(missing) => missing,
            };
            // A write on every node must come through in the end.
            if (self.now_ms - begun).is_multiple_of(1_000)
                && lock(&self.world.ledger).written_since(first) < self.knobs.nodes
            {
                (0..self.knobs.nodes).for_each(|at| self.request(at, false));
            }
        }
        if self.held() {
            let what = format!("{SETTLE_MS} ms after all was mended: {missing}");
            self.world.broken(Violation::liveness("settles", what));
        }
        None
    }

    /// What is not as it should be yet.
    fn missing(&self, first: i64) -> Option<String> {
        let mut seen = Vec::new();
        for (at, machine) in self.world.machines.iter().enumerate() {
            let (name, machine) = (self.world.name(at), lock(machine));
            let Some(up) = &machine.up else { return Some(format!("{name} does not run")) };
            let links = machine.links();
            for (other, member) in self.world.members.iter().enumerate().filter(|(other, _)| *other != at) {
                match links.iter().find(|link| link.peer == member.node) {
                    Some(link) if is_up(link) => {}
                    link => {
                        let state = link.map(|link| (&link.state, link.heard));
                        return Some(format!("the link of {name} to {}: {state:?}", self.world.name(other)));
                    }
                }
            }
            seen.push((name.to_owned(), up.status.clone()));
        }
        let leaders: Vec<&str> = seen
            .iter()
            .filter(|(_, s)| s.role == Role::Leader && s.leader)
            .map(|(name, _)| name.as_str())
            .collect();
        if leaders.len() != 1 {
            return Some(format!("leaders: {leaders:?}"));
        }
        let place = |s: &chronos_engine::node::GroupStatus| {
            (s.term, s.leads, s.last, s.committed, s.applied, s.digest)
        };
        if seen.iter().any(|(_, status)| place(status) != place(&seen[0].1)) {
            let all: Vec<_> = seen.iter().map(|(name, status)| (name, place(status))).collect();
            return Some(format!("nodes differ (term, leader, last, committed, applied, digest): {all:?}"));
        }
        let ledger = lock(&self.world.ledger);
        if ledger.waiting() > 0 {
            return Some(format!("{} requests are not answered", ledger.waiting()));
        }
        let written = ledger.written_since(first);
        (written < self.knobs.nodes)
            .then(|| format!("{written} of {} last writes came through", self.knobs.nodes))
    }

    fn last_look(&mut self) {
        for (at, machine) in self.world.machines.iter().enumerate() {
            let published = lock(machine).up.as_ref().and_then(|up| up.published.clone());
            if let Some(published) = published {
                let digest = lock(machine).up.as_ref().map_or(0, |up| up.status.digest);
                let applied = published.snapshot.applied;
                self.world.say(self.world.name(at), format_args!("ends at {applied}, {digest:016x}"));
                lock(&self.world.ledger).settled(self.world.name(at), &published.snapshot);
            }
        }
    }
}

fn relation(id: RelationId) -> Relation {
    let column =
        |id, name: &str, ty, not_null| Column { id, name: name.to_owned(), ty, not_null, default: None };
    let columns =
        vec![column(ColumnId(0), "id", Type::Int, true), column(ColumnId(1), "filler", Type::Text, false)];
    let table = Table {
        columns,
        primary_key: vec![ColumnId(0)],
        indexes: Vec::new(),
        next_column: 2,
        next_index: 1,
        extras: Vec::new(),
    };
    Relation { id, name: "t".to_owned(), group: GROUP, version: 1, kind: RelationKind::Table(table) }
}

fn row(id: i64, bytes: u64) -> (Bytes, Bytes) {
    let mut primary = Vec::with_capacity(9);
    key::encode(&mut primary, &Value::Int(id));
    let filler = Value::Text("x".repeat(bytes as usize));
    (Bytes::from(primary), row::encode([(ColumnId(1), &filler)].into_iter()))
}
