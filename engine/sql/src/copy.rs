//! COPY: which columns it moves and how they are written, and the batches that its rows are gathered in.
//!
//! The bytes themselves are read and written by the caller, who has them: a row that was read goes into a [`Gather`],
//! and all of them to [`Session::execute_copied`](crate::Session::execute_copied) in one transaction.

use crate::exec::vector::{BATCH_ROWS, Batch, Vector};
use crate::prepared::ColumnDesc;
use chronos_proto::{Type, Value};
use std::sync::Arc;

/// What a prepared COPY moves.
#[derive(Clone, Debug)]
pub struct Copy {
    /// FROM the client; else to it.
    pub from: bool,
    /// The table's name, for messages; empty for a query.
    pub table: String,
    /// The columns, in the order of the data.
    pub columns: Arc<[ColumnDesc]>,
    /// How they are written.
    pub options: Options,
}

/// The form of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines, fields separated by a tab.
    Text,
    /// Lines, fields separated by a comma, quoted where they must be.
    Csv,
    /// The binary forms of the types.
    Binary,
}

/// The first line of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Is a row as any other.
    None,
    /// Names the columns; what it says does not matter.
    Line,
    /// Names the columns, as they are called.
    Match,
}

/// How the data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The form.
    pub format: Format,
    /// Between two fields.
    pub delimiter: u8,
    /// What stands for NULL.
    pub null: String,
    /// The first line.
    pub header: Header,
    /// Around fields of CSV.
    pub quote: u8,
    /// Before a quote inside of one.
    pub escape: u8,
    /// Columns that are always quoted on the way out.
    pub force_quote: Vec<bool>,
    /// Columns in which nothing unquoted is NULL.
    pub force_not_null: Vec<bool>,
    /// Columns in which what is quoted may be NULL too.
    pub force_null: Vec<bool>,
}

/// Rows on their way in, as batches.
#[derive(Debug)]
pub struct Gather {
    types: Vec<Type>,
    columns: Vec<Vector>,
    len: usize,
    done: Vec<Batch>,
    bytes: usize,
    rows: usize,
}

impl Gather {
    /// For rows of these columns.
    pub fn new(columns: &[ColumnDesc]) -> Gather {
        let types: Vec<Type> = columns.iter().map(|c| c.ty).collect();
        Gather { columns: empty(&types), types, len: 0, done: Vec::new(), bytes: 0, rows: 0 }
    }

    /// The value of a column of the row that is being read. Each column has one before [`Gather::end_row`].
    pub fn push(&mut self, column: usize, value: &Value) {
        if let Some(vector) = self.columns.get_mut(column) {
            vector.push(value.into());
        }
    }

    /// Ends a row.
    pub fn end_row(&mut self) {
        self.len += 1;
        self.rows += 1;
        if self.len == BATCH_ROWS {
            self.end_batch();
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The memory that whole batches hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All rows.
    pub fn finish(mut self) -> Vec<Batch> {
        self.end_batch();
        self.done
    }

    fn end_batch(&mut self) {
        if self.len > 0 {
            let columns = std::mem::replace(&mut self.columns, empty(&self.types));
            let batch = Batch::with_len(columns, std::mem::take(&mut self.len));
            self.bytes += batch.bytes();
            self.done.push(batch);
        }
    }
}

fn empty(types: &[Type]) -> Vec<Vector> {
    types.iter().map(|ty| Vector::empty(*ty, BATCH_ROWS)).collect()
}
