//! `chronos.schedules` and `chronos.schedule_runs`.

use super::StateTable;
use crate::error::SqlError;
use crate::exec::run::ExecCx;
use crate::exec::scan::read_error;
use crate::time;
use chronos_engine::keys;
use chronos_engine::state::{RunOutcome, RunRecord};
use chronos_proto::id::RelationId;
use chronos_proto::schedule::{Misfire, Occurrence, Rule, Schedule, ScheduleAction};
use chronos_proto::schema::Relation;
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use std::sync::Arc;

pub(super) static TABLES: &[StateTable] = &[
    StateTable {
        name: "schedules",
        columns: &[
            ("schedule", Type::Text),
            ("spec", Type::Text),
            ("time_zone", Type::Text),
            ("state", Type::Text),
            ("next_at", Type::Timestamp),
            ("last_at", Type::Timestamp),
            ("runs", Type::Int),
            ("missed", Type::Int),
            ("skipped", Type::Int),
            ("failed", Type::Int),
            ("running", Type::Int),
            ("starting", Type::Timestamp),
            ("ending", Type::Timestamp),
            ("count", Type::Int),
            ("jitter", Type::Interval),
            ("misfire", Type::Text),
            ("overlap", Type::Text),
            ("action", Type::Text),
            ("owner", Type::Text),
        ],
        rows: schedules,
    },
    StateTable {
        name: "schedule_runs",
        columns: &[
            ("schedule", Type::Text),
            ("occurrence_id", Type::Text),
            ("scheduled_at", Type::Timestamp),
            ("due_at", Type::Timestamp),
            ("fired_at", Type::Timestamp),
            ("ended_at", Type::Timestamp),
            ("outcome", Type::Text),
            ("missed", Type::Int),
            ("error_code", Type::Text),
            ("error", Type::Text),
        ],
        rows: runs,
    },
];

/// Every schedule; what fires, is made or goes meanwhile conflicts with the transaction.
fn all<'a>(cx: &'a ExecCx<'_>) -> impl Iterator<Item = (&'a Arc<Relation>, &'a Schedule)> {
    let schedules = cx.view.catalog.iter().filter_map(|r| Some((r, r.schedule()?)));
    if let Some(reads) = cx.reads {
        reads.borrow_mut().add(keys::catalog_all());
    }
    schedules.inspect(move |(relation, _)| {
        if let Some(reads) = cx.reads {
            reads.borrow_mut().point(keys::schedule(relation.id));
        }
    })
}

fn int(n: u64) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn at(time: Option<Timestamp>) -> Value {
    time.map_or(Value::Null, |time| Value::Timestamp(time.0))
}

fn interval(micros: u64) -> String {
    let mut out = String::new();
    time::write_interval(&mut out, span(micros));
    out
}

fn span(micros: u64) -> chronos_proto::value::Interval {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    chronos_proto::value::Interval { months: 0, days: 0, micros }
}

fn schedules(cx: &ExecCx<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for (relation, schedule) in all(cx) {
        let record = cx.view.schedule(relation.id).map_err(read_error)?.unwrap_or_default();
        let text = |text: &str| Value::Text(text.to_owned());
        let (spec, zone) = match &schedule.rule {
            Rule::Every(micros) => (format!("every {}", interval(*micros)), Value::Null),
            Rule::Cron { expression, zone } => (format!("cron {expression}"), text(zone)),
        };
        let state = match (schedule.paused, &record.pending) {
            (true, _) => "paused",
            (false, Some(_)) => "active",
            (false, None) => "ended",
        };
        let misfire = match schedule.misfire {
            Misfire::Skip => "skip".to_owned(),
            Misfire::FireOnce => "fire once".to_owned(),
            Misfire::FireAll(None) => "fire all".to_owned(),
            Misfire::FireAll(Some(within)) => format!("fire all within {}", interval(within)),
        };
        let action = match &schedule.action {
            ScheduleAction::Publish { topic, .. } => {
                let topic = cx.view.catalog.get(*topic).map_or("?", |topic| topic.name.as_str());
                format!("publish to {topic}")
            }
            ScheduleAction::Statement(sql) => sql.clone(),
        };
        rows.push(vec![
            text(&relation.name),
            Value::Text(spec),
            zone,
            text(state),
            at(record.pending.as_ref().map(|pending| pending.due)),
            at(record.last),
            int(record.runs),
            int(record.missed),
            int(record.skipped),
            int(record.failed),
            int(record.running),
            at(Some(schedule.starting)),
            at(schedule.ending),
            schedule.count.map_or(Value::Null, int),
            Value::Interval(span(schedule.jitter_micros)),
            Value::Text(misfire),
            text(if schedule.overlap { "allow" } else { "skip" }),
            Value::Text(action),
            text(&schedule.owner),
        ]);
    }
    Ok(rows)
}

/// The runs that are over, the oldest first, and behind them those that are not.
fn runs(cx: &ExecCx<'_>) -> Result<Vec<Vec<Value>>, SqlError> {
    let mut rows = Vec::new();
    for (relation, _) in all(cx) {
        for run in cx.view.runs(relation.id) {
            rows.push(run_row(relation, run.map_err(read_error)?));
        }
        for running in cx.view.running(Some(relation.id)) {
            let (_, occurrence, running) = running.map_err(read_error)?;
            let times = [Some(occurrence.nominal), Some(running.due), Some(running.fired_at), None];
            let id = Some(occurrence.id(&relation.name, relation.id));
            rows.push(row(&relation.name, id, times, "running", [Value::Null, Value::Null, Value::Null]));
        }
    }
    Ok(rows)
}

fn run_row(relation: &Relation, run: RunRecord) -> Vec<Value> {
    let RunRecord { occurrence, due, fired_at, ended_at, outcome } = run;
    let name = &relation.name;
    let id = |id: RelationId, occurrence: Occurrence| Some(occurrence.id(name, id));
    let times = [Some(occurrence.nominal), Some(due), fired_at, Some(ended_at)];
    let nothing = [Value::Null, Value::Null, Value::Null];
    match outcome {
        RunOutcome::Published => row(name, id(relation.id, occurrence), times, "published", nothing),
        RunOutcome::Done => row(name, id(relation.id, occurrence), times, "done", nothing),
        RunOutcome::Skipped => row(name, id(relation.id, occurrence), times, "skipped", nothing),
        RunOutcome::Failed(failure) => {
            let error = [Value::Null, Value::Text(failure.code), Value::Text(failure.message)];
            row(name, id(relation.id, occurrence), times, "failed", error)
        }
        RunOutcome::Missed(missed) => {
            let times = [None, None, None, Some(ended_at)];
            row(name, None, times, "missed", [int(missed), Value::Null, Value::Null])
        }
    }
}

fn row(
    name: &str,
    id: Option<String>,
    times: [Option<Timestamp>; 4],
    outcome: &str,
    rest: [Value; 3],
) -> Vec<Value> {
    let mut row = vec![Value::Text(name.to_owned()), super::text(id)];
    row.extend(times.map(at));
    row.push(Value::Text(outcome.to_owned()));
    row.extend(rest);
    row
}
