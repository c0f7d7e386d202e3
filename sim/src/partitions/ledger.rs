//! What was asked for, what came of it, and what is seen of it.

use crate::clock::BEGIN;
use crate::violation::{Held, Violation};
use chronos_engine::state::records::StoredEvent;
use chronos_proto::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// By how much cluster time may be ahead of true time: what clocks are wrong by here, and how exactly they compare.
const CLOCK_ERROR: i64 = 100_000;

/// What is known of something that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody knows.
    #[default]
    Open,
    /// It is done.
    Done,
    /// It never will be.
    Refused,
}

/// A transaction of a row and events.
#[derive(Clone, Debug, Default)]
pub(super) struct Together {
    pub fate: Fate,
    /// The log position of one that is done.
    pub index: u64,
    pub events: Vec<String>,
}

/// An event that somebody wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub partition: u32,
    pub deliver_at: Option<Timestamp>,
    /// The transaction that it is a part of.
    pub with: Option<u64>,
    /// Of one that stands alone.
    pub fate: Fate,
    /// What became of its cancel, if somebody tried.
    pub cancel: Option<Fate>,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub transactions: BTreeMap<u64, Together>,
    pub wishes: BTreeMap<String, Wish>,
    /// What is where, as anybody saw it.
    places: BTreeMap<(u32, u64), String>,
    found: BTreeMap<String, (u32, u64)>,
    handed: BTreeSet<(u32, u64)>,
}

fn wrong(what: String) -> Held {
    Err(Violation::safety("outbox", what))
}

impl Ledger {
    /// A reader sees an event, at a true time.
    pub fn seen(&mut self, partition: u32, offset: u64, event: &StoredEvent, now: u64) -> Held {
        let id = &event.event.message_id;
        let Some(wish) = self.wishes.get(id) else {
            return wrong(format!("nobody asked for event {id}"));
        };
        if wish.partition != partition {
            return wrong(format!("event {id} of partition {} is in partition {partition}", wish.partition));
        }
        let refused = match wish.with {
            Some(number) => self.transactions.get(&number).is_some_and(|t| t.fate == Fate::Refused),
            None => wish.fate == Fate::Refused,
        };
        if refused {
            return wrong(format!("event {id} is there, and was refused"));
        }
        if wish.cancel == Some(Fate::Done) {
            return wrong(format!("event {id} is there, and its timer was cancelled"));
        }
        let before = self.places.entry((partition, offset)).or_insert_with(|| id.clone());
        if before != id {
            return wrong(format!("offset {offset} of partition {partition} was {before} and is {id}"));
        }
        let first = *self.found.entry(id.clone()).or_insert((partition, offset));
        if first != (partition, offset) {
            return wrong(format!("event {id} is there twice: {first:?} and {:?}", (partition, offset)));
        }
        if let Some(due) = wish.deliver_at {
            let early = due.0 - (BEGIN + now as i64);
            if early > CLOCK_ERROR {
                let what = format!("event {id} is seen {early} us before its time");
                return Err(Violation::safety("never-early", what));
            }
        }
        Ok(())
    }

    /// A consumer is handed offsets. True if it was before.
    pub fn handed(&mut self, partition: u32, offset: u64) -> bool {
        !self.handed.insert((partition, offset))
    }

    /// An offset that was never handed to a consumer, of those that are there.
    pub fn not_handed(&self) -> Option<(u32, u64)> {
        self.places.keys().find(|place| !self.handed.contains(place)).copied()
    }

    /// What is missing or too much once all is settled: `rows` are the transactions whose rows are there.
    pub fn settled(&self, rows: &BTreeSet<u64>) -> Held {
        for (number, together) in &self.transactions {
            let there = rows.contains(number);
            match together.fate {
                Fate::Done if !there => return wrong(format!("transaction {number} is lost")),
                Fate::Refused if there => return wrong(format!("transaction {number} was refused")),
                _ => {}
            }
            for id in &together.events {
                if self.found.contains_key(id) != there {
                    let what = if there { "is, and its event" } else { "is not, and its event" };
                    let other = if there { "is lost" } else { "is there" };
                    return wrong(format!("row {number} {what} {id} {other}"));
                }
            }
        }
        for (id, wish) in self.wishes.iter().filter(|(_, wish)| wish.with.is_none()) {
            let must = wish.fate == Fate::Done && matches!(wish.cancel, None | Some(Fate::Refused));
            if must && !self.found.contains_key(id) {
                return wrong(format!("event {id} was acknowledged and is lost"));
            }
        }
        if let Some((partition, offset)) =
            self.handed.iter().find(|place| !self.places.contains_key(place)).copied()
        {
            return wrong(format!(
                "offset {offset} of partition {partition} was handed out and is not there"
            ));
        }
        self.ordered()
    }

    /// In each partition, transactions' events lie in the order of the transactions, and of the events in each.
    fn ordered(&self) -> Held {
        let mut last: BTreeMap<u32, (u64, usize, &str)> = BTreeMap::new();
        for ((partition, _), id) in &self.places {
            let Some(wish) = self.wishes.get(id).filter(|wish| wish.deliver_at.is_none()) else { continue };
            let Some(together) = wish.with.and_then(|number| self.transactions.get(&number)) else {
                continue;
            };
            if together.fate != Fate::Done {
                continue;
            }
            let place = together.events.iter().position(|event| event == id).unwrap_or(0);
            let now = (together.index, place, id.as_str());
            if let Some(before) = last.insert(*partition, now)
                && (before.0, before.1) > (now.0, now.1)
            {
                return wrong(format!("event {id} is behind {}, which was committed later", before.2));
            }
        }
        Ok(())
    }
}
