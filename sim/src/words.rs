//! What a node is told and tells, in the words of the trace. What is rare is shown as the engine's own type has it.

use crate::chronicle::role_name;
use chronos_engine::step::{Input, Trace};
use chronos_engine::wal::WalOp;
use chronos_proto::command::{Command, Entry, Op};
use chronos_proto::id::NodeId;
use chronos_proto::peer::{ForwardOutcome, PeerMessage};
use chronos_proto::raft::{LogId, Message};
use std::fmt::{Display, Formatter, Result};

/// What a node is called in print.
pub(crate) type Naming<'a> = &'a dyn Fn(NodeId) -> String;

/// Something that a node is told.
pub(crate) struct Told<'a>(pub(crate) &'a Input, pub(crate) Naming<'a>);

impl Display for Told<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Input::WriteDurable(write) => write!(f, "learns that write {} is durable", write.0),
            Input::CheckpointDurable(id) => write!(f, "learns that checkpoint {} is durable", id.0),
            Input::PeerUp(hello) => write!(f, "linked with {} (run {})", (self.1)(hello.node), hello.boot),
            Input::PeerDown(node) => write!(f, "link with {} ends", (self.1)(*node)),
            Input::ClockSynchronised(is) => {
                write!(f, "learns that its clock is {}synchronised", if *is { "" } else { "not " })
            }
            other => write!(f, "input {other:?}"),
        }
    }
}

/// Something that the engine tells of itself.
pub(crate) struct Tells<'a>(pub(crate) &'a Trace, pub(crate) Naming<'a>);

impl Display for Tells<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Trace::Elected { term, .. } => write!(f, "is elected leader of term {term}"),
            Trace::Role { role, term, leader, .. } => {
                write!(f, "is {} in term {term}, ", role_name(*role))?;
                match leader {
                    Some(leader) => write!(f, "led by {}", (self.1)(*leader)),
                    None => f.write_str("knows no leader"),
                }
            }
            Trace::PeerRefused { peer, why } => write!(f, "refuses {}: {why}", (self.1)(*peer)),
            Trace::Applied { index, what, .. } => write!(f, "applies entry {index}: {what}"),
            Trace::Released { topic, due, at } => write!(f, "releases a timer of {topic} due {due} at {at}"),
            Trace::Checkpoint { id, done } => {
                write!(f, "checkpoint {} {}", id.0, if *done { "is done" } else { "begins" })
            }
            Trace::SegmentRemoved(segment) => write!(f, "gives up {segment}"),
            Trace::SnapshotResumed { index, chunk, .. } => {
                write!(f, "goes on with chunk {chunk} of the snapshot at entry {index}")
            }
            Trace::SnapshotInstalled { index, .. } => write!(f, "takes on a snapshot at entry {index}"),
            Trace::ClockStep { micros, adopted } => {
                let word = if *adopted { "follows" } else { "ignores" };
                write!(f, "{word} a step of the wall clock by {} ms", micros / 1_000)
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// Something that a node hands to its disk.
pub(crate) struct Handed<'a>(pub(crate) &'a WalOp);

impl Display for Handed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            WalOp::Create { segment, bytes } => write!(f, "create {segment} of {bytes} bytes"),
            WalOp::Write { write, segment, offset, bytes } => {
                write!(f, "write {} {segment} +{offset} {} bytes", write.0, bytes.len())
            }
            WalOp::Sync { write, segment } => write!(f, "sync {} {segment}", write.0),
            WalOp::Done { write } => write!(f, "hand over {}", write.0),
            WalOp::Remove { segment } => write!(f, "remove {segment}"),
        }
    }
}

/// Forwarded writes and reads have long numbers, told apart by their last digits.
const FORWARDS_SHOWN: u64 = 10_000;

/// A message in a few words.
pub(crate) struct Brief<'a>(pub(crate) &'a PeerMessage);

impl Display for Brief<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let place = |id: &LogId| (id.term.0, id.index.0);
        match self.0 {
            PeerMessage::Raft { message, .. } => match message {
                Message::Append { term, previous, entries, commit } => {
                    let ((t, i), n) = (place(previous), entries.len());
                    write!(f, "Append t{term} behind {t}.{i}: {n} entries, commit {commit}")
                }
                Message::Appended { term, matched } => write!(f, "Appended t{term} through {matched}"),
                Message::AppendRejected { term, previous, hint } => {
                    let (t, i) = place(hint);
                    write!(f, "AppendRejected t{term} behind {previous}, hint {t}.{i}")
                }
                Message::Snapshot { term, last, .. } => {
                    let (t, i) = place(last);
                    write!(f, "Snapshot t{term} at {t}.{i}")
                }
                Message::PreVote { term, last } => {
                    let (t, i) = place(last);
                    write!(f, "PreVote t{term}, log ends at {t}.{i}")
                }
                Message::Vote { term, last, transfer } => {
                    let ((t, i), handed) = (place(last), if *transfer { ", handed over" } else { "" });
                    write!(f, "Vote t{term}, log ends at {t}.{i}{handed}")
                }
                Message::PreVoteReply { term, granted } => {
                    write!(f, "PreVoteReply t{term} {}", if *granted { "yes" } else { "no" })
                }
                Message::VoteReply { term, granted } => {
                    write!(f, "VoteReply t{term} {}", if *granted { "yes" } else { "no" })
                }
                other => write!(f, "{other:?}"),
            },
            PeerMessage::Beat(beat) => {
                f.write_str("Beat")?;
                beat.groups.iter().try_for_each(|(_, t, c, r)| write!(f, " t{t} commit {c} round {r}"))?;
                beat.rest.iter().try_for_each(|(_, t, l, r)| write!(f, " t{t} may rest at {l} round {r}"))?;
                if beat.resting == 0 { Ok(()) } else { f.write_str(" and for what rests") }
            }
            PeerMessage::BeatReply(reply) => {
                f.write_str("BeatReply")?;
                reply.groups.iter().try_for_each(|(_, t, r)| write!(f, " t{t} round {r}"))?;
                reply.rest.iter().try_for_each(|(_, t, r)| write!(f, " t{t} rests, round {r}"))
            }
            PeerMessage::Forward(forward) => {
                let (session, sequence) = (forward.request.session.0 as u64, forward.request.sequence);
                let number = forward.number % FORWARDS_SHOWN;
                write!(f, "Forward {number} t{} of request {session}.{sequence}", forward.term)
            }
            PeerMessage::Read { number, .. } => write!(f, "Read {}", number % FORWARDS_SHOWN),
            PeerMessage::ReadReply { number, at } => {
                write!(f, "ReadReply {} ", number % FORWARDS_SHOWN)?;
                match at {
                    Some((term, index, _)) => write!(f, "at {term}.{index}"),
                    None => f.write_str("refused"),
                }
            }
            PeerMessage::ForwardReply { number, outcome } => {
                write!(f, "ForwardReply {} ", number % FORWARDS_SHOWN)?;
                match outcome {
                    ForwardOutcome::Committed { term, index, .. } => write!(f, "committed {term}.{index}"),
                    other => write!(f, "{other:?}"),
                }
            }
            PeerMessage::Chunk(chunk) => {
                let (t, i) = place(&chunk.last);
                let (number, count, ends) = (chunk.number, chunk.entries.len(), chunk.ends);
                write!(f, "Chunk {number} of {t}.{i}: {count} keys, ends={ends}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}

/// An entry in a few words.
pub(crate) fn brief(entry: &Entry) -> String {
    let what = match &*entry.command {
        Command::Batch { request, ops } => {
            let mut shown: Vec<String> = ops.iter().take(4).map(brief_op).collect();
            if ops.len() > shown.len() {
                shown.push(format!("and {} more", ops.len() - shown.len()));
            }
            format!("batch {}.{}: {}", request.session.0 as u64, request.sequence, shown.join(", "))
        }
        Command::Fire { timers } => {
            let shown: Vec<String> =
                timers.iter().take(4).map(|t| format!("{:?} due {}", t.timer_id, t.due)).collect();
            format!("fire {} timers: {}", timers.len(), shown.join(", "))
        }
        Command::Ack { consumer_group, offsets, .. } => format!("ack {consumer_group} {offsets:?}"),
        other => format!("{other:?}"),
    };
    format!("t{} {} {what}", entry.term, entry.time)
}

fn brief_op(op: &Op) -> String {
    match op {
        Op::PutRow { relation, key, .. } => format!("put {relation} {}", hex(key)),
        Op::DeleteRow { relation, key, .. } => format!("delete {relation} {}", hex(key)),
        Op::AppendRow { relation, .. } => format!("append {relation}"),
        Op::Publish { topic, event, claim, .. } => {
            format!("publish {topic} {:?} claim={claim}", event.message_id)
        }
        Op::Schedule { topic, timer_id, deliver_at, claim, .. } => {
            format!("schedule {topic} {timer_id:?} at {deliver_at} claim={claim}")
        }
        Op::Reschedule { topic, timer_id, deliver_at, if_version, .. } => {
            format!("reschedule {topic} {timer_id:?} to {deliver_at:?} if {if_version:?}")
        }
        Op::Cancel { topic, timer_id, if_version } => {
            format!("cancel {topic} {timer_id:?} if {if_version:?}")
        }
        Op::PutRelation(relation) => format!("define {} {:?}", relation.id, relation.name),
        Op::DropRelation(relation) => format!("drop {relation}"),
        Op::Redrive { dead, offset, source, .. } => format!("redrive {offset} of {dead} to {source}"),
        Op::Trigger { schedule, .. } => format!("trigger {schedule}"),
        Op::Ran { schedule, occurrence, failure } => {
            format!("ran {schedule} {} failed={}", occurrence.nominal, failure.is_some())
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
