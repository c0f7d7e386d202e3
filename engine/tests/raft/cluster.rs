//! Members, a disk for each whose writes may be held back, and a network from which messages are delivered or lost.

use crate::oracle::{Disk, Oracle};
use crate::text;
use chronos_engine::raft::{Log, Output, Raft, Recovered, Role, Settings};
use chronos_engine::rng::Rng;
use chronos_engine::wal::{Compacted, Record};
use chronos_proto::command::Command;
use chronos_proto::id::{GroupId, Index, NodeId};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::{LogId, Message};
use chronos_proto::time::{Instant, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is applied: the state machine is the list of texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub last: LogId,
    pub configuration: Configuration,
    pub texts: Vec<String>,
    pub time: Timestamp,
    pub stamp: u64,
}

#[derive(Clone, Debug)]
pub struct Packet {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
    /// What travels beside a snapshot's message.
    state: Option<State>,
}

/// A write under way; one without a number is the driver's own, or is write 0: the log as it was recovered.
pub struct Write {
    pub number: Option<u64>,
    pub record: Option<Record>,
}

#[derive(Default)]
pub struct Member {
    /// None while it is down.
    pub raft: Option<Raft>,
    pub life: u64,
    pub disk: Disk,
    pub writes: VecDeque<Write>,
    pub state: State,
    /// The state as it is on disk.
    pub checkpoint: State,
    pub holds_writes: bool,
    pub holds_snapshots: bool,
    pub holds_installs: bool,
    pub paused: bool,
    /// Its clock's rate in thousandths of the true one.
    pub rate: u64,
    /// Snapshots that it was asked to send.
    pub sending: BTreeSet<NodeId>,
    /// A snapshot that came in whole, and the one to put in place.
    received: Option<State>,
    pub installing: Option<(LogId, Configuration)>,
}

pub struct Cluster {
    pub settings: Settings,
    pub seed: u64,
    pub members: BTreeMap<NodeId, Member>,
    pub wire: Vec<Packet>,
    /// Directions in which nothing arrives.
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub now: u64,
    pub oracle: Oracle,
    next_read: u64,
    /// What happened, line by line, if anybody wants to know.
    pub trace: Option<Vec<String>>,
    /// What happened is printed as it happens.
    pub loud: bool,
}

impl Cluster {
    /// Voters 1 to `voters`, with empty disks.
    pub fn new(settings: Settings, seed: u64, voters: u64) -> Cluster {
        let mut cluster = Cluster {
            settings,
            seed,
            members: BTreeMap::new(),
            wire: Vec::new(),
            cut: BTreeSet::new(),
            now: 0,
            oracle: Oracle::default(),
            next_read: 1,
            trace: None,
            loud: std::env::var_os("RAFT_TRACE").is_some(),
        };
        let configuration = Configuration::of((1..=voters).map(NodeId));
        for id in (1..=voters).map(NodeId) {
            cluster.add(id, configuration.clone());
        }
        cluster
    }

    /// A member with an empty disk; with an empty configuration it waits to be taken in.
    pub fn add(&mut self, id: NodeId, configuration: Configuration) {
        let state = State { configuration, ..State::default() };
        let member = Member { checkpoint: state, rate: 1_000, ..Member::default() };
        self.members.insert(id, member);
        self.restart(id);
    }

    pub fn log(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        } else if self.loud {
            println!("{line}", line = line());
        }
    }

    /// What a member's clock shows.
    pub fn clock(&self, id: NodeId) -> Instant {
        Instant(self.members.get(&id).map_or(0, |member| self.now * member.rate / 1_000))
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.members.keys().copied().collect()
    }

    pub fn raft(&self, id: NodeId) -> Option<&Raft> {
        self.members.get(&id)?.raft.as_ref()
    }

    /// Does something to a member that is up, and then what it wants.
    pub fn at<T>(&mut self, id: NodeId, verb: impl FnOnce(&mut Raft, Instant) -> T) -> Option<T> {
        let now = self.clock(id);
        let raft = self.members.get_mut(&id)?.raft.as_mut()?;
        let result = verb(raft, now);
        self.settle(id);
        Some(result)
    }

    fn settle(&mut self, id: NodeId) {
        loop {
            self.outputs(id);
            // What is applied may leave the log.
            self.check(id);
            self.apply(id);
            let Some(member) = self.members.get(&id) else { return };
            if !member.holds_writes && !member.writes.is_empty() {
                self.finish_one(id);
                continue;
            }
            if !member.holds_installs && member.installing.is_some() {
                self.install(id, true);
                continue;
            }
            if !member.holds_snapshots
                && let Some(to) = member.sending.first().copied()
            {
                self.send_snapshot(id, to, true);
                continue;
            }
            return;
        }
    }

    fn outputs(&mut self, id: NodeId) {
        let mut outputs = Vec::new();
        let Some(raft) = self.members.get_mut(&id).and_then(|member| member.raft.as_mut()) else { return };
        raft.outputs(&mut outputs);
        for output in outputs {
            self.log_output(id, &output);
            let Some(member) = self.members.get_mut(&id) else { return };
            let Some(raft) = &member.raft else { return };
            match output {
                Output::Persist { write, record } => {
                    self.oracle.persists(id, raft, &record);
                    member.writes.push_back(Write { number: Some(write), record: Some(record) });
                }
                Output::Send { to, message } => {
                    self.oracle.sends(id, to, &message, raft, &member.disk);
                    self.post(Packet { from: id, to, message, state: None });
                }
                Output::Read { number, index } => self.oracle.reads(id, number, index),
                Output::SendSnapshot { to } => {
                    member.sending.insert(to);
                }
                Output::Install { last, configuration } => member.installing = Some((last, configuration)),
                Output::Role { .. } | Output::Trusted => {}
            }
        }
    }

    fn log_output(&mut self, id: NodeId, output: &Output) {
        let cut = matches!(output, Output::Send { to, .. } if self.cut.contains(&(id, *to)));
        self.log(|| text::output(id, output, cut));
    }

    fn post(&mut self, packet: Packet) {
        if !self.cut.contains(&(packet.from, packet.to)) {
            self.wire.push(packet);
        }
    }

    fn apply(&mut self, id: NodeId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(raft) = member.raft.as_mut() else { return };
        let state = &mut member.state;
        let before = state.last.index;
        let mut lines = Vec::new();
        while let Some(entry) = raft.next_committed(state.last.index) {
            assert_eq!(entry.index, state.last.index.next(), "{id} skips an entry");
            assert!(entry.time >= state.time && entry.stamp > state.stamp, "time went back at {id}");
            state.last = LogId { term: entry.term, index: entry.index };
            (state.time, state.stamp) = (entry.time, entry.stamp);
            if let Command::Membership(configuration) = &*entry.command {
                state.configuration = configuration.clone();
            }
            state.texts.extend(text::of_command(&entry.command));
            if self.trace.is_some() {
                lines.push(format!("n{id} applies {}", text::entry(entry)));
            }
        }
        if state.last.index > before {
            raft.applied(state.last.index);
        }
        lines.into_iter().for_each(|line| self.log(|| line));
    }

    fn check(&mut self, id: NodeId) {
        let disks = self.members.iter().map(|(id, member)| (*id, &member.disk)).collect();
        let Some(member) = self.members.get(&id) else { return };
        if let Some(raft) = &member.raft {
            self.oracle.sees(id, member.life, raft, &disks);
        }
        if self.settings.leases {
            for (id, member) in &self.members {
                let Some(raft) = &member.raft else { continue };
                if raft.lease_until().is_some_and(|until| self.clock(*id) < until) {
                    self.oracle.trusts_lease(*id, raft);
                }
            }
        }
    }

    // Disks

    /// The first write under way is done. False if there is none.
    fn finish_one(&mut self, id: NodeId) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        let Some(write) = member.writes.pop_front() else { return false };
        if member.holds_writes {
            let what = write.record.as_ref().map_or("its recovered log".to_owned(), text::record);
            self.log(|| format!("n{id} has written {what}"));
        }
        let Some(member) = self.members.get_mut(&id) else { return false };
        if let Some(record) = write.record {
            member.disk.write(record);
        }
        if let (Some(number), Some(raft)) = (write.number, &mut member.raft) {
            raft.durable(number);
        }
        true
    }

    /// So many writes under way are done.
    pub fn finish(&mut self, id: NodeId, count: usize) {
        for _ in 0..count {
            if !self.finish_one(id) {
                break;
            }
            self.settle(id);
        }
    }

    /// The process ends; of the writes under way the first `kept` are on disk.
    pub fn crash(&mut self, id: NodeId, kept: usize) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.raft.take().is_none() {
            return;
        }
        for write in member.writes.drain(..).take(kept) {
            if let Some(record) = write.record {
                member.disk.write(record);
            }
        }
        member.sending.clear();
        (member.received, member.installing) = (None, None);
        member.paused = false;
        self.oracle.forgets(id);
    }

    /// It comes back with what its disk holds.
    pub fn restart(&mut self, id: NodeId) {
        let now = self.clock(id);
        let rng = Rng::new(self.seed).split(&format!("member {id} life {}", self.now));
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.raft.is_some() {
            return;
        }
        member.life += 1;
        let state = member.checkpoint.clone();
        let last = &state.last;
        let in_log = member.disk.get(last.index).is_some_and(|entry| entry.term == last.term);
        if !in_log && member.disk.base != *last {
            // A snapshot was put in place, and the log was not told.
            member.disk.entries.clear();
            member.disk.base = state.last;
        }
        let mut log = Log::new(member.disk.base);
        member.disk.entries.iter().for_each(|entry| log.push(entry.clone()));
        let last_time = log.last_entry().map_or(state.time, |entry| entry.time).max(state.time);
        let last_stamp = log.last_entry().map_or(state.stamp, |entry| entry.stamp).max(state.stamp);
        let recovered = Recovered {
            hard: member.disk.hard,
            log,
            applied: state.last.index,
            persisted: state.last.index,
            configuration: state.configuration.clone(),
            last_time,
            last_stamp,
            ..Recovered::empty(Configuration::default())
        };
        member.raft = Some(Raft::new(self.settings, GroupId(0), id, rng, now, recovered));
        member.writes = [Write { number: Some(0), record: None }].into();
        member.state = state;
        self.settle(id);
    }

    /// What is applied is put on disk as a state, and the log before it goes.
    pub fn compact(&mut self, id: NodeId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(raft) = member.raft.as_mut() else { return };
        let last = member.state.last;
        if last.index <= member.checkpoint.last.index {
            return;
        }
        member.checkpoint = member.state.clone();
        member.disk.state = last.index;
        let record = Record::Compacted(Compacted { index: last.index, term: last.term });
        member.writes.push_back(Write { number: None, record: Some(record) });
        raft.compact(last.index);
        self.settle(id);
    }

    // Snapshots

    /// The state reaches the follower whole, or cannot be sent.
    pub fn send_snapshot(&mut self, id: NodeId, to: NodeId, arrives: bool) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if !member.sending.remove(&to) {
            return;
        }
        // One that leads no more has nothing to say.
        let Some(raft) = member.raft.as_ref().filter(|raft| raft.role() == Role::Leader) else { return };
        let state = member.state.clone();
        if arrives {
            let (last, configuration) = (state.last, state.configuration.clone());
            let message = Message::Snapshot { term: raft.term(), last, configuration };
            let output = Output::Send { to, message: message.clone() };
            self.log_output(id, &output);
            self.post(Packet { from: id, to, message, state: Some(state.clone()) });
        }
        self.at(id, |raft, _| raft.snapshot_sent(to, arrives.then_some(state.last)));
    }

    /// The state that came in takes the place of the old one at once, or fails to.
    pub fn install(&mut self, id: NodeId, done: bool) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some((last, configuration)) = member.installing.take() else { return };
        let received = member.received.take().filter(|state| done && state.last == last);
        let done = received.is_some();
        let (mut time, mut stamp) = (Timestamp::EPOCH, 0);
        if let Some(state) = received {
            (time, stamp) = (state.time, state.stamp);
            member.state = state.clone();
            member.checkpoint = state;
            member.disk.state = last.index;
            self.log(|| format!("n{id} has installed {}", text::place(last)));
        }
        self.at(id, |raft, _| raft.installed(last, configuration, time, stamp, done));
    }

    /// The state is in place on disk, and the process ends before it can say so.
    pub fn crash_at_install(&mut self, id: NodeId) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if let (Some((last, _)), Some(state)) = (member.installing.take(), member.received.take())
            && state.last == last
        {
            member.checkpoint = state;
            member.disk.state = last.index;
        }
        self.crash(id, 0);
    }

    // The network

    /// One message arrives. One to a member that is down is lost; one to a paused member stays on its way.
    pub fn deliver(&mut self, place: usize) {
        let packet = self.wire.remove(place);
        let Packet { from, to, message, state } = packet.clone();
        match self.members.get_mut(&to) {
            Some(member) if member.paused => return self.wire.insert(place, packet),
            Some(member) if member.raft.is_some() => {
                if state.is_some() && member.installing.is_none() {
                    member.received = state;
                }
            }
            _ => return,
        }
        self.at(to, |raft, now| raft.receive(now, from, message));
    }

    /// Everything arrives, and what follows from it, until nothing is under way.
    pub fn deliver_all(&mut self) {
        for _ in 0..100_000 {
            let paused = |packet: &Packet| self.members.get(&packet.to).is_some_and(|member| member.paused);
            let Some(place) = self.wire.iter().position(|packet| !paused(packet)) else { return };
            self.deliver(place);
        }
        panic!("they do not stop talking");
    }

    // Verbs that need something of the cluster

    pub fn tick(&mut self, id: NodeId) {
        if self.members.get(&id).is_some_and(|member| !member.paused) {
            self.at(id, |raft, now| raft.tick(now));
        }
    }

    pub fn propose(
        &mut self,
        id: NodeId,
        text: &str,
    ) -> Option<Result<Index, chronos_engine::raft::ProposeError>> {
        self.at(id, |raft, _| {
            let (time, stamp) = (Timestamp(raft.last_time().0 + 1), raft.last_stamp() + 1);
            raft.propose(time, stamp, text::command(text))
        })
    }

    /// Asks for a read; its number, if the member leads.
    pub fn read(&mut self, id: NodeId) -> Option<u64> {
        let number = self.next_read;
        self.next_read += 1;
        self.raft(id)?;
        self.oracle.asks(id, number);
        let taken = self.at(id, |raft, _| raft.read(number))?;
        if !taken {
            self.oracle.forgets(id);
        }
        taken.then_some(number)
    }

    /// Time passes for all: who has something to do does it, and every message arrives at once.
    pub fn pass(&mut self, micros: u64) {
        let until = self.now + micros;
        self.deliver_all();
        loop {
            let due = |(id, member): (&NodeId, &Member)| {
                let at = member.raft.as_ref().filter(|_| !member.paused)?.next_deadline()?;
                Some((at.0.saturating_mul(1_000).div_ceil(member.rate), *id))
            };
            let next = self.members.iter().filter_map(due).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= until) else { break };
            self.now = self.now.max(at);
            self.tick(id);
            self.deliver_all();
        }
        self.now = self.now.max(until);
    }
}
