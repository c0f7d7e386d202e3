//! Requests have one effect: outcomes are kept per (session, sequence) until the client's floor passes them.
//!
//! A session's id begins with the microsecond of its birth, so a request of a session that is not known is either the
//! first of a young one or the late retry of one long forgotten, and the latter is told `expired`. Session 0 is
//! nobody's: its requests are never asked twice, and nothing is kept for them.

use super::keys::{self, tag};
use super::snapshot::Snapshot;
use super::{ReadError, State};
use crate::store::SharedStore;
use crate::txn::Refused;
use bytes::Bytes;
use chronos_proto::codec;
use chronos_proto::command::{Entry, OpOutcome};
use chronos_proto::id::{Index, RequestId, SessionId};
use chronos_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long a session may be idle before it is forgotten, in microseconds: an hour.
pub const SESSION_IDLE_US: i64 = 3_600_000_000;
/// The most outcomes a session keeps: beyond, the oldest are below the floor.
pub const SESSION_OUTCOMES_MAX: usize = 8_192;

/// The outcome of a request that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where.
    pub index: Index,
    /// When.
    pub time: Timestamp,
    /// What each operation came to.
    pub outcomes: Vec<OpOutcome>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SessionRecord {
    floor: u64,
    last_used: Timestamp,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Session {
    record: SessionRecord,
    outcomes: BTreeMap<u64, Outcome>,
}

impl Session {
    fn is_idle(&self, now: Timestamp) -> bool {
        self.record.last_used.0 < now.0.saturating_sub(SESSION_IDLE_US)
    }
}

/// The sessions of a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sessions {
    sessions: BTreeMap<SessionId, Session>,
}

impl Sessions {
    /// A new session's id: its birth, then what makes it unique.
    pub fn id(birth: Timestamp, unique: u64) -> SessionId {
        SessionId((birth.0.max(1) as u128) << 64 | u128::from(unique))
    }

    fn birth(session: SessionId) -> Timestamp {
        Timestamp((session.0 >> 64) as i64)
    }

    pub(super) fn load(snapshot: &Snapshot) -> Result<Sessions, ReadError> {
        let mut sessions: BTreeMap<SessionId, Session> = BTreeMap::new();
        for entry in snapshot.scan(&keys::all(tag::SESSION, None), false) {
            let (key, value) = entry?;
            if let Some(id) = keys::session_id(&key) {
                sessions.entry(id).or_default().record = codec::decode("session", &value)?;
            }
        }
        for entry in snapshot.scan(&keys::all(tag::REQUEST, None), false) {
            let (key, value) = entry?;
            if let Some((id, sequence)) = keys::request_parts(&key) {
                let outcome = codec::decode("request outcome", &value)?;
                sessions.entry(id).or_default().outcomes.insert(sequence, outcome);
            }
        }
        Ok(Sessions { sessions })
    }

    /// The first outcome of this request, if it was applied and is still kept.
    pub fn outcome(&self, request: RequestId) -> Option<&Outcome> {
        self.sessions.get(&request.session)?.outcomes.get(&request.sequence)
    }

    /// Whether a request without an outcome may be proposed at `now`.
    pub fn admit(&self, request: RequestId, now: Timestamp) -> Result<(), Refused> {
        if request.session == SessionId(0) {
            return Ok(());
        }
        let expired = match self.sessions.get(&request.session) {
            // One that has been idle too long counts as forgotten: the entry that forgets it may be on its way.
            Some(session) => request.sequence < session.record.floor || session.is_idle(now),
            None => Self::birth(request.session).0 < now.0.saturating_sub(SESSION_IDLE_US),
        };
        if expired { Err(Refused::Expired(request)) } else { Ok(()) }
    }

    pub(super) fn idle(&self, now: Timestamp) -> Option<SessionId> {
        self.sessions.iter().find(|(_, session)| session.is_idle(now)).map(|(id, _)| *id)
    }
}

impl State {
    pub(super) fn remember(
        &mut self,
        request: RequestId,
        entry: &Entry,
        outcomes: &[OpOutcome],
        store: &SharedStore,
    ) -> Result<(), ReadError> {
        if request.session == SessionId(0) {
            return Ok(());
        }
        let outcome = Outcome { index: entry.index, time: entry.time, outcomes: outcomes.to_vec() };
        let value = Bytes::from(codec::encode(&outcome));
        let session = self.sessions.sessions.entry(request.session).or_default();
        session.outcomes.insert(request.sequence, outcome);
        let mut floor = session.record.floor.max(request.floor);
        if let Some((oldest, _)) = session.outcomes.iter().nth_back(SESSION_OUTCOMES_MAX) {
            floor = floor.max(oldest + 1);
        }
        session.record = SessionRecord { floor, last_used: entry.time };
        let record = Bytes::from(codec::encode(&session.record));
        let kept = session.outcomes.split_off(&floor);
        let forgotten = std::mem::replace(&mut session.outcomes, kept);
        self.put_known(keys::request(request.session, request.sequence), Some(value), 0);
        for (sequence, outcome) in forgotten {
            let key = keys::request(request.session, sequence);
            let digest = codec::digest(&key, &codec::encode(&outcome));
            self.put_known(key, None, digest);
        }
        self.put(keys::session(request.session), Some(record), store)
    }

    pub(super) fn forget_session(&mut self, id: SessionId, store: &SharedStore) -> Result<(), ReadError> {
        let Some(session) = self.sessions.sessions.remove(&id) else { return Ok(()) };
        for (sequence, _) in session.outcomes {
            self.put(keys::request(id, sequence), None, store)?;
        }
        self.put(keys::session(id), None, store)
    }
}
