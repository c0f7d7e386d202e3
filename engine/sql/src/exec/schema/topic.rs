//! Topics: their options, and the topics for their dead letters.
//!
//! A topic with a limit of deliveries has a topic for dead letters, which is made with it unless it is there. Its
//! partitions are as many and in the same groups, so that one log entry moves an event from one to the other.

use super::{Made, create, put, put_changed, taken};
use crate::action::TopicOption;
use crate::error::{SqlError, SqlState};
use crate::exec::write::Writes;
use chronos_engine::Catalog;
use chronos_proto::id::RelationId;
use chronos_proto::limits::NAME_MAX_BYTES;
use chronos_proto::schema::{Relation, Setting, Topic};

/// What the name of a topic for dead letters has behind that of the topic, unless it is told.
const SUFFIX: &str = ".dead";

pub(super) fn make(
    writes: &mut Writes,
    relation: &Relation,
    if_not_exists: bool,
    options: &[TopicOption],
    notices: &mut Vec<String>,
) -> Result<Made, SqlError> {
    const TAG: &str = "CREATE TOPIC";
    if taken(&writes.view.catalog, &relation.name) {
        let message = format!("relation \"{}\" already exists", relation.name);
        if !if_not_exists {
            return Err(SqlError::new(SqlState::DUPLICATE_TABLE, message));
        }
        notices.push(format!("{message}, skipping"));
        return Ok(Made { tag: TAG, relation: None });
    }
    let made = create(writes, relation, &[], &[])?;
    match made {
        Some(made) if !options.is_empty() => set(writes, (*made).clone(), options)?,
        _ => {}
    }
    Ok(Made { tag: TAG, relation: writes.view.catalog.by_name(&relation.name).cloned() })
}

pub(super) fn alter(
    writes: &mut Writes,
    name: &str,
    if_exists: bool,
    options: &[TopicOption],
    notices: &mut Vec<String>,
) -> Result<Made, SqlError> {
    let done = Made { tag: "ALTER TOPIC", relation: None };
    let Some(relation) = writes.view.catalog.by_name(name).cloned() else {
        let message = format!("topic \"{name}\" does not exist");
        if !if_exists {
            return Err(SqlError::new(SqlState::UNDEFINED_TABLE, message));
        }
        notices.push(format!("{message}, skipping"));
        return Ok(done);
    };
    if relation.topic().is_none() {
        let message = format!("\"{name}\" is not a topic");
        return Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, message));
    }
    set(writes, (*relation).clone(), options)?;
    Ok(done)
}

fn set(writes: &mut Writes, mut relation: Relation, options: &[TopicOption]) -> Result<(), SqlError> {
    let name = relation.name.clone();
    for option in options {
        let dead = match option {
            TopicOption::DeadLetter(Some(dead)) => Some(dead_topic(writes, &relation, dead)?),
            _ => None,
        };
        let Some(topic) = relation.topic_mut() else { continue };
        match option {
            TopicOption::Dedup(micros) => topic.dedup_micros = *micros,
            TopicOption::MaxDeliveries(Some(most)) => topic.set(Setting::MaxDeliveries(*most)),
            TopicOption::MaxDeliveries(None) => topic.unset(&Setting::MaxDeliveries(0)),
            TopicOption::DeadLetter(_) => match dead {
                Some(dead) => topic.set(Setting::DeadLetter(dead)),
                None => topic.unset(&Setting::DeadLetter(RelationId(0))),
            },
        }
    }
    let lacks = |topic: &Topic| topic.max_deliveries().is_some() && topic.dead_letter().is_none();
    if relation.topic().is_some_and(lacks) {
        let dead = dead_topic(writes, &relation, &format!("{name}{SUFFIX}"))?;
        if let Some(topic) = relation.topic_mut() {
            topic.set(Setting::DeadLetter(dead));
        }
    }
    put_changed(writes, relation)
}

/// The topic of this name for a topic's dead letters; it is made if there is none.
fn dead_topic(writes: &mut Writes, of: &Relation, name: &str) -> Result<RelationId, SqlError> {
    let refuse = |why: String| {
        let message =
            format!("topic \"{name}\" cannot take the dead letters of topic \"{}\": {why}", of.name);
        Err(SqlError::new(SqlState::INVALID_PARAMETER, message)
            .hint("name another with ALTER TOPIC … SET (dead_letter = '…'): one that does not exist is made"))
    };
    if let Some(found) = writes.view.catalog.by_name(name) {
        let partitions = |relation: &Relation| relation.topic().map(|topic| topic.partitions);
        let homes = |relation: &Relation| -> Vec<_> {
            (0..partitions(relation).unwrap_or(0)).map(|partition| relation.home(partition)).collect()
        };
        return match found {
            found if found.id == of.id => refuse("it is the topic itself".into()),
            found if found.topic().is_none() => refuse("it is not a topic".into()),
            found if partitions(found) != partitions(of) => refuse("its partitions are not as many".into()),
            found if homes(found) != homes(of) => refuse("its partitions are in other groups".into()),
            found => Ok(found.id),
        };
    }
    if taken(&writes.view.catalog, name) {
        return refuse("there is an index of that name".into());
    }
    if name.len() > NAME_MAX_BYTES || name.is_empty() {
        return refuse(format!("a name has from 1 to {NAME_MAX_BYTES} bytes"));
    }
    let id = writes.view.catalog.next_id();
    let mut dead = Relation { id, name: name.to_owned(), version: 1, ..of.clone() };
    if let Some(topic) = dead.topic_mut() {
        topic.settings.clear();
    }
    put(writes, dead)?;
    Ok(id)
}

/// A topic that others' dead letters go to stays.
pub(super) fn refuse_dropping(catalog: &Catalog, relation: &Relation) -> Result<(), SqlError> {
    let sends = |other: &&std::sync::Arc<Relation>| {
        other.topic().is_some_and(|topic| topic.dead_letter() == Some(relation.id))
    };
    let Some(other) = catalog.iter().find(sends) else { return Ok(()) };
    let message = format!("cannot drop topic {} because other objects depend on it", relation.name);
    Err(SqlError::new(SqlState(*b"2BP01"), message)
        .detail(format!("dead letters of topic {} go to topic {}", other.name, relation.name))
        .hint(format!("ALTER TOPIC \"{}\" RESET (max_deliveries, dead_letter) first", other.name)))
}
