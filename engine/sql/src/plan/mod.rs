//! From the logical plan to operators, by rules: conditions go down to the sources, sources choose a key or an index,
//! joins follow equalities, and only the columns that someone reads are decoded.

mod access;
mod explain;
mod join;

use crate::error::SqlError;
use crate::expr::{Expr, ExprKind};
use crate::rel::{AggregateCall, Recursive, Rel, SortKey, Source, SourceKind, WindowCall};
use crate::system::{StateTable, SystemTable};
pub(crate) use access::{Access, Bound};
use chronos_proto::Type;
use chronos_proto::schema::Relation;
pub(crate) use explain::explain;
use std::sync::Arc;

/// An executable plan.
#[derive(Debug)]
pub(crate) enum Plan {
    Unit,
    Values {
        rows: Vec<Vec<Expr>>,
        types: Vec<Type>,
    },
    Scan(Scan),
    /// Another plan's columns, put into slots.
    Place {
        input: Box<Plan>,
        base: usize,
        width: usize,
    },
    Filter {
        input: Box<Plan>,
        conditions: Vec<Expr>,
    },
    Project {
        input: Box<Plan>,
        exprs: Vec<Expr>,
    },
    HashJoin {
        left: Box<Plan>,
        right: Box<Plan>,
        keys: Vec<(Expr, Expr)>,
        residual: Vec<Expr>,
        /// The right side's slots, if rows of the left without a partner stay.
        outer: Option<Nulls>,
        /// The left side's slots, if rows of the right without a partner stay.
        full: Option<Nulls>,
    },
    /// For each row on the left, a query that looks at it.
    Apply {
        left: Box<Plan>,
        right: Box<Plan>,
        captures: Vec<Expr>,
        on: Vec<Expr>,
        outer: Option<Nulls>,
    },
    /// For each row on the left, a look into a table by key; the access is over the left's slots.
    LookupJoin {
        left: Box<Plan>,
        scan: Scan,
    },
    Aggregate {
        input: Box<Plan>,
        groups: Vec<Expr>,
        sets: Option<Vec<Vec<usize>>>,
        aggregates: Vec<AggregateCall>,
    },
    Window {
        input: Box<Plan>,
        calls: Vec<WindowCall>,
    },
    Distinct {
        input: Box<Plan>,
    },
    DistinctOn {
        input: Box<Plan>,
        keys: Vec<usize>,
    },
    Union {
        inputs: Vec<Plan>,
    },
    SetOp {
        left: Box<Plan>,
        right: Box<Plan>,
        except: bool,
        all: bool,
    },
    /// Run once, and its rows are kept for all that read them.
    Shared {
        id: usize,
        plan: Arc<Plan>,
    },
    /// What the last round of a recursive query gave.
    Working {
        id: usize,
    },
    Recursive {
        id: usize,
        base: Box<Plan>,
        step: Box<Plan>,
        distinct: bool,
    },
    /// With a limit, only so many of the first rows are kept.
    Sort {
        input: Box<Plan>,
        keys: Vec<SortKey>,
        limit: Option<(Option<Expr>, Option<Expr>)>,
        /// The rows come in order unless the scan's index entries are long.
        in_order_if_short: bool,
    },
    Limit {
        input: Box<Plan>,
        limit: Option<Expr>,
        offset: Option<Expr>,
    },
    Cut {
        input: Box<Plan>,
        keep: usize,
    },
}

/// More rows than this are not a handful.
pub(crate) const SHORT_ROWS: usize = 64;

impl Plan {
    /// Whether it reads a handful of rows at the most: every source is a single key or a short list of values.
    pub(crate) fn is_short(&self) -> bool {
        if self.exprs().iter().any(|e| e.has_subquery()) {
            return false;
        }
        match self {
            Plan::Unit => true,
            Plan::Values { rows, .. } => rows.len() <= SHORT_ROWS,
            Plan::Scan(scan) => scan.access.point,
            Plan::LookupJoin { left, scan } => left.is_short() && scan.access.point,
            Plan::HashJoin { left, right, .. } => left.is_short() && right.is_short(),
            Plan::Place { input, .. }
            | Plan::Filter { input, .. }
            | Plan::Project { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Window { input, .. }
            | Plan::Distinct { input }
            | Plan::DistinctOn { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Limit { input, .. }
            | Plan::Cut { input, .. } => input.is_short(),
            Plan::Apply { .. }
            | Plan::Union { .. }
            | Plan::SetOp { .. }
            | Plan::Shared { .. }
            | Plan::Working { .. }
            | Plan::Recursive { .. } => false,
        }
    }

    /// The expressions of this node itself.
    pub(crate) fn exprs(&self) -> Vec<&Expr> {
        match self {
            Plan::Values { rows, .. } => rows.iter().flatten().collect(),
            Plan::Scan(scan) | Plan::LookupJoin { scan, .. } => scan.exprs(),
            Plan::Filter { conditions, .. } => conditions.iter().collect(),
            Plan::Project { exprs, .. } => exprs.iter().collect(),
            Plan::HashJoin { keys, residual, .. } => {
                keys.iter().flat_map(|(a, b)| [a, b]).chain(residual).collect()
            }
            Plan::Apply { captures, on, .. } => captures.iter().chain(on).collect(),
            Plan::Aggregate { groups, aggregates, .. } => {
                groups.iter().chain(aggregates.iter().flat_map(AggregateCall::exprs)).collect()
            }
            Plan::Window { calls, .. } => calls.iter().flat_map(WindowCall::exprs).collect(),
            Plan::Sort { keys, .. } => keys.iter().map(|k| &k.expr).collect(),
            Plan::Limit { limit, offset, .. } => limit.iter().chain(offset).collect(),
            _ => Vec::new(),
        }
    }
}

/// The slots that an outer join fills with NULL where it finds no partner.
pub(crate) type Nulls = Vec<(usize, Type)>;

/// A source that is read.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub source: ScanSource,
    /// Its first slot, and the slots of the whole row.
    pub base: usize,
    pub width: usize,
    pub types: Vec<Type>,
    /// Which of its columns are read.
    pub needed: Vec<bool>,
    pub access: Access,
    pub filter: Vec<Expr>,
    pub reverse: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum ScanSource {
    Table(Arc<Relation>),
    Topic(Arc<Relation>),
    Timers,
    System(&'static SystemTable),
    State(&'static StateTable),
    Series(Vec<Expr>),
}

impl Scan {
    fn exprs(&self) -> Vec<&Expr> {
        let bounds = self.access.low.iter().chain(&self.access.high).map(|(e, _)| e);
        let args = match &self.source {
            ScanSource::Series(args) => args.as_slice(),
            _ => &[],
        };
        let equal = self.access.equal.iter().chain(self.access.one_of.iter().flatten());
        equal.chain(bounds).chain(&self.filter).chain(args).collect()
    }
}

/// Plans a whole query.
pub(crate) fn plan(rel: Rel) -> Result<Plan, SqlError> {
    let needed = vec![true; rel.width()];
    plan_rel(rel, needed)
}

/// The slots that these expressions read, in rows of `width`.
fn used<'a>(width: usize, exprs: impl IntoIterator<Item = &'a Expr>) -> Vec<bool> {
    let mut needed = vec![false; width];
    mark(&mut needed, exprs);
    needed
}

fn mark<'a>(needed: &mut [bool], exprs: impl IntoIterator<Item = &'a Expr>) {
    for e in exprs {
        e.slots(&mut |slot| needed[slot] = true);
    }
}

fn plan_rel(rel: Rel, mut needed: Vec<bool>) -> Result<Plan, SqlError> {
    Ok(match rel {
        Rel::Unit => Plan::Unit,
        Rel::Values { rows, types } => Plan::Values { rows, types },
        Rel::Source(_) | Rel::Join { .. } => join::plan_from(rel, needed)?,
        Rel::Filter { input, conditions } => match *input {
            from @ (Rel::Source(_) | Rel::Join { .. } | Rel::Filter { .. }) => {
                join::plan_from(Rel::Filter { input: Box::new(from), conditions }, needed)?
            }
            other => {
                mark(&mut needed, &conditions);
                Plan::Filter { input: Box::new(plan_rel(other, needed)?), conditions }
            }
        },
        Rel::Project { input, exprs } => {
            let needed = used(input.width(), &exprs);
            Plan::Project { input: Box::new(plan_rel(*input, needed)?), exprs }
        }
        Rel::Aggregate { input, groups, sets, aggregates } => {
            let of = aggregates.iter().flat_map(AggregateCall::exprs);
            let needed = used(input.width(), groups.iter().chain(of));
            Plan::Aggregate { input: Box::new(plan_rel(*input, needed)?), groups, sets, aggregates }
        }
        Rel::Window { input, calls } => {
            needed.resize(input.width(), false);
            mark(&mut needed, calls.iter().flat_map(WindowCall::exprs));
            Plan::Window { input: Box::new(plan_rel(*input, needed)?), calls }
        }
        Rel::Distinct { input } => Plan::Distinct { input: Box::new(plan(*input)?) },
        Rel::DistinctOn { input, keys } => {
            keys.iter().for_each(|slot| needed[*slot] = true);
            Plan::DistinctOn { input: Box::new(plan_rel(*input, needed)?), keys }
        }
        Rel::Union { inputs } => {
            Plan::Union { inputs: inputs.into_iter().map(plan).collect::<Result<_, _>>()? }
        }
        Rel::SetOp { left, right, except, all } => {
            Plan::SetOp { left: Box::new(plan(*left)?), right: Box::new(plan(*right)?), except, all }
        }
        Rel::Sort { input, keys } => {
            mark(&mut needed, keys.iter().map(|k| &k.expr));
            let input = plan_rel(*input, needed)?;
            sort(input, keys)
        }
        Rel::Limit { input, limit, offset } => {
            let mut input = plan_rel(*input, needed)?;
            bound_sort(&mut input, &limit, &offset);
            limited(input, limit, offset)
        }
        Rel::Cut { input, keep } => {
            needed.resize(input.width(), false);
            Plan::Cut { input: Box::new(plan_rel(*input, needed)?), keep }
        }
    })
}

/// What is cut off is not computed: a limit goes below the projection.
fn limited(input: Plan, limit: Option<Expr>, offset: Option<Expr>) -> Plan {
    match input {
        Plan::Project { input, exprs } => {
            Plan::Project { input: Box::new(limited(*input, limit, offset)), exprs }
        }
        Plan::Cut { input, keep } => Plan::Cut { input: Box::new(limited(*input, limit, offset)), keep },
        input => Plan::Limit { input: Box::new(input), limit, offset },
    }
}

/// A sort under a limit keeps only what the limit lets through.
fn bound_sort(plan: &mut Plan, limit: &Option<Expr>, offset: &Option<Expr>) {
    match plan {
        Plan::Cut { input, .. } => bound_sort(input, limit, offset),
        Plan::Sort { limit: bound, .. } if limit.is_some() => *bound = Some((limit.clone(), offset.clone())),
        _ => {}
    }
}

/// Sorts, unless the rows come in this order already.
fn sort(mut input: Plan, keys: Vec<SortKey>) -> Plan {
    let in_order_if_short = match access::order(&mut input, &keys) {
        access::Order::Yes => return input,
        access::Order::IfShort => true,
        access::Order::No => false,
    };
    Plan::Sort { input: Box::new(input), keys, limit: None, in_order_if_short }
}

impl Plan {
    /// The scan whose rows this plan hands on in their order, if it is one.
    pub fn scan(&self) -> Option<&Scan> {
        match self {
            Plan::Scan(scan) => Some(scan),
            Plan::Filter { input, .. } | Plan::Project { input, .. } | Plan::Cut { input, .. } => {
                input.scan()
            }
            _ => None,
        }
    }
}

/// A source that is a query.
fn plan_query(kind: SourceKind) -> Result<Plan, SqlError> {
    Ok(match kind {
        SourceKind::Query(rel) | SourceKind::Lateral(rel, _) => plan(*rel)?,
        SourceKind::Shared(id, plan) => Plan::Shared { id, plan },
        SourceKind::Working(id) => Plan::Working { id },
        SourceKind::Recursive(recursive) => {
            let Recursive { id, base, step, distinct } = *recursive;
            Plan::Recursive { id, base: Box::new(plan(base)?), step: Box::new(plan(step)?), distinct }
        }
        _ => Plan::Unit,
    })
}

/// A source by itself, with the conditions on it.
fn plan_source(
    source: Source,
    width: usize,
    needed: &[bool],
    conditions: Vec<Expr>,
) -> Result<Plan, SqlError> {
    let Source { kind, base, types } = source;
    let scan_source = match kind {
        SourceKind::Query(_)
        | SourceKind::Lateral(..)
        | SourceKind::Shared(..)
        | SourceKind::Working(_)
        | SourceKind::Recursive(_) => {
            let input = Box::new(plan_query(kind)?);
            return Ok(filter(Plan::Place { input, base, width }, conditions));
        }
        SourceKind::Table(relation) => ScanSource::Table(relation),
        SourceKind::Topic(relation) => ScanSource::Topic(relation),
        SourceKind::Timers => ScanSource::Timers,
        SourceKind::System(table) => ScanSource::System(table),
        SourceKind::State(table) => ScanSource::State(table),
        SourceKind::Series(args) => ScanSource::Series(args),
    };
    let (access, filter) =
        access::choose(&scan_source, base, conditions, &|e| !e.uses_slots() && !e.is_volatile());
    let mut read = needed[base..base + types.len()].to_vec();
    for e in &filter {
        e.slots(&mut |slot| read[slot - base] = true);
    }
    Ok(Plan::Scan(Scan {
        source: scan_source,
        base,
        width,
        types,
        needed: read,
        access,
        filter,
        reverse: false,
    }))
}

fn filter(input: Plan, conditions: Vec<Expr>) -> Plan {
    if conditions.is_empty() { input } else { Plan::Filter { input: Box::new(input), conditions } }
}

/// The slot that an expression is, if it is one.
fn as_slot(e: &Expr) -> Option<usize> {
    if let ExprKind::Slot(slot) = e.kind { Some(slot) } else { None }
}
