//! The logical plan: what a query means, with names and types resolved and no parser types in it.
//!
//! All sources of one FROM share a row of slots: each fills its own, so that joins and pushed conditions need no
//! renumbering. A projection or an aggregation begins a new row.

use crate::expr::Expr;
use crate::prepared::ColumnDesc;
use crate::system::SystemTable;
use chronos_proto::Type;
use chronos_proto::schema::Relation;
use std::sync::Arc;

/// A relational expression.
#[derive(Debug)]
pub(crate) enum Rel {
    /// One row without columns.
    Unit,
    Source(Source),
    Join {
        left: Box<Rel>,
        right: Box<Rel>,
        kind: JoinKind,
        on: Vec<Expr>,
    },
    /// All conditions hold.
    Filter {
        input: Box<Rel>,
        conditions: Vec<Expr>,
    },
    Project {
        input: Box<Rel>,
        exprs: Vec<Expr>,
    },
    /// Groups first, then aggregates.
    Aggregate {
        input: Box<Rel>,
        groups: Vec<Expr>,
        aggregates: Vec<AggregateCall>,
    },
    Distinct {
        input: Box<Rel>,
    },
    Sort {
        input: Box<Rel>,
        keys: Vec<SortKey>,
    },
    Limit {
        input: Box<Rel>,
        limit: Option<Expr>,
        offset: Option<Expr>,
    },
    Values {
        rows: Vec<Vec<Expr>>,
        types: Vec<Type>,
    },
    /// The first `keep` columns.
    Cut {
        input: Box<Rel>,
        keep: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
}

/// What gives rows in FROM, and the slots it fills.
#[derive(Debug)]
pub(crate) struct Source {
    pub kind: SourceKind,
    pub base: usize,
    pub types: Vec<Type>,
}

#[derive(Debug)]
pub(crate) enum SourceKind {
    Table(Arc<Relation>),
    Topic(Arc<Relation>),
    /// `chronos.timers`.
    Timers,
    System(&'static SystemTable),
    /// `generate_series(from, to, step)`.
    Series(Vec<Expr>),
    Query(Box<Rel>),
}

#[derive(Clone, Debug)]
pub(crate) struct SortKey {
    pub expr: Expr,
    pub descending: bool,
    pub nulls_first: bool,
}

/// One call of an aggregate.
#[derive(Clone, Debug)]
pub(crate) struct AggregateCall {
    pub function: AggregateFunction,
    /// None for `count(*)`.
    pub arg: Option<Expr>,
    /// The second argument of `string_agg`.
    pub separator: Option<Expr>,
    pub distinct: bool,
    pub filter: Option<Expr>,
    pub ty: Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    StddevSamp,
    StddevPop,
    VarSamp,
    VarPop,
    StringAgg,
}

/// A bound query with its result columns.
#[derive(Debug)]
pub(crate) struct Query {
    pub rel: Rel,
    pub columns: Vec<ColumnDesc>,
}
