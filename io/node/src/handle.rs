//! What a node's users hold: readers, writers, subscribers and operators, on any thread and any runtime.

use crate::clock::{Clock, SystemClock};
use crate::error::{CommitError, Exit};
use crate::inbox::{Inbox, Rejected};
use crate::link::{StartError, TlsConfigs};
use crate::peers::{LinkIdentity, PEER_BYTES_MAX, PeerLinks};
use crate::recorder::Recorder;
use crate::requests::Requests;
use crate::runner::Message;
use crate::status::NodeStatus;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::node::Export;
use chronos_engine::proto::id::{GroupId, NodeId, RequestId};
use chronos_engine::proto::membership::Member;
use chronos_engine::proto::time::{Instant, Timestamp};
use chronos_engine::step::{
    Delivery, Fresh, OperatorError, Published, ReadAt, Request, SubscriberId, SubscriberInput, Subscription,
};
use chronos_engine::store::{Store, StoreError};
use chronos_engine::txn::{Committed, Refused, Transaction};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

/// Called once with a commit's outcome, on the driver's thread: it must not block.
pub type CommitReply = Box<dyn FnOnce(Result<Committed, CommitError>) + Send>;
/// Called once with where a linearizable read may be answered, on the driver's thread: it must not block.
pub type ReadReply = Box<dyn FnOnce(Result<ReadAt, Refused>) + Send>;
/// Called once with what became of an operator's request, on the driver's thread: it must not block.
pub type OperatorReply = Box<dyn FnOnce(Result<(), OperatorError>) + Send>;
/// Called once with a group's state, or none where it cannot be had here, on the driver's thread: it must not block.
pub type ExportReply = Box<dyn FnOnce(Option<Export>) + Send>;
/// Called with what a subscriber gets, on the driver's thread: it must not block.
pub type Sink = Box<dyn FnMut(SubscriberEvent) + Send>;

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriberEvent {
    /// Offsets to read: the events are in the published snapshot, released at its read time.
    Deliver(Delivery),
    /// The subscription is over, and why.
    Closed(String),
}

/// An open node. Clones are the same node; it runs until [`NodeHandle::stop`] or a fatal error.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) inbox: Inbox<Message>,
    /// Who this node is to others.
    pub(crate) identity: LinkIdentity,
    pub(crate) published: RwLock<BTreeMap<GroupId, Published>>,
    pub(crate) clock: SystemClock,
    pub(crate) requests: Mutex<Requests>,
    pub(crate) subscribers: AtomicU64,
    /// Links to other nodes; none for a node that is alone.
    pub(crate) peers: OnceLock<Arc<PeerLinks>>,
    /// The nodes of the cluster, as the engine knows them.
    pub(crate) members: RwLock<Vec<Member>>,
    /// Bytes of peers' messages that wait for the driver.
    pub(crate) peer_bytes: AtomicUsize,
    pub(crate) exit: ExitCell,
    pub(crate) recorder: Recorder,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeHandle")
    }
}

impl NodeHandle {
    /// The newest state of group 0. Every acknowledged write is in it. It pins a view of the store: take a new one
    /// for each statement.
    pub fn published(&self) -> Published {
        match self.published_of(GroupId(0)) {
            Some(published) => published,
            None => unreachable!("a node that is open has published group 0"),
        }
    }

    /// The newest state of a group, if the node has it.
    pub fn published_of(&self, group: GroupId) -> Option<Published> {
        self.shared.published.read().unwrap_or_else(PoisonError::into_inner).get(&group).cloned()
    }

    /// Cluster time now, as the published clock goes on by the monotonic one: a statement's read time.
    pub fn read_time(&self) -> Timestamp {
        self.shared.read_time(self.mono())
    }

    /// The monotonic clock that published clocks are carried on by.
    pub fn mono(&self) -> Instant {
        self.shared.clock.now().mono
    }

    /// A name for a write request that may be asked again: the second time it is answered with the first outcome.
    /// It keeps outcomes remembered until it is committed or [given up](NodeHandle::abandon): draw it late. A
    /// transaction that is asked once needs none: leave its request at the default.
    pub fn next_request_id(&self) -> RequestId {
        self.shared.draw_request()
    }

    /// Gives up a request's name that will not be committed.
    pub fn abandon(&self, request: RequestId) {
        self.shared.request_done(request);
    }

    /// Commits a transaction; `reply` is called exactly once, after the write is durable, applied and published.
    pub fn commit_with(&self, group: GroupId, transaction: Transaction, reply: CommitReply) {
        let request = transaction.request;
        match self.shared.inbox.request(Message::Commit { group, transaction, reply }) {
            Ok(()) => {}
            Err(Rejected::Full(message, waiting)) => {
                self.shared.request_done(request);
                message.refuse(CommitError::Refused(Refused::Overloaded(waiting)));
            }
            Err(Rejected::Closed(message)) => {
                self.shared.request_done(request);
                message.refuse(CommitError::Refused(Refused::Stopping));
            }
        }
    }

    /// Asks from where on the published state of a group answers a read that begins now; `reply` is called exactly
    /// once, when that state is published here. Needed where [`Published::fresh`] does not say otherwise.
    pub fn read_with(&self, group: GroupId, reply: ReadReply) {
        match self.shared.inbox.request(Message::Read { group, reply }) {
            Ok(()) => {}
            Err(Rejected::Full(message, waiting)) => {
                message.refuse(CommitError::Refused(Refused::Overloaded(waiting)));
            }
            Err(Rejected::Closed(message)) => message.refuse(CommitError::Refused(Refused::Stopping)),
        }
    }

    /// Changes members, notes or forgets a node, hands leadership over; `reply` is called exactly once, when the
    /// leader has logged or refused it.
    pub fn operate_with(&self, request: Request, reply: OperatorReply) {
        if let Err(message) = self.shared.inbox.report(Message::Operator { request, reply }) {
            message.refuse(CommitError::Refused(Refused::Stopping));
        }
    }

    /// Commits a transaction and waits for its outcome.
    pub fn commit(&self, group: GroupId, transaction: Transaction) -> Result<Committed, CommitError> {
        let (send, receive) = mpsc::sync_channel(1);
        let reply = Box::new(move |result| {
            // The receiver waits below for as long as this can be called.
            let _ = send.send(result);
        });
        self.commit_with(group, transaction, reply);
        receive.recv().unwrap_or_else(|_| Err(CommitError::Unknown("the node is gone".to_owned())))
    }

    /// Opens a subscription; `sink` is called with what it gets until it is closed.
    pub fn subscribe_with(&self, subscription: Subscription, sink: Sink) -> SubscriberId {
        let id = SubscriberId(self.shared.subscribers.fetch_add(1, Ordering::Relaxed));
        let message = Message::Subscribe { id, subscription, sink };
        if let Err(Rejected::Full(message, _) | Rejected::Closed(message)) =
            self.shared.inbox.request(message)
        {
            message.refuse(CommitError::Refused(Refused::Stopping));
        }
        id
    }

    /// Says something about a subscriber: credit, ack, nack, close.
    pub fn subscriber(&self, id: SubscriberId, input: SubscriberInput) {
        // A node that has stopped has no subscribers to tell.
        let _ = self.shared.inbox.report(Message::Subscriber { id, input });
    }

    /// Links with the other nodes of the cluster, from a UDP socket at `address`; `http` is the `host:port` of this node's
    /// HTTP listener, for them to tell clients. Must be called in a tokio runtime, once.
    pub fn link(
        &self,
        tls: Arc<dyn TlsConfigs>,
        address: SocketAddr,
        http: Option<String>,
    ) -> Result<SocketAddr, StartError> {
        PeerLinks::start(&self.shared, tls, address, http)
    }

    /// The nodes of the cluster, as this one knows them; empty for a node alone.
    pub fn members(&self) -> Vec<Member> {
        self.shared.members()
    }

    /// Asks for a checkpoint now. It is done when [`NodeStatus::store`] counts one more.
    pub fn checkpoint(&self) {
        let _ = self.shared.inbox.report(Message::Checkpoint);
    }

    /// The node at this moment, by callback on the driver's thread; none if it has stopped.
    pub fn status_with(&self, reply: Box<dyn FnOnce(Option<NodeStatus>) + Send>) {
        if let Err(Message::Status(reply)) = self.shared.inbox.report(Message::Status(reply)) {
            reply(None);
        }
    }

    /// A group's state as it is applied here, for a backup; none if this node is no member of the group, or has
    /// stopped. It keeps the store's file from using its pages again for as long as it lives.
    pub fn export_with(&self, group: GroupId, reply: ExportReply) {
        if let Err(Message::Export { reply, .. }) = self.shared.inbox.report(Message::Export { group, reply })
        {
            reply(None);
        }
    }

    /// The node at this moment; waits for the driver, which takes microseconds unless a disk hangs. None if it has
    /// stopped or does not answer within a second.
    pub fn status(&self) -> Option<NodeStatus> {
        let (send, receive) = mpsc::sync_channel(1);
        self.status_with(Box::new(move |status| {
            // Nobody may wait any more.
            let _ = send.send(status);
        }));
        receive.recv_timeout(Duration::from_secs(1)).ok().flatten()
    }

    /// What the engine was last given and did, as text, the oldest first: [`NodeHandle::write_flight`] has the same in a
    /// file.
    pub fn flight(&self) -> String {
        self.shared.recorder.text()
    }

    /// Writes that to `flight.txt` in the data directory; a node that ends by an error does so by itself.
    pub fn write_flight(&self) -> std::io::Result<PathBuf> {
        self.shared.recorder.write()
    }

    /// Stops: new requests are refused, what is pending is finished, everything is synced, the threads end. Returns
    /// how the node ended, which may be a fatal error from before.
    pub fn stop(&self) -> Exit {
        let _ = self.shared.inbox.report(Message::Stop);
        let exit = self.shared.exit.wait();
        let threads =
            std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A panic of a thread was reported as the exit.
            let _ = thread.join();
        }
        exit
    }

    /// Waits until the node has ended.
    pub fn wait(&self) -> Exit {
        self.shared.exit.wait()
    }

    /// Calls back once the node has ended, at once if it has.
    pub fn on_exit(&self, callback: Box<dyn FnOnce(Exit) + Send>) {
        self.shared.exit.on_exit(callback);
    }
}

impl Shared {
    pub(crate) fn new(requests_max: usize, identity: LinkIdentity, data_dir: &Path) -> Shared {
        Shared {
            inbox: Inbox::new(requests_max),
            identity,
            published: RwLock::default(),
            clock: SystemClock,
            requests: Mutex::default(),
            subscribers: AtomicU64::new(1),
            peers: OnceLock::new(),
            members: RwLock::default(),
            peer_bytes: AtomicUsize::new(0),
            exit: ExitCell::default(),
            recorder: Recorder::new(data_dir),
            threads: Mutex::default(),
        }
    }

    /// Leaves what happened last for whoever looks into how the node ended.
    pub(crate) fn keep_flight(&self) {
        match self.recorder.write() {
            Ok(file) => tracing::error!(file = %file.display(), "what the node did last is written down"),
            Err(error) => tracing::error!(%error, "what the node did last cannot be written down"),
        }
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node's name, for logs.
    pub(crate) fn name_of(&self, node: NodeId) -> String {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let member = members.iter().find(|member| member.node == node);
        member.map_or_else(|| format!("{:016x}", node.0), |member| member.name.clone())
    }

    pub(crate) fn set_members(&self, members: Vec<Member>) {
        if let Some(peers) = self.peers.get() {
            peers.members(&members);
        }
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// The driver has taken a message of a peer.
    pub(crate) fn peer_taken(&self, bytes: usize) {
        let before = self.peer_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let full = |bytes| bytes >= PEER_BYTES_MAX;
        if full(before)
            && !full(before - bytes)
            && let Some(peers) = self.peers.get()
        {
            peers.room();
        }
    }

    pub(crate) fn read_time(&self, mono: Instant) -> Timestamp {
        let groups = self.published.read().unwrap_or_else(PoisonError::into_inner);
        groups.get(&GroupId(0)).map(|published| published.clock).unwrap_or_default().at(mono)
    }

    pub(crate) fn publish(&self, published: Published) {
        let mut groups = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let old = groups.insert(published.snapshot.group, published);
        drop(groups);
        // Outside the lock: it may be the last holder of much memory.
        drop(old);
    }

    /// The node has ended: what was published lets go of the store, and reads of it say why they fail.
    pub(crate) fn close_published(&self) {
        let mut groups = self.published.write().unwrap_or_else(PoisonError::into_inner);
        let closed = groups.keys().map(|&group| {
            let snapshot = Snapshot::empty(group, Arc::new(Closed));
            (group, Published { snapshot, clock: groups[&group].clock, fresh: Fresh::Ask })
        });
        let closed = closed.collect();
        let old = std::mem::replace(&mut *groups, closed);
        drop(groups);
        drop(old);
    }

    pub(crate) fn draw_request(&self) -> RequestId {
        let mono = self.clock.now().mono;
        let time = self.read_time(mono);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.draw(mono, time, crate::directory::draw_u64)
    }

    pub(crate) fn request_done(&self, request: RequestId) {
        if request == RequestId::default() {
            return;
        }
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).done(request);
    }
}

/// What readers of a node that has ended get.
struct Closed;

impl Closed {
    fn error<T>() -> Result<T, StoreError> {
        Err(StoreError::Io("the node has stopped".to_owned()))
    }
}

impl Store for Closed {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Closed::error()
    }

    fn scan(
        &self,
        _: Bound<&[u8]>,
        _: Bound<&[u8]>,
        _: bool,
        _: usize,
        _: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        Closed::error()
    }
}

/// How the node ended, once it has, and who waits for it.
#[derive(Default)]
pub(crate) struct ExitCell {
    state: Mutex<ExitState>,
    ended: Condvar,
}

#[derive(Default)]
struct ExitState {
    exit: Option<Exit>,
    callbacks: Vec<Box<dyn FnOnce(Exit) + Send>>,
}

impl ExitCell {
    /// The first exit counts.
    pub(crate) fn set(&self, exit: Exit) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.exit.is_some() {
            return;
        }
        state.exit = Some(exit.clone());
        let callbacks = std::mem::take(&mut state.callbacks);
        drop(state);
        self.ended.notify_all();
        for callback in callbacks {
            callback(exit.clone());
        }
    }

    pub(crate) fn is_set(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).exit.is_some()
    }

    fn wait(&self) -> Exit {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &state.exit {
                Some(exit) => return exit.clone(),
                None => state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn on_exit(&self, callback: Box<dyn FnOnce(Exit) + Send>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.exit.clone() {
            Some(exit) => {
                drop(state);
                callback(exit);
            }
            None => state.callbacks.push(callback),
        }
    }
}
