//! What the node says of itself: for load balancers, people and Prometheus.

use super::{Admin, App, Known, Problem};
use crate::auth::Auth;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chronos_node::link::LinkState;
use chronos_node::{Fsync, NodeStatus, VerifyState};
use chronos_proto::id::NodeId;
use chronos_proto::membership::Member;
use serde_json::json;
use std::sync::Arc;

/// `GET /health`: open to all, so that a probe needs no token.
pub(super) async fn health(State(app): State<Arc<App>>) -> Response {
    match app.gateway.status().await {
        Some(status) if status.fatal.is_none() => {
            let body = json!({"status": "ok", "role": status.role.to_string(), "term": status.term});
            Json(body).into_response()
        }
        _ => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the node has stopped").into_response(),
    }
}

/// `GET /livez`.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: whether reads and writes are served now.
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Problem> {
    let not = |why: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", why);
    let status = app.gateway.status().await.ok_or_else(|| not("the node has stopped"))?;
    match readiness(&status) {
        Err(why) => Err(not(&why)),
        Ok(()) if !app.gateway.is_ready() => Err(not("there is no leader")),
        Ok(()) => Ok("ok\n"),
    }
}

/// Whether reads and writes can be served now, or why not.
pub(crate) fn readiness(status: &NodeStatus) -> Result<(), String> {
    if let Some(why) = &status.fatal {
        return Err(why.clone());
    }
    let is_member = status.members.iter().any(|member| member.node == status.node);
    if !status.members.is_empty() && (!is_member || status.engine.leaving.contains(&status.node)) {
        return Err("this node is no member of the cluster".to_owned());
    }
    if let Some(why) = status.waits_for() {
        return Err(why);
    }
    if !status.has_leader() {
        return Err("there is no leader".to_owned());
    }
    let leader = status.leader().filter(|leader| *leader != status.node);
    let link = leader.and_then(|leader| status.links.iter().find(|link| link.peer == leader));
    match link.filter(|link| link.state != LinkState::Connected) {
        Some(link) => Err(format!("node {} leads, and cannot be reached", link.name)),
        None => Ok(()),
    }
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<Arc<App>>, _: Known) -> Result<Response, Problem> {
    let status = app.gateway.status().await;
    let page = app.gateway.metrics().render(status.as_ref(), app.auth.credentials().map(Arc::as_ref));
    Ok(([(CONTENT_TYPE, crate::metrics::CONTENT_TYPE)], page).into_response())
}

/// `GET /flight`: what the engine was last given and did.
pub(super) async fn flight(State(app): State<Arc<App>>, _: Admin) -> String {
    app.gateway.node().flight()
}

/// `GET /config`: what holds, without tokens: those hide themselves from this form.
pub(super) async fn config(State(app): State<Arc<App>>, _: Admin) -> String {
    format!("{:#?}\n", app.config)
}

/// `GET /status`.
pub(super) async fn status(State(app): State<Arc<App>>, _: Known) -> Result<Response, Problem> {
    let status = app.gateway.status().await;
    let status = status
        .ok_or_else(|| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the node has stopped"))?;
    Ok(Json(describe(&status, app.gateway.is_ready(), &app.auth)).into_response())
}

/// All that is known of a node, as JSON.
pub(crate) fn describe(status: &NodeStatus, ready: bool, auth: &Auth) -> serde_json::Value {
    let groups: Vec<_> = status
        .engine
        .groups
        .iter()
        .map(|group| {
            json!({
                "group": group.group.0,
                "term": group.term,
                "leader": group.leader,
                "role": format!("{:?}", group.role),
                "doubtful": group.doubtful,
                "leader_node": group.leads.map(|node| name_of(status, node)),
                "last_index": group.last,
                "committed_index": group.committed,
                "applied_index": group.applied,
                "state_digest": format!("{:016x}", group.digest),
                "data_digest": format!("{:016x}", group.data_digest),
            })
        })
        .collect();
    let fsync = &status.wal.sync_latency;
    json!({
        "name": status.name,
        "version": env!("CARGO_PKG_VERSION"),
        "cluster": format!("{:032x}", status.cluster.0),
        "node": format!("{:016x}", status.node.0),
        "role": status.role.to_string(),
        "term": status.term,
        "ready": ready && readiness(status).is_ok(),
        "uptime_seconds": status.uptime.as_secs(),
        "data_dir": status.data_dir.display().to_string(),
        "fsync": status.fsync.to_string(),
        "warnings": warnings(status, auth),
        "certificates": certificates(auth),
        "notices": status.notices,
        "fatal": status.fatal,
        "groups": groups,
        "leader": status.leader().map(|node| name_of(status, node)),
        "members": members(status),
        "timers": {"pending": status.engine.timers_pending, "near": status.engine.timers_near},
        "subscribers": status.engine.subscribers,
        "writes_waiting": status.engine.inflight,
        "overlay_bytes": status.engine.overlay_bytes,
        "wal": {
            "pending_bytes": status.engine.wal_bytes,
            "kept_bytes": status.engine.wal_kept_bytes,
            "shortened": status.engine.wal_shortened,
            "written_bytes": status.wal.written_bytes,
            "segments": status.wal.segments,
            "syncs": status.wal.syncs,
            "sync_p50_us": fsync.quantile_us(0.5),
            "sync_p99_us": fsync.quantile_us(0.99),
            "sync_max_us": fsync.max_us,
        },
        "store": {
            "file_bytes": status.store.file_bytes,
            "used_bytes": status.store.used_bytes,
            "checkpoints": status.store.checkpoints,
            "last_checkpoint_ms": status.store.last_checkpoint_took.as_millis() as u64,
            "last_checkpoint_at": status.store.last_checkpoint_at.map(|t| t.to_string()),
            "verified": match &status.store.verify {
                VerifyState::Pending => "pending".to_owned(),
                VerifyState::Running { pages, of } => format!("{pages} of {of} pages"),
                VerifyState::Verified => "yes".to_owned(),
                VerifyState::Damaged(what) => format!("damaged: {what}"),
            },
        },
        "recording": status.recording.as_ref().map(|recording| json!({
            "file": recording.file.as_ref().map(|file| file.display().to_string()),
            "written_bytes": recording.written_bytes,
            "gaps": recording.gaps,
            "stopped": recording.stopped,
        })),
        "clock": {
            "cluster": status.engine.has_time.then(|| status.clock.cluster.to_string()),
            "wall": status.clock.wall.to_string(),
            "synchronised": status.clock.synchronised,
            "steps": status.clock.steps,
            "last_step": status.clock.last_step.map(|step| json!({"micros": step.micros, "adopted": step.adopted})),
        },
    })
}

pub(super) fn name_of(status: &NodeStatus, node: NodeId) -> String {
    let member = status.members.iter().find(|member| member.node == node);
    member.map_or_else(
        || if node == status.node { status.name.clone() } else { format!("{:016x}", node.0) },
        |m| m.name.clone(),
    )
}

/// The cluster's nodes, and this one's links to them.
fn members(status: &NodeStatus) -> Vec<serde_json::Value> {
    let group0 = status.engine.groups.first();
    let describe = |member: &Member| {
        let link = status.links.iter().find(|link| link.peer == member.node);
        let votes = group0.map(|group| group.voters.contains(&member.node));
        json!({
            "name": member.name,
            "node": format!("{:016x}", member.node.0),
            "address": member.address,
            "voter": votes,
            "this": member.node == status.node,
            "link": link.map(|link| format!("{:?}", link.state)),
            "rtt_us": link.and_then(|link| link.rtt).map(|rtt| rtt.as_micros() as u64),
        })
    };
    status.members.iter().map(describe).collect()
}

/// The certificates that the listeners show and trust.
fn certificates(auth: &Auth) -> Vec<serde_json::Value> {
    let Some(credentials) = auth.credentials() else { return Vec::new() };
    let current = credentials.current();
    let all = current.certificates().map(|(role, certificate)| {
        json!({
            "role": role.to_string(),
            "name": certificate.identity.name,
            "not_before": certificate.not_before.to_string(),
            "not_after": certificate.not_after.to_string(),
            "fingerprint": certificate.fingerprint_text(),
        })
    });
    all.collect()
}

/// What an operator should know about and maybe change.
pub(crate) fn warnings(status: &NodeStatus, auth: &Auth) -> Vec<String> {
    let mut out = Vec::new();
    match status.fsync {
        Fsync::Always => {}
        weak => {
            out.push(format!("--fsync {weak}: a power cut loses writes that were acknowledged before it"))
        }
    }
    if status.engine.groups.iter().any(|group| group.doubtful) {
        out.push(
            "acknowledged writes may be missing here after an unclean stop with a weak --fsync: the node neither votes nor leads until a leader has caught it up"
                .to_owned(),
        );
    }
    out.extend(status.waits_for());
    if let Some(why) = &status.engine.refusing {
        out.push(format!("writes are refused: {why}"));
    }
    if let VerifyState::Damaged(what) = &status.store.verify {
        out.push(format!("the store is damaged: {what}; run `chronos verify`"));
    }
    if let Some(credentials) = auth.credentials() {
        out.extend(credentials.current().warnings_at(status.clock.wall));
        let problem = credentials.problem();
        out.extend(problem.map(|why| format!("the new certificate files are not used: {why}")));
    }
    let recording = status.recording.as_ref();
    out.extend(recording.and_then(|recording| recording.stopped.clone()));
    if status.wal.full + status.store.checkpoints_full > 0 {
        out.push("the disk was full at some time since the start".to_owned());
    }
    out
}
