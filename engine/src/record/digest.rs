//! The running hash over what a node asks of its shell: all that can be seen of a step from outside.
//!
//! Of a published state its place and clock are taken, and of a checkpoint its sizes, since both are made of what was
//! hashed before: bytes of the log, answers, deliveries.

use crate::step::{Action, Effect, Fresh, Published, Reply, Trace};
use crate::wal::WalOp;
use chronos_proto::codec;
use serde::Serialize;

/// `before`, with these effects behind it.
pub fn effects(before: u64, effects: &[Effect]) -> u64 {
    let mut hash = before;
    let mut bytes = Vec::new();
    for effect in effects {
        bytes.clear();
        add(&mut bytes, &effect.after);
        action(&effect.action, &mut bytes);
        hash = codec::digest(&hash.to_le_bytes(), &bytes);
    }
    hash
}

fn add(bytes: &mut Vec<u8>, what: &(impl Serialize + ?Sized)) {
    bytes.extend_from_slice(&codec::encode(what));
}

/// What is rare is taken as its debug text has it.
fn rare(bytes: &mut Vec<u8>, what: &impl std::fmt::Debug) {
    bytes.extend_from_slice(format!("{what:?}").as_bytes());
}

fn action(action: &Action, bytes: &mut Vec<u8>) {
    match action {
        Action::Wal(op) => {
            bytes.push(0);
            wal(op, bytes);
        }
        Action::Reply(token, reply) => {
            bytes.push(1);
            add(bytes, token);
            answer(reply, bytes);
        }
        Action::Send { to, message } => {
            bytes.push(2);
            add(bytes, to);
            add(bytes, message);
        }
        Action::Refuse { peer, why } => {
            bytes.push(3);
            add(bytes, &(peer, why));
        }
        Action::Members(members) => {
            bytes.push(4);
            add(bytes, members);
        }
        Action::Publish(Published { snapshot, clock, fresh }) => {
            bytes.push(5);
            add(bytes, &(snapshot.group, snapshot.applied, snapshot.applied_time, clock.mono, clock.time));
            match fresh {
                Fresh::Alone => bytes.push(0),
                Fresh::Until(until) => add(bytes, &(1u8, until)),
                Fresh::Ask => bytes.push(2),
            }
        }
        Action::Checkpoint(checkpoint) => {
            bytes.push(6);
            add(bytes, &checkpoint.id);
            for group in &checkpoint.groups {
                let place = (group.group, group.generation, group.applied, group.term);
                add(bytes, &(place, group.layer.len() as u64, &group.root));
            }
        }
        Action::Deliver(delivery) => {
            bytes.push(7);
            add(bytes, &(delivery.subscriber, delivery.topic, delivery.partition, &delivery.offsets));
        }
        Action::CloseSubscriber(subscriber, why) => {
            bytes.push(8);
            add(bytes, &(subscriber, why));
        }
        Action::Trace(Trace::Applied { group, index, what }) => add(bytes, &(9u8, group, index, what)),
        Action::Trace(trace) => {
            bytes.push(10);
            rare(bytes, trace);
        }
        Action::Fatal(fatal) => {
            bytes.push(11);
            rare(bytes, fatal);
        }
    }
}

fn wal(op: &WalOp, bytes: &mut Vec<u8>) {
    match op {
        WalOp::Write { write, segment, offset, bytes: written } => {
            bytes.push(0);
            // Hashed where it is: it may be megabytes.
            let hash = codec::digest(&[], written);
            add(bytes, &(write, segment, offset, written.len() as u64, hash));
        }
        WalOp::Create { segment, bytes: size } => add(bytes, &(1u8, segment, size)),
        WalOp::Sync { write, segment } => add(bytes, &(2u8, write, segment)),
        WalOp::Done { write } => add(bytes, &(3u8, write)),
        WalOp::Remove { segment } => add(bytes, &(4u8, segment)),
    }
}

fn answer(reply: &Reply, bytes: &mut Vec<u8>) {
    match reply {
        Reply::Commit(Ok(committed)) => {
            bytes.push(0);
            add(bytes, &(committed.index, committed.time, &committed.outcomes));
        }
        Reply::Read(Ok(at)) => add(bytes, &(1u8, at.index, at.time)),
        other => {
            bytes.push(2);
            rare(bytes, other);
        }
    }
}
