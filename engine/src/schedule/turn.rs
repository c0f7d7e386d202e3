//! What is to be done about a schedule that is due.

use super::next_after;
use crate::bugs::{self, Bug};
use crate::state::ScheduleRecord;
use chronos_proto::id::RelationId;
use chronos_proto::limits::{MISFIRE_GRACE_MICROS, TURN_MAX_OCCURRENCES};
use chronos_proto::schedule::{Misfire, Schedule, Turn};
use chronos_proto::time::Timestamp;

/// Decides about the pending occurrence and those behind it that are due at `now`, as far as one entry goes. None if
/// nothing is due.
///
/// One that comes in its time fires. Of those that nobody fired in time the schedule's policy decides: which they are is
/// told by the next one being due as well, or, of a single one, by its being a minute late.
pub fn take_turn(
    id: RelationId,
    schedule: &Schedule,
    record: &ScheduleRecord,
    now: Timestamp,
) -> Option<Turn> {
    let pending = record.pending.as_ref().filter(|pending| pending.due <= now)?;
    let mut due = Vec::new();
    let mut next = Some(pending.nominal);
    while let Some(nominal) = next.filter(|nominal| schedule.due(id, *nominal) <= now)
        && due.len() < TURN_MAX_OCCURRENCES
    {
        due.push(nominal);
        next = next_after(schedule, nominal);
    }
    // Where more are due than one entry decides about, the last of them is still to come.
    let more = next.is_some_and(|nominal| schedule.due(id, nominal) <= now);
    let late = |nominal: Timestamp| now.0.saturating_sub(schedule.due(id, nominal).0);
    let total = due.len();
    let mut fired: Vec<Timestamp> = match schedule.misfire {
        Misfire::FireAll(within) => {
            let within = within.map_or(i64::MAX, |within| i64::try_from(within).unwrap_or(i64::MAX));
            due.into_iter().filter(|nominal| late(*nominal) <= within).collect()
        }
        Misfire::FireOnce | Misfire::Skip => {
            let lost = total > 1 && bugs::active(Bug::MisfireLoses);
            let last = due.pop().filter(|_| !more && !lost);
            let skips = schedule.misfire == Misfire::Skip;
            last.into_iter().filter(|last| !skips || late(*last) <= MISFIRE_GRACE_MICROS).collect()
        }
    };
    let missed = (total - fired.len()) as u64;
    if let Some(count) = schedule.count {
        let left = usize::try_from(count.saturating_sub(record.runs)).unwrap_or(usize::MAX);
        fired.truncate(left);
        next = next.filter(|_| fired.len() < left);
    }
    Some(Turn { schedule: id, sequence: pending.sequence, topic: schedule.topic(), fired, missed, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Pending;
    use chronos_proto::schedule::{Rule, ScheduleAction};

    const ID: RelationId = RelationId(16);
    const MINUTE: i64 = 60_000_000;

    fn schedule(misfire: Misfire) -> Schedule {
        Schedule {
            rule: Rule::Every(MINUTE as u64),
            starting: Timestamp(MINUTE),
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

    fn pending(schedule: &Schedule, minutes: i64) -> ScheduleRecord {
        let nominal = Timestamp(minutes * MINUTE);
        let pending = Pending { nominal, due: schedule.due(ID, nominal), sequence: 7 };
        ScheduleRecord { pending: Some(pending), ..ScheduleRecord::default() }
    }

    /// The minutes that fire, how many are missed, and the minute that is pending then.
    fn turn(schedule: &Schedule, from: i64, now_us: i64) -> Option<(Vec<i64>, u64, Option<i64>)> {
        let turn = take_turn(ID, schedule, &pending(schedule, from), Timestamp(now_us))?;
        assert_eq!((turn.schedule, turn.sequence, turn.topic), (ID, 7, None));
        let minute = |at: &Timestamp| at.0 / MINUTE;
        Some((turn.fired.iter().map(minute).collect(), turn.missed, turn.next.as_ref().map(minute)))
    }

    #[test]
    fn one_that_comes_in_its_time_fires_whatever_the_policy() {
        for misfire in [Misfire::Skip, Misfire::FireOnce, Misfire::FireAll(Some(0))] {
            let schedule = schedule(misfire);
            assert_eq!(turn(&schedule, 3, 3 * MINUTE - 1), None);
            assert_eq!(turn(&schedule, 3, 3 * MINUTE), Some((vec![3], 0, Some(4))));
        }
        assert_eq!(turn(&schedule(Misfire::Skip), 3, 4 * MINUTE - 1), Some((vec![3], 0, Some(4))));
    }

    #[test]
    fn what_was_missed_is_passed_over_made_up_for_once_or_wholly() {
        let now = 10 * MINUTE + 30;
        assert_eq!(turn(&schedule(Misfire::Skip), 3, now), Some((vec![10], 7, Some(11))));
        assert_eq!(turn(&schedule(Misfire::FireOnce), 3, now), Some((vec![10], 7, Some(11))));
        let all = (3..=10).collect::<Vec<_>>();
        assert_eq!(turn(&schedule(Misfire::FireAll(None)), 3, now), Some((all, 0, Some(11))));
        let within = Misfire::FireAll(Some(2 * MINUTE as u64 + 30));
        assert_eq!(turn(&schedule(within), 3, now), Some((vec![8, 9, 10], 5, Some(11))));
    }

    #[test]
    fn a_single_one_that_is_late_is_passed_over_only_where_the_policy_says_so() {
        let late = |misfire| {
            let schedule = Schedule { rule: Rule::Every(60 * MINUTE as u64), ..schedule(misfire) };
            turn(&schedule, 61, 63 * MINUTE)
        };
        assert_eq!(late(Misfire::Skip), Some((vec![], 1, Some(121))));
        assert_eq!(late(Misfire::FireOnce), Some((vec![61], 0, Some(121))));
        assert_eq!(late(Misfire::FireAll(Some(MINUTE as u64))), Some((vec![], 1, Some(121))));
    }

    #[test]
    fn a_long_pause_takes_several_turns_and_comes_to_the_same() {
        for (misfire, fires) in [(Misfire::Skip, 1), (Misfire::FireOnce, 1), (Misfire::FireAll(None), 1_000)]
        {
            let schedule = schedule(misfire);
            let (mut next, mut turns, mut fired, mut missed) = (3, 0, Vec::new(), 0);
            while let Some((minutes, passed, then)) = turn(&schedule, next, 1_002 * MINUTE) {
                assert!(minutes.len() + passed as usize <= TURN_MAX_OCCURRENCES);
                fired.extend(minutes);
                missed += passed;
                next = then.expect("it goes on");
                turns += 1;
            }
            assert_eq!((turns, next, fired.len(), missed), (4, 1_003, fires, 1_000 - fires as u64));
            assert_eq!(fired.last(), Some(&1_002));
        }
    }

    #[test]
    fn a_schedule_ends_by_its_count_or_its_end() {
        let counted = Schedule { count: Some(2), ..schedule(Misfire::FireAll(None)) };
        assert_eq!(turn(&counted, 3, 3 * MINUTE), Some((vec![3], 0, Some(4))));
        assert_eq!(turn(&counted, 3, 9 * MINUTE), Some((vec![3, 4], 0, None)));
        let ending = Schedule { ending: Some(Timestamp(5 * MINUTE)), ..schedule(Misfire::FireOnce) };
        assert_eq!(turn(&ending, 3, 3 * MINUTE), Some((vec![3], 0, Some(4))));
        assert_eq!(turn(&ending, 3, 9 * MINUTE), Some((vec![4], 1, None)));
    }

    #[test]
    fn jitter_makes_an_occurrence_late_and_never_early_nor_another() {
        let jitter = Schedule { jitter_micros: 30_000_000, ..schedule(Misfire::FireOnce) };
        let delays: Vec<i64> =
            (1..100).map(|n| jitter.due(ID, Timestamp(n * MINUTE)).0 - n * MINUTE).collect();
        assert!(delays.iter().all(|delay| (0..=30_000_000).contains(delay)), "{delays:?}");
        let spread = delays.iter().max().unwrap() - delays.iter().min().unwrap();
        assert!(spread > 20_000_000, "{delays:?}");
        let due = jitter.due(ID, Timestamp(3 * MINUTE)).0;
        assert_eq!(turn(&jitter, 3, due - 1), None);
        assert_eq!(turn(&jitter, 3, due), Some((vec![3], 0, Some(4))));
    }
}
