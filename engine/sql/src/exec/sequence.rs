//! Sequences: where each is stands in its one row, and a statement that takes numbers writes it anew.
//!
//! Unlike PostgreSQL's, the numbers that a transaction took are given again if it fails: gaps come from conflicts alone.

use super::eval::EvalCx;
use super::scan::store_error;
use super::write::Writes;
use crate::error::{SqlError, SqlState};
use chronos_engine::keys;
use chronos_proto::id::{ColumnId, RelationId};
use chronos_proto::schema::{Relation, Sequence};
use chronos_proto::{Op, Value, codec, row};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The sequences that a statement has used.
#[derive(Default)]
pub(crate) struct Sequences {
    used: RefCell<BTreeMap<RelationId, Used>>,
    given: RefCell<Vec<(RelationId, i64)>>,
}

#[derive(Clone, Copy)]
struct Used {
    last: i64,
    /// Whether `last` was given.
    called: bool,
}

impl Sequences {
    /// Writes where they are now.
    pub fn write(&self, writes: &mut Writes) -> Result<(), SqlError> {
        for (id, used) in self.used.borrow().iter() {
            let key = keys::row(*id, &[]);
            writes.reads.relation(*id);
            writes.reads.point(key.clone());
            let values = [Value::Int(used.last), Value::Bool(used.called)];
            let row = row::encode(values.iter().enumerate().map(|(i, v)| (ColumnId(i as u32), v)));
            let stored = writes.view.get(&key).map_err(store_error)?;
            let replaces = stored.map_or(0, |stored| codec::digest(&key, &stored));
            writes.view.write(key, Some(row.clone()));
            let op =
                Op::PutRow { relation: *id, key: Default::default(), row, replaces, indexes: Vec::new() };
            writes.push(op, 64)?;
        }
        writes.given.append(&mut self.given.borrow_mut());
        Ok(())
    }
}

fn find(cx: &EvalCx<'_>, name: &str) -> Result<(Arc<Relation>, Sequence), SqlError> {
    let run = cx.run.ok_or_else(|| SqlError::unsupported("a sequence in this place"))?;
    let plain = name.strip_prefix("public.").unwrap_or(name);
    let folded = match plain.strip_prefix('"').and_then(|n| n.strip_suffix('"')) {
        Some(quoted) => quoted.to_owned(),
        None => plain.to_lowercase(),
    };
    let relation = run.view.catalog.by_name(&folded).cloned().ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{folded}\" does not exist"))
    })?;
    match relation.sequence() {
        Some(sequence) => {
            let sequence = sequence.clone();
            Ok((relation, sequence))
        }
        None => Err(SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("\"{folded}\" is not a sequence"))),
    }
}

fn current(cx: &EvalCx<'_>, id: RelationId, sequence: &Sequence) -> Result<Used, SqlError> {
    let run = cx.run.ok_or_else(|| SqlError::unsupported("a sequence in this place"))?;
    if let Some(used) = run.sequences.used.borrow().get(&id) {
        return Ok(*used);
    }
    let mut used = Used { last: sequence.start, called: false };
    if let Some(stored) = run.view.get(&keys::row(id, &[])).map_err(store_error)? {
        row::decode(&stored, |column, value| match (column, value) {
            (ColumnId(0), Value::Int(last)) => used.last = last,
            (ColumnId(1), Value::Bool(called)) => used.called = called,
            _ => {}
        })
        .map_err(|e| SqlError::new(SqlState::DATA_CORRUPTED, e.to_string()))?;
    }
    Ok(used)
}

fn put(cx: &EvalCx<'_>, id: RelationId, used: Used) {
    if let Some(run) = cx.run {
        run.sequences.used.borrow_mut().insert(id, used);
        if used.called {
            run.sequences.given.borrow_mut().push((id, used.last));
        }
    }
}

/// The next number.
pub(crate) fn next(cx: &EvalCx<'_>, name: &str) -> Result<i64, SqlError> {
    let (relation, sequence) = find(cx, name)?;
    let used = current(cx, relation.id, &sequence)?;
    let next = if used.called { used.last.checked_add(sequence.increment) } else { Some(used.last) };
    let next = next.filter(|n| (sequence.min..=sequence.max).contains(n));
    let next = match next {
        Some(next) => next,
        None if sequence.cycle && sequence.increment > 0 => sequence.min,
        None if sequence.cycle => sequence.max,
        None => {
            let (which, limit) =
                if sequence.increment > 0 { ("maximum", sequence.max) } else { ("minimum", sequence.min) };
            return Err(SqlError::new(
                SqlState(*b"2200H"),
                format!("nextval: reached {which} value of sequence \"{}\" ({limit})", relation.name),
            ));
        }
    };
    put(cx, relation.id, Used { last: next, called: true });
    Ok(next)
}

/// `setval`.
pub(crate) fn set(cx: &EvalCx<'_>, name: &str, value: i64, called: bool) -> Result<i64, SqlError> {
    let (relation, sequence) = find(cx, name)?;
    if !(sequence.min..=sequence.max).contains(&value) {
        return Err(SqlError::new(
            SqlState::NUMERIC_OUT_OF_RANGE,
            format!(
                "setval: value {value} is out of bounds for sequence \"{}\" ({}..{})",
                relation.name, sequence.min, sequence.max
            ),
        ));
    }
    put(cx, relation.id, Used { last: value, called });
    Ok(value)
}

/// The number that the session was given last: of one sequence, or of any.
pub(crate) fn last(cx: &EvalCx<'_>, name: Option<&str>) -> Result<i64, SqlError> {
    let of = match name {
        Some(name) => Some(find(cx, name)?.0),
        None => None,
    };
    let wanted = |id: &RelationId| of.as_ref().is_none_or(|r| r.id == *id);
    let here = cx.run.and_then(|run| {
        run.sequences.given.borrow().iter().rev().find(|(id, _)| wanted(id)).map(|(_, n)| *n)
    });
    let before = || cx.session.given.iter().rev().find(|(id, _)| wanted(id)).map(|(_, n)| *n);
    here.or_else(before).ok_or_else(|| {
        let message = match &of {
            Some(relation) => {
                format!("currval of sequence \"{}\" is not yet defined in this session", relation.name)
            }
            None => "lastval is not yet defined in this session".to_owned(),
        };
        SqlError::new(SqlState(*b"55000"), message)
    })
}
