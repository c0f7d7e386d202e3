//! Scripts at random, over the tables and topics that a client sees.

use super::script::{Ask, Conflict, Filter, Set, Statement};
use crate::rng::Rng;
use bytes::Bytes;
use chronos_engine::Catalog;
use chronos_proto::schema::{Relation, Table};
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use std::sync::Arc;

/// Tables that clients make by SQL.
const NAMES: [&str; 3] = ["u0", "u1", "u2"];
const INDEXES_MAX: usize = 4;
const COLUMNS_MAX: usize = 7;

/// What scripts are drawn from.
pub struct Draw<'a> {
    /// The relations there are.
    pub catalog: &'a Catalog,
    /// Whether a relation is for all to write to.
    pub is_open: fn(&Relation) -> bool,
    /// Cluster time, as the client's node has it.
    pub now: Timestamp,
    /// Keys that clients choose from.
    pub keys: u64,
    /// Message ids that clients share.
    pub shared_ids: u64,
    /// Distance of due times, at the most.
    pub spread: u64,
    /// How long rows live in some of the tables that are made, in microseconds; in none if zero.
    pub ttl: u64,
    /// The last of the numbers that are given once.
    pub numbers: &'a mut u64,
    /// Where chance comes from.
    pub rng: &'a mut Rng,
}

impl Draw<'_> {
    /// A transaction, or a statement alone; none if there is nothing to do it with.
    pub fn transaction(&mut self) -> Vec<Statement> {
        if self.rng.chance(250) {
            return self.on_table().into_iter().collect();
        }
        let mut script = vec![Statement::Begin];
        let saves = self.rng.chance(200);
        let count = self.rng.range(1, 4);
        for place in 0..count {
            if saves && place == 1 {
                script.push(Statement::Savepoint);
            }
            let on_topic = self.rng.chance(250);
            let statement = if on_topic { self.on_topic() } else { self.on_table() };
            script.extend(statement);
        }
        if script.contains(&Statement::Savepoint) {
            let on_table = self.on_table();
            script.push(Statement::RollbackTo);
            script.extend(on_table);
        }
        script.push(if self.rng.chance(80) { Statement::Rollback } else { Statement::Commit });
        script
    }

    /// A SELECT alone.
    pub fn query(&mut self) -> Vec<Statement> {
        if self.rng.chance(200) {
            let topic = self.topic().map(|topic| Statement::Released { topic });
            return topic.into_iter().collect();
        }
        let Some((name, table)) = self.table() else { return Vec::new() };
        vec![self.select(name, &table)]
    }

    /// A change of the catalogue; none if there is nothing to change.
    pub fn schema(&mut self) -> Vec<Statement> {
        *self.numbers += 1;
        let number = *self.numbers;
        let missing = NAMES.into_iter().find(|name| self.catalog.by_name(name).is_none());
        if let Some(name) = missing.filter(|name| *name == NAMES[0] || self.rng.chance(300)) {
            let ttl = (self.ttl > 0 && self.rng.chance(400)).then(|| {
                let (seconds, micros) = (self.ttl / 1_000_000, self.ttl % 1_000_000);
                format!(" WITH (ttl = '{seconds}.{micros:06} seconds', ttl_column = 'at')")
            });
            let at = if ttl.is_some() { ", \"at\" TIMESTAMPTZ" } else { "" };
            let text = format!(
                "CREATE TABLE {name} (id BIGINT PRIMARY KEY, amount BIGINT, tag TEXT, number BIGINT UNIQUE{at}){}",
                ttl.unwrap_or_default()
            );
            return vec![Statement::Schema { text, tag: "CREATE TABLE" }];
        }
        let Some((name, table)) = self.table() else { return Vec::new() };
        let of_ttl = table.ttl().map(|(_, index, _)| index);
        let plain = table.indexes.iter().filter(|i| !table.is_unique(i.id) && Some(i.id) != of_ttl);
        let plain: Vec<&str> = plain.map(|i| i.name.as_str()).collect();
        let (text, tag) = match self.rng.below(4) {
            0 if !plain.is_empty() => (format!("DROP INDEX {}", self.rng.pick(&plain)), "DROP INDEX"),
            1 if table.columns.len() < COLUMNS_MAX => {
                (format!("ALTER TABLE {name} ADD COLUMN x{number} BIGINT"), "ALTER TABLE")
            }
            _ if table.indexes.len() < INDEXES_MAX => {
                let columns = self.rng.pick(&["amount", "tag", "number", "tag, amount"]);
                (format!("CREATE INDEX i{number} ON {name} ({columns})"), "CREATE INDEX")
            }
            _ => return Vec::new(),
        };
        vec![Statement::Schema { text, tag }]
    }

    fn table(&mut self) -> Option<(String, Table)> {
        let open = |r: &&Arc<Relation>| r.table().is_some() && (self.is_open)(r);
        let all: Vec<&Relation> = self.catalog.iter().filter(open).map(|r| &**r).collect();
        let relation = (!all.is_empty()).then(|| *self.rng.pick(&all))?;
        Some((relation.name.clone(), relation.table()?.clone()))
    }

    fn topic(&mut self) -> Option<String> {
        let all: Vec<&str> = self
            .catalog
            .iter()
            .filter(|r| r.topic().is_some() && (self.is_open)(r))
            .map(|r| r.name.as_str())
            .collect();
        (!all.is_empty()).then(|| (*self.rng.pick(&all)).to_owned())
    }

    fn on_table(&mut self) -> Option<Statement> {
        let (name, table) = self.table()?;
        Some(match self.rng.below(10) {
            0..=2 => self.select(name, &table),
            3..=5 => self.insert(name, &table),
            6..=8 => self.update(name, &table),
            _ => Statement::Delete { table: name, filter: self.few(&table) },
        })
    }

    fn select(&mut self, name: String, table: &Table) -> Statement {
        let filter = self.filter(table);
        let ask = match self.rng.below(4) {
            0 => Ask::Sums,
            1 => Ask::SumsByTag,
            _ => Ask::Rows(shown(table)),
        };
        Statement::Select { table: name, ask, filter }
    }

    fn insert(&mut self, name: String, table: &Table) -> Statement {
        let columns = shown(table);
        let unique = table.indexes.iter().any(|i| table.is_unique(i.id));
        let mut ids: Vec<u64> = Vec::new();
        let mut rows = Vec::new();
        for _ in 0..self.rng.range(1, 3) {
            let id = self.rng.below(self.keys);
            if ids.contains(&id) {
                continue;
            }
            ids.push(id);
            let row = columns.iter().map(|column| match column.as_str() {
                "id" => Value::Int(id as i64),
                "amount" => Value::Int(self.rng.below(1_000) as i64),
                "tag" => Value::Text(self.tag()),
                "number" if unique && self.rng.chance(100) => Value::Null,
                "number" if unique => Value::Int(self.rng.below(2 * self.keys) as i64),
                "number" => Value::Int(self.number()),
                "at" => Value::Timestamp(self.now.0),
                _ => Value::Int(self.rng.below(9) as i64),
            });
            rows.push(row.collect());
        }
        let conflict = match self.rng.below(3) {
            0 => Conflict::Nothing,
            1 if !table.primary_key.is_empty() => Conflict::Add,
            _ => Conflict::Fail,
        };
        Statement::Insert { table: name, columns, rows, conflict }
    }

    fn update(&mut self, name: String, table: &Table) -> Statement {
        let unique = table.indexes.iter().any(|i| table.is_unique(i.id));
        let more: Vec<String> =
            table.columns.iter().filter(|c| c.name.starts_with('x')).map(|c| c.name.clone()).collect();
        let set = match self.rng.below(5) {
            0 => Set::Tag(self.tag()),
            1 if unique => Set::Int("number".into(), self.rng.below(2 * self.keys) as i64),
            1 => Set::Int("number".into(), self.number()),
            2 if !more.is_empty() => Set::Int(self.rng.pick(&more).clone(), self.rng.below(9) as i64),
            _ => Set::Add(self.rng.range(1, 50) as i64 - 25),
        };
        let filter = self.few(table);
        let returning = if self.rng.chance(300) { shown(table) } else { Vec::new() };
        Statement::Update { table: name, set, filter, returning }
    }

    fn on_topic(&mut self) -> Option<Statement> {
        let topic = self.topic()?;
        if self.rng.chance(300) {
            return Some(Statement::Released { topic });
        }
        let shared = self.rng.chance(300);
        let message_id = shared.then(|| format!("shared {}", self.rng.below(self.shared_ids)));
        let deliver_at = self.rng.chance(600).then(|| {
            let ahead = self.rng.below(self.spread.max(1)) as i64 - 1_000;
            Timestamp(self.now.0 + ahead)
        });
        let payload = Bytes::copy_from_slice(&(self.number() as u64).to_be_bytes());
        Some(Statement::Publish { topic, message_id, payload, deliver_at })
    }

    fn filter(&mut self, table: &Table) -> Filter {
        match self.rng.chance(150) {
            true => Filter::All,
            false => self.few(table),
        }
    }

    fn few(&mut self, table: &Table) -> Filter {
        let keyed = !table.primary_key.is_empty();
        match self.rng.below(8) {
            0..=2 if keyed => Filter::Equal { column: "id", value: self.rng.below(self.keys) as i64 },
            3 if keyed => {
                let low = self.rng.below(self.keys) as i64;
                let high = low + self.rng.range(1, self.keys) as i64;
                Filter::Between { column: "id", low, high }
            }
            4 => Filter::Tag(self.tag()),
            5 => Filter::Equal { column: "number", value: self.rng.below(2 * self.keys) as i64 },
            _ => {
                let low = self.rng.below(1_000) as i64;
                let high = low + self.rng.range(1, 200) as i64;
                Filter::Between { column: "amount", low, high }
            }
        }
    }

    fn tag(&mut self) -> String {
        format!("tag {}", self.rng.below(5))
    }

    fn number(&mut self) -> i64 {
        *self.numbers += 1;
        *self.numbers as i64
    }
}

/// The columns that statements name.
fn shown(table: &Table) -> Vec<String> {
    let known = |c: &&chronos_proto::schema::Column| c.ty != Type::Timestamp || table.ttl().is_some();
    table.columns.iter().filter(known).map(|c| c.name.clone()).collect()
}
