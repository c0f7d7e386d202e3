//! SQL as simulated clients speak it: a small vocabulary of statements over the tables that are there, and what each
//! must come to.
//!
//! ```text
//! script   a transaction: BEGIN, statements, COMMIT or ROLLBACK; or one statement alone
//! draw     scripts at random, over a catalogue
//! text     a statement as a client writes it, with its parameters
//! oracle   what each statement must be answered, and which rows must be there after it
//! ```
//!
//! The oracle is plain loops over the model's rows. It knows no plan, index or key range, so it is another way to the
//! same answers than `engine/sql` takes.

pub mod draw;
pub mod oracle;
pub mod script;
mod text;
