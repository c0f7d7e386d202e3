//! What `/metrics` shows. Counters are held by whoever counts; gauges of the node are read when they are scraped.

use chronos_engine::node::GroupStatus;
use chronos_node::link::{LaneStatus, LinkState, LinkStatus};
use chronos_node::tls::Credentials;
use chronos_node::{Histogram as NodeHistogram, NodeStatus, Role};
use chronos_proto::id::NodeId;
use chronos_proto::peer::Lane;
use chronos_sql::Kind;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::fmt::{Debug, Write};
use std::hash::Hash;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What `Content-Type` a scrape is answered with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCode {
    code: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByProtocol {
    protocol: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByStage {
    stage: &'static str,
}

/// Everything that is counted here.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    segment_bytes: u64,
    statements: [Counter; 5],
    durations: [Histogram; 5],
    errors: Family<ByCode, Counter>,
    conflicts: Counter,
    commits: Histogram,
    pg_connections: Gauge,
    /// Requests to `/ingest` being worked on.
    pub ingest_inflight: Gauge,
    /// Requests to `/ingest` turned away because too many were being worked on.
    pub ingest_rejected: Counter,
    ingest_inserted: Counter,
    ingest_duplicates: Counter,
    published: Counter,
    delivered: Counter,
    redelivered: Counter,
    lateness: Histogram,
    handed_out: Histogram,
    tls_failures: Family<ByProtocol, Counter>,
}

const KINDS: [&str; 5] = ["query", "write", "schema", "transaction", "setting"];

const fn index(kind: Kind) -> usize {
    match kind {
        Kind::Query => 0,
        Kind::Write => 1,
        Kind::Schema => 2,
        Kind::Transaction => 3,
        Kind::Setting => 4,
    }
}

/// From 32 µs to 16 s.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.000_032, 2.0, 20))
}

impl Metrics {
    /// All at zero, for a node with WAL segments of this size.
    pub fn new(segment_bytes: u64) -> Metrics {
        let mut registry = Registry::default();
        let statements = Family::<ByKind, Counter>::default();
        registry.register("chronos_sql_requests", "SQL statements run, by kind", statements.clone());
        let durations = Family::<ByKind, Histogram, fn() -> Histogram>::new_with_constructor(latency);
        let help = "Time to run a SQL statement, its commit included, by kind";
        registry.register("chronos_sql_duration_seconds", help, durations.clone());
        let errors = Family::default();
        registry.register("chronos_sql_errors", "SQL statements that failed, by SQLSTATE", errors.clone());
        let results = Family::<ByResult, Counter>::default();
        registry.register(
            "chronos_ingest_readings",
            "Readings that /ingest took, by result",
            results.clone(),
        );
        let connections = Family::<ByProtocol, Gauge>::default();
        registry.register("chronos_connections", "Open connections, by protocol", connections.clone());
        let lateness = Family::<ByStage, Histogram, fn() -> Histogram>::new_with_constructor(latency);
        let help = "How late scheduled events are after their due time, by stage: released to all readers by the \
                    clock, handed out to a subscriber that was waiting";
        registry.register("chronos_fire_lateness_seconds", help, lateness.clone());
        let metrics = Metrics {
            statements: KINDS.map(|kind| statements.get_or_create_owned(&ByKind { kind })),
            durations: KINDS.map(|kind| durations.get_or_create_owned(&ByKind { kind })),
            errors,
            conflicts: Counter::default(),
            commits: latency(),
            pg_connections: connections.get_or_create_owned(&ByProtocol { protocol: "postgresql" }),
            ingest_inflight: Gauge::default(),
            ingest_rejected: Counter::default(),
            ingest_inserted: results.get_or_create_owned(&ByResult { result: "inserted" }),
            ingest_duplicates: results.get_or_create_owned(&ByResult { result: "duplicate" }),
            published: Counter::default(),
            delivered: Counter::default(),
            redelivered: Counter::default(),
            lateness: lateness.get_or_create_owned(&ByStage { stage: "released" }),
            handed_out: lateness.get_or_create_owned(&ByStage { stage: "handed_out" }),
            tls_failures: Family::default(),
            registry: Registry::default(),
            segment_bytes,
        };
        let m = &metrics;
        registry.register("chronos_conflicts", "Commits refused because of a conflict", m.conflicts.clone());
        registry.register(
            "chronos_commit_duration_seconds",
            "Time from commit to durable",
            m.commits.clone(),
        );
        registry.register(
            "chronos_ingest_inflight",
            "Requests to /ingest in work",
            m.ingest_inflight.clone(),
        );
        let help = "Requests to /ingest turned away with 429";
        registry.register("chronos_ingest_rejected", help, m.ingest_rejected.clone());
        registry.register(
            "chronos_events_published",
            "Events published or scheduled over gRPC",
            m.published.clone(),
        );
        registry.register("chronos_events_delivered", "Events handed to subscribers", m.delivered.clone());
        let help = "Events handed to subscribers that had been handed out before";
        registry.register("chronos_events_redelivered", help, m.redelivered.clone());
        let help = "TLS handshakes that failed, by protocol";
        registry.register("chronos_tls_handshakes_failed", help, m.tls_failures.clone());
        Metrics { registry, ..metrics }
    }

    /// Counts a statement.
    pub fn statement(&self, kind: Kind, took: Duration) {
        self.statements[index(kind)].inc();
        self.durations[index(kind)].observe(took.as_secs_f64());
    }

    /// Counts a failure.
    pub fn error(&self, code: &str) {
        self.errors.get_or_create(&ByCode { code: code.to_owned() }).inc();
    }

    /// Counts a conflict.
    pub fn conflict(&self) {
        self.conflicts.inc();
    }

    /// Counts a commit.
    pub fn commit(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// Counts a connection for as long as the guard lives.
    pub fn pg_connection(&self) -> ConnectionGuard {
        self.pg_connections.inc();
        ConnectionGuard(self.pg_connections.clone())
    }

    /// Counts a TLS handshake that failed.
    pub fn tls_failure(&self, protocol: &'static str) {
        self.tls_failures.get_or_create(&ByProtocol { protocol }).inc();
    }

    /// Counts readings.
    pub fn ingested(&self, inserted: u64, duplicates: u64) {
        self.ingest_inserted.inc_by(inserted);
        self.ingest_duplicates.inc_by(duplicates);
    }

    /// Counts published events.
    pub fn published(&self, count: u64) {
        self.published.inc_by(count);
    }

    /// Counts an event that is handed out: how often it was before, and how long after it was due it was released
    /// and is handed out now, where it was scheduled and its subscriber was waiting.
    pub fn delivered(&self, redeliveries: u32, lateness: Option<(Duration, Duration)>) {
        self.delivered.inc();
        if redeliveries > 0 {
            self.redelivered.inc();
        } else if let Some((released, handed_out)) = lateness {
            self.lateness.observe(released.as_secs_f64());
            self.handed_out.observe(handed_out.as_secs_f64());
        }
    }

    /// The whole page, in the text format that Prometheus and promtool read.
    pub fn render(&self, node: Option<&NodeStatus>, credentials: Option<&Credentials>) -> String {
        let mut page = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut page, &self.registry);
        if let Some(node) = node {
            let mut gauges = Registry::default();
            gauges.register_collector(Box::new(NodeCollector {
                node: node.clone(),
                segment_bytes: self.segment_bytes,
            }));
            let _ = encode(&mut page, &gauges);
            let _ = encode(&mut page, &groups(node));
            if !node.members.is_empty() {
                let _ = encode(&mut page, &links(node));
            }
        }
        if let Some(credentials) = credentials {
            let _ = encode(&mut page, &certificates(credentials));
        }
        plain_text(&page)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCertificate {
    certificate: String,
    fingerprint: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByGroup {
    group: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByFollower {
    group: u32,
    peer: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByPeer {
    peer: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByLane {
    peer: String,
    lane: &'static str,
}

/// A family of gauges that are read now.
fn gauges<L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) {
    let family = Family::<L, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    }
    registry.register(name, help, family);
}

/// The same for what only grows.
fn counters<L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, u64)>,
) {
    let family = Family::<L, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

/// Raft, by group.
fn groups(node: &NodeStatus) -> Registry {
    let mut registry = Registry::default();
    let up = |id: &NodeId| {
        let connected = |link: &LinkStatus| link.peer == *id && link.state == LinkState::Connected;
        *id == node.node || node.links.iter().any(connected)
    };
    let reachable = |group: &GroupStatus| group.voters.iter().filter(|id| up(id)).count();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&GroupStatus) -> u64| {
        let values = node.engine.groups.iter().map(|group| (ByGroup { group: group.group.0 }, value(group)));
        gauges(&mut registry, name, help, values);
    };
    each("chronos_raft_is_leader", "1 on the node that leads the group", &|g| u64::from(g.leader));
    each("chronos_raft_group_term", "The group's term", &|g| g.term);
    each("chronos_raft_last_index", "The end of the group's log here", &|g| g.last);
    each("chronos_raft_committed_index", "Last entry known to be committed", &|g| g.committed);
    each("chronos_raft_applied_index", "Last entry applied", &|g| g.applied);
    let help = "Entries that are committed and not applied here yet";
    each("chronos_raft_apply_lag_entries", help, &|g| g.committed.saturating_sub(g.applied));
    each("chronos_raft_voters", "Nodes that vote in the group", &|g| g.voters.len() as u64);
    let help = "Voters that this node has a link to, itself among them";
    each("chronos_raft_voters_reachable", help, &|g| reachable(g) as u64);
    let help = "1 if they are a majority, and there is a leader";
    each("chronos_raft_quorum", help, &|g| u64::from(reachable(g) * 2 > g.voters.len() && g.leads.is_some()));
    let lags = node.engine.groups.iter().flat_map(|group| {
        let lag = |(id, at): &(NodeId, u64)| {
            let labels = ByFollower { group: group.group.0, peer: peer_name(node, *id) };
            (labels, group.last.saturating_sub(*at))
        };
        group.followers.iter().filter(|(id, _)| *id != node.node).map(lag)
    });
    let help = "Entries that a follower is behind this leader's log";
    gauges(&mut registry, "chronos_raft_follower_lag_entries", help, lags);
    let mut each = |name: &str, help: &str, value: &dyn Fn(&GroupStatus) -> u64| {
        let values = node.engine.groups.iter().map(|group| (ByGroup { group: group.group.0 }, value(group)));
        counters(&mut registry, name, help, values);
    };
    each("chronos_raft_leader_changes", "How often another leader became known here", &|g| g.leader_changes);
    each("chronos_raft_elections_won", "Elections that this node won", &|g| g.elections_won);
    registry
}

/// Links to the other nodes.
fn links(node: &NodeStatus) -> Registry {
    let mut registry = Registry::default();
    let mut each = |name: &str, help: &str, value: &dyn Fn(&LinkStatus) -> Option<u64>| {
        let values =
            node.links.iter().filter_map(|link| Some((ByPeer { peer: link.name.clone() }, value(link)?)));
        gauges(&mut registry, name, help, values);
    };
    let is_up = |link: &LinkStatus| u64::from(link.state == LinkState::Connected);
    each("chronos_link_up", "1 while this node's link to the peer is up", &|link| Some(is_up(link)));
    let help = "1 while the peer's own link to this node is up";
    each("chronos_link_heard", help, &|link| Some(u64::from(link.heard)));
    let help = "When the certificate that the peer showed last expires, in seconds since 1970";
    each("chronos_peer_certificate_expiry_seconds", help, &|link| {
        u64::try_from(link.certificate_expires?.0 / 1_000_000).ok()
    });
    let queued = |link: &LinkStatus| link.lanes.iter().map(|lane| lane.queued_bytes as u64).sum();
    each("chronos_link_queued_bytes", "Bytes that wait to be sent to the peer", &|link| Some(queued(link)));
    let rtt = Family::<ByPeer, Gauge<f64, AtomicU64>>::default();
    for link in &node.links {
        if let Some(measured) = link.rtt {
            rtt.get_or_create(&ByPeer { peer: link.name.clone() }).set(measured.as_secs_f64());
        }
    }
    registry.register("chronos_link_rtt_seconds", "Round trip to the peer, smoothed", rtt);
    let mut each = |name: &str, help: &str, value: &dyn Fn(&LinkStatus) -> u64| {
        let values = node.links.iter().map(|link| (ByPeer { peer: link.name.clone() }, value(link)));
        counters(&mut registry, name, help, values);
    };
    each("chronos_link_reconnects", "How often this node's link came up again", &|link| link.reconnects);
    let help = "Links of the peer that ended over something damaged, too long or unknown";
    each("chronos_link_broken", help, &|link| link.broken);
    let mut each = |name: &str, help: &str, value: &dyn Fn(&LaneStatus) -> u64| {
        let values = node.links.iter().flat_map(|link| {
            let labels = |lane: &LaneStatus| ByLane { peer: link.name.clone(), lane: lane_name(lane.lane) };
            link.lanes.iter().map(move |lane| (labels(lane), value(lane)))
        });
        counters(&mut registry, name, help, values);
    };
    each("chronos_link_sent_bytes", "Bytes of messages sent, by lane", &|lane| lane.sent_bytes);
    each("chronos_link_received_bytes", "Bytes of messages received, by lane", &|lane| lane.received_bytes);
    each("chronos_link_sent_messages", "Messages sent, by lane", &|lane| lane.sent_frames);
    each("chronos_link_received_messages", "Messages received, by lane", &|lane| lane.received_frames);
    let help = "Messages dropped because a lane or its receiver was full, by lane";
    each("chronos_link_dropped_messages", help, &|lane| lane.dropped + lane.overrun);
    registry
}

fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Control => "control",
        Lane::Replication => "replication",
        Lane::Snapshot => "snapshot",
    }
}

fn peer_name(node: &NodeStatus, id: NodeId) -> String {
    let member = node.members.iter().find(|member| member.node == id);
    member.map_or_else(|| format!("{:016x}", id.0), |member| member.name.clone())
}

/// When certificates expire, and how often they were replaced.
fn certificates(credentials: &Credentials) -> Registry {
    let mut registry = Registry::default();
    let expiry = Family::<ByCertificate, Gauge>::default();
    for (role, certificate) in credentials.current().certificates() {
        let fingerprint = certificate.fingerprint_text()[..23].replace(':', "");
        let labels = ByCertificate { certificate: role.to_string(), fingerprint };
        expiry.get_or_create(&labels).set(certificate.not_after.0 / 1_000_000);
    }
    let help = "When a certificate expires, in seconds since 1970";
    registry.register("chronos_certificate_expiry_seconds", help, expiry);
    let (reloads, failures) = credentials.reloads();
    let counted = |count: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(count);
        counter
    };
    let help = "Certificates replaced by new ones while running";
    registry.register("chronos_certificate_reloads", help, counted(reloads));
    let help = "Certificate files that changed and were of no use, so that the ones before stayed";
    registry.register("chronos_certificate_reload_failures", help, counted(failures));
    registry
}

/// Counts one connection while it lives.
#[derive(Debug)]
pub struct ConnectionGuard(Gauge);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// OpenMetrics to the older text format, which differs in that a counter's family is named as its samples are.
fn plain_text(open_metrics: &str) -> String {
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut out = String::with_capacity(open_metrics.len() + 512);
    for line in open_metrics.lines().filter(|line| !line.starts_with("# EOF") && !line.starts_with("# UNIT"))
    {
        let comment = line.strip_prefix("# ").and_then(|rest| {
            let (word, rest) = rest.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            counters.contains(&name).then_some((word, name, rest))
        });
        // Writing to a String does not fail.
        let _ = match comment {
            Some((word, name, rest)) => writeln!(out, "# {word} {name}_total {rest}"),
            None => writeln!(out, "{line}"),
        };
    }
    out
}

#[derive(Debug)]
struct NodeCollector {
    node: NodeStatus,
    segment_bytes: u64,
}

impl prometheus_client::collector::Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let node = &self.node;
        let mut gauge = |name: &str, help: &str, value: u64| {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        let role = match node.role {
            Role::Follower => 0,
            Role::Candidate => 1,
            Role::Leader => 2,
            Role::Learner => 3,
        };
        gauge("chronos_raft_term", "Group 0's term", node.term)?;
        gauge("chronos_raft_role", "Group 0's role: 0 follower, 1 candidate, 2 leader, 3 learner", role)?;
        let storage = node.store.file_bytes + node.wal.segments * self.segment_bytes;
        gauge("chronos_storage_size_bytes", "Bytes on disk, checkpoint store and WAL together", storage)?;
        gauge("chronos_store_used_bytes", "Bytes in use in the checkpoint store", node.store.used_bytes)?;
        gauge("chronos_wal_segments", "Segment files of the WAL", node.wal.segments)?;
        gauge("chronos_wal_kept_bytes", "Bytes of WAL segments that are kept", node.engine.wal_kept_bytes)?;
        gauge("chronos_wal_pending_bytes", "WAL written since the last checkpoint", node.engine.wal_bytes)?;
        gauge(
            "chronos_overlay_bytes",
            "Memory held by writes since the last checkpoint",
            node.engine.overlay_bytes,
        )?;
        gauge("chronos_timers_pending", "Timers that wait for their time", node.engine.timers_pending)?;
        gauge("chronos_timers_near", "Timers held in memory by the timing wheel", node.engine.timers_near)?;
        gauge("chronos_writes_inflight", "Writes that wait to be durable", node.engine.inflight)?;
        gauge("chronos_subscribers", "Open subscriptions", node.engine.subscribers)?;
        let refusing = u64::from(node.engine.refusing.is_some());
        gauge("chronos_writes_refused", "1 while writes are refused for want of space or memory", refusing)?;
        let synchronised = u64::from(node.clock.synchronised);
        gauge(
            "chronos_clock_synchronised",
            "1 if the operating system's clock is synchronised",
            synchronised,
        )?;
        gauge(
            "chronos_store_old_views",
            "Superseded checkpoints that readers still hold",
            node.store.old_views,
        )?;
        if let Some(recording) = &node.recording {
            let failed = u64::from(recording.stopped.is_some());
            gauge("chronos_recording_failed", "1 if recording ended because of an error", failed)?;
        }
        let mut seconds = |name: &str, help: &str, value: f64| {
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
        };
        let offset = node.clock.cluster.micros_since(node.clock.wall) as f64 / 1e6;
        seconds("chronos_clock_offset_seconds", "How far cluster time is ahead of the wall clock", offset)?;
        let took = node.store.last_checkpoint_took.as_secs_f64();
        seconds("chronos_checkpoint_last_duration_seconds", "How long the last checkpoint took", took)?;
        let mut counter = |name: &str, help: &str, value: u64| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
        };
        counter("chronos_wal_written_bytes", "Bytes written to the WAL", node.wal.written_bytes)?;
        counter(
            "chronos_wal_shortened",
            "Times that the WAL was over its bound and was given up to the newest checkpoint",
            node.engine.wal_shortened,
        )?;
        if let Some(recording) = &node.recording {
            let help = "Bytes of inputs that were recorded";
            counter("chronos_recording_written_bytes", help, recording.written_bytes)?;
            let help = "Times that nothing was recorded for a while, because the disk did not keep up";
            counter("chronos_recording_gaps", help, recording.gaps)?;
        }
        counter("chronos_wal_full", "WAL writes that met a full disk", node.wal.full)?;
        counter("chronos_checkpoints", "Checkpoints written", node.store.checkpoints)?;
        counter("chronos_checkpoints_full", "Checkpoints that met a full disk", node.store.checkpoints_full)?;
        histogram(
            &mut encoder,
            "chronos_wal_fsync_duration_seconds",
            "Time of a WAL sync",
            &node.wal.sync_latency,
        )
    }
}

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &NodeHistogram,
) -> Result<(), std::fmt::Error> {
    let last = histogram.buckets.len() - 1;
    let edge = |i: usize| if i == last { f64::MAX } else { (1u64 << i) as f64 / 1e6 };
    let buckets: Vec<(f64, u64)> = histogram.buckets.iter().enumerate().map(|(i, n)| (edge(i), *n)).collect();
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    let sum = histogram.sum_us as f64 / 1e6;
    metric.encode_histogram::<NoLabelSet>(sum, histogram.count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_their_samples() {
        let metrics = Metrics::new(1);
        metrics.statement(Kind::Query, Duration::from_micros(100));
        metrics.error("42601");
        let page = metrics.render(None, None);
        assert!(page.contains("# TYPE chronos_sql_requests_total counter\n"), "{page}");
        assert!(page.contains("chronos_sql_requests_total{kind=\"query\"} 1\n"), "{page}");
        assert!(page.contains("chronos_sql_errors_total{code=\"42601\"} 1\n"), "{page}");
        assert!(!page.contains("# EOF") && !page.contains("_total_total"), "{page}");
    }
}
