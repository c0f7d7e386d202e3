//! `serializable`: what a committed transaction read is what it would have read at its place in the log.

use crate::model::Model;
use crate::violation::{Held, Violation};
use bytes::Bytes;
use chronos_proto::command::Entry;
use chronos_proto::id::RelationId;

/// Something that a transaction saw, and on which its writes rely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saw {
    /// A row, or that there is none.
    Row(RelationId, Bytes, Option<Bytes>),
    /// The rows from one key to another, the end left out.
    Rows(RelationId, Bytes, Bytes, Vec<(Bytes, Bytes)>),
    /// A relation's version, or that there is none.
    Relation(RelationId, Option<u64>),
    /// A timer's version, or that there is none.
    Timer(RelationId, String, Option<u64>),
    /// How many events of a topic were released.
    Released(RelationId, u64),
}

/// Whether all that was seen still holds, right before the transaction's entry is applied.
pub fn check(model: &Model, entry: &Entry, saw: &[Saw]) -> Held {
    let index = entry.index;
    for seen in saw {
        let now = match seen {
            Saw::Row(relation, key, _) => {
                let row = model.rows.get(relation).and_then(|rows| rows.get(key)).cloned();
                Saw::Row(*relation, key.clone(), row)
            }
            Saw::Rows(relation, from, to, _) => {
                let rows = model.rows.get(relation).map(|rows| {
                    rows.range(from.clone()..to.clone()).map(|(k, v)| (k.clone(), v.clone())).collect()
                });
                Saw::Rows(*relation, from.clone(), to.clone(), rows.unwrap_or_default())
            }
            Saw::Relation(relation, _) => {
                Saw::Relation(*relation, model.relations.get(relation).map(|r| r.version))
            }
            Saw::Timer(topic, id, _) => {
                let version = model.timers.get(&(*topic, id.clone())).map(|t| t.version);
                Saw::Timer(*topic, id.clone(), version)
            }
            Saw::Released(topic, _) => {
                let events = model.events.get(&(*topic, 0)).map_or(&[][..], Vec::as_slice);
                let released = events.iter().take_while(|e| e.released_at() <= entry.time).count();
                Saw::Released(*topic, released as u64)
            }
        };
        if now != *seen {
            let what =
                format!("the transaction at entry {index} saw {seen:?}, but at its place it is {now:?}");
            return Err(Violation::safety("serializable", what));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_engine::state::records::StoredEvent;
    use chronos_proto::time::Timestamp;

    fn entry() -> Entry {
        use chronos_proto::command::Command;
        use chronos_proto::id::{Index, Term};
        let time = Timestamp(1_000);
        Entry { term: Term(1), index: Index(9), time, stamp: 9, command: Command::Noop.into() }
    }

    const TABLE: RelationId = RelationId(16);

    fn model(rows: &[(&'static str, &'static str)]) -> Model {
        let mut model = Model::default();
        let rows = rows.iter().map(|(k, v)| (Bytes::from(*k), Bytes::from(*v))).collect();
        model.rows.insert(TABLE, rows);
        model
    }

    #[test]
    fn a_lost_update_and_a_phantom_are_seen() {
        let model = model(&[("a", "1"), ("c", "2")]);
        let row = |value: &'static str| Saw::Row(TABLE, "a".into(), Some(value.into()));
        assert_eq!(check(&model, &entry(), &[row("1")]), Ok(()));
        assert!(check(&model, &entry(), &[row("0")]).is_err(), "the row was written since");
        let range = |rows: Vec<(Bytes, Bytes)>| Saw::Rows(TABLE, "b".into(), "d".into(), rows);
        assert_eq!(check(&model, &entry(), &[range(vec![("c".into(), "2".into())])]), Ok(()));
        assert!(check(&model, &entry(), &[range(vec![])]).is_err(), "a row came since");
    }

    #[test]
    fn an_event_released_since_is_seen() {
        let mut model = Model::default();
        let event = |release: i64| StoredEvent {
            event: chronos_proto::Event::default(),
            published_at: Timestamp(0),
            deliver_at: Some(Timestamp(release)),
            fired_at: Some(Timestamp(release)),
        };
        model.events.insert((TABLE, 0), vec![event(900), event(1_000), event(1_001)]);
        assert_eq!(check(&model, &entry(), &[Saw::Released(TABLE, 2)]), Ok(()));
        assert!(check(&model, &entry(), &[Saw::Released(TABLE, 1)]).is_err(), "one was released since");
    }
}
