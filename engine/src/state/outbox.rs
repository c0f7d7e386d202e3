//! Writes for other groups, and what came from theirs.
//!
//! A write of an entry that belongs to another group (an event for a partition that is kept there, the definition of a
//! topic) is put into the outbox, numbered by target, in the same entry as everything else. The leader sends it on,
//! again until the target has it; the target keeps the last number that it applied, so each is applied once and in
//! order; then an entry here takes it out.

use super::keys::{self, tag};
use super::snapshot::Snapshot;
use super::{ReadError, State};
use crate::store::SharedStore;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::command::Op;
use chronos_proto::id::GroupId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Writes sent together at the most.
const BATCH_OPS: usize = 512;
/// And their bytes, unless one alone is larger.
const BATCH_BYTES: usize = 1 << 20;

/// The outboxes and inboxes of a group, in short.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Outboxes {
    /// The last number that was put there, by target.
    last: BTreeMap<GroupId, u64>,
    /// The last number that was taken out, by target.
    gone: BTreeMap<GroupId, u64>,
    /// Bytes that wait.
    bytes: usize,
    /// The last number applied, by origin.
    inbox: BTreeMap<GroupId, u64>,
}

impl Outboxes {
    pub(super) fn load(snapshot: &Snapshot) -> Result<Outboxes, ReadError> {
        let mut out = Outboxes::default();
        for entry in snapshot.scan(&keys::all(tag::OUTBOX_LAST, None), false) {
            let (key, value) = entry?;
            let last: u64 = codec::decode("outbox", &value)?;
            if let Some(target) = keys::group_of(&key) {
                out.last.insert(target, last);
                out.gone.insert(target, last);
            }
        }
        for entry in snapshot.scan(&keys::all(tag::OUTBOX, None), true) {
            let (key, value) = entry?;
            out.bytes += value.len();
            if let Some((target, number)) = keys::outbox_parts(&key) {
                out.gone.insert(target, number.saturating_sub(1));
            }
        }
        for entry in snapshot.scan(&keys::all(tag::INBOX, None), false) {
            let (key, value) = entry?;
            if let Some(origin) = keys::group_of(&key) {
                out.inbox.insert(origin, codec::decode("inbox", &value)?);
            }
        }
        Ok(out)
    }
}

impl State {
    /// Bytes that wait for other groups.
    pub fn outbox_bytes(&self) -> usize {
        self.outboxes.bytes
    }

    /// Groups that something waits for.
    pub fn outbox_targets(&self) -> impl Iterator<Item = GroupId> + '_ {
        let waits = |(target, last): (&GroupId, &u64)| {
            (self.outboxes.gone.get(target).copied().unwrap_or(0) < *last).then_some(*target)
        };
        self.outboxes.last.iter().filter_map(waits)
    }

    /// The next writes for a group behind number `after`, and the number of the first; none if there are none.
    pub fn outbox(
        &self,
        target: GroupId,
        after: u64,
        store: &SharedStore,
    ) -> Result<Option<(u64, Vec<Op>)>, ReadError> {
        let last = self.outboxes.last.get(&target).copied().unwrap_or(0);
        let first = after.max(self.outboxes.gone.get(&target).copied().unwrap_or(0)) + 1;
        if first > last {
            return Ok(None);
        }
        let (mut ops, mut bytes) = (Vec::new(), 0);
        for number in first..=last {
            let Some(op) = self.record::<Op>("outbox entry", &keys::outbox(target, number), store)? else {
                break;
            };
            bytes += op.bytes();
            if !ops.is_empty() && (bytes > BATCH_BYTES || ops.len() >= BATCH_OPS) {
                break;
            }
            ops.push(op);
        }
        Ok((!ops.is_empty()).then_some((first, ops)))
    }

    /// The last number of a group's outbox that was applied here.
    pub fn inbox(&self, origin: GroupId) -> u64 {
        self.outboxes.inbox.get(&origin).copied().unwrap_or(0)
    }

    /// Puts a write for another group into the outbox.
    pub(super) fn send(&mut self, target: GroupId, op: &Op) {
        let last = self.outboxes.last.entry(target).or_default();
        let before = *last;
        *last += 1;
        let key = keys::outbox_last(target);
        let replaces = if before == 0 { 0 } else { codec::digest(&key, &codec::encode(&before)) };
        let (number, value) = (before + 1, Bytes::from(codec::encode(op)));
        self.outboxes.bytes += value.len();
        self.put_known(key, Some(Bytes::from(codec::encode(&number))), replaces);
        self.put_known(keys::outbox(target, number), Some(value), 0);
    }

    /// The target has everything up to a number: it goes.
    pub(super) fn delivered(
        &mut self,
        target: GroupId,
        upto: u64,
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        let upto = upto.min(self.outboxes.last.get(&target).copied().unwrap_or(0));
        let gone = self.outboxes.gone.get(&target).copied().unwrap_or(0);
        for number in gone + 1..=upto {
            let key = keys::outbox(target, number);
            let Some(value) = self.get(&key, store)? else { continue };
            self.outboxes.bytes = self.outboxes.bytes.saturating_sub(value.len());
            let digest = codec::digest(&key, &value);
            self.put_known(key, None, digest);
        }
        self.outboxes.gone.insert(target, upto.max(gone));
        Ok(())
    }

    /// Everything up to a number of a group's outbox is applied.
    pub(super) fn received(
        &mut self,
        origin: GroupId,
        upto: u64,
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        self.outboxes.inbox.insert(origin, upto);
        self.put(keys::inbox(origin), Some(Bytes::from(codec::encode(&upto))), store)
    }
}
