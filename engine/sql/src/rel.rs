//! The logical plan: what a query means, with names and types resolved and no parser types in it.
//!
//! All sources of one FROM share a row of slots: each fills its own, so that joins and pushed conditions need no
//! renumbering. A projection or an aggregation begins a new row.

use crate::expr::Expr;
use crate::plan::Plan;
use crate::prepared::ColumnDesc;
use crate::system::{StateTable, SystemTable};
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
    /// Groups first, then aggregates; with several grouping sets, the number of the row's set behind.
    Aggregate {
        input: Box<Rel>,
        groups: Vec<Expr>,
        /// The groups of each set, by their places.
        sets: Option<Vec<Vec<usize>>>,
        aggregates: Vec<AggregateCall>,
    },
    /// The input's columns, and one for each call.
    Window {
        input: Box<Rel>,
        calls: Vec<WindowCall>,
    },
    Distinct {
        input: Box<Rel>,
    },
    /// The first row for each value of these columns.
    DistinctOn {
        input: Box<Rel>,
        keys: Vec<usize>,
    },
    /// All rows of all.
    Union {
        inputs: Vec<Rel>,
    },
    /// INTERSECT and EXCEPT.
    SetOp {
        left: Box<Rel>,
        right: Box<Rel>,
        except: bool,
        all: bool,
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
    Full,
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
    State(&'static StateTable),
    /// `generate_series(from, to, step)`.
    Series(Vec<Expr>),
    Query(Box<Rel>),
    /// A query that looks at the sources before it: what it takes from them.
    Lateral(Box<Rel>, Vec<Expr>),
    /// A query that is run once and read in several places.
    Shared(usize, Arc<Plan>),
    /// The rows that the last round of a recursive query gave.
    Working(usize),
    Recursive(Box<Recursive>),
}

/// WITH RECURSIVE.
#[derive(Debug)]
pub(crate) struct Recursive {
    /// What its working rows are kept under.
    pub id: usize,
    pub base: Rel,
    pub step: Rel,
    /// UNION: rows that were there before are left out.
    pub distinct: bool,
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
    ArrayAgg,
    JsonAgg,
    JsonbAgg,
    BitAnd,
    BitOr,
    BitXor,
    /// The first value in the order of the rows, and the last.
    First,
    Last,
}

/// One call of a window function.
#[derive(Clone, Debug)]
pub(crate) struct WindowCall {
    pub function: WindowFunction,
    pub args: Vec<Expr>,
    pub partition: Vec<Expr>,
    pub order: Vec<SortKey>,
    pub frame: Frame,
    pub ty: Type,
}

#[derive(Clone, Debug)]
pub(crate) enum WindowFunction {
    Aggregate(AggregateCall),
    RowNumber,
    Rank,
    DenseRank,
    PercentRank,
    CumeDist,
    Ntile,
    Lag,
    Lead,
    FirstValue,
    LastValue,
    NthValue,
}

/// Which rows of its partition a window function looks at.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub units: FrameUnits,
    pub start: FrameBound,
    pub end: FrameBound,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameUnits {
    Rows,
    Range,
    Groups,
}

#[derive(Clone, Debug)]
pub(crate) enum FrameBound {
    First,
    Preceding(Expr),
    Current,
    Following(Expr),
    Last,
}

impl WindowCall {
    /// Every expression over the input.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        let aggregate = match &self.function {
            WindowFunction::Aggregate(call) => Some(call.exprs()),
            _ => None,
        };
        self.args
            .iter()
            .chain(&self.partition)
            .chain(self.order.iter().map(|k| &k.expr))
            .chain(aggregate.into_iter().flatten())
            .chain(self.frame.exprs())
    }

    pub fn exprs_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        let aggregate = match &mut self.function {
            WindowFunction::Aggregate(call) => Some(call.exprs_mut()),
            _ => None,
        };
        self.args
            .iter_mut()
            .chain(&mut self.partition)
            .chain(self.order.iter_mut().map(|k| &mut k.expr))
            .chain(aggregate.into_iter().flatten())
    }
}

impl Frame {
    /// The offsets, which no row changes.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        [&self.start, &self.end].into_iter().filter_map(|bound| match bound {
            FrameBound::Preceding(e) | FrameBound::Following(e) => Some(e),
            _ => None,
        })
    }
}

impl AggregateCall {
    /// Every expression over the input.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.arg.iter().chain(&self.separator).chain(&self.filter)
    }

    pub fn exprs_mut(&mut self) -> impl Iterator<Item = &mut Expr> {
        self.arg.iter_mut().chain(&mut self.separator).chain(&mut self.filter)
    }
}

impl Rel {
    /// How many columns, or slots, its rows have.
    pub fn width(&self) -> usize {
        match self {
            Rel::Unit => 0,
            Rel::Source(source) => source.base + source.types.len(),
            Rel::Join { left, right, .. } => left.width().max(right.width()),
            Rel::Filter { input, .. }
            | Rel::Distinct { input }
            | Rel::DistinctOn { input, .. }
            | Rel::Sort { input, .. }
            | Rel::Limit { input, .. } => input.width(),
            Rel::Project { exprs, .. } => exprs.len(),
            Rel::Aggregate { groups, aggregates, sets, .. } => {
                groups.len() + aggregates.len() + usize::from(sets.is_some())
            }
            Rel::Window { input, calls } => input.width() + calls.len(),
            Rel::Union { inputs } => inputs.first().map_or(0, Rel::width),
            Rel::SetOp { left, .. } => left.width(),
            Rel::Values { types, .. } => types.len(),
            Rel::Cut { keep, .. } => *keep,
        }
    }
}

/// A bound query with its result columns.
#[derive(Debug)]
pub(crate) struct Query {
    pub rel: Rel,
    pub columns: Vec<ColumnDesc>,
    /// Which columns are literals whose type is still open.
    pub open: Vec<bool>,
}

impl Query {
    /// One whose columns all have their types.
    pub fn new(rel: Rel, columns: Vec<ColumnDesc>) -> Query {
        let open = vec![false; columns.len()];
        Query { rel, columns, open }
    }
}
