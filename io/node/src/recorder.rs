//! The flight recorder: what a node's engine was last given and what it did, in a ring of bounded size.
//!
//! ```text
//!     12.030577 <- commit      token 17 group 0 operations 3
//!     12.030802 -> sync        write 9
//!     12.031650 <- durable     write 9
//!     12.031699 -> committed   token 17 index 42
//! ```
//!
//! Seconds since the node was opened, into the engine or out of it, what, and numbers: no payloads, no keys, no SQL. The
//! ring is written as text to `flight.txt` in the data directory when the node ends by an error or a thread panics, and
//! whenever somebody asks; a later text takes the place of an earlier one. Ticks are left out, and so is what happens all
//! the time and says little: states published, events delivered, bytes written.
//!
//! It cannot be replayed: `recording` makes what can.

use chronos_engine::raft::Role;
use chronos_engine::step::{Input, Reply, Request, SubscriberInput, Token, Trace};
use chronos_engine::txn::Refused;
use chronos_engine::wal::WalOp;
use chronos_proto::id::NodeId;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Records that are kept: half a megabyte.
const RECORDS_MAX: usize = 8_192;
/// The file's name in the data directory.
pub(crate) const FILE: &str = "flight.txt";

/// A kind of record, and what its numbers are.
struct Kind {
    into: bool,
    name: &'static str,
    numbers: &'static [&'static str],
}

const fn into(name: &'static str, numbers: &'static [&'static str]) -> Kind {
    Kind { into: true, name, numbers }
}

const fn out(name: &'static str, numbers: &'static [&'static str]) -> Kind {
    Kind { into: false, name, numbers }
}

static COMMIT: Kind = into("commit", &["token", "group", "operations"]);
static READ: Kind = into("read", &["token", "group"]);
static OPERATE: Kind = into("operate", &["token"]);
static SUBSCRIBER: Kind = into("subscriber", &["id"]);
static HEARD: Kind = into("heard", &["peer"]);
static PEER_UP: Kind = into("link up", &["peer"]);
static PEER_DOWN: Kind = into("link down", &["peer"]);
static DURABLE: Kind = into("durable", &["write"]);
static FULL: Kind = into("disk full", &["write"]);
static FAILED: Kind = into("disk failed", &["write"]);
static STORED: Kind = into("stored", &["checkpoint"]);
static STORE_FULL: Kind = into("store full", &["checkpoint"]);
static STORE_FAILED: Kind = into("store failed", &["checkpoint"]);
static CLOCK: Kind = into("clock", &["synchronised"]);
static ASKED_CHECKPOINT: Kind = into("checkpoint asked", &[]);
static STOP: Kind = into("stop", &[]);

static SYNC: Kind = out("sync", &["write"]);
static CHECKPOINT: Kind = out("checkpoint", &["checkpoint"]);
static SENT: Kind = out("sent", &["peer"]);
static COMMITTED: Kind = out("committed", &["token", "index"]);
static REFUSED: Kind = out("refused", &["token"]);
static UNKNOWN: Kind = out("unknown", &["token"]);
static READ_AT: Kind = out("read at", &["token", "index"]);
static OPERATED: Kind = out("operated", &["token", "well"]);
static ROLE: Kind = out("role", &["group", "term", "leader"]);
static ELECTED: Kind = out("elected", &["group", "term"]);
static APPLIED: Kind = out("applied", &["group", "index"]);
static INSTALLED: Kind = out("snapshot installed", &["group", "index"]);
static SNAPSHOT_SENT: Kind = out("snapshot sent", &["group", "index", "peer"]);
static CLOCK_STEP: Kind = out("clock step", &["microseconds", "adopted"]);
static REFUSES: Kind = out("refuses", &["peer"]);
static FATAL: Kind = out("fatal", &[]);

#[derive(Clone, Copy)]
struct Record {
    at_us: u64,
    kind: &'static Kind,
    detail: &'static str,
    numbers: [u64; 3],
}

/// The ring. Its users are the driver's thread and, now and then, somebody who reads.
pub(crate) struct Recorder {
    began: Instant,
    file: PathBuf,
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    records: VecDeque<Record>,
    dropped: u64,
}

impl Recorder {
    /// An empty one, for the node of a data directory.
    pub fn new(data_dir: &Path) -> Recorder {
        Recorder { began: Instant::now(), file: data_dir.join(FILE), ring: Mutex::default() }
    }

    fn note<const N: usize>(&self, kind: &'static Kind, detail: &'static str, numbers: [u64; N]) {
        let at_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut all = [0; 3];
        all[..N].copy_from_slice(&numbers);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.records.len() == RECORDS_MAX {
            ring.records.pop_front();
            ring.dropped += 1;
        }
        ring.records.push_back(Record { at_us, kind, detail, numbers: all });
    }

    /// Something is given to the engine.
    pub fn input(&self, input: &Input) {
        match input {
            Input::Tick | Input::QueueDrained => {}
            Input::WriteDurable(write) => self.note(&DURABLE, "", [write.0]),
            Input::WriteFull(write) => self.note(&FULL, "", [write.0]),
            Input::WriteFailed { write, .. } => self.note(&FAILED, "", [write.0]),
            Input::CheckpointDurable(id) => self.note(&STORED, "", [id.0]),
            Input::CheckpointFull(id) => self.note(&STORE_FULL, "", [id.0]),
            Input::CheckpointFailed { checkpoint, .. } => self.note(&STORE_FAILED, "", [checkpoint.0]),
            Input::Request { token, request } => match request {
                Request::Commit(group, transaction) => {
                    self.note(&COMMIT, "", [token.0, u64::from(group.0), transaction.ops.len() as u64]);
                }
                Request::Read(group) => self.note(&READ, "", [token.0, u64::from(group.0)]),
                Request::Change { .. } => self.note(&OPERATE, "change of members", [token.0]),
                Request::PutMember(_) => self.note(&OPERATE, "note of a member", [token.0]),
                Request::DropMember(_) => self.note(&OPERATE, "end of a member", [token.0]),
                Request::Transfer { .. } => self.note(&OPERATE, "transfer", [token.0]),
            },
            Input::Subscriber { id, event } => {
                let says = match event {
                    SubscriberInput::Open(_) => "opens",
                    SubscriberInput::Credit(_) => "takes more",
                    SubscriberInput::Ack(_) => "is done with some",
                    SubscriberInput::Nack { .. } => "wants some again",
                    SubscriberInput::Close => "closes",
                };
                self.note(&SUBSCRIBER, says, [id.0]);
            }
            Input::Peer { from, message } => self.note(&HEARD, message.kind(), [from.0]),
            Input::PeerUp(hello) => self.note(&PEER_UP, "", [hello.node.0]),
            Input::PeerDown(peer) => self.note(&PEER_DOWN, "", [peer.0]),
            Input::ClockSynchronised(synchronised) => self.note(&CLOCK, "", [u64::from(*synchronised)]),
            Input::Checkpoint => self.note(&ASKED_CHECKPOINT, "", []),
            Input::Stop => self.note(&STOP, "", []),
        }
    }

    /// The engine writes to its log.
    pub fn wal(&self, op: &WalOp) {
        if let WalOp::Sync { write, .. } = op {
            self.note(&SYNC, "", [write.0]);
        }
    }

    /// The engine begins a checkpoint.
    pub fn checkpoint(&self, id: u64) {
        self.note(&CHECKPOINT, "", [id]);
    }

    /// The engine says something to a peer.
    pub fn sent(&self, to: NodeId, kind: &'static str) {
        self.note(&SENT, kind, [to.0]);
    }

    /// The engine has a link closed.
    pub fn refuses(&self, peer: NodeId) {
        self.note(&REFUSES, "", [peer.0]);
    }

    /// The engine answers.
    pub fn reply(&self, token: Token, reply: &Reply) {
        match reply {
            Reply::Commit(Ok(committed)) => self.note(&COMMITTED, "", [token.0, committed.index.0]),
            Reply::Read(Ok(read)) => self.note(&READ_AT, "", [token.0, read.index.0]),
            Reply::Commit(Err(refused)) | Reply::Read(Err(refused)) => {
                self.note(&REFUSED, why(refused), [token.0]);
            }
            Reply::Unknown(_) => self.note(&UNKNOWN, "", [token.0]),
            Reply::Operator(result) => self.note(&OPERATED, "", [token.0, u64::from(result.is_ok())]),
        }
    }

    /// The engine tells what happened in it.
    pub fn trace(&self, trace: &Trace) {
        match trace {
            Trace::Elected { group, term } => self.note(&ELECTED, "", [u64::from(group.0), *term]),
            Trace::Role { group, role, term, leader } => {
                let role = match role {
                    Role::Follower => "follower",
                    Role::PreCandidate => "pre-candidate",
                    Role::Candidate => "candidate",
                    Role::Leader => "leader",
                };
                self.note(&ROLE, role, [u64::from(group.0), *term, leader.map_or(0, |leader| leader.0)]);
            }
            Trace::Applied { group, index, what } => {
                self.note(&APPLIED, what, [u64::from(group.0), index.0]);
            }
            Trace::SnapshotInstalled { group, index } => {
                self.note(&INSTALLED, "", [u64::from(group.0), index.0]);
            }
            Trace::SnapshotSent { group, to, index, done } => {
                let how = if *done { "whole" } else { "begun or given up" };
                self.note(&SNAPSHOT_SENT, how, [u64::from(group.0), index.0, to.0]);
            }
            Trace::ClockStep { micros, adopted } => {
                let ahead = if *micros < 0 { "back" } else { "ahead" };
                self.note(&CLOCK_STEP, ahead, [micros.unsigned_abs(), u64::from(*adopted)]);
            }
            Trace::PeerRefused { peer, .. } => self.note(&REFUSES, "a message", [peer.0]),
            Trace::Awaits(_)
            | Trace::Trusted { .. }
            | Trace::Released { .. }
            | Trace::Checkpoint { .. }
            | Trace::SnapshotResumed { .. }
            | Trace::SegmentRemoved(_) => {}
        }
    }

    /// The engine can go on no more.
    pub fn fatal(&self) {
        self.note(&FATAL, "", []);
    }

    /// The ring as text, the oldest first.
    pub fn text(&self) -> String {
        let (records, dropped) = {
            let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            (ring.records.clone(), ring.dropped)
        };
        let mut text = format!("{} records, {dropped} before them\n", records.len());
        for Record { at_us, kind, detail, numbers } in records {
            let arrow = if kind.into { "<-" } else { "->" };
            let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
            let name = kind.name;
            // Writing to a string does not fail.
            let _ = write!(text, "{seconds:>7}.{micros:06} {arrow} {name:<11}");
            for (what, number) in kind.numbers.iter().zip(numbers) {
                let _ = match *what {
                    "peer" | "leader" => write!(text, " {what} {number:016x}"),
                    what => write!(text, " {what} {number}"),
                };
            }
            let _ = writeln!(text, "{}{detail}", if detail.is_empty() { "" } else { " " });
        }
        text
    }

    /// Writes the text to its file.
    pub fn write(&self) -> io::Result<PathBuf> {
        std::fs::write(&self.file, self.text())?;
        Ok(self.file.clone())
    }
}

fn why(refused: &Refused) -> &'static str {
    match refused {
        Refused::Conflict => "conflict",
        Refused::Expired(_) => "expired",
        Refused::NotLeader => "not leader",
        Refused::Full(_) => "full",
        Refused::Overloaded(_) => "overloaded",
        Refused::TooLarge { .. } => "too large",
        Refused::Stopping => "stopping",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::wal::WriteId;

    #[test]
    fn the_ring_keeps_the_last_records_and_says_how_many_were_before() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(dir.path());
        for write in 0..RECORDS_MAX as u64 + 5 {
            recorder.input(&Input::WriteDurable(WriteId(write)));
            recorder.input(&Input::Tick);
        }
        recorder.sent(NodeId(0xabc), "Append");
        let text = std::fs::read_to_string(recorder.write().unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("{RECORDS_MAX} records, 6 before them"));
        assert_eq!(lines.len(), RECORDS_MAX + 1);
        assert!(lines[1].ends_with(" <- durable     write 6"), "{}", lines[1]);
        let last = lines[RECORDS_MAX];
        assert!(last.ends_with(" -> sent        peer 0000000000000abc Append"), "{last}");
    }
}
