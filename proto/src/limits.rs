//! Every bound that a user can meet, in one place. `docs/OPERATING.md` lists them.

/// The longest key LMDB takes here (heed's `longer-keys`), with its group prefix.
pub const STORE_KEY_MAX_BYTES: usize = 1982;
/// The longest encoded primary key; a longer one is refused.
pub const PRIMARY_KEY_MAX_BYTES: usize = 768;
/// The longest encoded run of index columns kept as it is; a longer one keeps this much and a hash.
pub const INDEX_PREFIX_MAX_BYTES: usize = 512;
/// The longest row.
pub const ROW_MAX_BYTES: usize = 16 << 20;
/// The largest payload of an event.
pub const PAYLOAD_MAX_BYTES: usize = 1 << 20;
/// The longest message id, timer id or message key, in bytes.
pub const MESSAGE_ID_MAX_BYTES: usize = 512;
/// The longest reason of a nack, in bytes; what is longer is cut.
pub const REASON_MAX_BYTES: usize = 256;
/// The longest name of a relation, column or index.
pub const NAME_MAX_BYTES: usize = 63;
/// The longest name of a node.
pub const NODE_NAME_MAX_BYTES: usize = 64;
/// The most columns of a table.
pub const COLUMNS_MAX: usize = 1_600;
/// The most partitions of a topic.
pub const TOPIC_PARTITIONS_MAX: u32 = 1_024;
/// Bytes of writes for other groups that may wait in a group; more are refused until those groups take them.
pub const OUTBOX_MAX_BYTES: usize = 256 << 20;
/// The largest transaction, as the sum of its writes.
pub const TRANSACTION_MAX_BYTES: usize = 256 << 20;
/// The largest transaction of a group with several members: an entry travels in one frame.
pub const REPLICATED_TRANSACTION_MAX_BYTES: usize = 12 << 20;
/// The longest SQL statement.
pub const STATEMENT_MAX_BYTES: usize = 1 << 20;
/// The deepest nesting of a SQL expression.
pub const EXPRESSION_DEPTH_MAX: usize = 100;
/// The largest frame between peers.
pub const FRAME_MAX_BYTES: usize = 16 << 20;
/// The largest HTTP body that `/ingest` takes unless configured.
pub const INGEST_MAX_BODY_BYTES: usize = 8 << 20;
/// The most timers fired by one log entry.
pub const FIRE_MAX_TIMERS: usize = 4_096;
/// The most occurrences of one schedule that one log entry decides about.
pub const TURN_MAX_OCCURRENCES: usize = 256;
/// The most occurrences of one schedule whose statement runs or waits to run; more are passed over.
pub const SCHEDULE_RUNNING_MAX: u64 = 16;
/// The most runs of one schedule that are remembered.
pub const SCHEDULE_HISTORY_MAX: u64 = 100;
/// The longest rule, zone or statement of a schedule, in bytes.
pub const SCHEDULE_TEXT_MAX_BYTES: usize = 64 << 10;
/// Where one occurrence is as late as that, `MISFIRE SKIP` passes it over, in microseconds.
pub const MISFIRE_GRACE_MICROS: i64 = 60_000_000;
