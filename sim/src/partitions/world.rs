//! The event loop: hosts, the network between them, what goes wrong, and the end.

use super::clients::{Asked, Consumer};
use super::hosts::{Host, NAMES, Up, id, member, of};
use super::ledger::Ledger;
use super::{Knobs, Outcome};
use crate::disk::Survival;
use crate::network::Network;
use crate::rng::Rng;
use crate::trace::Trace;
use crate::violation::{Held, Violation};
use chronos_engine::Node;
use chronos_engine::step::{
    Action, CheckpointId, Effect, Input, Outputs, Published, Reply, Request, SubscriberInput, Token,
    Trace as Told,
};
use chronos_engine::wal::{self, SegmentId, WalOp};
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::peer::{PeerHello, PeerMessage};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub(super) const CATALOG: GroupId = GroupId(0);
/// How often two hosts look at each other.
const DIAL: u64 = 100_000;
/// How often readers and consumers look around.
const LOOK: u64 = 250_000;
/// How long everything may take to settle once clients and faults have stopped.
const SETTLE: u64 = 90_000_000;

/// What a plan has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Client,
    /// A process dies, or loses power with its machine.
    Crash,
    /// All lose power.
    Blackout,
    /// The network falls apart.
    Cut,
    Transfer,
    Checkpoint,
    Join,
    Leave,
    /// A consumer goes; another takes its place.
    Consumer,
}

#[derive(Debug)]
enum Event {
    Act(Act, u64),
    Drive(usize, u64),
    Deadline(usize, u64, u64),
    DiskDone(usize, u64),
    CheckpointDone(usize, u64, CheckpointId),
    Deliver { from: usize, to: usize, run: u64, link: u64, message: Box<PeerMessage> },
    Dial(usize, usize),
    Start(usize),
    Mend(Vec<(usize, usize)>),
    Again(Token),
    Look,
    Settle,
}

pub(super) struct World {
    pub knobs: Knobs,
    pub hosts: Vec<Host>,
    pub ledger: Ledger,
    pub asked: BTreeMap<Token, Asked>,
    pub consumers: Vec<Consumer>,
    pub rng: Rng,
    pub now: u64,
    pub last: u64,
    pub settling: Option<u64>,
    seen: BTreeMap<&'static str, u64>,
    trace: Trace,
    queue: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    network: Network,
    /// Links that stand, by pair: their names and the runs of both ends.
    links: BTreeMap<(usize, usize), (u64, u64, u64)>,
    disk_rng: Rng,
}

impl World {
    pub fn new(knobs: Knobs, keep: bool) -> World {
        let count = knobs.nodes + usize::from(knobs.moves);
        let rng = &mut Rng::new(knobs.seed, "hosts");
        World {
            hosts: (0..count).map(|number| Host::new(number, &knobs, rng)).collect(),
            network: Network::new(count, &knobs.network, knobs.seed),
            ledger: Ledger::default(),
            asked: BTreeMap::new(),
            consumers: (0..knobs.partitions).map(|_| Consumer::default()).collect(),
            rng: Rng::new(knobs.seed, "world"),
            disk_rng: Rng::new(knobs.seed, "disk"),
            now: 0,
            last: 0,
            settling: None,
            seen: BTreeMap::new(),
            trace: Trace::new(keep),
            queue: BTreeMap::new(),
            scheduled: 0,
            links: BTreeMap::new(),
            knobs,
        }
    }

    pub fn outcome(self, violation: Option<Violation>) -> Outcome {
        let hash = self.trace.hash();
        Outcome { violation, hash, simulated: self.now, seen: self.seen, lines: self.trace.into_parts().0 }
    }

    pub fn run(&mut self) -> Held {
        for host in 0..self.hosts.len() {
            self.after(host as u64 * 1_000, Event::Start(host));
            for other in host + 1..self.hosts.len() {
                self.after(1_000, Event::Dial(host, other));
            }
        }
        self.after(LOOK, Event::Look);
        self.at(self.knobs.duration, Event::Settle);
        for (at, act, salt) in draw(&self.knobs) {
            self.at(at, Event::Act(act, salt));
        }
        let held = self.go();
        if let Err(violation) = &held {
            self.say("check", format_args!("FAILED {violation}"));
        }
        held
    }

    fn go(&mut self) -> Held {
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.trace.step += 1;
            self.now = at;
            match event {
                Event::Act(..) if self.settling.is_some() => {}
                Event::Act(act, salt) => self.act(act, &mut Rng::new(salt, "act"))?,
                Event::Drive(host, run) if self.runs(host, run) => self.drive(host)?,
                Event::Deadline(host, run, number) if self.runs(host, run) => self.deadline(host, number)?,
                Event::DiskDone(host, run) if self.runs(host, run) => self.disk_done(host)?,
                Event::CheckpointDone(host, run, id) if self.runs(host, run) => {
                    self.store_checkpoint(host);
                    self.give(host, Input::CheckpointDurable(id));
                }
                Event::Drive(..) | Event::Deadline(..) | Event::DiskDone(..) | Event::CheckpointDone(..) => {}
                Event::Deliver { from, to, run, link, message } => {
                    let stands = self.links.get(&pair(from, to)).is_some_and(|(name, ..)| *name == link);
                    if self.runs(to, run) && (stands || !counts_on_stream(&message)) {
                        self.give(to, Input::Peer { from: id(from), message: *message });
                    }
                }
                Event::Dial(a, b) => self.dial(a, b),
                Event::Start(host) => self.start(host)?,
                Event::Mend(paths) => paths.into_iter().for_each(|(a, b)| self.network.mend(a, b)),
                Event::Again(token) => self.ask_again(token),
                Event::Look => {
                    if self.look()? {
                        return Ok(());
                    }
                    self.after(LOOK, Event::Look);
                }
                Event::Settle => self.settle(),
            }
        }
        Ok(())
    }

    fn runs(&self, host: usize, run: u64) -> bool {
        self.hosts[host].up.is_some() && self.hosts[host].run == run
    }

    fn at(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.queue.insert((at.max(self.now), self.scheduled), event);
    }

    fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    pub fn again(&mut self, micros: u64, token: Token) {
        self.after(micros, Event::Again(token));
    }

    pub fn say(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, who, what);
    }

    pub fn count(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The host whose node leads a group in the greatest term.
    pub fn leader(&self, group: GroupId) -> Option<usize> {
        let leads = |host: &Host| Some((host.leads(group)?, host.number));
        self.hosts.iter().filter_map(leads).max().map(|(_, host)| host)
    }

    // Processes

    fn start(&mut self, h: usize) -> Held {
        if self.hosts[h].up.is_some() {
            return Ok(());
        }
        let host = &mut self.hosts[h];
        host.run += 1;
        let (now, run) = (host.clock.now(self.now), host.run);
        let images: BTreeMap<SegmentId, Vec<u8>> = host.disk.images().collect();
        let recovered = wal::recover(host.identity(), &images)
            .map_err(|damage| Violation::safety("recovery", damage.to_string()))?;
        let mut out = Outputs::default();
        let node = Node::new(host.config(&self.knobs), now, recovered, &host.shared, &mut out)
            .map_err(|fatal| Violation::safety("recovery", fatal.to_string()))?;
        host.up = Some(Up {
            node,
            inbox: VecDeque::new(),
            driving: false,
            waiting: Vec::new(),
            durable: None,
            ops: VecDeque::new(),
            busy: false,
            checkpoint: None,
            published: BTreeMap::new(),
            deadline: 0,
        });
        self.say(NAMES[h], format_args!("start {run}"));
        self.perform_all(h, out)?;
        self.give(h, Input::ClockSynchronised(true));
        Ok(())
    }

    /// The process ends; with the power, what was not synced may be gone.
    fn crash(&mut self, h: usize, power: bool, down: u64) {
        let Some(up) = self.hosts[h].up.take() else { return };
        self.say(NAMES[h], format_args!("ends, power={power}"));
        if up.checkpoint.is_some() && self.disk_rng.chance(500) {
            self.hosts[h].up = Some(up);
            self.store_checkpoint(h);
            self.hosts[h].up = None;
        } else if let Some(op) = up.ops.front().filter(|_| up.busy && self.disk_rng.clone().chance(500)) {
            apply(&mut self.hosts[h], op);
        }
        if power {
            let survival = Survival::draw(&mut self.disk_rng);
            self.hosts[h].disk.power_cut(survival, &mut self.disk_rng);
            self.hosts[h].clock.reboot(self.now);
        }
        self.forget(h);
        let ends: Vec<(usize, usize)> =
            self.links.keys().copied().filter(|(a, b)| *a == h || *b == h).collect();
        ends.into_iter().for_each(|(a, b)| self.unlink(a, b));
        self.after(down, Event::Start(h));
    }

    pub fn give(&mut self, h: usize, input: Input) {
        let (now, run) = (self.now, self.hosts[h].run);
        let Some(up) = &mut self.hosts[h].up else { return };
        up.inbox.push_back(input);
        if !std::mem::replace(&mut up.driving, true) {
            let gather = self.rng.below(200);
            self.at(now + gather, Event::Drive(h, run));
        }
    }

    fn drive(&mut self, h: usize) -> Held {
        if let Some(up) = &mut self.hosts[h].up {
            up.driving = false;
        }
        while let Some(input) = self.hosts[h].up.as_mut().and_then(|up| up.inbox.pop_front()) {
            self.step(h, input)?;
        }
        self.step(h, Input::QueueDrained)?;
        self.reschedule(h);
        Ok(())
    }

    fn deadline(&mut self, h: usize, number: u64) -> Held {
        if self.hosts[h].up.as_ref().is_some_and(|up| up.deadline == number) {
            self.step(h, Input::Tick)?;
            self.reschedule(h);
        }
        Ok(())
    }

    fn reschedule(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        let Some(up) = &mut host.up else { return };
        up.deadline += 1;
        let (number, run) = (up.deadline, host.run);
        let Some((at, _)) = up.node.next_deadline() else { return };
        // One that is there already is met a moment later.
        let at = host.clock.when(self.now, at).max(self.now + 20);
        self.at(at, Event::Deadline(h, run, number));
    }

    fn step(&mut self, h: usize, input: Input) -> Held {
        let host = &mut self.hosts[h];
        let now = host.clock.now(self.now);
        let Some(up) = &mut host.up else { return Ok(()) };
        let mut out = Outputs::default();
        up.node.step(now, input, &host.shared, &mut out);
        self.perform_all(h, out)
    }

    fn perform_all(&mut self, h: usize, out: Outputs) -> Held {
        for effect in out.effects {
            let Some(up) = &mut self.hosts[h].up else { return Ok(()) };
            if effect.after.is_some_and(|write| up.durable.is_none_or(|durable| durable < write)) {
                up.waiting.push(effect);
            } else {
                self.perform(h, effect.action)?;
            }
        }
        self.next_operation(h);
        Ok(())
    }

    fn perform(&mut self, h: usize, action: Action) -> Held {
        match action {
            Action::Wal(op) => {
                if let Some(up) = &mut self.hosts[h].up {
                    up.ops.push_back(op);
                }
            }
            Action::Send { to, message } => self.send(h, to, message),
            Action::Publish(published) => {
                if let Some(up) = &mut self.hosts[h].up {
                    up.published.insert(published.snapshot.group, published);
                }
            }
            Action::Checkpoint(checkpoint) => {
                let latency = self.disk_rng.latency(4 * self.knobs.sync_latency);
                let run = self.hosts[h].run;
                let store = self.hosts[h].store.with(&checkpoint);
                if let Some(up) = &mut self.hosts[h].up {
                    up.checkpoint = Some((checkpoint.id, store));
                }
                self.after(latency, Event::CheckpointDone(h, run, checkpoint.id));
            }
            Action::Reply(token, Reply::Commit(result)) => self.committed(token, Some(result)),
            Action::Reply(token, Reply::Unknown(_)) => self.committed(token, None),
            Action::Reply(_, Reply::Read(_)) => {}
            Action::Reply(_, Reply::Operator(result)) => {
                self.say("op", format_args!("{} says {result:?}", NAMES[h]));
            }
            Action::Deliver(delivery) => self.delivered(h, &delivery)?,
            Action::CloseSubscriber(id, why) => {
                self.say(NAMES[h], format_args!("closes {id:?}: {why}"));
                self.closed(id);
            }
            Action::Trace(Told::SnapshotInstalled { group, index }) => {
                self.say(NAMES[h], format_args!("group {group} is a snapshot's at {index}"));
                self.count("snapshots installed");
            }
            Action::Trace(Told::Elected { group, term }) => {
                self.say(NAMES[h], format_args!("leads group {group} in term {term}"));
            }
            Action::Trace(_) | Action::Members(_) => {}
            Action::Refuse { peer, why } => {
                self.say(NAMES[h], format_args!("refuses {peer}: {why}"));
                let (a, b) = pair(h, of(peer));
                self.unlink(a, b);
            }
            Action::Fatal(fatal) => {
                return Err(Violation::safety("recovery", format!("{}: {fatal}", NAMES[h])));
            }
        }
        Ok(())
    }

    // Disks

    fn next_operation(&mut self, h: usize) {
        let run = self.hosts[h].run;
        let Some(up) = &mut self.hosts[h].up else { return };
        let Some(op) = up.ops.front().filter(|_| !up.busy) else { return };
        let mean = match op {
            WalOp::Sync { .. } => self.knobs.sync_latency,
            WalOp::Done { .. } => 0,
            WalOp::Create { .. } | WalOp::Write { .. } | WalOp::Remove { .. } => self.knobs.sync_latency / 8,
        };
        up.busy = true;
        let latency = self.disk_rng.latency(mean);
        self.after(latency, Event::DiskDone(h, run));
    }

    fn disk_done(&mut self, h: usize) -> Held {
        let Some(up) = &mut self.hosts[h].up else { return Ok(()) };
        up.busy = false;
        let Some(op) = up.ops.pop_front() else { return Ok(()) };
        apply(&mut self.hosts[h], &op);
        if let WalOp::Sync { write, .. } | WalOp::Done { write } = op {
            let Some(up) = &mut self.hosts[h].up else { return Ok(()) };
            up.durable = up.durable.max(Some(write));
            let (ready, waiting): (Vec<Effect>, _) =
                std::mem::take(&mut up.waiting).into_iter().partition(|effect| effect.after <= Some(write));
            up.waiting = waiting;
            for effect in ready {
                self.perform(h, effect.action)?;
            }
            self.give(h, Input::WriteDurable(write));
        }
        self.next_operation(h);
        Ok(())
    }

    fn store_checkpoint(&mut self, h: usize) {
        let host = &mut self.hosts[h];
        if let Some((_, store)) = host.up.as_mut().and_then(|up| up.checkpoint.take()) {
            host.store = store;
            host.shared = Arc::new(host.store.clone());
        }
    }

    // Links

    fn dial(&mut self, a: usize, b: usize) {
        let jitter = self.rng.below(DIAL);
        self.after(DIAL / 2 + jitter, Event::Dial(a, b));
        let cut = [self.network.cut_since(a, b), self.network.cut_since(b, a)].into_iter().flatten().min();
        if self.links.contains_key(&(a, b)) {
            let idle = cut.is_some_and(|since| self.now > since + self.knobs.network.idle);
            let reset = self.settling.is_none() && self.rng.chance(self.knobs.network.reset);
            if idle || reset {
                self.unlink(a, b);
            }
        } else if cut.is_none() && self.hosts[a].up.is_some() && self.hosts[b].up.is_some() {
            let name = self.next();
            self.links.insert((a, b), (name, self.hosts[a].run, self.hosts[b].run));
            self.network.link(a, b);
            self.network.link(b, a);
            for (here, there) in [(a, b), (b, a)] {
                let (node, boot) = (id(there), self.hosts[there].run);
                let incarnation = self.hosts[there].identity().incarnation;
                self.give(here, Input::PeerUp(PeerHello { node, incarnation, boot }));
            }
        }
    }

    fn unlink(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a, b)).is_some() {
            self.give(a, Input::PeerDown(id(b)));
            self.give(b, Input::PeerDown(id(a)));
        }
    }

    fn send(&mut self, from: usize, to: NodeId, message: PeerMessage) {
        if matches!(message, PeerMessage::Outbox { .. }) {
            self.sent_outbox(&message);
        }
        let to = of(to);
        let Some((link, a, b)) = self.links.get(&pair(from, to)).copied() else { return };
        let run = if from < to { b } else { a };
        let stream = counts_on_stream(&message);
        let (once, twice) = self.network.send(from, to, message.lane(), stream, self.now);
        for at in [once, twice].into_iter().flatten() {
            self.at(at, Event::Deliver { from, to, run, link, message: Box::new(message.clone()) });
        }
    }

    fn sent_outbox(&mut self, message: &PeerMessage) {
        let PeerMessage::Outbox { origin, target, first, ops } = message else { return };
        self.say("outbox", format_args!("{origin} to {target}: {} from {first} on", ops.len()));
        let (count, first) = (ops.len() as u64, *first);
        let before = self.consumers[0].sent.insert(*target, first + count);
        if before.is_some_and(|before| first < before) {
            self.count("outboxes sent again");
        }
    }

    // What happens

    fn act(&mut self, act: Act, rng: &mut Rng) -> Held {
        match act {
            Act::Client => self.client(rng),
            Act::Crash => {
                let group = GroupId(1 + rng.below(u64::from(self.knobs.groups)) as u32);
                let victim = match rng.below(10) {
                    0..=3 => self.leader(CATALOG),
                    4..=6 => self.leader(group),
                    _ => None,
                };
                let victim = victim.unwrap_or(rng.below(self.hosts.len() as u64) as usize);
                if self.hosts[victim].leads(CATALOG).is_some() {
                    self.count("leaders of group 0 that died");
                }
                if self.hosts[victim].leads(group).is_some() {
                    self.count("leaders of partitions that died");
                }
                self.crash(victim, rng.chance(500), *rng.pick(&[1_000, 200_000, 3_000_000]));
            }
            Act::Blackout => {
                for host in 0..self.hosts.len() {
                    self.crash(host, true, rng.range(1_000, 1_000_000));
                }
            }
            Act::Cut => {
                let side: BTreeSet<usize> = (0..self.hosts.len()).filter(|_| rng.chance(500)).collect();
                let one_way = rng.chance(300);
                let mut paths = Vec::new();
                for (a, b) in (0..self.hosts.len()).flat_map(|a| (0..self.hosts.len()).map(move |b| (a, b))) {
                    if side.contains(&a) && !side.contains(&b) {
                        paths.push((a, b));
                        if !one_way {
                            paths.push((b, a));
                        }
                    }
                }
                self.say("world", format_args!("cuts {paths:?}"));
                for (a, b) in &paths {
                    self.network.cut(*a, *b, self.now);
                }
                self.after(rng.range(200_000, 6_000_000), Event::Mend(paths));
            }
            Act::Transfer => {
                let group = GroupId(rng.below(u64::from(self.knobs.groups) + 1) as u32);
                let to = id(rng.below(self.hosts.len() as u64) as usize);
                if let Some(leader) = self.leader(group) {
                    self.operate(leader, Request::Transfer { group, to });
                }
            }
            Act::Checkpoint => {
                let host = rng.below(self.hosts.len() as u64) as usize;
                self.give(host, Input::Checkpoint);
            }
            Act::Join => {
                let joins = self.hosts.len() - 1;
                if let Some(leader) = self.leader(CATALOG) {
                    self.operate(leader, Request::PutMember(member(joins)));
                }
            }
            Act::Leave => self.leave(),
            Act::Consumer => {
                let partition = rng.below(self.consumers.len() as u64) as usize;
                if let Some((host, subscriber)) = self.consumers[partition].at.take() {
                    self.give(host, Input::Subscriber { id: subscriber, event: SubscriberInput::Close });
                }
            }
        }
        Ok(())
    }

    /// One of the first nodes leaves, once the one that joined has a vote.
    fn leave(&mut self) {
        let Some(leader) = self.leader(CATALOG) else { return };
        let joined = id(self.hosts.len() - 1);
        let raft = self.hosts[leader].up.as_ref().and_then(|up| up.node.raft(CATALOG));
        if raft.is_some_and(|raft| raft.configuration().is_voter(joined)) {
            let leaves = self.knobs.seed % self.knobs.nodes as u64;
            self.operate(leader, Request::DropMember(id(leaves as usize)));
        }
    }

    fn operate(&mut self, host: usize, request: Request) {
        let token = Token(self.next());
        self.say("op", format_args!("asks {} for {request:?}", NAMES[host]));
        self.give(host, Input::Request { token, request });
    }

    // The end

    fn settle(&mut self) {
        self.settling = Some(self.now);
        self.network.calm();
        for a in 0..self.hosts.len() {
            for b in 0..self.hosts.len() {
                self.network.mend_all(a, b);
            }
            self.after(1_000, Event::Start(a));
        }
        self.say("world", format_args!("settles"));
    }

    /// Readers and consumers look; true if all is settled.
    fn look(&mut self) -> Result<bool, Violation> {
        for host in 0..self.hosts.len() {
            self.read(host)?;
        }
        self.consume();
        let Some(since) = self.settling else { return Ok(false) };
        match self.still_open() {
            None => {
                self.finish()?;
                Ok(true)
            }
            Some((checker, what)) if self.now > since + SETTLE => {
                let seconds = (self.now - since) / 1_000_000;
                Err(Violation::liveness(checker, format!("{seconds} s after faults stopped, {what}")))
            }
            Some(_) => Ok(false),
        }
    }

    /// What is still to come.
    fn still_open(&mut self) -> Option<(&'static str, String)> {
        match self.open_yet() {
            Ok(open) => open,
            Err(gone) => Some(("settles", gone)),
        }
    }

    /// The same; an error says who is not there to be looked at.
    fn open_yet(&mut self) -> Result<Option<(&'static str, String)>, String> {
        let nobody = |group: GroupId| format!("nobody leads group {group}");
        let first = self.leader(CATALOG).ok_or_else(|| nobody(CATALOG))?;
        let members: BTreeSet<usize> = match self.knobs.nodes {
            1 => BTreeSet::from([0]),
            _ => self.node(first)?.members().iter().map(|member| of(member.node)).collect(),
        };
        for host in 0..self.knobs.nodes {
            if !members.contains(&host) && !self.hosts[host].left {
                self.hosts[host].left = true;
                self.count("nodes that left");
            }
        }
        for group in (0..=self.knobs.groups).map(GroupId) {
            let leader = self.leader(group).ok_or_else(|| nobody(group))?;
            let node = self.node(leader)?;
            let (Some(raft), Some(state)) = (node.raft(group), node.state(group)) else {
                return Err(nobody(group));
            };
            if state.outbox_targets().next().is_some() {
                let what = format!("the outbox of group {group} holds {} bytes", state.outbox_bytes());
                return Ok(Some(("outbox", what)));
            }
            let configuration = raft.configuration();
            let held: BTreeSet<usize> = configuration.members().into_iter().map(of).collect();
            if self.knobs.nodes > 1 && (configuration.is_joint() || held != members) {
                return Err(format!("group {group} is kept by {held:?}, not {members:?}"));
            }
            for host in &members {
                let applied = self.node(*host)?.state(group).map(|state| state.applied());
                let shown = self.published(*host, group).map(|published| published.snapshot.applied);
                if applied.is_none_or(|applied| applied < raft.committed()) || shown != applied {
                    return Err(format!("{} has {applied:?} of group {group}", NAMES[*host]));
                }
            }
        }
        Ok(self.waits(&members).map(|what| ("settles", what)))
    }

    fn node(&self, host: usize) -> Result<&Node, String> {
        self.hosts[host].up.as_ref().map(|up| &up.node).ok_or_else(|| format!("{} is down", NAMES[host]))
    }

    /// What a host's node shows of a group.
    pub fn published(&self, host: usize, group: GroupId) -> Option<&Published> {
        self.hosts[host].up.as_ref()?.published.get(&group)
    }

    /// Everything is settled: it must be right.
    fn finish(&mut self) -> Held {
        let leader = self.leader(CATALOG).unwrap_or(0);
        let joined = self.hosts.len() > self.knobs.nodes
            && self.hosts[leader].up.as_ref().is_some_and(|up| {
                let joins = id(self.hosts.len() - 1);
                up.node.raft(CATALOG).is_some_and(|raft| raft.configuration().is_voter(joins))
            });
        if joined {
            self.count("nodes that joined");
        }
        for group in (0..=self.knobs.groups).map(GroupId) {
            let mut first: Option<(u64, u64)> = None;
            for host in self.hosts.iter().filter(|host| !host.left) {
                let Some(state) = host.up.as_ref().and_then(|up| up.node.state(group)) else { continue };
                let known = (state.applied().0, state.digests().total());
                let recomputed = state
                    .recompute_digests(&host.shared)
                    .map_err(|damage| Violation::safety("digest", damage.to_string()))?;
                if !state.digests().differences(&recomputed).is_empty() {
                    let what =
                        format!("{}: the digests of group {group} are not its state's", NAMES[host.number]);
                    return Err(Violation::safety("digest", what));
                }
                if let Some(other) =
                    first.replace(known).filter(|other| other.0 == known.0 && *other != known)
                {
                    let what = format!("group {group} at {}: {:x} and {:x}", known.0, other.1, known.1);
                    return Err(Violation::safety("digest", what));
                }
            }
        }
        let rows = self.rows(leader)?;
        self.say("check", format_args!("{} rows, all settled", rows.len()));
        self.ledger.settled(&rows)
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

/// Whether a message relies on what a stream promises.
fn counts_on_stream(message: &PeerMessage) -> bool {
    use PeerMessage::{Forward, ForwardReply, Read, ReadReply};
    matches!(message, Forward(_) | ForwardReply { .. } | Read { .. } | ReadReply { .. })
}

fn apply(host: &mut Host, op: &WalOp) {
    match op {
        WalOp::Create { segment, bytes } => host.disk.create(*segment, *bytes as usize),
        WalOp::Write { segment, offset, bytes, .. } => {
            host.disk.write(*segment, *offset, bytes.clone());
        }
        WalOp::Sync { segment, .. } => {
            host.disk.sync(*segment);
        }
        WalOp::Done { .. } => {}
        WalOp::Remove { segment } => host.disk.remove(*segment),
    }
}

/// The plan: acts, their times, and what seeds the rest.
fn draw(knobs: &Knobs) -> Vec<(u64, Act, u64)> {
    let rng = &mut Rng::new(knobs.seed, "plan");
    let mut acts = Vec::new();
    for _ in 0..knobs.duration / 1_000_000 * knobs.rate {
        acts.push((rng.range(100_000, knobs.duration), Act::Client, rng.bits()));
    }
    for _ in 0..knobs.duration * knobs.faults / 60_000_000 {
        let act = match rng.below(20) {
            0..=8 => Act::Crash,
            9..=12 if knobs.nodes > 1 => Act::Cut,
            13..=15 if knobs.nodes > 1 => Act::Transfer,
            16 => Act::Blackout,
            17 => Act::Checkpoint,
            _ => Act::Consumer,
        };
        acts.push((rng.range(1_000_000, knobs.duration), act, rng.bits()));
    }
    if knobs.moves {
        let joins = rng.range(2_000_000, 4_000_000);
        for again in 0..4 {
            acts.push((joins + again * 1_000_000, Act::Join, rng.bits()));
            acts.push((joins + 500_000 + again * 1_000_000, Act::Leave, rng.bits()));
        }
    }
    acts
}
