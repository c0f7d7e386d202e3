//! How a source is reached: by its primary key, by an index, or whole.

use super::{Plan, Scan, ScanSource, as_slot};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::rel::SortKey;
use chronos_proto::id::{ColumnId, IndexId};
use chronos_proto::schema::{IndexState, Table};

/// A bound of a range: its value, and whether it is inside.
pub(crate) type Bound = Option<(Expr, bool)>;

/// What part of a source is read. The expressions need no row of the source itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// None is the primary key, the order of the rows themselves.
    pub index: Option<IndexId>,
    /// Equalities on the first key columns.
    pub equal: Vec<Expr>,
    /// Several values for the next key column; none if there is no such condition.
    pub one_of: Option<Vec<Expr>>,
    /// Bounds on the key column after those.
    pub low: Bound,
    pub high: Bound,
    /// The equalities name one row at the most for each value.
    pub point: bool,
}

impl Access {
    /// Whether it reads all there is.
    pub fn is_full(&self) -> bool {
        self.equal.is_empty() && self.one_of.is_none() && self.low.is_none() && self.high.is_none()
    }

    /// How much less than everything it is expected to read.
    pub fn rank(&self) -> usize {
        let range = usize::from(self.low.is_some()) + usize::from(self.high.is_some());
        let one_of = if self.one_of.is_some() { 8 } else { 0 };
        if self.point { 1000 - one_of } else { 10 * self.equal.len() + one_of + 2 * range }
    }
}

/// What a condition says about one slot.
struct Term {
    slot: usize,
    kind: TermKind,
    /// Its place among the conditions.
    condition: usize,
}

enum TermKind {
    Equal(Expr),
    OneOf(Vec<Expr>),
    Low(Expr, bool),
    High(Expr, bool),
}

/// Chooses the access for a source under conditions, and gives the conditions that are left to check. `given` tells
/// what is known before the source is read.
pub(super) fn choose(
    source: &ScanSource,
    base: usize,
    conditions: Vec<Expr>,
    given: &dyn Fn(&Expr) -> bool,
) -> (Access, Vec<Expr>) {
    let terms: Vec<Term> = conditions.iter().enumerate().filter_map(|(i, c)| term(c, i, given)).collect();
    let mut best = Access::default();
    let mut served: Vec<usize> = Vec::new();
    let mut consider = |index: Option<IndexId>, key: &[usize], unique: bool, exact: bool| {
        let (access, used) = match_key(index, key, unique, &terms);
        if access.rank() > best.rank() {
            best = access;
            served = if exact { used } else { Vec::new() };
        }
    };
    match source {
        ScanSource::Table(relation) => {
            if let Some(table) = relation.table() {
                let slots = |ids: &[ColumnId]| -> Vec<usize> {
                    ids.iter().map(|id| base + place(table, *id)).collect()
                };
                if table.primary_key.is_empty() {
                    // The hidden rowid stands behind the columns, where it is asked for.
                    consider(None, &[base + table.columns.len()], true, true);
                } else {
                    consider(None, &slots(&table.primary_key), true, true);
                }
                for index in table.indexes.iter().filter(|i| i.state == IndexState::Public) {
                    // Long entries are shortened, so an index's conditions are checked again on the row.
                    consider(Some(index.id), &slots(&index.columns), false, false);
                }
            }
        }
        // By partition and offset.
        ScanSource::Topic(_) => consider(None, &[base, base + 1], true, false),
        // By topic and id.
        ScanSource::Timers => consider(None, &[base, base + 1], true, false),
        ScanSource::System(_) | ScanSource::State(_) | ScanSource::Series(_) => {}
    }
    let mut at = 0;
    let mut rest = conditions;
    rest.retain(|_| {
        at += 1;
        !served.contains(&(at - 1))
    });
    (best, rest)
}

/// The position of a column in its table.
pub(super) fn place(table: &Table, id: ColumnId) -> usize {
    table.columns.iter().position(|c| c.id == id).unwrap_or(usize::MAX / 2)
}

fn term(condition: &Expr, at: usize, given: &dyn Fn(&Expr) -> bool) -> Option<Term> {
    match &condition.kind {
        ExprKind::Compare(op, pair) => {
            let (slot, op, value) = match (as_slot(&pair[0]), as_slot(&pair[1])) {
                (Some(slot), _) if given(&pair[1]) => (slot, *op, &pair[1]),
                (_, Some(slot)) if given(&pair[0]) => (slot, op.flipped(), &pair[0]),
                _ => return None,
            };
            let value = value.clone();
            let kind = match op {
                Comparison::Eq => TermKind::Equal(value),
                Comparison::Lt => TermKind::High(value, false),
                Comparison::Le => TermKind::High(value, true),
                Comparison::Gt => TermKind::Low(value, false),
                Comparison::Ge => TermKind::Low(value, true),
                Comparison::Ne => return None,
            };
            Some(Term { slot, kind, condition: at })
        }
        ExprKind::In { of, list, negated: false } if list.iter().all(given) => {
            Some(Term { slot: as_slot(of)?, kind: TermKind::OneOf(list.clone()), condition: at })
        }
        _ => None,
    }
}

/// How far the terms go along a key.
fn match_key(index: Option<IndexId>, key: &[usize], unique: bool, terms: &[Term]) -> (Access, Vec<usize>) {
    let mut access = Access { index, ..Access::default() };
    let mut used = Vec::new();
    let mut at = 0;
    while let Some(slot) = key.get(at) {
        let equal = terms.iter().find_map(|t| match &t.kind {
            TermKind::Equal(e) if t.slot == *slot => Some((e, t.condition)),
            _ => None,
        });
        let Some((e, condition)) = equal else { break };
        access.equal.push(e.clone());
        used.push(condition);
        at += 1;
    }
    if let Some(slot) = key.get(at) {
        let one_of = terms.iter().find_map(|t| match &t.kind {
            TermKind::OneOf(list) if t.slot == *slot => Some((list, t.condition)),
            _ => None,
        });
        if let Some((list, condition)) = one_of {
            access.one_of = Some(list.clone());
            used.push(condition);
            at += 1;
        } else {
            for t in terms.iter().filter(|t| t.slot == *slot) {
                match &t.kind {
                    TermKind::Low(e, inside) if access.low.is_none() => {
                        access.low = Some((e.clone(), *inside));
                        used.push(t.condition);
                    }
                    TermKind::High(e, inside) if access.high.is_none() => {
                        access.high = Some((e.clone(), *inside));
                        used.push(t.condition);
                    }
                    _ => {}
                }
            }
        }
    }
    access.point = unique && at == key.len();
    (access, used)
}

/// Whether rows come in a wanted order already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    No,
    Yes,
    /// If no entry of the index is so long that it is shortened: what is held equal tells when it runs.
    IfShort,
}

/// Whether a plan's rows come in the order of `keys` already, or do so when its scan is turned around.
pub(super) fn order(plan: &mut Plan, keys: &[SortKey]) -> Order {
    let slots: Option<Vec<usize>> = keys.iter().map(|k| as_slot(&k.expr)).collect();
    let (Some(slots), Some(first)) = (slots, keys.first()) else { return Order::No };
    let descending = first.descending;
    if keys.iter().any(|k| k.descending != descending || k.nulls_first != descending) {
        return Order::No;
    }
    let Some((scan, slots)) = scan_under(plan, slots) else { return Order::No };
    let order = follows(scan, &slots);
    if order != Order::No {
        scan.reverse = descending;
    }
    order
}

/// The scan that a plan hands on row by row, and the keys as its slots.
fn scan_under(plan: &mut Plan, slots: Vec<usize>) -> Option<(&mut Scan, Vec<usize>)> {
    match plan {
        Plan::Scan(scan) => Some((scan, slots)),
        Plan::Filter { input, .. } => scan_under(input, slots),
        Plan::Project { input, exprs } => {
            let inner: Option<Vec<usize>> = slots.iter().map(|s| as_slot(&exprs[*s])).collect();
            scan_under(input, inner?)
        }
        _ => None,
    }
}

fn follows(scan: &Scan, slots: &[usize]) -> Order {
    let ScanSource::Table(relation) = &scan.source else { return Order::No };
    let Some(table) = relation.table() else { return Order::No };
    let mut key: Vec<ColumnId> = Vec::new();
    let index = scan.access.index.and_then(|id| table.indexes.iter().find(|i| i.id == id));
    if let Some(index) = index {
        key.extend(&index.columns);
    }
    key.extend(&table.primary_key);
    let equal = scan.access.equal.len();
    // A shortened index entry does not order by its whole value. Columns of fixed width are never so long.
    let fixed = |id: &ColumnId| {
        use chronos_proto::Type::*;
        table.column(*id).is_some_and(|c| matches!(c.ty, Bool | Int | Float | Timestamp | Date | Uuid))
    };
    let order = match index {
        Some(index) if !index.columns.iter().skip(equal).all(fixed) => return Order::No,
        Some(index) if !index.columns.iter().all(fixed) => Order::IfShort,
        _ => Order::Yes,
    };
    if scan.access.one_of.is_some() {
        return Order::No;
    }
    let key: Vec<usize> = key.iter().map(|id| scan.base + place(table, *id)).collect();
    // Columns held equal may stand anywhere among the sort keys.
    let held = &key[..equal.min(key.len())];
    let wanted: Vec<usize> = slots.iter().copied().filter(|s| !held.contains(s)).collect();
    if key[equal.min(key.len())..].starts_with(&wanted) { order } else { Order::No }
}
