//! What statements must come to, by plain loops over the model's rows.

use super::script::{Ask, Conflict, Filter, Set, Statement, Told, sort};
use crate::model::Model;
use bytes::Bytes;
use chronos_engine::state::records::ReadError;
use chronos_proto::command::Op;
use chronos_proto::id::RelationId;
use chronos_proto::schema::{Relation, Table};
use chronos_proto::time::Timestamp;
use chronos_proto::{Value, key, row};
use std::collections::BTreeMap;

const UNIQUE_VIOLATION: &str = "23505";
const ABORTED: &str = "25P02";
const NO_SAVEPOINT: &str = "3B001";
const NO_TABLE: &str = "42P01";
const NO_COLUMN: &str = "42703";

/// The values of a row, in the order of its table's columns.
type Row = Vec<Value>;

/// A table as a transaction sees it.
#[derive(Clone, Debug)]
struct Rows {
    id: RelationId,
    shape: Table,
    rows: BTreeMap<Bytes, Row>,
    appended: u64,
}

impl Rows {
    fn of(model: &Model, relation: &Relation) -> Option<Rows> {
        let shape = relation.table()?.clone();
        let stored = model.rows.get(&relation.id).into_iter().flatten();
        // What does not decode is left out: the comparison of states tells of it.
        let rows = stored.filter_map(|(key, row)| Some((key.clone(), decode(&shape, key, row).ok()?)));
        Some(Rows { id: relation.id, rows: rows.collect(), shape, appended: 0 })
    }

    fn place(&self, column: &str) -> Option<usize> {
        self.shape.columns.iter().position(|c| c.name == column)
    }

    fn value<'r>(&self, row: &'r Row, column: &str) -> &'r Value {
        self.place(column).and_then(|place| row.get(place)).unwrap_or(&Value::Null)
    }

    /// Whether the table is the one that the statement was made for: its name may be another's by now.
    fn has(&self, columns: &[String]) -> Result<(), &'static str> {
        columns.iter().all(|column| self.place(column).is_some()).then_some(()).ok_or(NO_COLUMN)
    }

    fn pick(&self, row: &Row, columns: &[String]) -> Row {
        columns.iter().map(|column| self.value(row, column).clone()).collect()
    }

    fn lives(&self, row: &Row, now: Timestamp) -> bool {
        let time = self.shape.ttl().and_then(|(column, _, micros)| Some((self.shape.place(column)?, micros)));
        match time.map(|(place, micros)| (&row[place], micros)) {
            Some((Value::Timestamp(at), micros)) => at.saturating_add_unsigned(micros) > now.0,
            _ => true,
        }
    }

    fn matching(&self, filter: &Filter, now: Timestamp) -> Vec<Bytes> {
        let is_int = |row: &Row, column: &str, holds: &dyn Fn(i64) -> bool| match self.value(row, column) {
            Value::Int(value) => holds(*value),
            _ => false,
        };
        let matches = |row: &Row| match filter {
            Filter::All => true,
            Filter::Between { column, low, high } => is_int(row, column, &|v| v >= *low && v < *high),
            Filter::Equal { column, value } => is_int(row, column, &|v| v == *value),
            Filter::Tag(tag) => matches!(self.value(row, "tag"), Value::Text(text) if text == tag),
        };
        let found = self.rows.iter().filter(|(_, row)| self.lives(row, now) && matches(row));
        found.map(|(key, _)| key.clone()).collect()
    }

    /// The key of another row with a value that a unique index admits once.
    fn taken(&self, row: &Row, own: Option<&Bytes>, now: Timestamp) -> Option<Bytes> {
        let unique = self.shape.indexes.iter().filter(|index| self.shape.is_unique(index.id));
        let places: Vec<Vec<usize>> = unique
            .map(|index| index.columns.iter().filter_map(|id| self.shape.place(*id)).collect())
            .collect();
        let equal = |other: &Row| {
            places.iter().any(|places| places.iter().all(|p| row[*p] != Value::Null && row[*p] == other[*p]))
        };
        let mut others = self.rows.iter().filter(|(key, other)| Some(*key) != own && self.lives(other, now));
        others.find(|(_, other)| equal(other)).map(|(key, _)| key.clone())
    }

    fn key_of(&mut self, row: &Row) -> Bytes {
        if self.shape.primary_key.is_empty() {
            self.appended += 1;
            // Behind every real rowid.
            return Bytes::from([&[0xFF; 16][..], &self.appended.to_be_bytes()].concat());
        }
        let mut out = Vec::new();
        for place in self.shape.primary_key.iter().filter_map(|id| self.shape.place(*id)) {
            key::encode(&mut out, &row[place]);
        }
        Bytes::from(out)
    }

    fn visible(&self, now: Timestamp) -> Vec<Row> {
        let mut rows: Vec<Row> = self.rows.values().filter(|row| self.lives(row, now)).cloned().collect();
        sort(&mut rows);
        rows
    }
}

fn decode(table: &Table, key: &[u8], stored: &[u8]) -> Result<Row, ReadError> {
    let mut out = vec![Value::Null; table.columns.len()];
    let mut rest = key;
    for id in &table.primary_key {
        if let Some(place) = table.place(*id)
            && let Ok(value) = key::decode(&mut rest, table.columns[place].ty)
        {
            out[place] = value;
        }
    }
    row::decode(stored, |id, value| {
        if let Some(place) = table.place(id) {
            out[place] = value;
        }
    })?;
    Ok(out)
}

/// What goes into a topic: its number, the payload, when it is due, and whether its id is claimed.
type Sent = (RelationId, Bytes, Option<Timestamp>, bool);

/// What a transaction has done so far.
#[derive(Clone, Debug, Default)]
struct Done {
    tables: BTreeMap<RelationId, Rows>,
    sent: Vec<Sent>,
}

/// A transaction over the model.
#[derive(Debug)]
pub struct Oracle<'m> {
    model: &'m Model,
    /// By this time rows have expired.
    now: Timestamp,
    /// By this time events are released.
    released: Timestamp,
    done: Done,
    saved: Option<Done>,
    in_block: bool,
    failed: bool,
}

/// What the model must have once the transaction is applied.
#[derive(Debug)]
pub struct After {
    now: Timestamp,
    done: Done,
}

impl<'m> Oracle<'m> {
    /// At a place in the log: rows expire by the transaction's own time, events are seen by the log's.
    pub fn at(model: &'m Model, now: Timestamp, released: Timestamp) -> Oracle<'m> {
        Oracle { model, now, released, done: Done::default(), saved: None, in_block: false, failed: false }
    }

    /// What a statement must be answered.
    pub fn say(&mut self, statement: &Statement) -> Told {
        let error = |code: &str| Told::Error(code.into());
        let tag = |tag: &str| Told::Tag(tag.into());
        match statement {
            Statement::Begin => {
                self.in_block = true;
                return tag("BEGIN");
            }
            Statement::Commit => return tag(if self.failed { "ROLLBACK" } else { "COMMIT" }),
            Statement::Rollback => return tag("ROLLBACK"),
            Statement::RollbackTo => {
                let Some(saved) = self.saved.clone() else {
                    self.failed = true;
                    return error(NO_SAVEPOINT);
                };
                self.done = saved;
                self.failed = false;
                return tag("ROLLBACK");
            }
            _ if self.failed => return error(ABORTED),
            _ => {}
        }
        match self.answer(statement) {
            Ok(told) => told,
            Err(code) => {
                self.failed = self.in_block;
                error(code)
            }
        }
    }

    /// What must be there after it.
    pub fn into_after(self) -> After {
        After { now: self.now, done: self.done }
    }

    fn table(&mut self, name: &str) -> Result<&mut Rows, &'static str> {
        let relation = self.model.relations.values().find(|r| r.name == name).ok_or(NO_TABLE)?;
        if !self.done.tables.contains_key(&relation.id) {
            let rows = Rows::of(self.model, relation).ok_or(NO_TABLE)?;
            self.done.tables.insert(relation.id, rows);
        }
        self.done.tables.get_mut(&relation.id).ok_or(NO_TABLE)
    }

    fn topic(&self, name: &str) -> Result<RelationId, &'static str> {
        let found = self.model.relations.values().find(|r| r.name == name && r.topic().is_some());
        found.map(|r| r.id).ok_or(NO_TABLE)
    }

    fn answer(&mut self, statement: &Statement) -> Result<Told, &'static str> {
        let now = self.now;
        Ok(match statement {
            Statement::Savepoint => {
                self.saved = Some(self.done.clone());
                Told::Tag("SAVEPOINT".into())
            }
            Statement::Select { table, ask, filter } => {
                let table = self.table(table)?;
                if let Ask::Rows(columns) = ask {
                    table.has(columns)?;
                }
                let found = table.matching(filter, now);
                let rows: Vec<&Row> = found.iter().filter_map(|key| table.rows.get(key)).collect();
                Told::rows(select(table, &rows, ask))
            }
            Statement::Released { topic } => {
                let topic = self.topic(topic)?;
                let events = self.model.events.get(&(topic, 0)).map_or(&[][..], Vec::as_slice);
                let count = events.iter().filter(|e| e.released_at() <= self.released).count();
                Told::Rows(vec![vec![Value::Int(count as i64)]])
            }
            Statement::Insert { table, columns, rows, conflict } => {
                let table = self.table(table)?;
                table.has(columns)?;
                let mut count = 0;
                for given in rows {
                    count += u64::from(insert(table, columns, given, *conflict, now)?);
                }
                Told::Tag(format!("INSERT 0 {count}"))
            }
            Statement::Publish { topic, message_id, payload, deliver_at } => {
                let sent = (self.topic(topic)?, payload.clone(), *deliver_at, message_id.is_some());
                self.done.sent.push(sent);
                Told::Tag("INSERT 0 1".into())
            }
            Statement::Update { table, set, filter, returning } => {
                let table = self.table(table)?;
                table.has(returning)?;
                if let Set::Int(column, _) = set {
                    table.has(std::slice::from_ref(column))?;
                }
                let mut news = Vec::new();
                for key in table.matching(filter, now) {
                    let new = changed(table, &table.rows[&key], set);
                    let differs = new != table.rows[&key];
                    if differs && table.taken(&new, Some(&key), now).is_some() {
                        return Err(UNIQUE_VIOLATION);
                    }
                    news.push(table.pick(&new, returning));
                    table.rows.insert(key, new);
                }
                match returning.is_empty() {
                    true => Told::Tag(format!("UPDATE {}", news.len())),
                    false => Told::rows(news),
                }
            }
            Statement::Delete { table, filter } => {
                let table = self.table(table)?;
                let found = table.matching(filter, now);
                found.iter().for_each(|key| drop(table.rows.remove(key)));
                Told::Tag(format!("DELETE {}", found.len()))
            }
            Statement::Schema { tag, .. } => Told::Tag((*tag).into()),
            Statement::Begin | Statement::Commit | Statement::Rollback | Statement::RollbackTo => {
                return Err(ABORTED);
            }
        })
    }
}

fn select(table: &Rows, rows: &[&Row], ask: &Ask) -> Vec<Row> {
    let ints = |rows: &[&Row], column: &str| -> Vec<i64> {
        let int = |row: &&Row| match table.value(row, column) {
            Value::Int(value) => Some(*value),
            _ => None,
        };
        rows.iter().filter_map(int).collect()
    };
    let maybe = |value: Option<i64>| value.map_or(Value::Null, Value::Int);
    let sum = |amounts: Vec<i64>| maybe((!amounts.is_empty()).then(|| amounts.iter().sum()));
    match ask {
        Ask::Rows(columns) => rows.iter().map(|row| table.pick(row, columns)).collect(),
        Ask::Sums => {
            let amounts = ints(rows, "amount");
            let (least, most) = (amounts.iter().min().copied(), ints(rows, "number").iter().max().copied());
            vec![vec![Value::Int(rows.len() as i64), maybe(least), maybe(most), sum(amounts)]]
        }
        Ask::SumsByTag => {
            let mut tags: Vec<(&Value, Vec<&Row>)> = Vec::new();
            for row in rows {
                let tag = table.value(row, "tag");
                match tags.iter_mut().find(|(other, _)| *other == tag) {
                    Some((_, rows)) => rows.push(row),
                    None => tags.push((tag, vec![row])),
                }
            }
            let group = |(tag, rows): &(&Value, Vec<&Row>)| {
                vec![(*tag).clone(), Value::Int(rows.len() as i64), sum(ints(rows, "amount"))]
            };
            tags.iter().map(group).collect()
        }
    }
}

/// Whether a row was inserted or changed.
fn insert(
    table: &mut Rows,
    columns: &[String],
    given: &Row,
    conflict: Conflict,
    now: Timestamp,
) -> Result<bool, &'static str> {
    let mut row = vec![Value::Null; table.shape.columns.len()];
    for (column, value) in columns.iter().zip(given) {
        if let Some(place) = table.place(column) {
            row[place] = value.clone();
        }
    }
    let key = table.key_of(&row);
    let there = table.rows.get(&key).filter(|row| table.lives(row, now)).cloned();
    match (there, conflict) {
        (Some(there), Conflict::Add) => {
            let Some(place) = table.place("amount") else { return Ok(false) };
            let mut new = there;
            new[place] = match (&new[place], &row[place]) {
                (Value::Int(old), Value::Int(more)) => Value::Int(old + more),
                _ => Value::Null,
            };
            table.rows.insert(key, new);
            return Ok(true);
        }
        (Some(_), Conflict::Nothing) => return Ok(false),
        (Some(_), Conflict::Fail) => return Err(UNIQUE_VIOLATION),
        (None, _) => {}
    }
    if table.taken(&row, None, now).is_some() {
        return if conflict == Conflict::Nothing { Ok(false) } else { Err(UNIQUE_VIOLATION) };
    }
    table.rows.insert(key, row);
    Ok(true)
}

fn changed(table: &Rows, old: &Row, set: &Set) -> Row {
    let mut new = old.clone();
    let (column, value) = match set {
        Set::Add(more) => (
            "amount",
            match table.value(old, "amount") {
                Value::Int(amount) => Value::Int(amount + more),
                _ => Value::Null,
            },
        ),
        Set::Tag(tag) => ("tag", Value::Text(tag.clone())),
        Set::Int(column, value) => (column.as_str(), Value::Int(*value)),
    };
    if let Some(place) = table.place(column) {
        new[place] = value;
    }
    new
}

impl After {
    /// What the log's entry does otherwise than the statements say, in words.
    pub fn differs(&self, model: &Model, ops: &[Op]) -> Option<String> {
        let sent = ops.iter().filter_map(|op| match op {
            Op::Publish { topic, event, claim, .. } => Some((*topic, event.payload.clone(), None, *claim)),
            Op::Schedule { topic, event, deliver_at, claim, .. } => {
                Some((*topic, event.payload.clone(), Some(*deliver_at), *claim))
            }
            _ => None,
        });
        let sent: Vec<Sent> = sent.collect();
        if sent != self.done.sent {
            return Some(format!("it sends {sent:?}, its statements {:?}", self.done.sent));
        }
        for expected in self.done.tables.values() {
            let Some(relation) = model.relations.get(&expected.id) else { continue };
            let Some(found) = Rows::of(model, relation) else { continue };
            let (found, expected) = (found.visible(self.now), expected.visible(self.now));
            if found != expected {
                let extra = found.iter().find(|row| !expected.contains(row));
                let missing = expected.iter().find(|row| !found.contains(row));
                let name = &relation.name;
                return Some(format!(
                    "after it {name} has {} rows and should have {}: {extra:?} should not be there, {missing:?} should",
                    found.len(),
                    expected.len()
                ));
            }
        }
        None
    }

    /// Two rows that a unique index of a table does not admit beside each other, in words.
    pub fn doubled(&self, model: &Model) -> Option<String> {
        for relation in self.done.tables.keys().filter_map(|id| model.relations.get(id)) {
            let Some(table) = Rows::of(model, relation) else { continue };
            for (key, row) in table.rows.iter().filter(|(_, row)| table.lives(row, self.now)) {
                if let Some(other) = table.taken(row, Some(key), self.now) {
                    let other = &table.rows[&other];
                    return Some(format!("{} has {row:?} and {other:?}", relation.name));
                }
            }
        }
        None
    }
}
