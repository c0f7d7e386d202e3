//! Dedup: message ids claimed for a topic's window.
//!
//! A claim is found by a keyed 128-bit hash and compared by the stored id. Claims lie in time buckets, an eighth of
//! the window each, so that what is past the window goes bucket by bucket; a count per bucket, kept in memory, spares
//! looking into empty ones. A full window refuses new claims (`Node` checks before it proposes) and forgets none.

use super::keys::{self};
use super::{ReadError, State};
use crate::bugs::{self, Bug};
use crate::store::SharedStore;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The most claims a topic holds within its window.
pub const CLAIMS_MAX: u64 = 50_000_000;
const BUCKETS_PER_WINDOW: i64 = 8;

/// A claimed message id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    message_id: String,
    claimed_at: Timestamp,
    /// Where its event is; none while it is a pending timer, or if that was cancelled.
    pub position: Option<(u32, u64)>,
}

impl State {
    /// How many claims a topic holds.
    pub fn claims_held(&self, topic: RelationId) -> u64 {
        self.claims.range((topic, 0)..=(topic, u32::MAX)).map(|(_, count)| count).sum()
    }

    fn window(&self, topic: RelationId) -> i64 {
        let dedup = self.catalog.get(topic).and_then(|r| r.topic().map(|t| t.dedup_micros));
        i64::try_from(dedup.unwrap_or(0)).unwrap_or(i64::MAX)
    }

    fn bucket(&self, topic: RelationId, time: Timestamp) -> u32 {
        let width = (self.window(topic) / BUCKETS_PER_WINDOW).max(1_000_000);
        u32::try_from(time.0.max(0) / width).unwrap_or(u32::MAX)
    }

    fn claim_key(&self, topic: RelationId, bucket: u32, message_id: &str) -> Bytes {
        keys::claim(topic, bucket, codec::keyed_hash(self.hash_seed, message_id.as_bytes()))
    }

    /// The claim on a message id within the window before `now`.
    pub(super) fn find_claim(
        &self,
        topic: RelationId,
        message_id: &str,
        now: Timestamp,
        store: &SharedStore,
    ) -> Result<Option<Claim>, ReadError> {
        let window = self.window(topic) / if bugs::active(Bug::HalfWindow) { 2 } else { 1 };
        let since = Timestamp(now.0.saturating_sub(window));
        let oldest = self.bucket(topic, since);
        for ((_, bucket), _) in self.claims.range((topic, oldest)..=(topic, u32::MAX)).rev() {
            let key = self.claim_key(topic, *bucket, message_id);
            let found: Option<Claim> = self.record("claim", &key, store)?;
            if let Some(claim) = found.filter(|c| c.message_id == message_id && c.claimed_at >= since) {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    pub(super) fn claim(
        &mut self,
        topic: RelationId,
        message_id: &str,
        position: Option<(u32, u64)>,
        now: Timestamp,
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        if self.window(topic) == 0 {
            return Ok(());
        }
        let bucket = self.bucket(topic, now);
        let claim = Claim { message_id: message_id.to_owned(), claimed_at: now, position };
        let key = self.claim_key(topic, bucket, message_id);
        let replaces = self.digest_of(&key, store)?;
        if replaces == 0 {
            *self.claims.entry((topic, bucket)).or_default() += 1;
        }
        self.put_known(key, Some(Bytes::from(codec::encode(&claim))), replaces);
        Ok(())
    }

    /// Claims anew, from `now` on, what was claimed at `claimed_at`.
    pub(super) fn renew_claim(
        &mut self,
        topic: RelationId,
        message_id: &str,
        claimed_at: Timestamp,
        position: Option<(u32, u64)>,
        now: Timestamp,
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        let bucket = self.bucket(topic, claimed_at);
        if bucket != self.bucket(topic, now) {
            let key = self.claim_key(topic, bucket, message_id);
            let replaces = self.digest_of(&key, store)?;
            if replaces != 0 {
                self.put_known(key, None, replaces);
                self.forget_claims(topic, bucket, 1);
            }
        }
        self.claim(topic, message_id, position, now, store)
    }

    fn forget_claims(&mut self, topic: RelationId, bucket: u32, count: u64) {
        if let Some(held) = self.claims.get_mut(&(topic, bucket)) {
            *held -= count.min(*held);
            if *held == 0 {
                self.claims.remove(&(topic, bucket));
            }
        }
    }

    /// A bucket that is wholly past its topic's window at `now`.
    fn stale_bucket(&self, now: Timestamp) -> Option<(RelationId, u32)> {
        self.claims.keys().copied().find(|(topic, bucket)| {
            let since = Timestamp(now.0.saturating_sub(self.window(*topic)));
            *bucket < self.bucket(*topic, since)
        })
    }

    /// Whether there is something to expire at the group's own time. Cheap.
    pub(super) fn expiry_due(&self) -> bool {
        self.stale_bucket(self.applied_time).is_some() || self.sessions.idle(self.applied_time).is_some()
    }

    /// Forgets up to `limit` claims and outcomes that are past their window.
    pub(super) fn expire(
        &mut self,
        now: Timestamp,
        limit: usize,
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        if let Some((topic, bucket)) = self.stale_bucket(now) {
            let snapshot = self.snapshot(store);
            let stale: Vec<_> =
                snapshot.scan(&keys::claims(topic, bucket), false).take(limit).collect::<Result<_, _>>()?;
            if stale.is_empty() {
                self.claims.remove(&(topic, bucket));
            }
            self.forget_claims(topic, bucket, stale.len() as u64);
            for (key, value) in stale {
                let digest = codec::digest(&key, &value);
                self.put_known(key, None, digest);
            }
        }
        if let Some(session) = self.sessions.idle(now) {
            self.forget_session(session, store)?;
        }
        Ok(())
    }
}
