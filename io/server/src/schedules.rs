//! Runs the statements of schedules: on the node that leads, what the state says is waiting.
//!
//! Nothing here decides whether an occurrence runs. The state holds a note of each that waits; its statement commits
//! together with the end of that note and has read it, so a second run, here or on the node that led before, conflicts.
//! A run that is cut off leaves the note, and whoever leads then runs it.

use crate::gateway::{Answer, Gateway};
use crate::server::stopped;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::state::RunningRecord;
use chronos_engine::txn::Transaction;
use chronos_proto::Op;
use chronos_proto::id::{GroupId, RelationId};
use chronos_proto::schedule::{Occurrence, RunFailure};
use chronos_sql::{Context, Kind, Outcome, Session, SessionOptions, SqlError, SqlState};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Between looks for occurrences that wait: where there are schedules that run statements, and where there are none.
const LOOK: Duration = Duration::from_millis(5);
const LOOK_IDLE: Duration = Duration::from_millis(250);
/// Statements of schedules that run at once.
const RUNS_MAX: usize = 32;
/// How often a statement that conflicts is run.
const ATTEMPTS: u32 = 5;

type Run = (RelationId, Occurrence);

/// Runs what waits, as long as this node leads.
pub(crate) async fn run(gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
    let cancel = Arc::new(AtomicBool::new(false));
    let mut runs: JoinSet<Run> = JoinSet::new();
    let mut under_way: BTreeSet<Run> = BTreeSet::new();
    loop {
        let look = tokio::time::sleep(next_look(&gateway));
        tokio::select! {
            () = stopped(&mut stop) => break,
            () = look => {}
            Some(Ok(over)) = runs.join_next() => {
                under_way.remove(&over);
            }
        }
        for (run, owner) in waiting(&gateway, &under_way).await {
            if under_way.len() < RUNS_MAX && under_way.insert(run) {
                let (gateway, cancel) = (gateway.clone(), cancel.clone());
                runs.spawn(async move {
                    run_one(&gateway, run, owner, &cancel).await;
                    run
                });
            }
        }
    }
    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    while runs.join_next().await.is_some() {}
}

fn next_look(gateway: &Gateway) -> Duration {
    let catalog = gateway.node().published().snapshot.catalog;
    let runs = |relation: &Arc<chronos_proto::schema::Relation>| {
        relation.schedule().is_some_and(|schedule| schedule.topic().is_none() && !schedule.paused)
    };
    if catalog.iter().any(runs) { LOOK } else { LOOK_IDLE }
}

/// Occurrences that are due and do not run yet, with the owners of their schedules.
async fn waiting(gateway: &Gateway, under_way: &BTreeSet<Run>) -> Vec<(Run, String)> {
    let (snapshot, read_time) = gateway.read();
    if snapshot.statements_due <= under_way.len() as u64
        || !gateway.status().await.is_some_and(|status| status.leads())
    {
        return Vec::new();
    }
    let mut out = Vec::new();
    for running in snapshot.running(None) {
        // What cannot be read is said by whoever reads it for a client.
        let Ok((id, occurrence, RunningRecord { due, .. })) = running else { break };
        let Some(schedule) = snapshot.catalog.get(id).and_then(|relation| relation.schedule()) else {
            continue;
        };
        if due <= read_time && !under_way.contains(&(id, occurrence)) {
            out.push(((id, occurrence), schedule.owner.clone()));
        }
    }
    out
}

async fn run_one(gateway: &Gateway, run: Run, owner: String, cancel: &AtomicBool) {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let options = SessionOptions { user: owner.clone(), ..SessionOptions::default() };
        let Err(error) = gateway.run_occurrence(&mut Session::new(options), run, cancel).await else {
            return;
        };
        let code = error.code.as_str();
        if error.code == SqlState::SERIALIZATION_FAILURE && attempt < ATTEMPTS {
            continue;
        }
        // No fault of the statement's: it waits until there is a leader, or room.
        if ["08", "53", "57"].iter().any(|class| code.starts_with(class)) {
            tracing::debug!(code, "a schedule's statement waits: {error}");
            return tokio::time::sleep(LOOK_IDLE).await;
        }
        tracing::warn!(code, schedule = run.0.0, "a schedule's statement failed: {error}");
        if gateway.fail_occurrence(run, &error).await.is_err() {
            tokio::time::sleep(LOOK_IDLE).await;
        }
        return;
    }
}

impl Gateway {
    async fn run_occurrence(
        &self,
        session: &mut Session,
        (schedule, occurrence): Run,
        cancel: &AtomicBool,
    ) -> Result<Answer, SqlError> {
        let work = |session: &mut Session, cx: &Context<'_>| {
            let run = tokio::task::block_in_place(|| session.execute_run(schedule, occurrence, cx))?;
            Ok(run.unwrap_or_else(|| Outcome::Tag("DO".into())))
        };
        self.run(session, Kind::Write, None, cancel, work).await
    }

    /// Records that an occurrence came to nothing, unless it has run meanwhile.
    async fn fail_occurrence(&self, (schedule, occurrence): Run, error: &SqlError) -> Result<(), SqlError> {
        let failure = RunFailure { code: error.code.as_str().to_owned(), message: error.to_string() };
        self.write(GroupId(0), |snapshot, _| {
            let key = keys::running(schedule, occurrence);
            let waits =
                snapshot.running(Some(schedule)).flatten().any(|(_, waiting, _)| waiting == occurrence);
            let op = Op::Ran { schedule, occurrence, failure: Some(failure.clone()) };
            let ops = if waits { vec![op] } else { Vec::new() };
            let (read_index, reads) = (snapshot.applied, vec![KeyRange::point(key)]);
            Ok((Transaction { read_index, reads, ops, ..Transaction::default() }, ()))
        })
        .await
        .map(|_| ())
    }
}
