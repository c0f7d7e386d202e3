//! What a seed decides before anything runs: the cluster, its settings, which faults there are and how often.

use crate::socket::Weather;
use chronos_sim::rng::Rng;
use std::fmt;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Two hosts lose each other.
    Cut,
    /// One host does not reach another.
    OneWay,
    /// What two hosts send each other is held back.
    Hold,
    /// A host loses all others.
    Isolate,
    /// A process is killed, and begins again after a while.
    Kill,
    /// A host loses its power.
    Power,
    /// A process stops as it should, and begins again.
    Stop,
    /// A process is killed and begins again at once.
    Bounce,
    /// Datagrams are lost, doubled and late.
    Weather,
    /// Two hosts are further apart.
    Latency,
    /// A node's certificate expires and is replaced too late.
    Expire,
    /// A node's certificate is replaced in time.
    Rotate,
    /// The authority is renewed, then every certificate.
    Authority,
}

const FAULTS: [(Fault, u32); 13] = [
    (Fault::Cut, 10),
    (Fault::OneWay, 6),
    (Fault::Hold, 6),
    (Fault::Isolate, 8),
    (Fault::Kill, 8),
    (Fault::Power, 6),
    (Fault::Stop, 4),
    (Fault::Bounce, 4),
    (Fault::Weather, 8),
    (Fault::Latency, 5),
    (Fault::Expire, 6),
    (Fault::Rotate, 4),
    (Fault::Authority, 2),
];

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// The seed.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How long faults go on, in milliseconds.
    pub trouble_ms: u64,
    /// Between two faults, on average, in milliseconds.
    pub every_ms: u64,
    /// Between two requests of clients, on average, in milliseconds.
    pub request_ms: u64,
    /// Of a thousand requests, how many are reads.
    pub reads: u32,
    /// The longest that a datagram usually travels, in milliseconds.
    pub latency_ms: u64,
    /// What a sync takes, on average, in milliseconds.
    pub sync_ms: u64,
    /// Bytes of WAL between checkpoints.
    pub checkpoint_wal_bytes: u64,
    /// Bytes in a row.
    pub row_bytes: u64,
    /// Whether leaders answer reads by lease.
    pub leases: bool,
    /// Which faults there are, and their weights.
    pub faults: Vec<(Fault, u32)>,
}

impl Knobs {
    /// Drawn. Most runs leave half of the faults out, so that the others go deep.
    pub fn draw(seed: u64) -> Knobs {
        let mut rng = Rng::new(seed, "turmoil knobs");
        let mut faults: Vec<(Fault, u32)> = FAULTS.into_iter().filter(|_| rng.chance(500)).collect();
        if faults.is_empty() && rng.chance(800) {
            faults.push(*rng.pick(&FAULTS));
        }
        Knobs {
            seed,
            nodes: *rng.pick(&[2, 3, 3, 3, 3, 5]),
            trouble_ms: rng.range(8_000, 25_000),
            every_ms: *rng.pick(&[400, 1_000, 2_500]),
            request_ms: *rng.pick(&[4, 15, 60]),
            reads: *rng.pick(&[100, 300, 700]),
            latency_ms: *rng.pick(&[1, 5, 20, 60]),
            sync_ms: *rng.pick(&[0, 2, 10]),
            checkpoint_wal_bytes: *rng.pick(&[1 << 13, 1 << 16, 64 << 20]),
            row_bytes: *rng.pick(&[20, 20, 300, 3_000]),
            leases: rng.chance(300),
            faults,
        }
    }
}

impl fmt::Display for Knobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> =
            self.faults.iter().map(|(fault, _)| format!("{fault:?}").to_lowercase()).collect();
        write!(
            f,
            "knobs: {} nodes, {} s of trouble each {} ms, a request each {} ms ({} in a thousand are reads, rows of {} bytes), \
             up to {} ms away, syncs {} ms, checkpoints each {} bytes, leases {}\nfaults: {}",
            self.nodes,
            self.trouble_ms / 1_000,
            self.every_ms,
            self.request_ms,
            self.reads,
            self.row_bytes,
            self.latency_ms,
            self.sync_ms,
            self.checkpoint_wal_bytes,
            self.leases,
            if faults.is_empty() { "none".to_owned() } else { faults.join(", ") },
        )
    }
}

/// Weather, drawn.
pub fn weather(rng: &mut Rng) -> Weather {
    let mut some = |of: &[u32]| *rng.pick(of);
    let (lost, doubled, late) = (some(&[0, 20, 150, 400]), some(&[0, 50, 300]), some(&[0, 50, 300]));
    Weather { lost, doubled, late, late_ms: rng.range(1, 200) }
}
