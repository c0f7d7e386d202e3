//! Schedules, made and changed. What is pending then is worked out here, once: the log carries it.

use super::{missing, put, put_changed, taken};
use crate::action::{RuleSays, ScheduleChange, ScheduleSays};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::EvalCx;
use crate::exec::scan::read_error;
use crate::exec::write::Writes;
use chronos_engine::keys;
use chronos_engine::schedule::next_after;
use chronos_engine::state::ScheduleRecord;
use chronos_proto::Op;
use chronos_proto::schedule::{Misfire, Rule, Schedule, ScheduleAction};
use chronos_proto::schema::{Relation, RelationKind};
use chronos_proto::time::Timestamp;
use std::sync::Arc;

pub(super) fn create(
    writes: &mut Writes,
    name: &str,
    if_not_exists: bool,
    says: &ScheduleSays,
    cx: &EvalCx<'_>,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    if taken(&writes.view.catalog, name) {
        let message = format!("relation \"{name}\" already exists");
        if !if_not_exists {
            return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
        }
        notices.push(format!("{message}, skipping"));
        return Ok(());
    }
    let mut schedule = Schedule {
        rule: Rule::Every(0),
        starting: Timestamp(cx.now),
        ending: None,
        count: None,
        jitter_micros: 0,
        misfire: Misfire::FireOnce,
        overlap: false,
        paused: false,
        action: ScheduleAction::Statement(String::new()),
        owner: cx.session.user.clone(),
        next: None,
    };
    say(&mut schedule, says, cx.now)?;
    schedule.next = next(&schedule, &ScheduleRecord::default(), cx.now);
    if schedule.next.is_none() {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, "the schedule never occurs")
            .hint("look at ENDING, and whether the days of the expression exist"));
    }
    let (id, group) = (writes.view.catalog.next_id(), writes.view.group);
    let kind = RelationKind::Schedule(Box::new(schedule));
    put(writes, Relation { id, name: name.to_owned(), group, version: 1, kind })
}

pub(super) fn alter(
    writes: &mut Writes,
    name: &str,
    if_exists: bool,
    change: &ScheduleChange,
    cx: &EvalCx<'_>,
    notices: &mut Vec<String>,
) -> Result<(), SqlError> {
    let Some(relation) = writes.view.catalog.by_name(name).cloned() else {
        return missing("schedule", SqlState::UNDEFINED_OBJECT, name, if_exists, notices);
    };
    let Some(schedule) = relation.schedule() else {
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{name}\" is not a schedule")));
    };
    let mut schedule = schedule.clone();
    match change {
        ScheduleChange::Trigger => {
            let op = Op::Trigger { schedule: relation.id, topic: schedule.topic() };
            return writes.push(op, 64).map(|_| ());
        }
        ScheduleChange::Pause => schedule.paused = true,
        ScheduleChange::Resume => schedule.paused = false,
        ScheduleChange::Set(says) => say(&mut schedule, says, cx.now)?,
    }
    // An occurrence that fires meanwhile must not be pending again.
    writes.reads.point(keys::schedule(relation.id));
    let record = writes.view.schedule(relation.id).map_err(read_error)?.unwrap_or_default();
    schedule.next = next(&schedule, &record, cx.now).filter(|_| !schedule.paused);
    let kind = RelationKind::Schedule(Box::new(schedule));
    put_changed(writes, Relation { kind, ..Relation::clone(&relation) })
}

/// Whether a topic can go: no schedule publishes to it.
pub(super) fn check_unused(writes: &Writes, topic: &Relation) -> Result<(), SqlError> {
    let publishes = |r: &&Arc<Relation>| r.schedule().is_some_and(|s| s.topic() == Some(topic.id));
    match writes.view.catalog.iter().find(publishes) {
        None => Ok(()),
        Some(schedule) => Err(SqlError::new(
            SqlState(*b"2BP01"),
            format!("cannot drop topic {} because other objects depend on it", topic.name),
        )
        .detail(format!("schedule {} publishes to topic {}", schedule.name, topic.name))
        .hint("Use DROP SCHEDULE first.")),
    }
}

fn say(schedule: &mut Schedule, says: &ScheduleSays, now: i64) -> Result<(), SqlError> {
    match (&says.rule, &says.zone) {
        (Some(RuleSays::Every(micros)), _) => {
            schedule.rule = Rule::Every(*micros);
            let step = i64::try_from(*micros).unwrap_or(i64::MAX);
            schedule.starting = Timestamp(now.saturating_add(step));
        }
        (Some(RuleSays::Cron(expression)), zone) => {
            let zone = zone.clone().unwrap_or_else(|| "UTC".to_owned());
            schedule.rule = Rule::Cron { expression: expression.clone(), zone };
        }
        (None, Some(zone)) => match &mut schedule.rule {
            Rule::Cron { zone: was, .. } => was.clone_from(zone),
            Rule::Every(_) => {
                let message = "EVERY counts elapsed time and has no time zone";
                return Err(SqlError::new(SqlState::INVALID_PARAMETER, message));
            }
        },
        (None, None) => {}
    }
    schedule.starting = says.starting.unwrap_or(schedule.starting);
    schedule.ending = says.ending.or(schedule.ending);
    schedule.count = says.count.or(schedule.count);
    schedule.jitter_micros = says.jitter_micros.unwrap_or(schedule.jitter_micros);
    schedule.misfire = says.misfire.unwrap_or(schedule.misfire);
    schedule.overlap = says.overlap.unwrap_or(schedule.overlap);
    if let Some(action) = &says.action {
        schedule.action = action.clone();
    }
    if matches!(schedule.rule, Rule::Every(micros) if schedule.jitter_micros >= micros) {
        let message = "JITTER must be shorter than the interval of EVERY";
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, message));
    }
    Ok(())
}

/// What is pending from now on: nothing that has fired is again.
fn next(schedule: &Schedule, record: &ScheduleRecord, now: i64) -> Option<Timestamp> {
    let after = record.last.map_or(Timestamp(now), |last| last.max(Timestamp(now)));
    next_after(schedule, after).filter(|_| schedule.count.is_none_or(|count| record.runs < count))
}
