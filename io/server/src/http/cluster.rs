//! The cluster's members, and how an operator changes them.
//!
//! `GET /cluster` is this node's view. A change is taken by the leader of the group that it concerns; any other node
//! answers 421 and names the leader. A change is answered when it is logged: whoever wants to see it done looks at the
//! view until it is.
//!
//! Nodes tell each other where they serve HTTP when they link. One that has not been heard of since this node started is
//! taken to serve 1000 ports above its peer address.
//!
//! Not implemented: a journal of changes.

use super::status::name_of;
use super::{Admin, App, Known, Problem, body};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use chronos_engine::node::{GroupStatus, VOTERS_MAX, wanted};
use chronos_engine::raft::{ChangeError, TransferError};
use chronos_engine::step::{OperatorError, Request};
use chronos_engine::txn::Refused;
use chronos_node::NodeStatus;
use chronos_node::link::LinkState;
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Member;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The largest body of a change.
const BODY_MAX: usize = 16 << 10;

/// `GET /cluster`.
pub(super) async fn view(State(app): State<Arc<App>>, _: Known) -> Result<Json<serde_json::Value>, Problem> {
    let status = status(&app).await?;
    Ok(Json(describe(&status)))
}

/// A node to be taken in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMember {
    name: String,
    address: String,
}

/// `POST /cluster/members`.
pub(super) async fn add(
    State(app): State<Arc<App>>,
    _: Admin,
    headers: HeaderMap,
    request: Body,
) -> Result<(StatusCode, Json<serde_json::Value>), Problem> {
    let NewMember { name, address } =
        read(&headers, request, r#"{"name": "node4", "address": "HOST:PORT"}"#).await?;
    crate::config::node_name(&name).map_err(|why| bad(format!("name {name:?}: {why}")))?;
    let address = crate::config::Address::parse(&address).map_err(bad)?;
    if address.port == 0 {
        return Err(bad(format!("address {address}: other nodes need a port to turn to")));
    }
    let address = address.to_string();
    let (status, group) = leading(&app, GroupId(0)).await?;
    let member = Member { node: NodeId::of_name(&name), name, address, incarnation: None, boot: 0 };
    if is_leaving(&status, &group, member.node) {
        let why = format!("node {} is still being removed: wait until it is gone", member.name);
        return Err(Problem::new(StatusCode::CONFLICT, "change_pending", why));
    }
    let same = |other: &&Member| other.name == member.name || other.address == member.address;
    match members(&status).find(same) {
        Some(other) if other.name == member.name && other.address == member.address => {
            return Ok((StatusCode::OK, Json(json!({"name": member.name, "state": "member"}))));
        }
        Some(other) => {
            let why = format!(
                "node {} is a member at {}: each node has a name and an address of its own; remove that one first",
                other.name, other.address
            );
            return Err(Problem::new(StatusCode::CONFLICT, "member_exists", why));
        }
        None => {}
    }
    no_change_pending(&status, &group, None)?;
    if members(&status).count() >= VOTERS_MAX {
        let why = format!("a cluster has {VOTERS_MAX} nodes at the most");
        return Err(Problem::new(StatusCode::CONFLICT, "too_many_members", why));
    }
    let name = member.name.clone();
    operate(&app, Request::PutMember(member), GroupId(0)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"name": name, "state": "joining"}))))
}

/// `DELETE /cluster/members/NAME`.
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(name): Path<String>,
) -> Result<(StatusCode, Json<serde_json::Value>), Problem> {
    let (status, group) = leading(&app, GroupId(0)).await?;
    let node = NodeId::of_name(&name);
    if is_leaving(&status, &group, node) {
        return Ok((StatusCode::OK, Json(json!({"name": name, "state": "leaving"}))));
    }
    if !members(&status).any(|member| member.node == node) {
        return Err(unknown(&status, &name));
    }
    no_change_pending(&status, &group, Some(node))?;
    let rest: Vec<NodeId> = group.voters.iter().copied().filter(|voter| *voter != node).collect();
    if rest.is_empty() {
        let why = format!("node {name} is the last voter: a cluster needs one");
        return Err(Problem::new(StatusCode::CONFLICT, "last_voter", why));
    }
    if group.voters.contains(&node) {
        let away: Vec<NodeId> = rest.iter().copied().filter(|voter| !reaches(&status, *voter)).collect();
        if (rest.len() - away.len()) * 2 <= rest.len() {
            let away: Vec<String> = away.into_iter().map(|node| name_of(&status, node)).collect();
            let why = format!(
                "without node {name} the others would have no majority, since {} cannot be reached: bring them back, \
                 or remove them first",
                away.join(", ")
            );
            return Err(Problem::new(StatusCode::CONFLICT, "would_lose_quorum", why));
        }
    }
    operate(&app, Request::DropMember(node), GroupId(0)).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"name": name, "state": "leaving"}))))
}

/// Leadership to be handed over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    #[serde(default)]
    group: u32,
    to: String,
}

/// `POST /cluster/transfer`.
pub(super) async fn transfer(
    State(app): State<Arc<App>>,
    _: Admin,
    headers: HeaderMap,
    request: Body,
) -> Result<(StatusCode, Json<serde_json::Value>), Problem> {
    let Transfer { group, to } = read(&headers, request, r#"{"group": 0, "to": "node2"}"#).await?;
    let id = GroupId(group);
    let (status, group) = leading(&app, id).await?;
    let node = NodeId::of_name(&to);
    if node == status.node {
        return Ok((StatusCode::OK, Json(json!({"group": id.0, "to": to, "state": "leads"}))));
    }
    if !members(&status).any(|member| member.node == node) {
        return Err(unknown(&status, &to));
    }
    if !group.voters.contains(&node) {
        let why = format!("node {to} has no vote in group {}: only a voter can lead it", id.0);
        return Err(Problem::new(StatusCode::CONFLICT, "not_a_voter", why));
    }
    if !reaches(&status, node) {
        let why = format!("node {to} cannot be reached: leadership stays where it is");
        return Err(Problem::new(StatusCode::CONFLICT, "not_reachable", why));
    }
    operate(&app, Request::Transfer { group: id, to: node }, id).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"group": id.0, "to": to, "state": "transferring"}))))
}

fn bad(why: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "22023", why)
}

fn unknown(status: &NodeStatus, name: &str) -> Problem {
    let names: Vec<&str> = members(status).map(|member| member.name.as_str()).collect();
    let why = format!("there is no node {name:?} in the cluster; its nodes are {}", names.join(", "));
    Problem::new(StatusCode::NOT_FOUND, "unknown_member", why)
}

async fn read<T: DeserializeOwned>(headers: &HeaderMap, request: Body, wanted: &str) -> Result<T, Problem> {
    let bytes = body(headers, request, BODY_MAX).await?;
    serde_json::from_slice(&bytes).map_err(|error| bad(format!("expected {wanted}: {error}")))
}

pub(super) async fn status(app: &App) -> Result<NodeStatus, Problem> {
    let stopped = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", "the node has stopped");
    app.gateway.status().await.ok_or_else(stopped)
}

/// The node and a group that it leads, or where to go.
async fn leading(app: &App, id: GroupId) -> Result<(NodeStatus, GroupStatus), Problem> {
    let status = status(app).await?;
    if status.members.is_empty() {
        let why = "this node is alone: `chronos node --peers` makes clusters, `chronos dev` does not";
        return Err(Problem::new(StatusCode::CONFLICT, "not_a_cluster", why));
    }
    match status.engine.groups.iter().find(|group| group.group == id).cloned() {
        None => {
            Err(Problem::new(StatusCode::NOT_FOUND, "unknown_group", format!("there is no group {}", id.0)))
        }
        Some(group) if group.leader => Ok((status, group)),
        Some(group) => Err(elsewhere(&status, &group)),
    }
}

/// 421 and the leader's name, or 503 if nobody leads.
pub(super) fn elsewhere(status: &NodeStatus, group: &GroupStatus) -> Problem {
    let leader = group.leads.filter(|leader| *leader != status.node);
    match leader.and_then(|leader| status.members.iter().find(|member| member.node == leader)) {
        Some(leader) => {
            let why = format!(
                "this node does not lead group {}: ask node {} at {}",
                group.group.0,
                leader.name,
                http_address(status, leader)
            );
            let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, "not_leader", why);
            problem.leader(&leader.name, http_address(status, leader))
        }
        None => {
            let why = format!("group {} has no leader that this node knows of: try again", group.group.0);
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", why)
        }
    }
}

/// Where a node serves HTTP: as it said, or, before it has said so, by its peer address.
pub(crate) fn http_address(status: &NodeStatus, member: &Member) -> String {
    let said = match member.node == status.node {
        true => status.http.clone(),
        false => status.links.iter().find(|link| link.peer == member.node).and_then(|link| link.http.clone()),
    };
    let assumed = || Some(crate::config::Address::parse(&member.address).ok()?.shifted(1000)?.to_string());
    said.or_else(assumed).unwrap_or_else(|| member.address.clone())
}

/// The nodes that are to stay: links are kept with those that leave, too.
fn members(status: &NodeStatus) -> impl Iterator<Item = &Member> {
    status.members.iter().filter(|member| !status.engine.leaving.contains(&member.node))
}

/// Whether a node is no member any more and the group has not let it go.
fn is_leaving(status: &NodeStatus, group: &GroupStatus, node: NodeId) -> bool {
    let held =
        [&group.voters, &group.outgoing, &group.learners].into_iter().any(|nodes| nodes.contains(&node));
    held && !members(status).any(|member| member.node == node)
}

fn reaches(status: &NodeStatus, node: NodeId) -> bool {
    let connected =
        |link: &chronos_node::link::LinkStatus| link.peer == node && link.state == LinkState::Connected;
    node == status.node || status.links.iter().any(connected)
}

/// Members that come or go: one at a time. What is being added may be removed again.
fn no_change_pending(
    status: &NodeStatus,
    group: &GroupStatus,
    removing: Option<NodeId>,
) -> Result<(), Problem> {
    let pending = |why: String| Err(Problem::new(StatusCode::CONFLICT, "change_pending", why));
    let mut everybody = group.voters.iter().chain(&group.outgoing).chain(&group.learners);
    if let Some(leaving) = everybody.find(|node| is_leaving(status, group, **node)).copied() {
        return pending(format!("node {} is being removed: one change at a time", name_of(status, leaving)));
    }
    match members(status).find(|member| !group.voters.contains(&member.node)) {
        Some(joining) if removing != Some(joining.node) => {
            pending(format!("node {} is being added: wait until it votes, or remove it", joining.name))
        }
        _ if !group.outgoing.is_empty() => {
            pending("another membership change is under way: one at a time".into())
        }
        _ => Ok(()),
    }
}

async fn operate(app: &App, request: Request, group: GroupId) -> Result<(), Problem> {
    let (send, receive) = oneshot::channel();
    let reply = Box::new(move |result| {
        // Whoever asked may have gone.
        let _ = send.send(result);
    });
    app.gateway.node().operate_with(request, reply);
    let error = match receive.await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => OperatorError::Refused(Refused::Stopping),
    };
    let words = error.to_string();
    Err(match error {
        OperatorError::NotLeader(_)
        | OperatorError::Change(ChangeError::NotLeader)
        | OperatorError::Transfer(TransferError::NotLeader) => match leading(app, group).await {
            Err(elsewhere) => elsewhere,
            Ok(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", words),
        },
        OperatorError::NoGroup(_) => Problem::new(StatusCode::NOT_FOUND, "unknown_group", words),
        OperatorError::Change(ChangeError::NotReady) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "57P03", words)
        }
        OperatorError::Change(ChangeError::LastVoter(_)) => {
            Problem::new(StatusCode::CONFLICT, "last_voter", words)
        }
        OperatorError::Change(ChangeError::Unknown(_)) => {
            Problem::new(StatusCode::NOT_FOUND, "unknown_member", words)
        }
        OperatorError::Change(_) | OperatorError::Transfer(_) => {
            Problem::new(StatusCode::CONFLICT, "change_pending", words)
        }
        OperatorError::Refused(refused) => crate::gateway::refusal(&refused).into(),
    })
}

/// This node's view of the cluster, as JSON.
fn describe(status: &NodeStatus) -> serde_json::Value {
    let name = |node: &NodeId| name_of(status, *node);
    let names = |nodes: &[NodeId]| {
        let mut names: Vec<String> = nodes.iter().map(name).collect();
        names.sort();
        names
    };
    let group0 = status.engine.groups.first();
    let member = |member: &Member| {
        let link = status.links.iter().find(|link| link.peer == member.node);
        let is_this = member.node == status.node;
        let (state, why) = match link.map(|link| &link.state) {
            _ if is_this => ("this", None),
            Some(LinkState::Connected) => ("up", None),
            Some(LinkState::Refused { why }) => ("refused", Some(why.clone())),
            Some(LinkState::Connecting { why }) => ("down", why.clone()),
            Some(LinkState::NotDialled) | None => ("down", None),
        };
        let vote = group0.map(|group| match member.node {
            node if group.voters.contains(&node) => "voter",
            node if group.outgoing.contains(&node) => "leaving",
            node if group.learners.contains(&node) => "learner",
            _ => "none",
        });
        let matched = group0.and_then(|group| match is_this {
            true => Some(group.last),
            false => group.followers.iter().find(|(node, _)| *node == member.node).map(|(_, at)| *at),
        });
        json!({
            "name": member.name,
            "address": member.address,
            "http_address": http_address(status, member),
            "vote": vote,
            "link": state,
            "link_problem": why,
            "rtt_us": link.and_then(|link| link.rtt).map(|rtt| rtt.as_micros() as u64),
            "matched_index": matched,
        })
    };
    let nodes: BTreeSet<NodeId> = members(status).map(|member| member.node).collect();
    let group = |group: &GroupStatus| {
        let wanted: Vec<NodeId> = wanted(group.group, &nodes).into_iter().collect();
        json!({
            "group": group.group.0,
            "term": group.term,
            "role": format!("{:?}", group.role),
            "serves": group.leader,
            "leader": group.leads.as_ref().map(name),
            "voters": names(&group.voters),
            "outgoing": names(&group.outgoing),
            "learners": names(&group.learners),
            "wanted": names(&wanted),
            "last_index": group.last,
            "committed_index": group.committed,
            "applied_index": group.applied,
        })
    };
    let mut members: Vec<&Member> = members(status).collect();
    members.sort_by(|a, b| a.name.cmp(&b.name));
    json!({
        "cluster": format!("{:032x}", status.cluster.0),
        "node": status.name,
        "leader": status.leader().as_ref().map(name),
        "leaving": names(&status.engine.leaving),
        "members": members.into_iter().map(member).collect::<Vec<_>>(),
        "groups": status.engine.groups.iter().map(group).collect::<Vec<_>>(),
    })
}
