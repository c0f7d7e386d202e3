//! Dead letters: listed, and published to where they came from again.

use super::events::{event, topic_of};
use super::{Services, api};
use chronos_engine::Snapshot;
use chronos_engine::state::apply::REDRIVER;
use chronos_proto::id::GroupId;
use chronos_proto::schema::Relation;
use chronos_proto::{Op, OpOutcome, Timestamp};
use chronos_sql::{SqlError, SqlState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How many letters are listed or redriven unless asked otherwise.
const LIMIT: usize = 1_000;
/// Events that are read at a time.
const READ_EVENTS: usize = 256;

fn limit(asked: u32) -> usize {
    if asked == 0 { LIMIT } else { asked as usize }
}

impl Services {
    pub(super) async fn dead_letters(
        &self,
        request: api::ListDeadLettersRequest,
    ) -> Result<api::ListDeadLettersResponse, SqlError> {
        let api::ListDeadLettersRequest { topic, limit: most, redriven } = request;
        let (dead, states) = self.letters_of(&topic).await?;
        let read = || {
            let mut letters = Vec::new();
            for partition in 0..dead.topic().map_or(0, |topic| topic.partitions) {
                let Some((state, at)) = states.get(&dead.home(partition)) else { continue };
                each_letter(state, &dead, partition, *at, redriven, |letter| {
                    letters.push(letter);
                    letters.len() < limit(most)
                })?;
            }
            Ok(api::ListDeadLettersResponse { letters })
        };
        tokio::task::block_in_place(read)
    }

    pub(super) async fn redrive_letters(
        &self,
        request: api::RedriveRequest,
    ) -> Result<api::RedriveResponse, SqlError> {
        let api::RedriveRequest { topic, positions, limit: most } = request;
        let (dead, states) = self.letters_of(&topic).await?;
        let wanted: BTreeSet<(u32, u64)> = positions.iter().map(|p| (p.partition, p.offset)).collect();
        let most = if wanted.is_empty() { limit(most) } else { wanted.len() };
        let mut kept: Vec<api::Position> = Vec::new();
        let mut ops: BTreeMap<GroupId, Vec<Op>> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        let read = || -> Result<(), SqlError> {
            for partition in 0..dead.topic().map_or(0, |topic| topic.partitions) {
                let home = dead.home(partition);
                let Some((state, at)) = states.get(&home) else { continue };
                each_letter(state, &dead, partition, *at, false, |letter| {
                    let Some(position) = letter.position else { return true };
                    let place = (position.partition, position.offset);
                    if !wanted.is_empty() && !wanted.contains(&place) {
                        return true;
                    }
                    taken.insert(place);
                    match source(state, &letter) {
                        Some(source) => {
                            let (dead, offset, source) = (dead.id, position.offset, source.id);
                            ops.entry(home).or_default().push(Op::Redrive {
                                dead,
                                partition,
                                offset,
                                source,
                            });
                        }
                        None => kept.push(position),
                    }
                    taken.len() < most
                })?;
            }
            Ok(())
        };
        tokio::task::block_in_place(read)?;
        let missed = wanted.difference(&taken);
        kept.extend(
            missed.map(|(partition, offset)| api::Position { partition: *partition, offset: *offset }),
        );
        let asked = ops.clone();
        let mut published = Vec::new();
        for (home, outcomes) in self.write_each(&dead, ops).await? {
            for (op, outcome) in asked.get(&home).into_iter().flatten().zip(outcomes?) {
                let Op::Redrive { partition, offset, .. } = op else { continue };
                match outcome {
                    OpOutcome::Published { partition, offset } => {
                        published.push(api::Position { partition, offset });
                    }
                    _ => kept.push(api::Position { partition: *partition, offset: *offset }),
                }
            }
        }
        Ok(api::RedriveResponse { published, kept })
    }

    /// The topic of a topic's dead letters, or that one itself, and the newest states of the groups that keep it.
    #[allow(clippy::type_complexity)]
    async fn letters_of(
        &self,
        topic: &str,
    ) -> Result<(Arc<Relation>, BTreeMap<GroupId, (Snapshot, Timestamp)>), SqlError> {
        self.gateway.wait_until_ready().await?;
        let dead = self.gateway.find(|snapshot| dead_of(snapshot, topic)).await?;
        if dead.is_partitioned() {
            self.gateway.wait_for_homes(&dead).await?;
        }
        let mut states = BTreeMap::new();
        for home in dead.homes() {
            states.insert(home, self.gateway.read_newest_of(home, self.gateway.default_read_mode()).await?);
        }
        Ok((dead, states))
    }
}

/// Shows each letter of a partition that was not redriven, or all, until told to stop.
fn each_letter(
    state: &Snapshot,
    dead: &Relation,
    partition: u32,
    at: Timestamp,
    redriven: bool,
    mut show: impl FnMut(api::DeadLetter) -> bool,
) -> Result<(), SqlError> {
    let damaged = |e: &dyn std::fmt::Display| {
        SqlError::new(SqlState::IO_ERROR, format!("dead letters could not be read: {e}"))
    };
    let done = state.consumer(dead.id, REDRIVER, partition).map_err(|e| damaged(&e))?;
    let mut from = if redriven { 0 } else { done.floor };
    loop {
        let events = state.events(dead.id, partition, from, READ_EVENTS, at).map_err(|e| damaged(&e))?;
        let Some(last) = events.last() else { return Ok(()) };
        from = last.offset + 1;
        for read in events {
            let is_done = done.is_done(read.offset);
            if is_done && !redriven {
                continue;
            }
            let letter = api::DeadLetter {
                position: Some(api::Position { partition, offset: read.offset }),
                event: Some(event(&read.stored.event)),
                died_at_micros: read.stored.published_at.0,
                redriven: is_done,
            };
            if !show(letter) {
                return Ok(());
            }
        }
    }
}

/// Where a letter came from, if that is there.
fn source<'a>(state: &'a Snapshot, letter: &api::DeadLetter) -> Option<&'a Arc<Relation>> {
    let name = letter.event.as_ref()?.headers.get("chronos-dead-topic")?;
    state.catalog.by_name(name).filter(|relation| relation.topic().is_some())
}

/// The topic that takes a topic's dead letters, or that topic itself if it takes those of another.
fn dead_of(snapshot: &Snapshot, name: &str) -> Result<Arc<Relation>, SqlError> {
    let relation = topic_of(snapshot, name)?;
    let own = relation.topic().and_then(|topic| topic.dead_letter());
    if let Some(dead) = own.and_then(|dead| snapshot.catalog.get(dead)) {
        return Ok(dead.clone());
    }
    let takes = |other: &Arc<Relation>| other.topic().and_then(|t| t.dead_letter()) == Some(relation.id);
    if snapshot.catalog.iter().any(takes) {
        return Ok(relation);
    }
    let message = format!("topic {name:?} has no dead letters: its deliveries are not limited");
    Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message)
        .hint(format!("ALTER TOPIC {name} SET (max_deliveries = 5) limits them")))
}
