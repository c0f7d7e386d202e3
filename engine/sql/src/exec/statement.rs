//! One execution of one statement: its rows are found in the state before it, then written.

use super::checked::{self, Inserted, Inserter};
use super::eval::{EvalCx, eval, eval_borrowed};
use super::hash::{KeyTable, encode_value};
use super::kept::Kept;
use super::reads::Reads;
use super::run::{ExecCx, Memory, Run, collect};
use super::sequence::Sequences;
use super::vector::{BATCH_ROWS, Batch, ValueRef, Vector};
use super::write::Writes;
use super::{Completion, Context, RowSet, insert, schema};
use crate::action::{Action, Delete, Insert, OnConflict, Rows, SchemaChange, Target, Update};
use crate::error::{SqlError, SqlState};
use crate::expr::{Expr, ExprKind};
use crate::plan;
use crate::prepared::{ColumnDesc, Prepared};
use crate::session::SessionInfo;
use crate::settings;
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use std::borrow::{Borrow, Cow};
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// A statement about to run.
pub(crate) struct Job<'a> {
    pub prepared: &'a Prepared,
    pub params: &'a [Value],
    /// The rows of a COPY … FROM.
    pub copied: Option<&'a [Batch]>,
    pub cx: &'a Context<'a>,
    pub info: &'a SessionInfo,
    /// The transaction's time.
    pub now: Timestamp,
    /// Whether what is read is to be guarded at commit.
    pub record: bool,
}

/// What it came to so far.
pub(crate) enum Done {
    Rows(RowSet),
    Wrote(Completion),
}

impl Job<'_> {
    /// Runs it. What it writes goes to `writes`, what was skipped is told in `notices`.
    pub fn run(&self, writes: &mut Writes, notices: &mut Vec<String>) -> Result<Done, SqlError> {
        // The rows are found first, in the state before the statement, and written after.
        let view = writes.view.clone();
        let memory = Memory::new(self.cx.limits.memory_bytes);
        let reads = self.record.then(|| RefCell::new(Reads::default()));
        let kept = Kept::default();
        let sequences = Sequences::default();
        let eval = EvalCx {
            params: self.params,
            now: self.now.0,
            random: Cell::new(self.cx.random),
            session: self.info,
            outer: &[],
            run: None,
        };
        let run = Run {
            view: &view,
            read_time: self.now,
            cancel: self.cx.cancel,
            memory: &memory,
            reads: reads.as_ref(),
            kept: &kept,
            sequences: &sequences,
        };
        let exec = ExecCx::new(eval, run);
        let done = match &self.prepared.action {
            Action::Schema(change) => {
                Done::Wrote(Completion::Tag(schema::run(change, &exec.eval, writes, notices)?.tag))
            }
            Action::CreateAs { change, plan } => {
                Done::Wrote(run_create_as(change, plan, &exec, writes, notices)?)
            }
            Action::Query(plan) => {
                let batches = collect(plan, &exec)?;
                let rows: usize = batches.iter().map(Batch::len).sum();
                Done::Rows(RowSet {
                    columns: self.prepared.columns.clone(),
                    batches,
                    tag: format!("SELECT {rows}"),
                })
            }
            Action::Insert(insert) => {
                Done::Wrote(run_insert(insert, "INSERT 0", &[], self.prepared, &exec, writes)?)
            }
            Action::CopyIn { insert, .. } => {
                let copied = self.copied.ok_or_else(|| {
                    SqlError::unsupported("COPY FROM STDIN over this interface")
                        .hint("use the PostgreSQL port")
                })?;
                Done::Wrote(run_insert(insert, "COPY", copied, self.prepared, &exec, writes)?)
            }
            Action::CopyOut { plan, copy } => {
                let batches = collect(plan, &exec)?;
                let rows: usize = batches.iter().map(Batch::len).sum();
                Done::Rows(RowSet { columns: copy.columns.clone(), batches, tag: format!("COPY {rows}") })
            }
            Action::Update(update) => Done::Wrote(run_update(update, self.prepared, &exec, writes)?),
            Action::Delete(delete) => Done::Wrote(run_delete(delete, self.prepared, &exec, writes)?),
            Action::Show(name) => {
                let value = self.info.settings.get(name).ok_or_else(|| settings::unknown(name))?;
                Done::Rows(texts(self.prepared, vec![vec![value.to_owned()]], "SHOW"))
            }
            Action::ShowAll => {
                let rows =
                    self.info.settings.all().into_iter().map(|(name, value)| vec![name, value]).collect();
                Done::Rows(texts(self.prepared, rows, "SHOW"))
            }
            Action::Explain(action) => {
                let rows = plan::explain(action).into_iter().map(|line| vec![line]).collect();
                Done::Rows(texts(self.prepared, rows, "EXPLAIN"))
            }
            _ => return Err(SqlError::unsupported("this statement")),
        };
        sequences.write(writes)?;
        if let Some(reads) = reads {
            writes.reads.extend(reads.into_inner());
        }
        Ok(done)
    }
}

fn texts(prepared: &Prepared, rows: Vec<Vec<String>>, tag: &str) -> RowSet {
    let mut columns: Vec<Vector> = prepared.columns.iter().map(|c| Vector::empty(c.ty, rows.len())).collect();
    for row in &rows {
        columns.iter_mut().zip(row).for_each(|(c, s)| c.push(ValueRef::Text(s)));
    }
    let batches = vec![Batch::with_len(columns, rows.len())];
    RowSet { columns: prepared.columns.clone(), batches, tag: tag.into() }
}

/// Gathers the rows of RETURNING: the row that was written, and what it was joined to.
struct Returning<'p> {
    exprs: Option<&'p [Expr]>,
    columns: Arc<[ColumnDesc]>,
    rows: Vec<Vec<Value>>,
}

impl<'p> Returning<'p> {
    fn new(exprs: &'p Option<Vec<Expr>>, columns: &Arc<[ColumnDesc]>) -> Returning<'p> {
        Returning { exprs: exprs.as_deref(), columns: columns.clone(), rows: Vec::new() }
    }

    fn add<V: Borrow<Value>>(&mut self, row: &[V]) {
        if self.exprs.is_some() {
            self.rows.push(row.iter().map(|value| value.borrow().clone()).collect());
        }
    }

    fn finish(self, exec: &ExecCx<'_>) -> Result<Option<RowSet>, SqlError> {
        let Some(exprs) = self.exprs else { return Ok(None) };
        let mut types: Vec<Option<Type>> = Vec::new();
        for e in exprs {
            slot_types(e, &mut types);
        }
        let mut batches = Vec::new();
        for rows in self.rows.chunks(BATCH_ROWS) {
            let column = |(i, ty): (usize, &Option<Type>)| {
                let Some(ty) = ty else { return Vector::absent() };
                let mut out = Vector::empty(*ty, rows.len());
                rows.iter().for_each(|r| out.push(r.get(i).unwrap_or(&Value::Null).into()));
                out
            };
            let input = Batch::with_len(types.iter().enumerate().map(column).collect(), rows.len());
            let columns: Result<Vec<Vector>, SqlError> =
                exprs.iter().map(|e| Ok(eval(e, &input, &exec.eval)?.into_owned())).collect();
            batches.push(Batch::with_len(columns?, rows.len()));
        }
        Ok(Some(RowSet { columns: self.columns, batches, tag: String::new() }))
    }
}

/// The types of the slots that an expression reads.
fn slot_types(e: &Expr, out: &mut Vec<Option<Type>>) {
    if let ExprKind::Slot(slot) = e.kind {
        if out.len() <= slot {
            out.resize(slot + 1, None);
        }
        out[slot] = Some(e.ty);
    }
    e.children().into_iter().for_each(|c| slot_types(c, out));
}

fn run_insert(
    insert: &Insert,
    verb: &'static str,
    copied: &[Batch],
    prepared: &Prepared,
    exec: &ExecCx<'_>,
    writes: &mut Writes,
) -> Result<Completion, SqlError> {
    let mut count = 0;
    let mut returning = Returning::new(&insert.returning, &prepared.columns);
    match &insert.target {
        Target::Table(relation) | Target::Topic(relation) => writes.reads.relation(relation.id),
        Target::Timers => {}
    }
    match &insert.target {
        Target::Table(relation) => {
            let table = relation.table().ok_or_else(|| SqlError::new(SqlState::INTERNAL, "not a table"))?;
            if checked::wants(table, &insert.conflict) {
                writes.look_back();
                let mut inserter = Inserter::new(relation, table, &insert.conflict, &insert.checks);
                each_row(&insert.rows, copied, exec, |row| {
                    let row: Vec<Value> = row.iter().map(|v| v.clone().into_owned()).collect();
                    match inserter.insert(&row, writes, &exec.eval)? {
                        Inserted::New => returning.add(&row),
                        Inserted::Updated(new) => returning.add(&new),
                        Inserted::Skipped => return Ok(()),
                    }
                    count += 1;
                    Ok(())
                })?;
                let rows = returning.finish(exec)?;
                return Ok(Completion::Count { verb, count, rows });
            }
            let skip = matches!(insert.conflict, OnConflict::Skip(_));
            let mut rows = insert::Rows::new(relation, table, skip, insert.rows.len_hint());
            let fed = each_row(&insert.rows, copied, exec, |row| {
                if !insert.checks.is_empty() {
                    let values: Vec<Value> = row.iter().map(|v| v.clone().into_owned()).collect();
                    checked::check(&insert.checks, relation, table, &values, &exec.eval)?;
                }
                rows.push(row, writes)?;
                if returning.exprs.is_some() {
                    // One by one, to know which are to be returned.
                    let before = rows.inserted;
                    rows.flush(writes)?;
                    if rows.inserted > before {
                        returning.add(row);
                    }
                }
                Ok(())
            });
            // What came before an error comes before it here too.
            rows.flush(writes)?;
            fed?;
            count = rows.inserted;
        }
        Target::Topic(relation) => each_row(&insert.rows, copied, exec, |row| {
            count += 1;
            writes.publish(relation, row, &exec.eval)
        })?,
        Target::Timers => each_row(&insert.rows, copied, exec, |row| {
            count += 1;
            writes.insert_timer(row, &exec.eval)
        })?,
    }
    let rows = returning.finish(exec)?;
    Ok(Completion::Count { verb, count, rows })
}

/// Calls `one` with every row to be inserted.
fn each_row<'a>(
    rows: &'a Rows,
    copied: &[Batch],
    exec: &'a ExecCx<'_>,
    mut one: impl FnMut(&[Cow<'a, Value>]) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let mut values = Vec::new();
    match rows {
        Rows::Values(rows) => {
            for (i, row) in rows.iter().enumerate() {
                if i % BATCH_ROWS == 0 {
                    exec.check_cancel()?;
                }
                values.clear();
                for e in row {
                    values.push(eval_borrowed(e, &exec.eval)?);
                }
                one(&values)?;
            }
        }
        Rows::Query(plan) => {
            for batch in collect(plan, exec)? {
                exec.check_cancel()?;
                for i in 0..batch.len() {
                    values.clear();
                    values.extend(row_values(&batch, i).into_iter().map(Cow::Owned));
                    one(&values)?;
                }
            }
        }
        Rows::Copied(exprs) => {
            let mut types: Vec<Option<Type>> = Vec::new();
            exprs.iter().for_each(|e| slot_types(e, &mut types));
            for batch in copied {
                exec.check_cancel()?;
                let same = |(ty, column): (&Option<Type>, &Vector)| ty.is_none_or(|ty| ty == column.ty);
                if batch.columns.len() < types.len() || !types.iter().zip(&batch.columns).all(same) {
                    let message = "the table was changed while COPY was under way";
                    return Err(SqlError::new(SqlState::SERIALIZATION_FAILURE, message));
                }
                let columns: Result<Vec<_>, SqlError> =
                    exprs.iter().map(|e| eval(e, batch, &exec.eval)).collect();
                let columns = columns?;
                for i in 0..batch.len() {
                    values.clear();
                    values.extend(columns.iter().map(|c| Cow::Owned(c.get(i).to_value())));
                    one(&values)?;
                }
            }
        }
    }
    Ok(())
}

fn row_values(batch: &Batch, i: usize) -> Vec<Value> {
    batch.columns.iter().map(|c| c.get(i).to_value()).collect()
}

/// How many of a row's values are the target's own: its columns, and the hidden rowid.
fn own_width(target: &Target, row: usize) -> usize {
    match target {
        Target::Table(relation) => {
            relation.table().map_or(row, |t| t.columns.len() + usize::from(t.primary_key.is_empty()))
        }
        _ => row,
    }
}

/// Rows that a join has found before are changed once.
struct Once {
    seen: KeyTable,
    key: Vec<u8>,
}

impl Once {
    fn new() -> Once {
        Once { seen: KeyTable::default(), key: Vec::new() }
    }

    fn is_first(&mut self, row: &[Value]) -> bool {
        self.key.clear();
        row.iter().for_each(|v| encode_value(v.into(), &mut self.key));
        self.seen.find_or_insert(&self.key).1
    }
}

fn run_update(
    update: &Update,
    prepared: &Prepared,
    exec: &ExecCx<'_>,
    writes: &mut Writes,
) -> Result<Completion, SqlError> {
    let mut count = 0;
    let mut returning = Returning::new(&update.returning, &prepared.columns);
    let changed: Vec<usize> = update.assignments.iter().map(|(place, _)| *place).collect();
    let mut once = Once::new();
    for batch in collect(&update.plan, exec)? {
        exec.check_cancel()?;
        let mut news = Vec::with_capacity(update.assignments.len());
        for (place, e) in &update.assignments {
            news.push((*place, eval(e, &batch, &exec.eval)?));
        }
        let width = own_width(&update.target, batch.columns.len());
        let joined = batch.columns.len() > width;
        for i in 0..batch.len() {
            let row = row_values(&batch, i);
            let (old, others) = row.split_at(width.min(row.len()));
            if joined && !once.is_first(old) {
                continue;
            }
            let mut new = old.to_vec();
            news.iter().for_each(|(place, column)| new[*place] = column.get(i).to_value());
            match &update.target {
                Target::Table(relation) => {
                    let Some(table) = relation.table() else { continue };
                    checked::check(&update.checks, relation, table, &new, &exec.eval)?;
                    writes.update(relation, table, old, &new)?;
                    new.extend_from_slice(others);
                    returning.add(&new);
                    count += 1;
                }
                Target::Timers => count += usize::from(writes.update_timer(old, &new, &changed)?),
                Target::Topic(_) => {}
            }
        }
    }
    Ok(Completion::Count { verb: "UPDATE", count, rows: returning.finish(exec)? })
}

fn run_delete(
    delete: &Delete,
    prepared: &Prepared,
    exec: &ExecCx<'_>,
    writes: &mut Writes,
) -> Result<Completion, SqlError> {
    let mut count = 0;
    let mut returning = Returning::new(&delete.returning, &prepared.columns);
    let mut once = Once::new();
    for batch in collect(&delete.plan, exec)? {
        exec.check_cancel()?;
        let width = own_width(&delete.target, batch.columns.len());
        let joined = batch.columns.len() > width;
        for i in 0..batch.len() {
            let row = row_values(&batch, i);
            let old = &row[..width.min(row.len())];
            if joined && !once.is_first(old) {
                continue;
            }
            match &delete.target {
                Target::Table(relation) => {
                    let Some(table) = relation.table() else { continue };
                    writes.delete(relation, table, old)?;
                    returning.add(&row);
                    count += 1;
                }
                Target::Timers => count += usize::from(writes.delete_timer(old)?),
                Target::Topic(_) => {}
            }
        }
    }
    Ok(Completion::Count { verb: "DELETE", count, rows: returning.finish(exec)? })
}

/// CREATE TABLE … AS: the rows are found before the table is there.
fn run_create_as(
    change: &SchemaChange,
    plan: &plan::Plan,
    exec: &ExecCx<'_>,
    writes: &mut Writes,
    notices: &mut Vec<String>,
) -> Result<Completion, SqlError> {
    let batches = collect(plan, exec)?;
    let made = schema::run(change, &exec.eval, writes, notices)?;
    let Some(relation) = made.relation else { return Ok(Completion::Tag(made.tag)) };
    let table = relation.table().ok_or_else(|| SqlError::new(SqlState::INTERNAL, "not a table"))?;
    let count: usize = batches.iter().map(Batch::len).sum();
    let mut rows = insert::Rows::new(&relation, table, false, count);
    for batch in &batches {
        exec.check_cancel()?;
        for i in 0..batch.len() {
            rows.push(&row_values(batch, i), writes)?;
        }
    }
    rows.flush(writes)?;
    Ok(Completion::Counted("SELECT", count))
}
