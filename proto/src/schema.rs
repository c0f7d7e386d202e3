//! Relations as the catalogue stores them: tables, topics, views, sequences and schedules.

use crate::codec;
use crate::command::Event;
use crate::id::{ColumnId, GroupId, IndexId, RelationId};
use crate::schedule::Schedule;
use crate::value::{Type, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Keys the hash that chooses an event's partition.
const PARTITION_SEED: u64 = 0x7061_7274;

/// A table, a topic, a view, a sequence or a schedule. Its `version` rises with every change, and a write that saw an older one conflicts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Relation {
    /// Its number.
    pub id: RelationId,
    /// Its name, folded as PostgreSQL folds it, unique among relations.
    pub name: String,
    /// The Raft group that holds its data.
    pub group: GroupId,
    /// Counts changes of this definition.
    pub version: u64,
    /// What kind of relation it is.
    pub kind: RelationKind,
}

/// What a relation is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredKind", into = "StoredKind")]
pub enum RelationKind {
    /// Typed rows.
    Table(Table),
    /// A log of events.
    Topic(Topic),
    /// A query under a name.
    View(View),
    /// A generator of numbers.
    Sequence(Sequence),
    /// A log of events whose partitions are in groups of their own.
    Partitioned(Partitioned),
    /// Something that is done again and again.
    Schedule(Box<Schedule>),
}

/// The same as it is stored. Append-only: a table without [`Extra`]s, and a topic without [`Setting`]s, is still written as
/// the first version wrote it.
#[derive(Serialize, Deserialize)]
enum StoredKind {
    Table(PlainTable),
    Topic(PlainTopic),
    TableWithExtras(PlainTable, Vec<Extra>),
    View(View),
    Sequence(Sequence),
    Partitioned(PlainTopic, Vec<GroupId>),
    Schedule(Box<Schedule>),
    TopicWithSettings(PlainTopic, Vec<Setting>),
    PartitionedWithSettings(PlainTopic, Vec<GroupId>, Vec<Setting>),
}

/// The part of a table that the first version stored.
#[derive(Serialize, Deserialize)]
struct PlainTable {
    columns: Vec<Column>,
    primary_key: Vec<ColumnId>,
    indexes: Vec<SecondaryIndex>,
    next_column: u32,
    next_index: u32,
}

/// The part of a topic that the first version stored.
#[derive(Serialize, Deserialize)]
struct PlainTopic {
    partitions: u32,
    dedup_micros: u64,
    payload: Type,
}

impl PlainTopic {
    fn with(self, settings: Vec<Setting>) -> Topic {
        let PlainTopic { partitions, dedup_micros, payload } = self;
        Topic { partitions, dedup_micros, payload, settings }
    }
}

impl Topic {
    fn parts(self) -> (PlainTopic, Vec<Setting>) {
        let Topic { partitions, dedup_micros, payload, settings } = self;
        (PlainTopic { partitions, dedup_micros, payload }, settings)
    }
}

impl From<StoredKind> for RelationKind {
    fn from(stored: StoredKind) -> RelationKind {
        let table = |t: PlainTable, extras: Vec<Extra>| {
            let PlainTable { columns, primary_key, indexes, next_column, next_index } = t;
            RelationKind::Table(Table { columns, primary_key, indexes, next_column, next_index, extras })
        };
        match stored {
            StoredKind::Table(plain) => table(plain, Vec::new()),
            StoredKind::TableWithExtras(plain, extras) => table(plain, extras),
            StoredKind::Topic(plain) => RelationKind::Topic(plain.with(Vec::new())),
            StoredKind::TopicWithSettings(plain, settings) => RelationKind::Topic(plain.with(settings)),
            StoredKind::View(view) => RelationKind::View(view),
            StoredKind::Sequence(sequence) => RelationKind::Sequence(sequence),
            StoredKind::Schedule(schedule) => RelationKind::Schedule(schedule),
            StoredKind::Partitioned(plain, groups) => {
                RelationKind::Partitioned(Partitioned { topic: plain.with(Vec::new()), groups })
            }
            StoredKind::PartitionedWithSettings(plain, groups, settings) => {
                RelationKind::Partitioned(Partitioned { topic: plain.with(settings), groups })
            }
        }
    }
}

impl From<RelationKind> for StoredKind {
    fn from(kind: RelationKind) -> StoredKind {
        match kind {
            RelationKind::Table(t) => {
                let Table { columns, primary_key, indexes, next_column, next_index, extras } = t;
                let plain = PlainTable { columns, primary_key, indexes, next_column, next_index };
                match extras.is_empty() {
                    true => StoredKind::Table(plain),
                    false => StoredKind::TableWithExtras(plain, extras),
                }
            }
            RelationKind::Topic(topic) => match topic.parts() {
                (plain, settings) if settings.is_empty() => StoredKind::Topic(plain),
                (plain, settings) => StoredKind::TopicWithSettings(plain, settings),
            },
            RelationKind::View(view) => StoredKind::View(view),
            RelationKind::Sequence(sequence) => StoredKind::Sequence(sequence),
            RelationKind::Schedule(schedule) => StoredKind::Schedule(schedule),
            RelationKind::Partitioned(Partitioned { topic, groups }) => match topic.parts() {
                (plain, settings) if settings.is_empty() => StoredKind::Partitioned(plain, groups),
                (plain, settings) => StoredKind::PartitionedWithSettings(plain, groups, settings),
            },
        }
    }
}

/// A table's shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// In the order the user gave.
    pub columns: Vec<Column>,
    /// The key columns, in key order; empty means the hidden rowid, an integer given at apply.
    pub primary_key: Vec<ColumnId>,
    /// Secondary indexes.
    pub indexes: Vec<SecondaryIndex>,
    /// The number that the next column gets: numbers are never reused.
    pub next_column: u32,
    /// The number that the next index gets.
    pub next_index: u32,
    /// What is declared beside.
    pub extras: Vec<Extra>,
}

/// What a table declares beside its columns and keys. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Extra {
    /// No two rows have equal values in the columns of this index, none of them NULL.
    Unique {
        /// The index.
        index: IndexId,
        /// A constraint, named as the index is; else CREATE UNIQUE INDEX.
        constraint: bool,
    },
    /// PRIMARY KEY added to a table that had rows under hidden rowids: a unique index over NOT NULL columns.
    PrimaryIndex {
        /// The index, whose name is the constraint's.
        index: IndexId,
    },
    /// The name of the primary key, where it is not the table's with `_pkey` behind.
    PrimaryName(String),
    /// No row for which the condition is false.
    Check {
        /// The constraint's name, unique in the table.
        name: String,
        /// The condition, as SQL text over the table's columns.
        condition: String,
    },
    /// GENERATED … AS IDENTITY, and SERIAL.
    Identity {
        /// The column.
        column: ColumnId,
        /// The sequence that its values come from.
        sequence: RelationId,
        /// GENERATED ALWAYS: a value of one's own is refused. None for SERIAL.
        always: Option<bool>,
    },
    /// FOREIGN KEY, checked when a statement ends.
    ForeignKey {
        /// The constraint's name, unique in the table.
        name: String,
        /// The columns here.
        columns: Vec<ColumnId>,
        /// The table referred to.
        target: RelationId,
        /// Its columns: a primary key or a unique index.
        target_columns: Vec<ColumnId>,
        /// What deleting the row referred to does.
        on_delete: Referential,
        /// What changing its key does.
        on_update: Referential,
    },
    /// Rows expire: none is read from `micros` after its time on, and it is deleted some time later.
    Ttl {
        /// The time of a row; one without never expires.
        column: ColumnId,
        /// The index over it, which finds the expired.
        index: IndexId,
        /// How long a row lives, in microseconds.
        micros: u64,
    },
    /// A column that `*` does not stand for, and that INSERT does not expect unless it is named.
    Hidden {
        /// The column.
        column: ColumnId,
    },
}

/// What happens to rows that refer to one that goes. Append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Referential {
    /// The statement fails.
    NoAction,
    /// They go, or change, with it.
    Cascade,
    /// Their columns become NULL.
    SetNull,
    /// Their columns become what DEFAULT says.
    SetDefault,
}

/// A query under a name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The query, as SQL text, bound anew by each statement that reads it.
    pub query: String,
    /// The columns, in the order of the query's.
    pub columns: Vec<ViewColumn>,
    /// Relations that it reads: they cannot be dropped before it.
    pub reads: Vec<RelationId>,
}

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewColumn {
    /// Its name.
    pub name: String,
    /// Its name in the query: what `*` stands for may grow later.
    pub output: String,
    /// Its type when the view was made.
    pub ty: Type,
}

/// A generator of numbers. Where it is stands in its one row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// The first number.
    pub start: i64,
    /// The step, not zero.
    pub increment: i64,
    /// The smallest number.
    pub min: i64,
    /// The largest number.
    pub max: i64,
    /// Whether it begins again when its numbers are used up.
    pub cycle: bool,
    /// The column it belongs to, and goes with.
    pub owner: Option<(RelationId, ColumnId)>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its number in the table.
    pub id: ColumnId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Type,
    /// NOT NULL; true of every key column.
    pub not_null: bool,
    /// DEFAULT, evaluated when a row is inserted.
    pub default: Option<DefaultValue>,
}

/// What DEFAULT says. Append-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DefaultValue {
    /// A constant of the column's type.
    Constant(Value),
    /// An expression, as SQL text, bound anew by each statement that uses it.
    Expression(String),
}

/// A secondary index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SecondaryIndex {
    /// Its number in the table.
    pub id: IndexId,
    /// Its name, unique among relations and indexes.
    pub name: String,
    /// The columns, in key order.
    pub columns: Vec<ColumnId>,
    /// How far it is made.
    pub state: IndexState,
}

/// The life of an index: every writer maintains it before any reader may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IndexState {
    /// Maintained by writes, being filled from the rows that were there before.
    WriteOnly,
    /// Complete: plans may use it.
    Public,
}

/// A topic's settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// How many partitions; one keeps the topic in the catalogue's group.
    pub partitions: u32,
    /// How long a message id is remembered after it was claimed, in microseconds.
    pub dedup_micros: u64,
    /// What the payload column is: Bytes, Text or Json.
    pub payload: Type,
    /// What was set beside, each kind once at the most.
    pub settings: Vec<Setting>,
}

/// What may be set of a topic. Append-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// A consumer group is handed an event so often at the most: then it becomes a dead letter.
    MaxDeliveries(u32),
    /// Where dead letters go: a topic whose partitions are as many, and in the same groups.
    DeadLetter(RelationId),
}

/// A topic of several partitions. Its definition is in the relation's group, and in every group that has a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Partitioned {
    /// Its settings.
    pub topic: Topic,
    /// The group of each partition.
    pub groups: Vec<GroupId>,
}

impl Partitioned {
    /// Deals a new topic's partitions to the groups 1 to `groups`, evenly: each partition goes to the group that rendezvous
    /// hashing prefers among those with the fewest.
    pub fn spread(id: RelationId, topic: Topic, groups: u32) -> Partitioned {
        let mut dealt: Vec<GroupId> = Vec::new();
        for partition in 0..topic.partitions {
            let place = [id.0.to_be_bytes(), partition.to_be_bytes()].concat();
            let preference = |group: &u32| {
                let has = dealt.iter().filter(|home| home.0 == *group).count();
                (std::cmp::Reverse(has), codec::keyed_hash(u64::from(*group), &place))
            };
            let home = (1..=groups).max_by_key(preference).unwrap_or(0);
            dealt.push(GroupId(home));
        }
        Partitioned { topic, groups: dealt }
    }
}

impl Topic {
    /// How often a consumer group is handed an event at the most, if that is limited.
    pub fn max_deliveries(&self) -> Option<u32> {
        self.settings.iter().find_map(|setting| match setting {
            Setting::MaxDeliveries(most) => Some(*most),
            Setting::DeadLetter(_) => None,
        })
    }

    /// Where dead letters go, if that is known.
    pub fn dead_letter(&self) -> Option<RelationId> {
        self.settings.iter().find_map(|setting| match setting {
            Setting::DeadLetter(topic) => Some(*topic),
            Setting::MaxDeliveries(_) => None,
        })
    }

    /// Sets one, in place of what was set of its kind.
    pub fn set(&mut self, setting: Setting) {
        self.unset(&setting);
        self.settings.push(setting);
    }

    /// Takes back what is set of a setting's kind.
    pub fn unset(&mut self, like: &Setting) {
        self.settings.retain(|setting| std::mem::discriminant(setting) != std::mem::discriminant(like));
    }

    /// The partition of an event: by its key, or by its message id if it has none. So a retry finds the first one.
    pub fn partition_of(&self, event: &Event) -> u32 {
        if self.partitions <= 1 {
            return 0;
        }
        let by = event.key.as_deref().unwrap_or(&event.message_id);
        (codec::keyed_hash(PARTITION_SEED, by.as_bytes()) % u128::from(self.partitions)) as u32
    }
}

impl Relation {
    /// The group that keeps a partition of a topic: its events, its timers and its consumer groups' progress.
    pub fn home(&self, partition: u32) -> GroupId {
        match &self.kind {
            RelationKind::Partitioned(p) => p.groups.get(partition as usize).copied().unwrap_or(self.group),
            _ => self.group,
        }
    }

    /// Every group that keeps a part of its data, ascending.
    pub fn homes(&self) -> BTreeSet<GroupId> {
        match &self.kind {
            RelationKind::Partitioned(p) => p.groups.iter().copied().collect(),
            _ => BTreeSet::from([self.group]),
        }
    }

    /// Whether it is a topic whose partitions are in groups of their own.
    pub fn is_partitioned(&self) -> bool {
        matches!(self.kind, RelationKind::Partitioned(_))
    }

    /// The table, if it is one.
    pub fn table(&self) -> Option<&Table> {
        match &self.kind {
            RelationKind::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The topic, if it is one.
    pub fn topic(&self) -> Option<&Topic> {
        match &self.kind {
            RelationKind::Topic(topic) => Some(topic),
            RelationKind::Partitioned(partitioned) => Some(&partitioned.topic),
            _ => None,
        }
    }

    /// The topic to be changed, if it is one.
    pub fn topic_mut(&mut self) -> Option<&mut Topic> {
        match &mut self.kind {
            RelationKind::Topic(topic) => Some(topic),
            RelationKind::Partitioned(partitioned) => Some(&mut partitioned.topic),
            _ => None,
        }
    }

    /// The view, if it is one.
    pub fn view(&self) -> Option<&View> {
        match &self.kind {
            RelationKind::View(view) => Some(view),
            _ => None,
        }
    }

    /// The sequence, if it is one.
    pub fn sequence(&self) -> Option<&Sequence> {
        match &self.kind {
            RelationKind::Sequence(sequence) => Some(sequence),
            _ => None,
        }
    }

    /// The schedule, if it is one.
    pub fn schedule(&self) -> Option<&Schedule> {
        match &self.kind {
            RelationKind::Schedule(schedule) => Some(schedule),
            _ => None,
        }
    }
}

impl Table {
    /// The column of this number.
    pub fn column(&self, id: ColumnId) -> Option<&Column> {
        self.columns.iter().find(|c| c.id == id)
    }

    /// Where a column stands among the columns.
    pub fn place(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|c| c.id == id)
    }

    /// Whether an index admits no two equal rows.
    pub fn is_unique(&self, id: IndexId) -> bool {
        self.extras.iter().any(|e| match e {
            Extra::Unique { index, .. } | Extra::PrimaryIndex { index } => *index == id,
            _ => false,
        })
    }

    /// When rows expire, if they do: (the column of a row's time, the index over it, the lifetime in microseconds).
    pub fn ttl(&self) -> Option<(ColumnId, IndexId, u64)> {
        self.extras.iter().find_map(|e| match e {
            Extra::Ttl { column, index, micros } => Some((*column, *index, *micros)),
            _ => None,
        })
    }

    /// Whether `*` leaves a column out.
    pub fn is_hidden(&self, id: ColumnId) -> bool {
        self.extras.iter().any(|e| matches!(e, Extra::Hidden { column } if *column == id))
    }

    /// The columns of the primary key, however it is kept.
    pub fn key_columns(&self) -> &[ColumnId] {
        let index = self.extras.iter().find_map(|e| match e {
            Extra::PrimaryIndex { index } => self.indexes.iter().find(|i| i.id == *index),
            _ => None,
        });
        index.map_or(&self.primary_key, |i| &i.columns)
    }
}
