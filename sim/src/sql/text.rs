//! A statement as a client writes it.

use super::script::{Ask, Conflict, Filter, Set, Statement};
use chronos_proto::Value;
use std::fmt::Write;

/// Writes values as literals, or as parameters where they have no short one.
#[derive(Default)]
struct Values(Vec<Value>);

impl Values {
    fn write(&mut self, value: &Value) -> String {
        match value {
            Value::Null => "NULL".into(),
            Value::Int(number) => number.to_string(),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            other => {
                self.0.push(other.clone());
                format!("${}", self.0.len())
            }
        }
    }
}

fn names(columns: &[String]) -> String {
    columns.iter().map(|column| format!("\"{column}\"")).collect::<Vec<_>>().join(", ")
}

fn filter(out: &mut String, filter: &Filter) {
    // Writing to a string does not fail.
    let _ = match filter {
        Filter::All => Ok(()),
        Filter::Between { column, low, high } => {
            write!(out, " WHERE {column} >= {low} AND {column} < {high}")
        }
        Filter::Equal { column, value } => write!(out, " WHERE {column} = {value}"),
        Filter::Tag(tag) => write!(out, " WHERE tag = '{tag}'"),
    };
}

impl Statement {
    /// Its text, and the values of its parameters.
    pub fn text(&self) -> (String, Vec<Value>) {
        let mut values = Values::default();
        let text = match self {
            Statement::Begin => "BEGIN".into(),
            Statement::Commit => "COMMIT".into(),
            Statement::Rollback => "ROLLBACK".into(),
            Statement::Savepoint => "SAVEPOINT here".into(),
            Statement::RollbackTo => "ROLLBACK TO SAVEPOINT here".into(),
            Statement::Select { table, ask, filter: which } => {
                let mut text = match ask {
                    Ask::Rows(columns) => format!("SELECT {} FROM {table}", names(columns)),
                    Ask::Sums => {
                        format!("SELECT count(*), min(amount), max(number), sum(amount)::BIGINT FROM {table}")
                    }
                    Ask::SumsByTag => format!("SELECT tag, count(*), sum(amount)::BIGINT FROM {table}"),
                };
                filter(&mut text, which);
                if *ask == Ask::SumsByTag {
                    text += " GROUP BY tag";
                }
                text
            }
            Statement::Released { topic } => format!("SELECT count(*) FROM {topic}"),
            Statement::Insert { table, columns, rows, conflict } => {
                let rows: Vec<String> = rows
                    .iter()
                    .map(|row| row.iter().map(|v| values.write(v)).collect::<Vec<_>>().join(", "))
                    .map(|row| format!("({row})"))
                    .collect();
                let conflict = match conflict {
                    Conflict::Fail => String::new(),
                    Conflict::Nothing => " ON CONFLICT DO NOTHING".into(),
                    Conflict::Add => {
                        format!(" ON CONFLICT (id) DO UPDATE SET amount = {table}.amount + excluded.amount")
                    }
                };
                format!("INSERT INTO {table} ({}) VALUES {}{conflict}", names(columns), rows.join(", "))
            }
            Statement::Publish { topic, message_id, payload, deliver_at } => {
                let mut columns = vec!["payload"];
                let mut given = vec![Value::Bytes(payload.clone())];
                if let Some(id) = message_id {
                    columns.push("message_id");
                    given.push(Value::Text(id.clone()));
                }
                if let Some(at) = deliver_at {
                    columns.push("deliver_at");
                    given.push(Value::Timestamp(at.0));
                }
                let given: Vec<String> = given.iter().map(|v| values.write(v)).collect();
                format!("INSERT INTO {topic} ({}) VALUES ({})", columns.join(", "), given.join(", "))
            }
            Statement::Update { table, set, filter: which, returning } => {
                let mut text = match set {
                    Set::Add(more) => format!("UPDATE {table} SET amount = amount + {more}"),
                    Set::Tag(tag) => format!("UPDATE {table} SET tag = '{tag}'"),
                    Set::Int(column, value) => format!("UPDATE {table} SET \"{column}\" = {value}"),
                };
                filter(&mut text, which);
                if !returning.is_empty() {
                    text += &format!(" RETURNING {}", names(returning));
                }
                text
            }
            Statement::Delete { table, filter: which } => {
                let mut text = format!("DELETE FROM {table}");
                filter(&mut text, which);
                text
            }
            Statement::Schema { text, .. } => text.clone(),
        };
        (text, values.0)
    }
}
