//! Recurring schedules: when one occurs next, and what is to be done about one that is due.
//!
//! A schedule is a relation of group 0. What it waits for is *one* pending occurrence, which stands in the due order
//! beside the timers and comes out of the same wheel. The leader decides about it here, as a pure function of the
//! definition, of the schedule's record and of the time, and writes down what it came to as a [`Turn`]: which
//! occurrences fire, how many are passed over, which one is pending next. Replicas apply that and evaluate no rule, so
//! that nodes with different rules of time zones agree.
//!
//! An occurrence that publishes is an event of the entry itself. One that runs a statement is noted as running by it;
//! the node that leads then runs the statement as an ordinary transaction, which says [`Op::Ran`] beside its writes and
//! has read the note. So two of them conflict, and of however many leaders try, one commits.
//!
//! [`Op::Ran`]: chronos_proto::Op::Ran
//! [`Turn`]: chronos_proto::schedule::Turn

pub mod cron;
mod turn;

use chronos_proto::schedule::{Rule, Schedule};
use chronos_proto::time::Timestamp;
pub use cron::{Cron, CronError};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::sync::OnceLock;
pub use turn::take_turn;

/// The rules of time zones that are built in.
pub fn zones() -> &'static TimeZoneDatabase {
    static DATABASE: OnceLock<TimeZoneDatabase> = OnceLock::new();
    DATABASE.get_or_init(TimeZoneDatabase::bundled)
}

/// The zone of a name, if there is one. Only the names of the tz database are.
pub fn zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") { Some(TimeZone::UTC) } else { zones().get(name).ok() }
}

/// The first nominal time after `after` at which a schedule occurs; none if it has ended.
pub fn next_after(schedule: &Schedule, after: Timestamp) -> Option<Timestamp> {
    let starting = schedule.starting;
    let next = match &schedule.rule {
        Rule::Every(_) if after < starting => starting,
        Rule::Every(micros) => {
            let step = i64::try_from(*micros).ok().filter(|step| *step > 0)?;
            let steps = (after.0 - starting.0) / step + 1;
            Timestamp(starting.0.checked_add(steps.checked_mul(step)?)?)
        }
        Rule::Cron { expression, zone: name } => {
            let cron: Cron = expression.parse().ok()?;
            let from = after.max(Timestamp(starting.0.saturating_sub(1)));
            Timestamp(cron.next_after(from.0, &zone(name)?)?)
        }
    };
    (next <= Timestamp::MAX && schedule.ending.is_none_or(|ending| next < ending)).then_some(next)
}
