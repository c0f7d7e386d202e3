//! Clients that make and change schedules, have them occur, and run what their statements stand for.

use super::World;
use super::clients::Built;
use super::shell::GROUP;
use crate::checker::serial::Saw;
use crate::rng::Rng;
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::schedule::next_after;
use chronos_engine::state::records::ReadError;
use chronos_engine::step::Published;
use chronos_proto::command::Op;
use chronos_proto::schedule::{Misfire, Rule, RunFailure, Schedule, ScheduleAction};
use chronos_proto::schema::{Relation, RelationKind};
use chronos_proto::time::Timestamp;

/// Schedules that there are at once.
const SCHEDULES_MAX: usize = 4;

fn schedules(snapshot: &Snapshot) -> Vec<(&Relation, &Schedule)> {
    snapshot.catalog.iter().filter_map(|relation| Some((&**relation, relation.schedule()?))).collect()
}

impl World {
    /// Makes a schedule, or pauses, resumes or changes one.
    pub(super) fn recur(
        &mut self,
        m: usize,
        view: &Published,
        rng: &mut Rng,
    ) -> Result<Option<Built>, ReadError> {
        let snapshot = &view.snapshot;
        let now = view.read_time(self.machines[m].clock.now(self.now).mono);
        let there = schedules(snapshot);
        if there.len() >= SCHEDULES_MAX || !there.is_empty() && rng.chance(500) {
            let (relation, schedule) = *rng.pick(&there);
            let mut schedule = schedule.clone();
            match rng.below(4) {
                0 | 1 => schedule.paused = !schedule.paused,
                2 => schedule.misfire = misfire(rng),
                _ => say_when(&mut schedule, now, rng),
            }
            let record = snapshot.schedule(relation.id)?.unwrap_or_default();
            let after = record.last.map_or(now, |last| last.max(now));
            let over = schedule.count.is_some_and(|count| record.runs >= count);
            schedule.next = next_after(&schedule, after).filter(|_| !over && !schedule.paused);
            let mut built = Built::on(relation);
            built.reads.push(KeyRange::point(keys::schedule(relation.id)));
            let kind = RelationKind::Schedule(Box::new(schedule));
            let version = relation.version + 1;
            built.ops.push(Op::PutRelation(Relation { version, kind, ..relation.clone() }));
            return Ok(Some(built));
        }
        let topics: Vec<&Relation> =
            snapshot.catalog.iter().map(AsRef::as_ref).filter(|r| r.topic().is_some()).collect();
        let id = snapshot.catalog.next_id();
        let mut built = Built { reads: vec![keys::catalog_all()], ..Built::default() };
        built.saw.push(Saw::Relation(id, None));
        let action = match topics.is_empty() || rng.chance(500) {
            true => ScheduleAction::Statement("what a client does".into()),
            false => {
                let topic = rng.pick(&topics);
                built.uses(topic);
                let payload = Bytes::from_static(b"tick");
                ScheduleAction::Publish { topic: topic.id, key: None, headers: None, payload }
            }
        };
        let mut schedule = Schedule {
            rule: Rule::Every(0),
            starting: now,
            ending: None,
            count: rng.chance(200).then(|| rng.range(1, 20)),
            jitter_micros: *rng.pick(&[0, 0, 50_000]),
            misfire: misfire(rng),
            overlap: rng.chance(500),
            paused: false,
            action,
            owner: "client".into(),
            next: None,
        };
        say_when(&mut schedule, now, rng);
        schedule.next = next_after(&schedule, now);
        let kind = RelationKind::Schedule(Box::new(schedule));
        let name = format!("s{}", self.next_number());
        built.ops.push(Op::PutRelation(Relation { id, name, group: GROUP, version: 1, kind }));
        Ok(Some(built))
    }

    /// Has a schedule occur now.
    pub(super) fn trigger(&self, view: &Published, rng: &mut Rng) -> Option<Built> {
        let there = schedules(&view.snapshot);
        if there.is_empty() {
            return None;
        }
        let (relation, schedule) = *rng.pick(&there);
        let mut built = Built::on(relation);
        built.ops.push(Op::Trigger { schedule: relation.id, topic: schedule.topic() });
        Some(built)
    }

    /// Runs the statement of an occurrence that waits, as the node that leads does.
    pub(super) fn run_statement(
        &mut self,
        m: usize,
        view: &Published,
        rng: &mut Rng,
    ) -> Result<Option<Built>, ReadError> {
        let snapshot = &view.snapshot;
        let now = view.read_time(self.machines[m].clock.now(self.now).mono);
        let mut waiting = Vec::new();
        for running in snapshot.running(None) {
            let (id, occurrence, record) = running?;
            if let Some(relation) = snapshot.catalog.get(id).filter(|_| record.due <= now) {
                waiting.push((relation, occurrence));
            }
        }
        if waiting.is_empty() {
            return Ok(None);
        }
        let (relation, occurrence) = *rng.pick(&waiting);
        let mut built = Built::on(relation);
        built.reads.push(KeyRange::point(keys::running(relation.id, occurrence)));
        let failure = rng.chance(200).then(|| RunFailure { code: "22012".into(), message: "no".into() });
        built.ops.push(Op::Ran { schedule: relation.id, occurrence, failure });
        Ok(Some(built))
    }
}

fn misfire(rng: &mut Rng) -> Misfire {
    match rng.below(4) {
        0 => Misfire::Skip,
        1 => Misfire::FireAll(None),
        2 => Misfire::FireAll(Some(500_000)),
        _ => Misfire::FireOnce,
    }
}

/// It goes on for some seconds: what never ends would never settle.
fn say_when(schedule: &mut Schedule, now: Timestamp, rng: &mut Rng) {
    schedule.starting = now;
    schedule.ending = Some(Timestamp(now.0 + rng.range(1, 40) as i64 * 1_000_000));
    schedule.rule = match rng.chance(500) {
        true => Rule::Every(*rng.pick(&[120_000, 250_000, 1_000_000, 3_000_000])),
        false => {
            let expression = format!("*/{} * * * * *", rng.pick(&[1, 2, 5]));
            let zone = (*rng.pick(&["Europe/Berlin", "America/New_York", "UTC"])).to_owned();
            Rule::Cron { expression, zone }
        }
    };
}
