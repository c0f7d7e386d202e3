//! What a prepared statement does when it is executed.

use crate::copy::Copy;
use crate::cursor::Direction;
use crate::expr::Expr;
use crate::plan::Plan;
use crate::prepared::Prepared;
use chronos_proto::Type;
use chronos_proto::id::IndexId;
use chronos_proto::schedule::{Misfire, ScheduleAction};
use chronos_proto::schema::{Column, Relation, Sequence};
use chronos_proto::time::Timestamp;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) enum Action {
    Query(Plan),
    Insert(Insert),
    Update(Update),
    Delete(Delete),
    Schema(SchemaChange),
    /// CREATE TABLE … AS.
    CreateAs {
        change: SchemaChange,
        plan: Plan,
    },
    /// COPY … FROM: the rows come with the execution.
    CopyIn {
        insert: Insert,
        copy: Copy,
    },
    CopyOut {
        plan: Plan,
        copy: Copy,
    },
    Savepoint(String),
    RollbackTo(String),
    Release(String),
    Prepare {
        name: String,
        prepared: Arc<Prepared>,
    },
    Execute {
        prepared: Arc<Prepared>,
        args: Vec<Expr>,
    },
    Declare {
        name: String,
        prepared: Arc<Prepared>,
        hold: bool,
    },
    Fetch {
        name: String,
        direction: Direction,
        /// FETCH; else MOVE.
        shown: bool,
    },
    /// All, if none is named.
    CloseCursor(Option<String>),
    Begin {
        read_only: Option<bool>,
    },
    SetTransaction {
        read_only: Option<bool>,
    },
    Commit,
    Rollback,
    /// None sets back to the default.
    Set {
        name: String,
        value: Option<String>,
    },
    Show(String),
    ShowAll,
    ResetAll,
    Discard,
    /// The wire's prepared statement of this name, or all of them.
    Deallocate(Option<String>),
    Explain(Box<Action>),
    /// Accepted and without effect.
    Nothing(&'static str),
}

#[derive(Debug)]
pub(crate) struct Insert {
    pub target: Target,
    pub rows: Rows,
    pub conflict: OnConflict,
    pub checks: Vec<Check>,
    pub returning: Option<Vec<Expr>>,
}

/// What happens to a row whose key is there already.
#[derive(Debug)]
pub(crate) enum OnConflict {
    Fail,
    /// DO NOTHING: for any unique constraint, or for one.
    Skip(Option<Arbiter>),
    Update(Upsert),
}

/// The constraint that ON CONFLICT names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arbiter {
    PrimaryKey,
    Index(IndexId),
}

/// DO UPDATE, over the row that is there and behind it, from `excluded` on, the one that was to be inserted.
#[derive(Debug)]
pub(crate) struct Upsert {
    pub arbiter: Arbiter,
    pub excluded: usize,
    pub assignments: Vec<(usize, Expr)>,
    pub condition: Option<Expr>,
}

/// A CHECK constraint over the columns of its table.
#[derive(Debug)]
pub(crate) struct Check {
    pub name: String,
    pub condition: Expr,
}

/// What is written to.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Table(Arc<Relation>),
    Topic(Arc<Relation>),
    Timers,
}

/// Rows in the order of the target's columns.
#[derive(Debug)]
pub(crate) enum Rows {
    Values(Vec<Vec<Expr>>),
    Query(Box<Plan>),
    /// Of COPY: over its columns.
    Copied(Vec<Expr>),
}

impl Rows {
    /// How many they are, where that is known; else many.
    pub fn len_hint(&self) -> usize {
        match self {
            Rows::Values(rows) => rows.len(),
            Rows::Query(_) | Rows::Copied(_) => usize::MAX,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Update {
    pub target: Target,
    /// Gives the rows to change: all columns of the target, and the hidden rowid if there is one.
    pub plan: Plan,
    /// (column, new value over the old row).
    pub assignments: Vec<(usize, Expr)>,
    pub checks: Vec<Check>,
    pub returning: Option<Vec<Expr>>,
}

#[derive(Debug)]
pub(crate) struct Delete {
    pub target: Target,
    pub plan: Plan,
    pub returning: Option<Vec<Expr>>,
}

/// A change of the catalogue. The numbers are given when it is executed.
#[derive(Debug)]
pub(crate) enum SchemaChange {
    Create {
        relation: Relation,
        if_not_exists: bool,
        /// OR REPLACE, of a view.
        replace: bool,
        unique: Vec<UniqueKey>,
        /// Sequences of its columns, by their places: GENERATED ALWAYS or BY DEFAULT, or SERIAL.
        sequences: Vec<(usize, Sequence, Option<bool>)>,
        tag: &'static str,
    },
    CreateTopic {
        relation: Relation,
        if_not_exists: bool,
        options: Vec<TopicOption>,
    },
    AlterTopic {
        name: String,
        if_exists: bool,
        options: Vec<TopicOption>,
    },
    CreateIndex {
        table: String,
        name: Option<String>,
        columns: Vec<String>,
        unique: bool,
        if_not_exists: bool,
    },
    Drop {
        names: Vec<String>,
        if_exists: bool,
        what: Dropped,
        cascade: bool,
    },
    Truncate {
        names: Vec<String>,
        restart: bool,
    },
    Alter {
        name: String,
        changes: Vec<Alteration>,
    },
    CreateSchedule {
        name: String,
        if_not_exists: bool,
        says: Box<ScheduleSays>,
    },
    AlterSchedule {
        name: String,
        if_exists: bool,
        change: ScheduleChange,
    },
}

/// What a statement says of a schedule. What it does not say is as it was, or as it is by itself.
#[derive(Debug, Default)]
pub(crate) struct ScheduleSays {
    pub rule: Option<RuleSays>,
    pub zone: Option<String>,
    pub starting: Option<Timestamp>,
    pub ending: Option<Timestamp>,
    pub count: Option<u64>,
    pub jitter_micros: Option<u64>,
    pub misfire: Option<Misfire>,
    pub overlap: Option<bool>,
    pub action: Option<ScheduleAction>,
}

/// A rule, without the zone of its clock.
#[derive(Debug)]
pub(crate) enum RuleSays {
    /// In microseconds.
    Every(u64),
    Cron(String),
}

/// ALTER SCHEDULE.
#[derive(Debug)]
pub(crate) enum ScheduleChange {
    Pause,
    Resume,
    Trigger,
    Set(Box<ScheduleSays>),
}

/// What may be set of a topic at any time.
#[derive(Debug)]
pub(crate) enum TopicOption {
    /// How long message ids are remembered, in microseconds.
    Dedup(u64),
    /// How often an event is handed out at the most; none for no limit.
    MaxDeliveries(Option<u32>),
    /// The name of the topic for dead letters; none for the topic's own with `.dead` behind.
    DeadLetter(Option<String>),
}

/// UNIQUE, or PRIMARY KEY of a table that has rows.
#[derive(Debug)]
pub(crate) struct UniqueKey {
    pub name: Option<String>,
    pub columns: Vec<String>,
    pub primary: bool,
}

/// One change of ALTER TABLE.
#[derive(Debug)]
pub(crate) enum Alteration {
    /// How long rows live from now on, in microseconds.
    SetTtl(u64),
    AddColumn {
        column: Column,
        value: Option<Expr>,
        if_not_exists: bool,
        unique: bool,
    },
    DropColumn {
        name: String,
        if_exists: bool,
        cascade: bool,
    },
    RenameColumn {
        from: String,
        to: String,
    },
    Rename(String),
    RenameConstraint {
        from: String,
        to: String,
    },
    SetDefault {
        column: String,
        default: Option<chronos_proto::schema::DefaultValue>,
    },
    SetNotNull {
        column: String,
        not_null: bool,
    },
    /// Every value made anew, by an expression over the row.
    SetType {
        column: String,
        ty: Type,
        value: Expr,
    },
    AddCheck {
        name: String,
        condition: String,
        check: Expr,
    },
    AddUnique(UniqueKey),
    DropConstraint {
        name: String,
        if_exists: bool,
    },
    /// Without a meaning here, as OWNER TO.
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Table,
    Topic,
    Index,
    View,
    Sequence,
    Schedule,
}
