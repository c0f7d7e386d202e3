//! How a transcript writes things.

use chronos_engine::raft::{Output, Raft, Role};
use chronos_engine::wal::Record;
use chronos_proto::command::{Command, Entry, Op};
use chronos_proto::id::{NodeId, RelationId, RequestId, SessionId};
use chronos_proto::membership::Configuration;
use chronos_proto::raft::{LogId, Message};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A command that carries a text; Raft does not look into it.
pub fn command(text: &str) -> Arc<Command> {
    let request = RequestId { session: SessionId(0), sequence: 0, floor: 0 };
    let row = bytes::Bytes::copy_from_slice(text.as_bytes());
    let ops = vec![Op::AppendRow { relation: RelationId(16), row, indexes: Vec::new() }];
    Arc::new(Command::Batch { request, ops })
}

pub fn of_command(command: &Command) -> Option<String> {
    let Command::Batch { ops, .. } = command else { return None };
    let [Op::AppendRow { row, .. }] = &ops[..] else { return None };
    Some(String::from_utf8_lossy(row).into_owned())
}

/// index@term.
pub fn place(place: LogId) -> String {
    format!("{}@{}", place.index, place.term)
}

pub fn entry(entry: &Entry) -> String {
    let what = match &*entry.command {
        Command::Noop => "noop".to_owned(),
        Command::Membership(configuration) => members(configuration),
        command => of_command(command).unwrap_or_else(|| format!("{command:?}")),
    };
    format!("{} {what}", place(LogId { term: entry.term, index: entry.index }))
}

fn names(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|id| format!("n{id}")).collect::<Vec<_>>().join(" ")
}

pub fn members(configuration: &Configuration) -> String {
    let mut out = format!("voters={}", names(&configuration.voters));
    if configuration.is_joint() {
        out += &format!(" outgoing={}", names(&configuration.outgoing));
    }
    if !configuration.learners.is_empty() {
        out += &format!(" learners={}", names(&configuration.learners));
    }
    out
}

pub fn record(record: &Record) -> String {
    match record {
        Record::Entry(written) => entry(written),
        Record::HardState(hard) => {
            let vote = hard.vote.map_or("none".to_owned(), |vote| format!("n{vote}"));
            format!("term {} vote={vote}", hard.term)
        }
        Record::Truncate { from } => format!("cut from {from}"),
        Record::Compacted(compacted) => format!("compacted through {}@{}", compacted.index, compacted.term),
        Record::Mark | Record::Base(_) => panic!("not Raft's to write"),
    }
}

fn message(message: &Message) -> String {
    let head = format!("{} t{}", message.kind(), message.term());
    match message {
        Message::PreVote { last, .. } => format!("{head} last={}", place(*last)),
        Message::Vote { last, transfer, .. } => {
            format!("{head} last={}{}", place(*last), if *transfer { " transfer" } else { "" })
        }
        Message::PreVoteReply { granted, .. } | Message::VoteReply { granted, .. } => {
            format!("{head} {}", if *granted { "granted" } else { "refused" })
        }
        Message::Append { previous, entries, commit, .. } => {
            let entries = entries.iter().map(entry).collect::<Vec<_>>().join(", ");
            format!("{head} prev={} [{entries}] commit={commit}", place(*previous))
        }
        Message::Appended { matched, .. } => format!("{head} matched={matched}"),
        Message::AppendRejected { previous, hint, .. } => {
            format!("{head} prev={previous} hint={}", place(*hint))
        }
        Message::Heartbeat { commit, round, .. } => format!("{head} commit={commit} round={round}"),
        Message::HeartbeatReply { round, .. } => format!("{head} round={round}"),
        Message::TimeoutNow { .. } | Message::Returned { .. } => head,
        Message::Rest { last, round, .. } => format!("{head} last={last} round={round}"),
        Message::Resting { round, .. } => format!("{head} round={round}"),
        Message::Readmit { index, .. } => format!("{head} up to {index}"),
        Message::Snapshot { last, configuration, .. } => {
            format!("{head} last={} {}", place(*last), members(configuration))
        }
    }
}

/// A message, struck out if it is lost.
pub fn sent(from: NodeId, to: NodeId, what: &Message, lost: bool) -> String {
    format!("n{from} {} n{to} {}", if lost { "-x->" } else { "->" }, message(what))
}

pub fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

pub fn output(id: NodeId, output: &Output, lost: bool) -> String {
    match output {
        Output::Persist { record: written, .. } => format!("n{id} writes {}", record(written)),
        Output::Send { to, message } => sent(id, *to, message, lost),
        Output::Read { number, index: Some(index) } => format!("n{id} answers read {number} at {index}"),
        Output::Read { number, index: None } => format!("n{id} cannot answer read {number}"),
        Output::SendSnapshot { to } => format!("n{id} wants to send n{to} a snapshot"),
        Output::Install { last, .. } => format!("n{id} wants to install {}", place(*last)),
        Output::Trusted => format!("n{id} has all that it may have promised"),
        Output::Role { role: Role::Follower, term, leader: Some(leader) } => {
            format!("n{id} follows n{leader} in term {term}")
        }
        Output::Role { role: now, term, .. } => format!("n{id} is {} in term {term}", role(*now)),
    }
}

pub fn status(id: NodeId, raft: &Raft) -> String {
    let status = raft.status();
    let leader = status.leader.map_or("nobody".to_owned(), |leader| format!("n{leader}"));
    let mut out = format!(
        "n{id} {} t{} leader={leader} log={}..{} commit={} durable={}",
        role(status.role),
        status.term,
        status.base.index,
        place(status.last),
        status.committed,
        status.persisted,
    );
    for (follower, (matched, pace)) in status.followers {
        out += &format!(" n{follower}:{matched}/{pace:?}").to_lowercase();
    }
    if raft.is_resting() {
        out += " at rest";
    }
    out
}
