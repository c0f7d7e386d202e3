//! `schedules`: each occurrence comes once, never before it is due, and is missed only where its schedule's policy says so.
//!
//! What follows an occurrence is worked out here anew, second by second, and not by the engine's rules.

use crate::violation::{Held, Violation};
use chronos_engine::schedule::zone;
use chronos_engine::state::Pending;
use chronos_proto::id::RelationId;
use chronos_proto::limits::{MISFIRE_GRACE_MICROS, TURN_MAX_OCCURRENCES};
use chronos_proto::schedule::{Misfire, Occurrence, Rule, Schedule, Turn};
use chronos_proto::time::Timestamp;
use jiff::tz::AmbiguousOffset;
use std::collections::BTreeSet;

const NAME: &str = "schedules";

/// Occurrences that came, and those whose statement has run.
#[derive(Clone, Debug, Default)]
pub struct Schedules {
    fired: BTreeSet<(RelationId, Timestamp)>,
    ran: BTreeSet<(RelationId, Occurrence)>,
}

fn wrong(what: String) -> Held {
    Err(Violation::safety(NAME, what))
}

/// The nominal time behind another one. Expressions are those of [`crate::world`]: every so many seconds.
fn next(schedule: &Schedule, after: Timestamp) -> Option<Timestamp> {
    let next = match &schedule.rule {
        Rule::Every(micros) => {
            (0..).map(|n| schedule.starting.0 + n * *micros as i64).find(|at| *at > after.0)?
        }
        Rule::Cron { expression, zone: name } => {
            let every: i64 = expression.strip_prefix("*/")?.split(' ').next()?.parse().ok()?;
            let zone = zone(name)?;
            let shown_first = |at: &i64| {
                let instant = jiff::Timestamp::from_second(*at).unwrap_or_default();
                let shown = zone.to_datetime(instant);
                let again = match zone.to_ambiguous_timestamp(shown).offset() {
                    AmbiguousOffset::Fold { after, .. } => zone.to_offset(instant) == after,
                    _ => false,
                };
                i64::from(shown.second()) % every == 0 && !again
            };
            let from = after.0.div_euclid(1_000_000) + 1;
            (from..from + 10_000).find(shown_first)? * 1_000_000
        }
    };
    (schedule.ending.is_none_or(|ending| next < ending.0)).then_some(Timestamp(next))
}

impl Schedules {
    /// What a leader decided, by an entry of `time`, about a schedule of which `pending` was pending and which had
    /// fired `runs` times. No entry is written more than `ahead` before its time.
    pub fn turn(
        &mut self,
        schedule: &Schedule,
        runs: u64,
        pending: &Pending,
        turn: &Turn,
        (time, ahead): (Timestamp, i64),
    ) -> Held {
        let id = turn.schedule;
        let total = turn.fired.len() + turn.missed as usize;
        let ended = schedule.count.is_some_and(|count| runs + turn.fired.len() as u64 >= count);
        let mut decided = vec![pending.nominal];
        let mut then = next(schedule, pending.nominal);
        while decided.len() < total
            && let Some(nominal) = then
        {
            decided.push(nominal);
            then = next(schedule, nominal);
        }
        if decided.len() != total || (turn.next != then && !ended) || (ended && turn.next.is_some()) {
            return wrong(format!(
                "of schedule {id} {decided:?} came, and then {then:?}; the leader has {turn:?}"
            ));
        }
        for nominal in &decided {
            let due = schedule.due(id, *nominal);
            if due.micros_since(time) > ahead {
                return wrong(format!("schedule {id} is decided about at {time}, and due at {due}"));
            }
        }
        for nominal in &turn.fired {
            if !decided.contains(nominal) {
                return wrong(format!("schedule {id} fired at {nominal}, when it does not occur"));
            }
            if !self.fired.insert((id, *nominal)) {
                return wrong(format!("the occurrence of schedule {id} at {nominal} came again"));
            }
        }
        // Where no entry could decide about all that was due, the last of them is still to come.
        let all = total < TURN_MAX_OCCURRENCES;
        let late = |nominal: Timestamp| time.micros_since(schedule.due(id, nominal)).max(0) + ahead;
        let is_last = |nominal: Timestamp| all && decided.last() == Some(&nominal);
        let must = |nominal: &Timestamp| match schedule.misfire {
            Misfire::Skip => is_last(*nominal) && late(*nominal) < MISFIRE_GRACE_MICROS,
            Misfire::FireOnce => is_last(*nominal),
            Misfire::FireAll(within) => within.is_none_or(|within| late(*nominal) <= within as i64),
        };
        let lost = decided.iter().find(|nominal| must(nominal) && !turn.fired.contains(nominal));
        match lost.filter(|_| !ended) {
            Some(nominal) => wrong(format!(
                "the occurrence of schedule {id} at {nominal} did not come: {:?}, decided at {time}: {turn:?}",
                schedule.misfire
            )),
            None => Ok(()),
        }
    }

    /// The statement of an occurrence is committed.
    pub fn ran(&mut self, id: RelationId, occurrence: Occurrence) -> Held {
        match self.ran.insert((id, occurrence)) {
            true => Ok(()),
            false => wrong(format!("the statement of schedule {id} ran again for {occurrence:?}")),
        }
    }

    /// Forgets all: the log is another.
    pub fn clear(&mut self) {
        *self = Schedules::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::schedule::ScheduleAction;

    const ID: RelationId = RelationId(16);
    const SECOND: i64 = 1_000_000;

    fn every(misfire: Misfire) -> Schedule {
        Schedule {
            rule: Rule::Every(SECOND as u64),
            starting: Timestamp(SECOND),
            ending: None,
            count: None,
            jitter_micros: 0,
            misfire,
            overlap: false,
            paused: false,
            action: ScheduleAction::Statement(String::new()),
            owner: String::new(),
            next: None,
        }
    }

    fn seconds(list: &[i64]) -> Vec<Timestamp> {
        list.iter().map(|n| Timestamp(n * SECOND)).collect()
    }

    fn judge(schedule: &Schedule, fired: &[i64], missed: u64, next: i64, at: i64) -> Held {
        let pending = Pending { nominal: Timestamp(3 * SECOND), due: Timestamp(3 * SECOND), sequence: 1 };
        let (fired, next) = (seconds(fired), Some(Timestamp(next * SECOND)));
        let turn = Turn { schedule: ID, sequence: 1, topic: None, fired, missed, next };
        Schedules::default().turn(schedule, 0, &pending, &turn, (Timestamp(at * SECOND), 20_000))
    }

    #[test]
    fn turns_are_held_to_the_rule_the_clock_and_the_policy() {
        let once = every(Misfire::FireOnce);
        assert_eq!(judge(&once, &[3], 0, 4, 3), Ok(()));
        assert_eq!(judge(&once, &[6], 3, 7, 6), Ok(()));
        for (fired, missed, next, at) in
            [(&[3][..], 0, 5, 3), (&[], 1, 4, 3), (&[], 4, 7, 6), (&[4], 0, 5, 4), (&[3], 0, 4, 2)]
        {
            assert!(judge(&once, fired, missed, next, at).is_err(), "{fired:?} {missed} {next} {at}");
        }
        assert_eq!(judge(&every(Misfire::FireAll(None)), &[3, 4, 5], 0, 6, 5), Ok(()));
        assert!(judge(&every(Misfire::FireAll(None)), &[5], 2, 6, 5).is_err());
        assert_eq!(judge(&every(Misfire::FireAll(Some(1_500_000))), &[4, 5], 1, 6, 5), Ok(()));
        assert!(judge(&every(Misfire::FireAll(Some(1_500_000))), &[5], 2, 6, 5).is_err());
        assert_eq!(judge(&every(Misfire::Skip), &[5], 2, 6, 5), Ok(()));
    }

    #[test]
    fn an_occurrence_that_comes_or_runs_again_is_seen() {
        let mut checker = Schedules::default();
        let schedule = every(Misfire::FireOnce);
        let pending = Pending { nominal: Timestamp(3 * SECOND), due: Timestamp(3 * SECOND), sequence: 1 };
        let (fired, next) = (seconds(&[3]), Some(Timestamp(4 * SECOND)));
        let turn = Turn { schedule: ID, sequence: 1, topic: None, fired, missed: 0, next };
        let at = (Timestamp(3 * SECOND), 0);
        assert_eq!(checker.turn(&schedule, 0, &pending, &turn, at), Ok(()));
        assert!(checker.turn(&schedule, 1, &pending, &turn, at).is_err());
        let occurrence = Occurrence { nominal: Timestamp(3 * SECOND), by_hand: 0 };
        assert_eq!(checker.ran(ID, occurrence), Ok(()));
        assert!(checker.ran(ID, occurrence).is_err());
        assert_eq!(checker.ran(ID, Occurrence { by_hand: 1, ..occurrence }), Ok(()));
    }

    #[test]
    fn a_clock_that_is_put_back_shows_each_second_once() {
        let rule = Rule::Cron { expression: "*/20 * * * * *".into(), zone: "Europe/Berlin".into() };
        let schedule = Schedule { rule, ..every(Misfire::FireOnce) };
        let at = |text: &str| Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond());
        let last = at("2026-10-25T00:59:40Z");
        assert_eq!(next(&schedule, Timestamp(last.0 - 1)), Some(last));
        assert_eq!(next(&schedule, last), Some(at("2026-10-25T02:00:00Z")));
    }
}
