//! What a caller may choose when it opens a node.

use crate::recording::RecordOptions;
use chronos_engine::proto::id::ClusterId;
use chronos_engine::proto::membership::Member;
use std::path::PathBuf;
use std::time::Duration;

/// When an acknowledged write is on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// At most this long after. A power cut loses what was acknowledged in between; a crash of the process nothing.
    Interval(Duration),
    /// When the operating system likes. A power cut may lose much; a crash of the process nothing.
    Never,
}

impl std::fmt::Display for Fsync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fsync::Always => f.write_str("always"),
            Fsync::Interval(period) if period.subsec_micros() % 1_000 == 0 => {
                write!(f, "interval={}ms", period.as_millis())
            }
            Fsync::Interval(period) => write!(f, "interval={}us", period.as_micros()),
            Fsync::Never => f.write_str("never"),
        }
    }
}

/// How much memory and disk a node uses before it does something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// A checkpoint is begun at this many bytes of WAL since the last: bounds the replay after a crash.
    pub checkpoint_wal_bytes: u64,
    /// Or at this age.
    pub checkpoint_interval: Duration,
    /// The overlay's budget; near it writes are refused until a checkpoint has made room.
    pub overlay_max_bytes: usize,
    /// The WAL's files are kept below this size: past it writes are refused until the running checkpoint is done, and what
    /// only followers and a damaged checkpoint may still want is given up.
    pub wal_max_bytes: u64,
    /// The size of one WAL segment.
    pub segment_bytes: u64,
    /// The largest the store's file may grow; past it checkpoints wait and writes are refused.
    pub store_max_bytes: u64,
    /// The most writes that may be waiting for an answer; more are refused as overload.
    pub inflight_max: usize,
    /// How far ahead of its due time a firing is written at the most.
    pub fire_ahead_max: Duration,
    /// How far ahead the timing wheel holds timers.
    pub wheel_window: Duration,
    /// How many timers the wheel holds at the most.
    pub wheel_max: usize,
    /// A store up to this size is verified in full, before serving, at every start; a larger one is verified then
    /// only if the last run gave a reason to, and in the background otherwise.
    pub verify_at_open_bytes: u64,
}

impl Profile {
    /// For a server.
    pub const STANDARD: Profile = Profile {
        checkpoint_wal_bytes: 256 << 20,
        checkpoint_interval: Duration::from_secs(600),
        overlay_max_bytes: 1 << 30,
        wal_max_bytes: 1 << 30,
        segment_bytes: 16 << 20,
        store_max_bytes: 1 << 40,
        inflight_max: 65_536,
        fire_ahead_max: Duration::from_millis(20),
        wheel_window: Duration::from_secs(60),
        wheel_max: 1 << 20,
        verify_at_open_bytes: 64 << 20,
    };

    /// For a small machine: a gateway with an SD card.
    pub const SMALL: Profile = Profile {
        checkpoint_wal_bytes: 32 << 20,
        overlay_max_bytes: 96 << 20,
        wal_max_bytes: 128 << 20,
        segment_bytes: 4 << 20,
        store_max_bytes: 64 << 30,
        inflight_max: 8_192,
        wheel_max: 1 << 16,
        verify_at_open_bytes: 16 << 20,
        ..Profile::STANDARD
    };
}

/// The cluster that a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id, as in its certificates.
    pub id: ClusterId,
    /// The nodes that it began with, or those that a node which joins is to turn to; this one among them.
    pub members: Vec<Member>,
    /// It is there already: this node waits to be taken in.
    pub joins: bool,
    /// Whether leaders answer reads by lease.
    pub leases: bool,
}

/// How a node is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its files are; made if absent.
    pub data_dir: PathBuf,
    /// The node's name, for messages and `/status`.
    pub name: String,
    /// When an acknowledged write is on the medium.
    pub fsync: Fsync,
    /// Budgets.
    pub profile: Profile,
    /// Handle SIGSEGV and SIGBUS in this process, so that a death by them explains itself and the next start verifies
    /// the store. For a process that is the node; the first node's directory gets the note.
    pub explain_signals: bool,
    /// The cluster; none for a node that is and stays alone.
    pub cluster: Option<Cluster>,
    /// What a weak fsync mode may have lost in the last run is lost for good: the node votes although it may have
    /// forgotten what it acknowledged.
    pub accept_loss: bool,
    /// Groups beside group 0, for the partitions of topics; those that are there already stay, though it is fewer.
    pub partitions: u32,
    /// Seeds the node's generator; drawn from the operating system if none.
    pub seed: Option<u64>,
    /// Where to record what the node is given, for the simulator to replay.
    pub record: Option<RecordOptions>,
    /// The build that opens it, in its own words, for recordings.
    pub build: String,
}

impl Options {
    /// The defaults, in a directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            name: "node".to_owned(),
            fsync: Fsync::Always,
            profile: Profile::STANDARD,
            explain_signals: false,
            cluster: None,
            accept_loss: false,
            partitions: 0,
            seed: None,
            record: None,
            build: format!("chronos-node {}", env!("CARGO_PKG_VERSION")),
        }
    }
}
