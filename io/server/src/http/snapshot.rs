//! `GET /snapshot/GROUP`: the state of one group as a snapshot file, while writes go on.
//!
//! It holds everything that was acknowledged anywhere before the request. A node that is no member of the group answers
//! 421 and names the leader. The file's blocks are made as they are taken, a few at a time; a client that takes none for
//! long is cut off, since the store's pages cannot be used again meanwhile.

use super::cluster::{elsewhere, status};
use super::{Admin, App, Problem};
use crate::server::stopped;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use chronos_engine::node::Export;
use chronos_engine::txn::Refused;
use chronos_node::backup;
use chronos_proto::id::GroupId;
use chronos_proto::time::Timestamp;
use futures_util::stream;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

/// Snapshots that are sent at a time.
pub(super) const AT_ONCE: usize = 2;
/// How long a client may take nothing.
const STALL: Duration = Duration::from_secs(30);
/// Parts that wait for the client.
const PARTS: usize = 4;
/// A part.
const PART_BYTES: usize = 256 << 10;

pub(super) async fn send(
    State(app): State<Arc<App>>,
    _: Admin,
    Path(group): Path<u32>,
) -> Result<Response, Problem> {
    let permit = app.snapshots.clone().try_acquire_owned().map_err(|_| {
        let why = format!("{AT_ONCE} snapshots are being made already: wait until one is done");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "53400", why)
    })?;
    let export = export(&app, GroupId(group)).await?;
    let time = app.gateway.node().read_time();
    let (sender, parts) = mpsc::channel(PARTS);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        make(&export, time, &Outgoing { parts: sender, runtime });
    });
    let body = Body::from_stream(stream::unfold((parts, app.stop.clone()), next));
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

/// The group's state, once it holds all that was acknowledged before.
async fn export(app: &App, group: GroupId) -> Result<Export, Problem> {
    let node = status(app).await?;
    let known = node.engine.groups.iter().find(|known| known.group == group);
    let known = known.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "unknown_group", format!("there is no group {group}"))
    })?;
    if ![&known.voters, &known.outgoing, &known.learners].into_iter().any(|nodes| nodes.contains(&node.node))
    {
        return Err(elsewhere(&node, known));
    }
    let (send, receive) = oneshot::channel();
    let reply = Box::new(move |at| {
        // A client that went away wants no answer.
        let _ = send.send(at);
    });
    app.gateway.node().read_with(group, reply);
    let at = receive.await.unwrap_or(Err(Refused::Stopping));
    at.map_err(|refused| crate::gateway::refusal(&refused))?;
    let (send, receive) = oneshot::channel();
    let reply = Box::new(move |export| {
        let _ = send.send(export);
    });
    app.gateway.node().export_with(group, reply);
    receive.await.ok().flatten().ok_or_else(|| elsewhere(&node, known))
}

/// Writes the file to the client. Its end is missing if this fails, which every reader finds out.
fn make(export: &Export, time: Timestamp, outgoing: &Outgoing) {
    let group = export.snapshot.group;
    let output = BufWriter::with_capacity(PART_BYTES, outgoing);
    match backup::write(output, export, time) {
        Ok((_, end)) => {
            tracing::info!(%group, index = %export.last.index, entries = end.entries, "snapshot sent to a client");
        }
        Err(error) => {
            tracing::warn!(%group, "a snapshot was not sent to its end: {error}");
            let error = Err(io::Error::other(error.to_string()));
            let _gone_anyway = outgoing.parts.try_send(error);
        }
    }
}

/// Parts on their way to the client.
struct Outgoing {
    parts: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Write for &Outgoing {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        let part = &part[..part.len().min(PART_BYTES)];
        let sent = tokio::time::timeout(STALL, self.parts.send(Ok(Bytes::copy_from_slice(part))));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(part.len()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client went away")),
            Err(_) => {
                let why = format!("the client took nothing for {} s", STALL.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Parts = (mpsc::Receiver<io::Result<Bytes>>, watch::Receiver<bool>);

/// The next part, or the end of the connection if the server stops.
async fn next((mut parts, mut stop): Parts) -> Option<(io::Result<Bytes>, Parts)> {
    let part = tokio::select! {
        part = parts.recv() => part?,
        () = stopped(&mut stop) => Err(io::Error::other("the node is stopping")),
    };
    Some((part, (parts, stop)))
}
