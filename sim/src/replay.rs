//! A recorded node, stepped through again: `cargo sim --replay FILE`.
//!
//! The recording ([`chronos_engine::record`]) is of one node, so there is no network, disk or clock here and no seed: what
//! they did is in the inputs. The node makes the same effects again, which the running hash of every step proves; beside
//! that the trace, the chronicle and so the diagram are a run's, and the checkers those that one node can be held to.

use crate::checker::one::One;
use crate::chronicle::{Happening, What};
use crate::tap::{self, Logged};
use crate::trace::Trace;
use crate::violation::{Class, Held, Violation};
use crate::words::{Brief, Handed, Tells, Told, brief};
use chronos_engine::raft::Role;
use chronos_engine::record::{self, Entries, Origin, Played, Player, RecordingError};
use chronos_engine::step::{self, Action, Input, Outputs, Reply, Request};
use chronos_engine::wal::WalOp;
use chronos_proto::command::Command;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::peer::PeerMessage;
use chronos_proto::time::Now;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The recorded node in the chronicle; its peers come behind it.
const NODE: usize = 0;

/// What a replay came to.
#[derive(Debug)]
pub struct Replay {
    /// The build that recorded.
    pub build: String,
    /// The node's name.
    pub name: String,
    /// Its peers' names, in the order of the chronicle's nodes from 1 on.
    pub peers: Vec<String>,
    /// Steps that were taken.
    pub steps: u64,
    /// Microseconds from the beginning to the last step.
    pub lasted: u64,
    /// The running hash over the effects of all of them.
    pub hash: u64,
    /// What was broken: a promise, or the likeness.
    pub violation: Option<Violation>,
    /// Bytes at the end that are no whole step.
    pub rest: usize,
    /// What was committed, fired and released, in order.
    pub sequence: Vec<String>,
    /// The trace's lines, if they were wanted.
    pub lines: Vec<String>,
    /// What happened as values, if the lines were wanted.
    pub chronicle: Vec<Happening>,
}

impl Replay {
    /// What the numbers of nodes in the diagram stand for.
    pub fn legend(&self) -> String {
        let peers = self.peers.iter().enumerate().map(|(place, name)| format!(", n{} {name}", place + 2));
        self.name.clone() + &peers.collect::<String>()
    }
}

/// The recordings that a path stands for: a file itself, or those in a directory in the order of their names, which is
/// that of time.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        files.push(entry.map_err(failed)?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == record::EXTENSION));
    files.sort_unstable();
    match files.is_empty() {
        true => Err(format!("{} holds no recording: no file *.{}", path.display(), record::EXTENSION)),
        false => Ok(files),
    }
}

/// Steps a node through the bytes of a recording, to the end or to the first step that differs.
pub fn replay(bytes: &[u8], keep: bool) -> Result<Replay, RecordingError> {
    let mut entries = Entries::of(bytes)?;
    let beginning = entries.beginning()?;
    let (opening, recorded) = (&beginning.opening, beginning.made.hash);
    let mut watch = Watch::over(opening, keep);
    let mut replay = Replay {
        build: opening.label.build.clone(),
        name: opening.label.name.clone(),
        peers: watch.names.values().skip(1).map(|(_, name)| name.clone()).collect(),
        steps: 0,
        lasted: 0,
        hash: 0,
        violation: None,
        rest: 0,
        sequence: Vec::new(),
        lines: Vec::new(),
        chronicle: Vec::new(),
    };
    let mut out = Outputs::default();
    let begun = opening.now;
    let opened = guarded(|| Player::open(beginning, &mut out)).and_then(|(player, played)| {
        replay.hash = played.hash;
        likeness(0, "the beginning", recorded, &played)?;
        player.map_err(|fatal| Violation::safety("opening", fatal.to_string()))
    });
    let held = match opened {
        Err(violation) => Err(violation),
        Ok(mut player) => {
            let mut held = watch.stepped(&player, std::mem::take(&mut out));
            while held.is_ok() {
                let Some(step) = entries.step()? else { break };
                let (now, recorded) = (step.now, step.made.hash);
                replay.steps += 1;
                replay.lasted = now.mono.0.saturating_sub(begun.mono.0);
                watch.begins(replay.steps, now, &step.input);
                let what = kind(&step.input);
                held = guarded(|| player.step(step, &mut out)).and_then(|played| {
                    replay.hash = played.hash;
                    likeness(replay.steps, &what, recorded, &played)?;
                    watch.stepped(&player, std::mem::take(&mut out))
                });
            }
            held
        }
    };
    if let Err(violation) = held {
        watch.trace.line(watch.at, "check", format_args!("FAILED {violation}"));
        watch.trace.note(watch.at, || What::Failed(violation.clone()));
        replay.violation = Some(violation);
    }
    replay.rest = entries.rest();
    replay.sequence = watch.sequence;
    (replay.lines, replay.chronicle) = watch.trace.into_parts();
    Ok(replay)
}

/// An input in a few words; what is in a request or a message is in the trace.
fn kind(input: &Input) -> String {
    match input {
        Input::Request { token, .. } => format!("request {}", token.0),
        Input::Peer { message, .. } => Brief(message).to_string(),
        other => format!("{other:?}"),
    }
}

/// Whether a step made the effects that were recorded.
fn likeness(step: u64, what: &str, recorded: Option<u64>, played: &Played) -> Held {
    let differs = |why: String| Err(Violation { class: Class::Determinism, checker: "replay", what: why });
    if let Some(question) = &played.unanswered {
        return differs(format!("step {step} ({what}) asks what the recorded node did not: {question}"));
    }
    match recorded {
        Some(recorded) if recorded == played.hash => Ok(()),
        Some(recorded) => differs(format!(
            "step {step} ({what}) is the first that differs: its effects come to {:016x}, and {recorded:016x} was recorded",
            played.hash
        )),
        None => differs(format!("step {step} ({what}) ends here, and the recorded engine panicked in it")),
    }
}

/// A panic of the engine is a verdict.
fn guarded<T>(act: impl FnOnce() -> T) -> Result<T, Violation> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(act))
        .map_err(|panic| crate::world::panicked(&*panic))
}

/// Who looks on.
struct Watch {
    names: BTreeMap<NodeId, (usize, String)>,
    begun: Now,
    at: u64,
    one: One,
    groups: Vec<GroupId>,
    roles: BTreeMap<GroupId, (Role, u64)>,
    trace: Trace,
    sequence: Vec<String>,
}

impl Watch {
    fn over(opening: &chronos_engine::record::Opening, keep: bool) -> Watch {
        let config = &opening.config;
        let mut names = BTreeMap::from([(config.node, (NODE, opening.label.name.clone()))]);
        for member in config.members.iter().filter(|member| member.node != config.node) {
            names.insert(member.node, (names.len(), member.name.clone()));
        }
        let mut watch = Watch {
            names,
            begun: opening.now,
            at: 0,
            one: One::new(config.fire_ahead_max_us),
            groups: config.groups.clone(),
            roles: BTreeMap::new(),
            trace: Trace::new(keep),
            sequence: Vec::new(),
        };
        let last = match &opening.origin {
            Origin::Recovered(recovered) => {
                recovered.groups.values().map(|log| log.last().0).max().unwrap_or(0)
            }
            Origin::Image(_) => 0,
        };
        match &opening.origin {
            Origin::Recovered(_) => watch.say(format_args!("starts, its logs reach to {last} at the most")),
            Origin::Image(image) => {
                watch.say(format_args!("ran before; its memory has {} bytes", image.len()))
            }
        }
        watch.trace.note(0, || What::Started { node: NODE, last });
        watch
    }

    fn say(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.at, "node", what);
    }

    fn name(&self, node: NodeId) -> String {
        self.names.get(&node).map_or_else(|| format!("{:016x}", node.0), |(_, name)| name.clone())
    }

    fn place(&mut self, node: NodeId) -> usize {
        let next = self.names.len();
        self.names.entry(node).or_insert_with(|| (next, format!("{:016x}", node.0))).0
    }

    fn event(&mut self, what: String) {
        let (seconds, micros) = (self.at / 1_000_000, self.at % 1_000_000);
        self.sequence.push(format!("{:>7} {seconds:>5}.{micros:06} {what}", self.trace.step));
    }

    /// A step is about to be taken.
    fn begins(&mut self, step: u64, now: Now, input: &Input) {
        self.trace.step = step;
        self.at = now.mono.0.saturating_sub(self.begun.mono.0);
        let at = self.at;
        match input {
            Input::Tick | Input::QueueDrained => {}
            Input::Peer { from, message } => {
                let (name, peer) = (self.name(*from), self.place(*from));
                self.say(format_args!("<- {name} {}", Brief(message)));
                let what = || Brief(message).to_string();
                self.trace.note(at, || What::Sent { from: peer, to: NODE, arrives: Some(at), what: what() });
            }
            Input::Request { token, request } => {
                self.say(format_args!("request {} {}", token.0, asked(request)));
                let number = token.0;
                let asks = What::Asked { client: 0, number, attempt: 1, node: NODE, arrives: at };
                self.trace.note(at, || asks);
            }
            other => {
                let told = Told(other, &|node| self.name(node)).to_string();
                self.say(format_args!("{told}"));
                match other {
                    Input::WriteDurable(write) => {
                        self.trace.note(at, || What::Durable { node: NODE, write: write.0 });
                    }
                    Input::PeerUp(hello) => {
                        let peer = self.place(hello.node);
                        self.trace.note(at, || What::Mended { paths: vec![(NODE, peer), (peer, NODE)] });
                    }
                    Input::PeerDown(node) => {
                        let peer = self.place(*node);
                        self.trace.note(at, || What::Cut { paths: vec![(NODE, peer), (peer, NODE)] });
                    }
                    _ => {}
                }
            }
        }
    }

    /// A step was taken.
    fn stepped(&mut self, player: &Player, out: Outputs) -> Held {
        for group in self.groups.clone() {
            let (Some(raft), Some(state)) = (player.node.raft(group), player.node.state(group)) else {
                continue;
            };
            let is = (raft.role(), raft.term().0);
            if self.roles.insert(group, is) != Some(is) && group == GroupId(0) {
                self.trace.note(self.at, || What::Role { node: NODE, role: is.0, term: is.1 });
            }
            if self.one.stepped(group, raft, state.applied().0)? {
                let (index, term) = (raft.committed(), raft.term());
                self.event(format!("group {group} commits through {index} in term {term}"));
                self.trace.note(self.at, || What::Committed { node: NODE, index: index.0 });
            }
        }
        out.effects.into_iter().try_for_each(|effect| self.does(effect.action))
    }

    fn does(&mut self, action: Action) -> Held {
        let at = self.at;
        match action {
            Action::Wal(op) => return self.wal(&op),
            Action::Reply(token, reply) => {
                let (index, what) = answered(&reply);
                self.say(format_args!("reply {} {what}", token.0));
                let number = token.0;
                self.trace.note(at, || What::Replied { node: NODE, client: 0, number, index, what });
            }
            Action::Send { to, message } => self.sends(to, &message),
            Action::Refuse { peer, why } => {
                let name = self.name(peer);
                self.say(format_args!("refuses {name}: {why}"));
            }
            Action::Members(members) => self.say(format_args!("knows {} members", members.len())),
            Action::Publish(step::Published { snapshot, clock, .. }) => {
                self.say(format_args!("publish {} at {}", snapshot.applied, clock.time));
                self.one.published(snapshot.group, snapshot.applied.0)?;
            }
            Action::Checkpoint(checkpoint) => {
                let applied = checkpoint.groups.iter().map(|group| group.applied.0).max().unwrap_or(0);
                self.say(format_args!("checkpoint {} of {applied}", checkpoint.id.0));
            }
            Action::Deliver(delivery) => {
                let step::Delivery { subscriber, topic, partition, offsets } = delivery;
                let first = offsets.first().map_or(0, |(offset, _)| *offset);
                self.say(format_args!(
                    "delivers {} of {topic}.{partition} from {first} on to subscriber {}",
                    offsets.len(),
                    subscriber.0
                ));
            }
            Action::CloseSubscriber(id, why) => self.say(format_args!("closes subscriber {}: {why}", id.0)),
            Action::Trace(trace) => return self.traced(trace),
            Action::Fatal(fatal) => self.say(format_args!("fatal: {fatal}")),
        }
        Ok(())
    }

    fn sends(&mut self, to: NodeId, message: &PeerMessage) {
        let (at, name, peer) = (self.at, self.name(to), self.place(to));
        self.say(format_args!("-> {name} {}", Brief(message)));
        let what = || Brief(message).to_string();
        self.trace.note(at, || What::Sent { from: NODE, to: peer, arrives: Some(at), what: what() });
    }

    fn wal(&mut self, op: &WalOp) -> Held {
        self.trace.line(self.at, "wal", format_args!("{}", Handed(op)));
        let WalOp::Write { write, bytes, .. } = op else { return Ok(()) };
        let logged = tap::entries(bytes).map_err(|what| Violation::safety("log", what))?;
        for logged in &logged {
            match logged {
                Logged::Entry(group, entry) => {
                    let (write, index, term, what) = (write.0, entry.index.0, entry.term.0, brief(entry));
                    self.trace.line(self.at, "wal", format_args!("  {group}.{index} {what}"));
                    if let Command::Fire { timers } = &*entry.command {
                        let names: Vec<&str> = timers.iter().map(|timer| timer.timer_id.as_str()).collect();
                        self.event(format!(
                            "group {group} logs the firing of {} at {index}",
                            names.join(", ")
                        ));
                    }
                    self.trace.note(self.at, || What::Logged { node: NODE, write, index, term, what });
                }
                Logged::Truncated(group, from) => {
                    self.trace.line(self.at, "wal", format_args!("  {group} truncated from {from}"));
                    self.trace.note(self.at, || What::Truncated { node: NODE, from: from.0 });
                }
                other => self.trace.line(self.at, "wal", format_args!("  {other:?}")),
            }
        }
        match logged.is_empty() {
            true => Ok(()),
            false => self.one.told(*write, &logged),
        }
    }

    fn traced(&mut self, trace: step::Trace) -> Held {
        let words = Tells(&trace, &|node| self.name(node)).to_string();
        self.say(format_args!("{words}"));
        match &trace {
            step::Trace::Released { topic, due, at } => {
                self.event(format!("releases a timer of topic {topic} due {due} at {at}"));
            }
            step::Trace::Applied { group, index, what: "fire" } => {
                self.event(format!("group {group} applies the firing at {index}"));
            }
            _ => {}
        }
        self.one.traced(&trace)?;
        self.trace.note(self.at, || What::Engine { node: NODE, trace });
        Ok(())
    }
}

fn asked(request: &Request) -> String {
    match request {
        Request::Commit(group, transaction) => {
            let (name, count) = (transaction.request, transaction.ops.len());
            format!("{}.{} of {count} operations in group {group}", name.session.0 as u64, name.sequence)
        }
        Request::Read(group) => format!("where group {group} may be read"),
        other => format!("{other:?}"),
    }
}

fn answered(reply: &Reply) -> (Option<u64>, String) {
    match reply {
        Reply::Commit(Ok(committed)) => (Some(committed.index.0), format!("committed {}", committed.index)),
        Reply::Commit(Err(refused)) => (None, format!("refused: {refused}")),
        Reply::Unknown(why) => (None, format!("unknown: {why}")),
        Reply::Read(Ok(at)) => (None, format!("may read at {} as of {}", at.index, at.time)),
        other => (None, format!("{other:?}")),
    }
}
