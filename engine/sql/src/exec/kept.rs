//! What queries inside of a statement gave, kept for those who ask again.

use super::hash::{KeyTable, encode_value};
use super::vector::{Batch, ValueRef};
use chronos_proto::Value;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// By the number that a query has in its statement.
#[derive(Default)]
pub(crate) struct Kept {
    rows: RefCell<BTreeMap<usize, Rc<Vec<Batch>>>>,
    answers: RefCell<BTreeMap<usize, Rc<Answer>>>,
}

impl Kept {
    pub fn find_rows(&self, id: usize) -> Option<Rc<Vec<Batch>>> {
        self.rows.borrow().get(&id).cloned()
    }

    /// The rows, none if there are none yet.
    pub fn rows(&self, id: usize) -> Rc<Vec<Batch>> {
        self.find_rows(id).unwrap_or_default()
    }

    pub fn put_rows(&self, id: usize, rows: Rc<Vec<Batch>>) {
        self.rows.borrow_mut().insert(id, rows);
    }

    pub fn answer(&self, id: usize) -> Option<Rc<Answer>> {
        self.answers.borrow().get(&id).cloned()
    }

    pub fn put_answer(&self, id: usize, answer: Rc<Answer>) {
        self.answers.borrow_mut().insert(id, answer);
    }
}

/// What a subquery gave.
pub(crate) enum Answer {
    Value(Value),
    Set(RowsOf),
}

/// The rows of a subquery that others are compared with.
#[derive(Default)]
pub(crate) struct RowsOf {
    /// Rows without a NULL, by their encoding.
    whole: KeyTable,
    /// Every row, where they are compared one by one; every one without a NULL, where rows have several columns.
    pub values: Vec<Vec<Value>>,
    /// Rows with a NULL in them.
    pub partial: Vec<Vec<Value>>,
    pub count: usize,
}

impl RowsOf {
    /// Takes a batch's rows. With `one_by_one` they are kept as they are, else hashed.
    pub fn add(&mut self, batch: &Batch, one_by_one: bool) {
        let mut key = Vec::new();
        for i in 0..batch.len {
            self.count += 1;
            let row = || -> Vec<Value> { batch.columns.iter().map(|c| c.get(i).to_value()).collect() };
            if one_by_one {
                self.values.push(row());
            } else if batch.columns.iter().any(|c| c.is_null(i)) {
                let row = row();
                // One of each is enough, and mostly it is the one of a single NULL.
                if self.partial.len() < 64 && !self.partial.contains(&row) || batch.columns.len() > 1 {
                    self.partial.push(row);
                }
            } else {
                key.clear();
                batch.columns.iter().for_each(|c| encode_value(c.get(i), &mut key));
                // A row with a NULL of its own is compared with every one.
                if self.whole.find_or_insert(&key).1 && batch.columns.len() > 1 {
                    self.values.push(row());
                }
            }
        }
    }

    pub fn bytes(&self) -> usize {
        self.whole.bytes() + (self.values.len() + self.partial.len()) * 48
    }

    /// Whether a row without NULLs is among them.
    pub fn holds(&self, row: &[ValueRef<'_>], key: &mut Vec<u8>) -> bool {
        key.clear();
        row.iter().for_each(|v| encode_value(*v, key));
        self.whole.find(key).is_some()
    }
}
