//! The driver: turns queued inputs into steps, and steps into effects that are performed when they may be.
//!
//! ```text
//! turn:  inputs ──step──step──step──QueueDrained──> effects ──┬─ after none or durable ──> Outlet
//!                                                             └─ after a write in flight ─> held, in order
//!        WriteDurable(w) ──> what waited for w goes out first, then the step
//! ```
//!
//! It has no protocol decision in it, and knows no runtime, no file and no store: the threads of `runner`, a
//! simulated executor or a test give it those.

use crate::clock::Clock;
use chronos_engine::node::Export;
use chronos_engine::record::{Label, Recorder};
use chronos_engine::step::{
    Action, Checkpoint, Delivery, Effect, Fatal, Input, Outputs, Published, Reason, Reply, SubscriberId,
    Token, Trace,
};
use chronos_engine::wal::{Recovered, WalOp, WriteId};
use chronos_engine::{Config, Node, SharedStore};
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Member;
use chronos_proto::peer::PeerMessage;
use chronos_proto::time::Instant;
use std::collections::VecDeque;

/// Performs what a node asks for. None of it may block the driver.
pub trait Outlet {
    /// Queues an operation for the WAL's files, in order.
    fn wal(&mut self, op: WalOp);
    /// Queues a checkpoint for the store.
    fn checkpoint(&mut self, checkpoint: Checkpoint);
    /// Shows a state to readers.
    fn publish(&mut self, published: Published);
    /// Answers a request.
    fn reply(&mut self, token: Token, reply: Reply);
    /// Hands events to a subscriber.
    fn deliver(&mut self, delivery: Delivery);
    /// Ends a subscription.
    fn close_subscriber(&mut self, subscriber: SubscriberId, why: String);
    /// Sends a message to another node, or loses it.
    fn send(&mut self, to: NodeId, message: PeerMessage);
    /// Closes a link for a reason that the other side is told.
    fn refuse(&mut self, peer: NodeId, why: String);
    /// Tells whom to link with.
    fn members(&mut self, members: Vec<Member>);
    /// Takes note.
    fn trace(&mut self, trace: Trace);
    /// The node must stop: nothing more is performed after this.
    fn fatal(&mut self, fatal: Fatal);
}

/// What a driver is fed with: an input, and the store that it brings along.
#[derive(Debug)]
pub enum Feed {
    /// An input by itself.
    Input(Input),
    /// An input from which on the store is another one: `CheckpointDurable`.
    WithStore(Input, StoreView),
}

/// A store view, nameless in debug output.
#[derive(Clone)]
pub struct StoreView(pub SharedStore);

impl std::fmt::Debug for StoreView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreView")
    }
}

/// Where a recording goes, and whose it is.
pub struct Tape {
    /// For its beginning.
    pub label: Label,
    /// The most bytes that an image of the node may have for a recording to begin with it.
    pub image_max: u64,
    /// Keeps a piece of it.
    pub keep: Box<dyn FnMut(Piece) -> Verdict + Send>,
}

/// Some bytes of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// With these a recording begins.
    pub begins: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// What becomes of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    GoOn,
    /// Another is to begin as soon as there is an image of the node; what is under way goes on until then.
    Anew,
    /// There is no room for the piece: this recording is over, and nothing is recorded until another may begin.
    Gap,
    /// There is no more of it.
    Stop,
}

/// The recording of a driver's node.
struct Recording {
    tape: Tape,
    /// None in a gap.
    recorder: Option<Recorder>,
}

impl Recording {
    /// What was recorded in a turn is kept. False if that was the last.
    fn turned(&mut self, node: &Node, store: &SharedStore) -> bool {
        let bytes = self.recorder.as_mut().map(Recorder::take).unwrap_or_default();
        match (self.tape.keep)(Piece { begins: false, bytes }) {
            Verdict::GoOn => true,
            Verdict::Stop => false,
            Verdict::Gap => {
                self.recorder = None;
                true
            }
            Verdict::Anew if node.image_bytes() > self.tape.image_max => true,
            Verdict::Anew => match Recorder::anew(self.tape.label.clone(), node, store) {
                Some(mut recorder) => {
                    let bytes = recorder.take();
                    self.recorder = Some(recorder);
                    (self.tape.keep)(Piece { begins: true, bytes }) != Verdict::Stop
                }
                None => true,
            },
        }
    }
}

/// The engine may have panicked: what it was given is kept.
impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut recorder) = self.recorder.take() {
            recorder.broken_off();
            let bytes = recorder.take();
            // It was the last piece, whatever is said of it.
            let _ = (self.tape.keep)(Piece { begins: false, bytes });
        }
    }
}

/// A node, its store, and the effects that wait for their write.
pub struct Driver<C> {
    node: Node,
    recording: Option<Recording>,
    store: SharedStore,
    clock: C,
    out: Outputs,
    held: VecDeque<(WriteId, Action)>,
    durable: Option<WriteId>,
    /// Nothing is performed after a fatal error.
    stopped: bool,
}

impl<C: Clock> Driver<C> {
    /// A driver over what recovery found, recorded if there is a tape. The node's first effects are performed.
    pub fn new(
        config: Config,
        clock: C,
        recovered: Recovered,
        store: SharedStore,
        tape: Option<Tape>,
        outlet: &mut impl Outlet,
    ) -> Result<Driver<C>, Fatal> {
        let (mut out, now) = (Outputs::default(), clock.now());
        let (node, recording) = match tape {
            None => (Node::new(config, now, recovered, &store, &mut out)?, None),
            Some(tape) => {
                let label = tape.label.clone();
                let (node, mut recorder) = Recorder::open(label, config, now, recovered, &store, &mut out);
                let bytes = recorder.take();
                let mut recording = Recording { tape, recorder: Some(recorder) };
                let stopped = (recording.tape.keep)(Piece { begins: true, bytes }) == Verdict::Stop;
                (node?, (!stopped).then_some(recording))
            }
        };
        let (held, durable, stopped) = (VecDeque::new(), None, false);
        let mut driver = Driver { node, recording, store, clock, out, held, durable, stopped };
        driver.route(outlet);
        Ok(driver)
    }

    /// Steps every input, then tells the node that its queue is empty. A turn without inputs is a tick.
    pub fn turn(&mut self, inputs: impl IntoIterator<Item = Feed>, outlet: &mut impl Outlet) {
        let mut any = false;
        for feed in inputs {
            any = true;
            let input = match feed {
                Feed::Input(input) => input,
                Feed::WithStore(input, store) => {
                    self.store = store.0;
                    input
                }
            };
            if let Input::WriteDurable(write) = input {
                self.release(write, outlet);
            }
            self.step(input, outlet);
        }
        if !any || self.deadline_reached() {
            self.step(Input::Tick, outlet);
        }
        self.step(Input::QueueDrained, outlet);
        self.recording.take_if(|recording| !recording.turned(&self.node, &self.store));
    }

    fn step(&mut self, input: Input, outlet: &mut impl Outlet) {
        if self.stopped {
            return;
        }
        let now = self.clock.now();
        match self.recording.as_mut().and_then(|recording| recording.recorder.as_mut()) {
            Some(recorder) => recorder.step(&mut self.node, now, input, &self.store, &mut self.out),
            None => self.node.step(now, input, &self.store, &mut self.out),
        }
        self.route(outlet);
    }

    fn deadline_reached(&self) -> bool {
        self.node.next_deadline().is_some_and(|(at, _)| at <= self.clock.now().mono)
    }

    fn route(&mut self, outlet: &mut impl Outlet) {
        for Effect { after, action } in std::mem::take(&mut self.out.effects) {
            match after {
                Some(write) if self.durable < Some(write) => self.hold(write, action),
                _ => perform(action, outlet, &mut self.stopped),
            }
        }
    }

    /// Effects of one write stay in order; nearly always the write is the last one given.
    fn hold(&mut self, write: WriteId, action: Action) {
        let at = self.held.iter().rposition(|(w, _)| *w <= write).map_or(0, |i| i + 1);
        self.held.insert(at, (write, action));
    }

    fn release(&mut self, write: WriteId, outlet: &mut impl Outlet) {
        self.durable = self.durable.max(Some(write));
        while self.held.front().is_some_and(|(w, _)| *w <= write) {
            if let Some((_, action)) = self.held.pop_front() {
                perform(action, outlet, &mut self.stopped);
            }
        }
    }

    /// When the next turn is due at the latest, and why.
    pub fn next_deadline(&self) -> Option<(Instant, Reason)> {
        self.node.next_deadline()
    }

    /// The node, for its status.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// A group's state for a backup, if the node is a member of the group.
    pub fn export(&self, group: GroupId) -> Option<Export> {
        self.node.export(group, &self.store)
    }

    /// The running hash over the effects of the recording under way, if there is one.
    pub fn recorded_hash(&self) -> Option<u64> {
        self.recording.as_ref()?.recorder.as_ref().map(Recorder::hash)
    }

    /// Whether the node has stopped for good.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// How many effects wait for their write.
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

fn perform(action: Action, outlet: &mut impl Outlet, stopped: &mut bool) {
    if *stopped {
        return;
    }
    match action {
        Action::Wal(op) => outlet.wal(op),
        Action::Reply(token, reply) => outlet.reply(token, reply),
        Action::Publish(published) => outlet.publish(published),
        Action::Checkpoint(checkpoint) => outlet.checkpoint(checkpoint),
        Action::Deliver(delivery) => outlet.deliver(delivery),
        Action::CloseSubscriber(subscriber, why) => outlet.close_subscriber(subscriber, why),
        Action::Send { to, message } => outlet.send(to, message),
        Action::Refuse { peer, why } => outlet.refuse(peer, why),
        Action::Members(members) => outlet.members(members),
        Action::Trace(trace) => outlet.trace(trace),
        Action::Fatal(fatal) => {
            *stopped = true;
            outlet.fatal(fatal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::step::Request;
    use chronos_engine::store::MemoryStore;
    use chronos_engine::txn::Transaction;
    use chronos_proto::command::Op;
    use chronos_proto::id::{ClusterId, GroupId, Incarnation, RelationId};
    use chronos_proto::time::{Now, Timestamp};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Clone, Default)]
    struct HandClock(Arc<AtomicU64>);

    impl Clock for HandClock {
        fn now(&self) -> Now {
            let mono = self.0.fetch_add(1, Ordering::Relaxed);
            Now { mono: Instant(mono), wall: Timestamp(1_700_000_000_000_000) }
        }
    }

    /// Writes down what was performed.
    #[derive(Default)]
    struct Record {
        done: Vec<&'static str>,
        writes: Vec<WriteId>,
    }

    impl Outlet for Record {
        fn wal(&mut self, op: WalOp) {
            if let WalOp::Sync { write, .. } | WalOp::Done { write } = op {
                self.writes.push(write);
            }
        }
        fn checkpoint(&mut self, _: Checkpoint) {
            self.done.push("checkpoint");
        }
        fn publish(&mut self, _: Published) {
            self.done.push("publish");
        }
        fn reply(&mut self, _: Token, reply: Reply) {
            let committed = matches!(reply, Reply::Commit(Ok(_)));
            self.done.push(if committed { "ok" } else { "refused" });
        }
        fn deliver(&mut self, _: Delivery) {}
        fn close_subscriber(&mut self, _: SubscriberId, _: String) {}
        fn send(&mut self, _: NodeId, _: PeerMessage) {}
        fn refuse(&mut self, _: NodeId, _: String) {}
        fn members(&mut self, _: Vec<Member>) {}
        fn trace(&mut self, _: Trace) {}
        fn fatal(&mut self, _: Fatal) {
            self.done.push("fatal");
        }
    }

    impl Record {
        fn take(&mut self) -> Vec<&'static str> {
            std::mem::take(&mut self.done)
        }
    }

    fn settle(driver: &mut Driver<HandClock>, record: &mut Record) {
        while !record.writes.is_empty() {
            let durable = record.writes.drain(..).map(|write| Feed::Input(Input::WriteDurable(write)));
            let durable: Vec<_> = durable.collect();
            driver.turn(durable, record);
        }
    }

    fn request(token: u64) -> Feed {
        let ops = vec![Op::DropRelation(RelationId(99))];
        let transaction = Transaction { ops, ..Transaction::default() };
        Feed::Input(Input::Request { token: Token(token), request: Request::Commit(GroupId(0), transaction) })
    }

    #[test]
    fn a_reply_waits_for_its_write_and_follows_the_snapshot_that_shows_it() {
        let config = Config::new(ClusterId(1), NodeId(1), Incarnation(1), 1, 1);
        let store: SharedStore = Arc::new(MemoryStore::default());
        let mut record = Record::default();
        let clock = HandClock::default();
        let mut driver = Driver::new(config, clock, Recovered::default(), store, None, &mut record).unwrap();
        settle(&mut driver, &mut record);
        record.take();
        driver.turn([request(1), request(2)], &mut record);
        assert_eq!(record.take(), [""; 0], "nothing is told before the write");
        assert_eq!(record.writes.len(), 1, "both requests share one write");
        settle(&mut driver, &mut record);
        assert_eq!(record.take(), ["publish", "ok", "ok"]);
        driver.turn([request(3)], &mut record);
        let write = record.writes[0];
        let failed = Input::WriteFailed { write, error: "EIO".to_owned() };
        driver.turn([Feed::Input(failed), request(4)], &mut record);
        assert_eq!(record.take(), ["fatal"]);
        driver.turn([Feed::Input(Input::WriteDurable(write)), request(5)], &mut record);
        assert_eq!(record.take(), [""; 0], "nothing is performed after a fatal error");
        assert!(driver.stopped());
    }
}
