//! Links between nodes: who believes to be linked with whom, and what travels over a link.
//!
//! A link is between two processes, not between two machines: what was sent to a process never reaches its successor.
//! Forwarded writes, reads and their answers count on the link's streams: they arrive once, in order, or not at all,
//! and never over a later link.
//! Two machines dial each other while there is no link; one over which nothing gets through goes down at both ends
//! after the idle time, and any may be reset for no reason.

use super::machine::{NAMES, id, of};
use super::{Event, World};
use crate::chronicle::What;
use crate::marks::Mark;
use crate::violation::Held;
use crate::words::Brief;
use chronos_engine::step::Input;
use chronos_proto::codec;
use chronos_proto::id::NodeId;
use chronos_proto::peer::{PeerHello, PeerMessage};
use chronos_proto::raft::Message;

/// How often two machines look at each other.
const DIAL: u64 = 100_000;

/// Every link.
pub(super) struct Links {
    machines: usize,
    /// By ordered pair: the run of the other's process that this end's process is linked with.
    ends: Vec<Option<u64>>,
    /// By unordered pair (in one of its places): the runs of both that the link was made for.
    made: Vec<Option<(u64, u64)>>,
    /// Names each link that was made.
    names: Vec<u64>,
    last_name: u64,
}

impl Links {
    pub(super) fn new(machines: usize) -> Links {
        Links {
            machines,
            ends: vec![None; machines * machines],
            made: vec![None; machines * machines],
            names: vec![0; machines * machines],
            last_name: 0,
        }
    }

    fn end(&mut self, at: usize, peer: usize) -> &mut Option<u64> {
        &mut self.ends[at * self.machines + peer]
    }

    fn name(&self, a: usize, b: usize) -> u64 {
        self.names[a * self.machines + b]
    }

    fn rename(&mut self, a: usize, b: usize) {
        self.last_name += 1;
        self.names[a * self.machines + b] = self.last_name;
        self.names[b * self.machines + a] = self.last_name;
    }

    fn made(&mut self, a: usize, b: usize) -> &mut Option<(u64, u64)> {
        &mut self.made[a * self.machines + b]
    }
}

impl World {
    /// Two machines look whether there is a link between them, and whether there can be one.
    pub(super) fn dial(&mut self, a: usize, b: usize) -> Held {
        let calm = self.settling.is_some();
        let jitter = self.net_rng.below(DIAL);
        self.after(DIAL / 2 + jitter, Event::Dial(a, b));
        let run = |m: &super::Machine| (m.up.is_some() && m.paused_until <= self.now).then_some(m.run);
        let runs = run(&self.machines[a]).zip(run(&self.machines[b]));
        let cut_since = self.network.cut_since(a, b).into_iter().chain(self.network.cut_since(b, a)).min();
        if let Some(made) = *self.links.made(a, b) {
            let idle = cut_since.is_some_and(|since| self.now > since + self.knobs.network.idle);
            let same = made == (self.machines[a].run, self.machines[b].run);
            let reset = !calm && self.net_rng.chance(self.knobs.network.reset);
            if same && !idle && !reset {
                return Ok(());
            }
            if reset && same {
                self.marks.hit(Mark::LinkReset);
            }
            self.drop_link(a, b);
            return Ok(());
        }
        if let Some((run_a, run_b)) = runs
            && cut_since.is_none()
        {
            for (m, peer) in [(a, b), (b, a)] {
                if let Err(why) = self.greets(m, peer) {
                    return self.is_rightly_refused(m, peer, &why);
                }
            }
            *self.links.made(a, b) = Some((run_a, run_b));
            self.network.link(a, b);
            self.network.link(b, a);
            let late = self.net_rng.below(2 * self.knobs.network.delay + 1_000);
            self.after(late, Event::Linked(a, b, Some(run_b)));
            let late = self.net_rng.below(2 * self.knobs.network.delay + 1_000);
            self.after(late, Event::Linked(b, a, Some(run_a)));
        }
        Ok(())
    }

    fn hello(&self, m: usize) -> PeerHello {
        let machine = &self.machines[m];
        PeerHello { node: id(m), incarnation: machine.incarnation, boot: machine.start_number() }
    }

    /// Before there is a link each end asks its node whether the other is let in.
    fn greets(&self, m: usize, peer: usize) -> Result<(), String> {
        let up = self.machines[m].up.as_ref();
        up.map_or(Ok(()), |up| up.node.admit_peer(&self.hello(peer), NAMES[peer]))
    }

    /// A link ends, and both its ends learn of that.
    pub(super) fn drop_link(&mut self, a: usize, b: usize) {
        let (a, b) = (a.min(b), a.max(b));
        *self.links.made(a, b) = None;
        self.links.rename(a, b);
        for (m, peer) in [(a, b), (b, a)] {
            let late = self.net_rng.below(50_000);
            self.after(late, Event::Linked(m, peer, None));
        }
    }

    /// One end of a link learns of it.
    pub(super) fn linked(&mut self, m: usize, peer: usize, run: Option<u64>) {
        if self.machines[m].up.is_none() {
            return;
        }
        let Some(run) = run else {
            if self.links.end(m, peer).take().is_some() {
                self.give(m, Input::PeerDown(id(peer)));
            }
            return;
        };
        if self.machines[peer].run != run {
            return;
        }
        if self.links.end(m, peer).replace(run).is_some() {
            self.give(m, Input::PeerDown(id(peer)));
        }
        self.give(m, Input::PeerUp(self.hello(peer)));
    }

    /// A process is gone, and its ends of links with it.
    pub(super) fn links_lost(&mut self, m: usize) {
        for peer in 0..self.machines.len() {
            *self.links.end(m, peer) = None;
        }
    }

    /// A node sends a message.
    pub(super) fn send_message(&mut self, m: usize, node: NodeId, message: PeerMessage) -> Held {
        let to = of(node);
        if let PeerMessage::Raft { message, .. } = &message {
            self.group.sent(m, to, message)?;
        }
        self.message_marks(m, to, &message);
        let Some(run) = *self.links.end(m, to) else { return Ok(()) };
        let message = match self.net_rng.chance(3) {
            true => self.over_the_wire(message)?,
            false => message,
        };
        let link = self.links.name(m, to);
        let arrivals = self.network.send(m, to, message.lane(), counts_on_stream(&message), self.now);
        let lost = if arrivals.0.is_none() { " is lost" } else { "" };
        self.trace.line(self.now, NAMES[m], format_args!("-> {} {}{lost}", NAMES[to], Brief(&message)));
        let arrives = arrivals.0;
        self.note(|| What::Sent { from: m, to, arrives, what: Brief(&message).to_string() });
        if let Some(at) = arrivals.1 {
            self.marks.hit(Mark::MessageDoubled);
            let message = Box::new(message.clone());
            self.at(at, Event::Deliver { from: m, to, run, link, message });
        }
        if let Some(at) = arrivals.0 {
            self.at(at, Event::Deliver { from: m, to, run, link, message: Box::new(message) });
        }
        Ok(())
    }

    /// Some messages are encoded and decoded, to show that the wire carries all of it.
    fn over_the_wire(&mut self, message: PeerMessage) -> Result<PeerMessage, crate::violation::Violation> {
        let read = codec::decode::<PeerMessage>("message", &codec::encode(&message));
        match read {
            Ok(read) if read == message => Ok(read),
            other => {
                Err(crate::violation::Violation::safety("wire", format!("{message:?} arrives as {other:?}")))
            }
        }
    }

    /// A message is at the machine of the process that it was sent to.
    pub(super) fn arrives(&mut self, from: usize, to: usize, run: u64, link: u64, message: PeerMessage) {
        let late = link != self.links.name(from, to) && counts_on_stream(&message);
        if self.machines[to].run == run && !late {
            self.machines[to].receiving |= matches!(message, PeerMessage::Chunk(_));
            self.give(to, Input::Peer { from: id(from), message });
        } else {
            self.note(|| What::Missed { from, to });
        }
    }

    fn message_marks(&mut self, m: usize, to: usize, message: &PeerMessage) {
        let mark = match message {
            PeerMessage::Raft { message: Message::PreVoteReply { granted: false, .. }, .. } => {
                Mark::PreVoteRefused
            }
            PeerMessage::Raft { message: Message::AppendRejected { .. }, .. } => Mark::AppendRejected,
            PeerMessage::Raft { message: Message::TimeoutNow { .. }, .. } => Mark::TransferHandedOver,
            PeerMessage::Beat(beat) if beat.resting != 0 => Mark::GroupAtRest,
            PeerMessage::Chunk(_) if self.network_is_cut() => Mark::SnapshotDuringPartition,
            _ => return,
        };
        let _ = (m, to);
        self.marks.hit(mark);
    }
}

/// Whether a message relies on what a stream promises.
fn counts_on_stream(message: &PeerMessage) -> bool {
    use PeerMessage::{Forward, ForwardReply, Read, ReadReply};
    matches!(message, Forward(_) | ForwardReply { .. } | Read { .. } | ReadReply { .. })
}
