//! What the clients know: what they asked for, and what they were told.

use chronos_tests::micros_now;
use chronos_tests::random::Random;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What a client knows of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It must be there, once.
    Acknowledged,
    /// It must not be there.
    Refused,
    /// The connection broke before the answer: either, but not twice.
    Unknown,
}

/// What a client knows of the one change that it asked of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// None was asked.
    None,
    /// Cancelled in time.
    Cancelled,
    /// A cancel whose answer never came.
    CancelUnknown,
    /// Too late: it fires.
    TooLate,
    /// Moved, or a move whose answer never came.
    Moved,
}

/// An event and, if it has times that it may be due at, its timer.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whether it was accepted.
    pub fate: Fate,
    /// When it may fire, in microseconds; none is at once.
    pub due: Vec<i64>,
    /// What was asked of its timer.
    pub change: Change,
}

impl Event {
    /// Whether it may be missing in the end.
    pub fn may_be_missing(&self) -> bool {
        self.fate != Fate::Acknowledged || matches!(self.change, Change::Cancelled | Change::CancelUnknown)
    }

    /// Whether it may be there in the end.
    pub fn may_be_there(&self) -> bool {
        self.fate != Fate::Refused && self.change != Change::Cancelled
    }
}

/// One receipt of an event by a subscriber.
#[derive(Clone, Copy, Debug)]
pub struct Receipt {
    /// The client's clock.
    pub at: i64,
    /// As delivered.
    pub deliver_at: Option<i64>,
}

/// Everything asked and told.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Rows of a table without a primary key, where a write applied twice shows.
    pub journal: BTreeMap<i64, Fate>,
    /// Rows written to two tables in one transaction.
    pub pairs: BTreeMap<i64, Fate>,
    /// Orders stored with an alert in one transaction: the alert is in `events` under `order-<id>`.
    pub orders: BTreeMap<i64, Fate>,
    /// Increments of a counter.
    pub counted: BTreeMap<i64, Fate>,
    /// Readings by sequence number, two metrics each.
    pub readings: BTreeMap<i64, Fate>,
    /// Events by message id.
    pub events: BTreeMap<String, Event>,
    /// What the consumer group received.
    pub received: BTreeMap<String, Vec<Receipt>>,
    /// Refusals by code, for the summary.
    pub refusals: BTreeMap<String, u64>,
}

impl Ledger {
    /// How many timers are surely pending now.
    pub fn pending(&self) -> usize {
        let now = micros_now();
        self.events.values().filter(|e| !e.may_be_missing() && e.due.iter().any(|due| *due > now)).count()
    }

    /// One line for each kind of request.
    pub fn summary(&self) -> String {
        let line = |name: &str, fates: &mut dyn Iterator<Item = Fate>| {
            let mut counts = [0; 3];
            fates.for_each(|fate| counts[fate as usize] += 1);
            format!(
                "{name:<10} {:>6} acknowledged, {:>4} refused, {:>4} unknown\n",
                counts[0], counts[1], counts[2]
            )
        };
        let mut text = String::new();
        let tables = [
            ("journal", &self.journal),
            ("pairs", &self.pairs),
            ("orders", &self.orders),
            ("counter", &self.counted),
            ("readings", &self.readings),
        ];
        for (name, table) in tables {
            text += &line(name, &mut table.values().copied());
        }
        text += &line("events", &mut self.events.values().map(|e| e.fate));
        let changed = |change| self.events.values().filter(|e| e.change == change).count();
        text += &format!(
            "changes    {:>6} cancelled, {:>4} too late, {:>4} moved, {:>4} unknown cancels\n",
            changed(Change::Cancelled),
            changed(Change::TooLate),
            changed(Change::Moved),
            changed(Change::CancelUnknown)
        );
        text + &format!("refusals by code: {:?}", self.refusals)
    }
}

/// What the clients share.
pub struct World {
    /// The PostgreSQL wire.
    pub pg: SocketAddr,
    /// HTTP and gRPC.
    pub http: SocketAddr,
    ledger: Mutex<Ledger>,
    random: Mutex<Random>,
    next: AtomicI64,
}

impl World {
    /// An empty world.
    pub fn new(pg: SocketAddr, http: SocketAddr, random: Random) -> World {
        let (ledger, random) = (Mutex::default(), Mutex::new(random));
        World { pg, http, ledger, random, next: AtomicI64::new(1) }
    }

    /// The ledger; never held over an await.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no client panics with the ledger in hand")
    }

    /// A generator for one client.
    pub fn random(&self) -> Random {
        self.random.lock().expect("no client panics while it draws").split()
    }

    /// A number that no other request has.
    pub fn next(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}
