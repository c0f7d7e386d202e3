//! What is known of one peer, and what waits for it. Its dialling task, the tasks of its own link to us, and whoever
//! sends share it; the lock is held for moments only.

use super::identity::Identity;
use super::queue::{LaneQueue, Outgoing};
use super::status::{Counters, LaneStatus, LinkState, LinkStatus};
use super::why::{self, Code, Why};
use super::{LinkConfig, PeerAddress, SendError};
use bytes::Bytes;
use chronos_engine::node::Start;
use chronos_proto::Timestamp;
use chronos_proto::hello::{Hello, lane_number};
use chronos_proto::id::{Incarnation, NodeId};
use chronos_proto::peer::{Lane, PeerHello};
use quinn::Connection;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Every lane, at the place of its number.
pub(super) const LANES: [Lane; 3] = [Lane::Control, Lane::Replication, Lane::Snapshot];

pub(super) fn place(lane: Lane) -> usize {
    usize::from(lane_number(lane))
}

/// Whom the dialling task is to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Nobody,
    Dial(PeerAddress),
    Stop,
}

pub(super) struct Peer {
    pub(super) id: NodeId,
    pub(super) target: watch::Sender<Target>,
    /// The peer was heard of: do not wait any longer before dialling it.
    pub(super) wake: Notify,
    /// Its dialling task runs.
    pub(super) dialled: AtomicBool,
    pub(super) lanes: [LaneQueue; 3],
    pub(super) counters: [Counters; 3],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    name: String,
    why: Option<Why>,
    out: Option<Out>,
    /// Why this side closed its own link.
    ending: Option<Why>,
    inbound: Option<Connection>,
    /// The newest start seen of its store.
    latest: Option<(Incarnation, u64)>,
    expires: Option<Timestamp>,
    /// What its last hello said of its HTTP listener.
    http: Option<String>,
    ups: u64,
    broken: u64,
}

struct Out {
    connection: Connection,
    hello: PeerHello,
}

impl State {
    /// A start from before the latest one is that of a copy.
    fn check_boot(&mut self, hello: &Hello) -> Result<(), Why> {
        match self.latest {
            Some((incarnation, boot))
                if incarnation == hello.incarnation && Start::is_older(hello.boot, boot) =>
            {
                Err(Why::RefusedHere(format!(
                    "this is start {} of {}, and start {} of the same data directory was seen before: one of the two \
                     runs on a copy; stop it, and let it join with an empty directory",
                    Start::epoch_of(hello.boot),
                    hello.name,
                    Start::epoch_of(boot),
                )))
            }
            _ => {
                self.latest = Some((hello.incarnation, hello.boot));
                Ok(())
            }
        }
    }
}

impl Peer {
    pub(super) fn new(id: NodeId, name: String, config: &LinkConfig) -> Peer {
        Peer {
            id,
            target: watch::Sender::new(Target::Nobody),
            wake: Notify::new(),
            dialled: AtomicBool::new(false),
            lanes: LANES.map(|lane| LaneQueue::new(config.bounds[place(lane)])),
            counters: Default::default(),
            state: Mutex::new(State { name, ..State::default() }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, lane: Lane, kind: u8, body: Bytes) -> Result<(), SendError> {
        let at = place(lane);
        let sent = self.lanes[at].push(Outgoing { kind, body });
        if let Err(SendError::Full { .. }) = sent {
            self.counters[at].dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// This node's link to it is greeted: lanes are open from now on.
    pub(super) fn up(&self, connection: &Connection, hello: &Hello, identity: &Identity) -> Result<(), Why> {
        let mut state = self.lock();
        state.check_boot(hello)?;
        self.lanes.iter().for_each(LaneQueue::open);
        state.name.clone_from(&identity.name);
        state.expires = Some(identity.expires);
        state.http.clone_from(&hello.http);
        state.ups += 1;
        state.why = None;
        state.ending = None;
        state.out = Some(Out { connection: connection.clone(), hello: hello.peer() });
        Ok(())
    }

    /// It is down again; the answer is why, as it is to be told.
    pub(super) fn down(&self, why: Why) -> Why {
        self.lanes.iter().for_each(LaneQueue::close);
        let mut state = self.lock();
        state.out = None;
        match state.ending.take() {
            Some(reason) => reason,
            None => why,
        }
    }

    /// Whom to dial from now on; answers whether that is another than before. Nothing is aimed at after a stop.
    pub(super) fn aim(&self, target: Target) -> bool {
        self.target.send_if_modified(|now| {
            let changed = *now != target && *now != Target::Stop;
            if changed {
                *now = target;
            }
            changed
        })
    }

    /// An attempt failed or a link ended. Answers whether that is news.
    pub(super) fn failed(&self, why: Why) -> bool {
        let mut state = self.lock();
        let news = state.why.as_ref() != Some(&why);
        state.why = Some(why);
        news
    }

    pub(super) fn forget_failure(&self) {
        self.lock().why = None;
    }

    pub(super) fn broke(&self) {
        self.lock().broken += 1;
    }

    /// Its own link to this node is greeted: it takes the place of an earlier one, unless it comes from the past.
    pub(super) fn enter(
        &self,
        connection: &Connection,
        hello: &Hello,
        identity: &Identity,
    ) -> Result<(), Why> {
        let mut state = self.lock();
        state.check_boot(hello)?;
        state.name.clone_from(&identity.name);
        state.expires = Some(identity.expires);
        state.http.clone_from(&hello.http);
        if let Some(earlier) = state.inbound.replace(connection.clone()) {
            why::close(&earlier, Code::Replaced, "a newer link of the same node took its place");
        }
        let stale = match &state.out {
            Some(out) if out.hello != hello.peer() => Some(out.connection.clone()),
            Some(_) => return Ok(()),
            None => None,
        };
        if let Some(stale) = stale {
            state.ending = Some(Why::Lost("it has started anew".into()));
            why::close(&stale, Code::Replaced, "the node that was linked to has started anew");
        }
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Its own link ended.
    pub(super) fn leave(&self, connection: &Connection) {
        let mut state = self.lock();
        if state.inbound.as_ref().is_some_and(|inbound| inbound.stable_id() == connection.stable_id()) {
            state.inbound = None;
        }
    }

    /// This node wants to hear no more from it.
    pub(super) fn turn_away(&self) {
        if let Some(inbound) = self.lock().inbound.take() {
            why::close(&inbound, Code::Removed, "this node no longer counts yours among its peers");
        }
    }

    /// Neither its own link nor this node's to it stands any longer.
    pub(super) fn refuse(&self, why: &str) {
        let mut state = self.lock();
        if let Some(inbound) = state.inbound.take() {
            why::close(&inbound, Code::Refused, why);
        }
        if let Some(out) = state.out.as_ref().map(|out| out.connection.clone()) {
            state.ending = Some(Why::RefusedHere(why.into()));
            why::close(&out, Code::Refused, why);
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        let target = self.target.borrow().clone();
        let state = self.lock();
        let link = match (&state.out, &state.why, &target) {
            (Some(_), _, _) => LinkState::Connected,
            (None, _, Target::Nobody | Target::Stop) => LinkState::NotDialled,
            (None, Some(why), _) if why.is_refusal() => LinkState::Refused { why: why.to_string() },
            (None, why, _) => LinkState::Connecting { why: why.as_ref().map(Why::to_string) },
        };
        let lanes = LANES.map(|lane| {
            let (queued_frames, queued_bytes) = self.lanes[place(lane)].waiting();
            LaneStatus { lane, queued_frames, queued_bytes, ..self.counters[place(lane)].status(lane) }
        });
        LinkStatus {
            peer: self.id,
            name: state.name.clone(),
            address: match target {
                Target::Dial(address) => Some(address.address),
                Target::Nobody | Target::Stop => None,
            },
            state: link,
            heard: state.inbound.is_some(),
            rtt: state.out.as_ref().map(|out| out.connection.rtt()),
            reconnects: state.ups.saturating_sub(1),
            broken: state.broken,
            certificate_expires: state.expires,
            http: state.http.clone(),
            lanes,
        }
    }
}
