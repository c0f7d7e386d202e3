//! `sql`: what a committed transaction's statements were answered is what they come to at its place in the log, and
//! what it wrote is what they say. `unique`: no two rows have what a unique index admits once.

use crate::model::Model;
use crate::sql::oracle::{After, Oracle};
use crate::sql::script::{Spoken, Told};
use crate::violation::{Held, Violation};
use chronos_proto::command::Op;
use chronos_proto::time::Timestamp;

const NAME: &str = "sql";
const UNIQUE: &str = "unique";

/// Holds a client's answers against the model, right before the transaction's entry is applied or, if it writes nothing,
/// at the state that it read. Gives what must be there after it, and the answer that is still to come, if one is.
pub fn answers(
    model: &Model,
    spoken: &Spoken,
    released: Timestamp,
) -> Result<(After, Option<Told>), Violation> {
    let mut oracle = Oracle::at(model, spoken.now, released);
    let mut last = None;
    for (place, statement) in spoken.script.iter().enumerate() {
        let expected = oracle.say(statement);
        match spoken.told.get(place) {
            Some(told) if *told != expected => {
                let what = format!(
                    "{:?} was answered {told:?}, and behind entry {} it comes to {expected:?}",
                    statement.text().0,
                    model.applied
                );
                return Err(Violation::safety(NAME, what));
            }
            Some(_) => {}
            None => last = Some(expected),
        }
    }
    Ok((oracle.into_after(), last))
}

/// Holds what a transaction wrote against its statements, once its entry is applied.
pub fn effects(model: &Model, after: &After, ops: &[Op]) -> Held {
    let entry = model.applied;
    match (after.differs(model, ops), after.doubled(model)) {
        (Some(what), _) => {
            Err(Violation::safety(NAME, format!("entry {entry} is not what was said: {what}")))
        }
        (None, Some(what)) => Err(Violation::safety(UNIQUE, format!("behind entry {entry} {what}"))),
        (None, None) => Ok(()),
    }
}

/// What the commit came to, as its client was told, is what it had to.
pub fn committed(spoken: &Spoken, told: &Told, expected: &Told) -> Held {
    if told == expected {
        return Ok(());
    }
    let text = spoken.script.last().map(|statement| statement.text().0);
    let what = format!("{:?} was answered {told:?}, and it comes to {expected:?}", text.unwrap_or_default());
    Err(Violation::safety(NAME, what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::script::{Ask, Conflict, Filter, Set, Statement};
    use bytes::Bytes;
    use chronos_proto::id::{ColumnId, IndexId, RelationId};
    use chronos_proto::schema::{Column, Extra, IndexState, Relation, RelationKind, SecondaryIndex, Table};
    use chronos_proto::{Type, Value, key, row};

    const TABLE: RelationId = RelationId(16);

    /// A table `u0 (id BIGINT PRIMARY KEY, amount BIGINT, number BIGINT UNIQUE, at TIMESTAMPTZ)` with these rows.
    fn model(rows: &[(i64, i64, i64)]) -> Model {
        let column = |(id, name): (u32, &str)| Column {
            id: ColumnId(id),
            name: name.into(),
            ty: if name == "at" { Type::Timestamp } else { Type::Int },
            not_null: false,
            default: None,
        };
        let index = |id, column| SecondaryIndex {
            id: IndexId(id),
            name: format!("i{id}"),
            columns: vec![ColumnId(column)],
            state: IndexState::Public,
        };
        let table = Table {
            columns: [(0, "id"), (1, "amount"), (2, "number"), (3, "at")].map(column).to_vec(),
            primary_key: vec![ColumnId(0)],
            indexes: vec![index(1, 2), index(2, 3)],
            next_column: 4,
            next_index: 3,
            extras: vec![
                Extra::Unique { index: IndexId(1), constraint: true },
                Extra::Ttl { column: ColumnId(3), index: IndexId(2), micros: 1_000 },
            ],
        };
        let kind = RelationKind::Table(table);
        let group = chronos_proto::id::GroupId(0);
        let relation = Relation { id: TABLE, name: "u0".into(), group, version: 1, kind };
        let mut model = Model::default();
        model.applied = 7;
        model.relations.insert(TABLE, relation);
        let stored = |(id, amount, number): &(i64, i64, i64)| {
            let mut primary = Vec::new();
            key::encode(&mut primary, &Value::Int(*id));
            let values = [Value::Int(*amount), Value::Int(*number), Value::Timestamp(0)];
            let row = row::encode([1, 2, 3].map(ColumnId).into_iter().zip(&values));
            (Bytes::from(primary), row)
        };
        model.rows.insert(TABLE, rows.iter().map(stored).collect());
        model
    }

    fn spoken(now: i64, script: Vec<Statement>, told: Vec<Told>) -> Spoken {
        Spoken { script, now: Timestamp(now), told }
    }

    fn sums(low: i64) -> Statement {
        let filter = Filter::Between { column: "amount", low, high: low + 100 };
        Statement::Select { table: "u0".into(), ask: Ask::Sums, filter }
    }

    fn count(rows: i64, least: i64, most: i64, sum: i64) -> Told {
        Told::Rows(vec![[rows, least, most, sum].map(Value::Int).to_vec()])
    }

    fn insert(id: i64, amount: i64, number: i64, conflict: Conflict) -> Statement {
        let columns = ["id", "amount", "number"].map(str::to_owned).to_vec();
        let rows = vec![[id, amount, number].map(Value::Int).to_vec()];
        Statement::Insert { table: "u0".into(), columns, rows, conflict }
    }

    fn tag(tag: &str) -> Told {
        Told::Tag(tag.into())
    }

    #[test]
    fn a_phantom_and_an_expired_row_are_seen() {
        let model = model(&[(1, 10, 1), (2, 20, 2)]);
        let said = |now, told| answers(&model, &spoken(now, vec![sums(0)], vec![told]), Timestamp(now));
        assert!(said(5, count(2, 10, 2, 30)).is_ok());
        assert_eq!(said(5, count(1, 10, 1, 10)).unwrap_err().checker, "sql", "a row came since");
        assert!(said(1_000, count(2, 10, 2, 30)).is_err(), "both have expired");
    }

    #[test]
    fn a_value_that_is_there_is_refused_unless_its_row_has_expired() {
        let model = model(&[(1, 10, 1)]);
        let said = |now, told| {
            let script = vec![insert(2, 0, 1, Conflict::Fail)];
            answers(&model, &spoken(now, script, vec![told]), Timestamp(now)).is_ok()
        };
        assert!(said(5, Told::Error("23505".into())) && !said(5, tag("INSERT 0 1")));
        assert!(said(1_000, tag("INSERT 0 1")));
    }

    #[test]
    fn what_was_written_is_held_against_what_was_said() {
        let before = model(&[(1, 10, 1)]);
        let script = vec![
            Statement::Begin,
            insert(1, 5, 9, Conflict::Add),
            Statement::Savepoint,
            Statement::Update {
                table: "u0".into(),
                set: Set::Add(100),
                filter: Filter::All,
                returning: vec![],
            },
            Statement::RollbackTo,
            Statement::Commit,
        ];
        let told = ["BEGIN", "INSERT 0 1", "SAVEPOINT", "UPDATE 1", "ROLLBACK"].map(tag).to_vec();
        let (after, last) = answers(&before, &spoken(5, script, told), Timestamp(5)).unwrap();
        assert_eq!(last, Some(tag("COMMIT")));
        assert_eq!(effects(&model(&[(1, 15, 1)]), &after, &[]), Ok(()));
        assert_eq!(effects(&model(&[(1, 10, 1)]), &after, &[]).unwrap_err().checker, "sql", "a lost write");
        assert!(effects(&model(&[(1, 115, 1)]), &after, &[]).is_err(), "what was rolled back stays");
    }

    #[test]
    fn two_rows_with_one_unique_value_are_seen() {
        let both = model(&[(1, 10, 1), (2, 20, 1)]);
        let (after, _) = answers(&both, &spoken(5, vec![sums(0)], vec![]), Timestamp(5)).unwrap();
        assert_eq!(effects(&both, &after, &[]).unwrap_err().checker, "unique");
    }
}
