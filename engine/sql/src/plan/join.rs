//! FROM and WHERE together: which condition is checked where, and in which order sources are joined.

use super::{Nulls, Plan, ScanSource, access, filter, mark, plan_query, plan_rel, plan_source};
use crate::error::{SqlError, SqlState};
use crate::expr::{Comparison, Expr, ExprKind};
use crate::rel::{JoinKind, Rel, Source, SourceKind};
use chronos_engine::bugs::{Bug, active};
use chronos_proto::Type;

/// The most sources of one FROM.
const SOURCES_MAX: usize = 64;

/// One source, or an outer join that stays together, with the conditions on it alone.
struct Leaf {
    rel: Rel,
    slots: Vec<bool>,
    /// What it looks at in the sources before it.
    captures: Vec<Expr>,
    conditions: Vec<Expr>,
}

pub(super) fn plan_from(rel: Rel, mut needed: Vec<bool>) -> Result<Plan, SqlError> {
    let width = needed.len().max(rel.width());
    needed.resize(width, false);
    let (mut leaves, mut conditions) = (Vec::new(), Vec::new());
    collect(rel, width, &mut leaves, &mut conditions);
    if leaves.len() > SOURCES_MAX {
        return Err(SqlError::new(SqlState::TOO_COMPLEX, "too many tables in FROM"));
    }
    mark(&mut needed, conditions.iter().chain(leaves.iter().flat_map(|l| &l.captures)));
    let mut between = Vec::new();
    for condition in conditions {
        match only_leaf(&condition, &leaves) {
            Some(i) if !condition.is_volatile() => leaves[i].conditions.push(condition),
            _ => between.push(condition),
        }
    }
    let mut waiting: Vec<Option<Leaf>> = leaves.into_iter().map(Some).collect();
    let first = start(&waiting);
    let Some(leaf) = waiting.get_mut(first).and_then(Option::take) else {
        return Ok(filter(Plan::Unit, between));
    };
    let mut have = leaf.slots.clone();
    let mut plan = plan_leaf(leaf, width, &needed)?;
    plan = check(plan, &mut between, &have);
    while waiting.iter().any(Option::is_some) {
        let ready = |l: &Leaf| l.captures.iter().all(|c| within(c, &have));
        let find = |test: &dyn Fn(&Leaf) -> bool| {
            waiting.iter().position(|l| l.as_ref().is_some_and(|l| ready(l) && test(l)))
        };
        let next = find(&|l| connected(&between, &have, &l.slots)).or_else(|| find(&|_| true));
        let Some(leaf) = next.and_then(|i| waiting[i].take()) else {
            return Err(SqlError::unsupported("this LATERAL reference"));
        };
        let slots = leaf.slots.clone();
        plan = join(plan, leaf, &mut between, &have, width, &needed)?;
        have.iter_mut().zip(slots).for_each(|(h, s)| *h |= s);
        plan = check(plan, &mut between, &have);
    }
    Ok(filter(plan, between))
}

fn collect(rel: Rel, width: usize, leaves: &mut Vec<Leaf>, conditions: &mut Vec<Expr>) {
    match rel {
        Rel::Unit => {}
        Rel::Join { left, right, kind: JoinKind::Inner, on } => {
            collect(*left, width, leaves, conditions);
            collect(*right, width, leaves, conditions);
            conditions.extend(on);
        }
        Rel::Filter { input, conditions: more } => {
            collect(*input, width, leaves, conditions);
            conditions.extend(more);
        }
        other => {
            let mut slots = vec![false; width];
            fill(&other, &mut slots);
            let mut captures = Vec::new();
            captured(&other, &mut captures);
            captures.retain(|c| !within(c, &slots));
            let conditions = not_expired(&other).into_iter().collect();
            leaves.push(Leaf { rel: other, slots, captures, conditions });
        }
    }
}

/// What is true of the rows that have not expired, where a table has a time to live.
fn not_expired(rel: &Rel) -> Option<Expr> {
    let Rel::Source(Source { kind: SourceKind::Table(relation), base, .. }) = rel else { return None };
    let table = relation.table().filter(|_| !active(Bug::ReadExpired))?;
    let (time, _, micros) = table.ttl()?;
    let time = Expr::slot(Type::Timestamp, base + table.place(time)?);
    Some(crate::func::not_expired(time, micros))
}

/// Marks the slots that a part of FROM fills.
fn fill(rel: &Rel, slots: &mut [bool]) {
    match rel {
        Rel::Source(source) => slots[source.base..source.base + source.types.len()].fill(true),
        Rel::Join { left, right, .. } => {
            fill(left, slots);
            fill(right, slots);
        }
        Rel::Filter { input, .. } => fill(input, slots),
        _ => {}
    }
}

/// What a part of FROM looks at in the sources before it, or in its own.
fn captured(rel: &Rel, out: &mut Vec<Expr>) {
    match rel {
        Rel::Source(Source { kind: SourceKind::Lateral(_, captures), .. }) => out.extend_from_slice(captures),
        Rel::Join { left, right, .. } => {
            captured(left, out);
            captured(right, out);
        }
        Rel::Filter { input, .. } => captured(input, out),
        _ => {}
    }
}

/// The slots and types of a part of FROM.
fn types(rel: &Rel, out: &mut Nulls) {
    match rel {
        Rel::Source(source) => {
            out.extend(source.types.iter().enumerate().map(|(i, ty)| (source.base + i, *ty)))
        }
        Rel::Join { left, right, .. } => {
            types(left, out);
            types(right, out);
        }
        Rel::Filter { input, .. } => types(input, out),
        _ => {}
    }
}

fn within(e: &Expr, slots: &[bool]) -> bool {
    let mut all = true;
    e.slots(&mut |slot| all &= slots[slot]);
    all
}

fn only_leaf(condition: &Expr, leaves: &[Leaf]) -> Option<usize> {
    if !condition.uses_slots() {
        return None;
    }
    leaves.iter().position(|l| within(condition, &l.slots))
}

/// Begins with the source that is read by the best key, else with the first.
fn start(leaves: &[Option<Leaf>]) -> usize {
    let rank = |leaf: &Option<Leaf>| {
        let Some(leaf) = leaf else { return 0 };
        // What looks at others comes behind them.
        let first = usize::from(leaf.captures.is_empty());
        let Leaf { rel: Rel::Source(source), conditions, .. } = leaf else { return first };
        let SourceKind::Table(relation) = &source.kind else { return first };
        let scan = ScanSource::Table(relation.clone());
        access::choose(&scan, source.base, conditions.clone(), &|e| !e.uses_slots()).0.rank() + first
    };
    (0..leaves.len()).rev().max_by_key(|i| rank(&leaves[*i])).unwrap_or(0)
}

fn plan_leaf(leaf: Leaf, width: usize, needed: &[bool]) -> Result<Plan, SqlError> {
    match leaf.rel {
        Rel::Source(source) => plan_source(source, width, needed, leaf.conditions),
        Rel::Join { left, right, kind: JoinKind::Left, on } => {
            // What concerns the left alone may be checked before the join; the rest only after it.
            let mut slots = vec![false; width];
            fill(&left, &mut slots);
            let (before, after): (Vec<Expr>, Vec<Expr>) =
                leaf.conditions.into_iter().partition(|c| within(c, &slots));
            let mut needed = needed.to_vec();
            mark(&mut needed, on.iter().chain(&after));
            let mut right_slots = vec![false; width];
            fill(&right, &mut right_slots);
            let mut nulls = Vec::new();
            types(&right, &mut nulls);
            let (inner, on): (Vec<Expr>, Vec<Expr>) =
                on.into_iter().partition(|c| c.uses_slots() && within(c, &right_slots));
            let mut captures = Vec::new();
            captured(&right, &mut captures);
            let right = match *right {
                Rel::Source(Source { kind: kind @ SourceKind::Lateral(..), base, .. }) => {
                    mark(&mut needed, &captures);
                    let left = Box::new(plan_from(Rel::Filter { input: left, conditions: before }, needed)?);
                    let right = Box::new(Plan::Place { input: Box::new(plan_query(kind)?), base, width });
                    let on = on.into_iter().chain(inner).collect();
                    let joined = Plan::Apply { left, right, captures, on, outer: Some(nulls) };
                    return Ok(filter(joined, after));
                }
                right => Box::new(right),
            };
            let left = plan_from(Rel::Filter { input: left, conditions: before }, needed.clone())?;
            let right = plan_from(Rel::Filter { input: right, conditions: inner }, needed)?;
            let (keys, residual) = equalities(on, &slots, &right_slots);
            let joined = Plan::HashJoin {
                left: Box::new(left),
                right: Box::new(right),
                keys,
                residual,
                outer: Some(nulls),
                full: None,
            };
            Ok(filter(joined, after))
        }
        Rel::Join { left, right, kind: JoinKind::Full, on } => {
            // Rows of both sides stay: every condition is checked on pairs, or after the join.
            let mut needed = needed.to_vec();
            mark(&mut needed, on.iter().chain(&leaf.conditions));
            let (mut left_slots, mut right_slots) = (vec![false; width], vec![false; width]);
            fill(&left, &mut left_slots);
            fill(&right, &mut right_slots);
            let (mut left_nulls, mut right_nulls) = (Vec::new(), Vec::new());
            types(&left, &mut left_nulls);
            types(&right, &mut right_nulls);
            let (keys, residual) = equalities(on, &left_slots, &right_slots);
            let joined = Plan::HashJoin {
                left: Box::new(plan_from(*left, needed.clone())?),
                right: Box::new(plan_from(*right, needed)?),
                keys,
                residual,
                outer: Some(right_nulls),
                full: Some(left_nulls),
            };
            Ok(filter(joined, leaf.conditions))
        }
        other => Ok(filter(plan_rel(other, needed.to_vec())?, leaf.conditions)),
    }
}

/// Takes out the conditions that can be checked now.
fn check(plan: Plan, between: &mut Vec<Expr>, have: &[bool]) -> Plan {
    let (now, later): (Vec<Expr>, Vec<Expr>) =
        between.drain(..).partition(|c| within(c, have) && c.uses_slots() && !c.is_volatile());
    *between = later;
    filter(plan, now)
}

fn connected(between: &[Expr], have: &[bool], slots: &[bool]) -> bool {
    between.iter().any(|c| equality(c, have, slots).is_some())
}

/// The two sides of an equality between what is there and what comes.
fn equality<'a>(condition: &'a Expr, have: &[bool], slots: &[bool]) -> Option<(&'a Expr, &'a Expr)> {
    let ExprKind::Compare(Comparison::Eq, pair) = &condition.kind else { return None };
    let (a, b) = (&pair[0], &pair[1]);
    if !a.uses_slots() || !b.uses_slots() {
        None
    } else if within(a, have) && within(b, slots) {
        Some((a, b))
    } else if within(b, have) && within(a, slots) {
        Some((b, a))
    } else {
        None
    }
}

/// Splits conditions into hash keys and the rest.
fn equalities(conditions: Vec<Expr>, have: &[bool], slots: &[bool]) -> (Vec<(Expr, Expr)>, Vec<Expr>) {
    let (mut keys, mut rest) = (Vec::new(), Vec::new());
    for condition in conditions {
        match equality(&condition, have, slots) {
            Some((a, b)) => keys.push((a.clone(), b.clone())),
            None => rest.push(condition),
        }
    }
    (keys, rest)
}

fn join(
    left: Plan,
    leaf: Leaf,
    between: &mut Vec<Expr>,
    have: &[bool],
    width: usize,
    needed: &[bool],
) -> Result<Plan, SqlError> {
    let (links, rest): (Vec<Expr>, Vec<Expr>) =
        between.drain(..).partition(|c| equality(c, have, &leaf.slots).is_some());
    *between = rest;
    if let Rel::Source(Source { kind: SourceKind::Lateral(_, captures), .. }) = &leaf.rel {
        let captures = captures.clone();
        let mut on = leaf.conditions.clone();
        on.extend(links);
        let right = plan_leaf(Leaf { conditions: Vec::new(), ..leaf }, width, needed)?;
        return Ok(Plan::Apply { left: Box::new(left), right: Box::new(right), captures, on, outer: None });
    }
    if !leaf.captures.is_empty() {
        return Err(SqlError::unsupported("LATERAL inside of an outer join that looks at sources before it"));
    }
    if let (Rel::Source(source), true) = (&leaf.rel, selective(&left))
        && let SourceKind::Table(relation) = &source.kind
    {
        let scan_source = ScanSource::Table(relation.clone());
        let conditions: Vec<Expr> = leaf.conditions.iter().chain(&links).cloned().collect();
        let given = |e: &Expr| within(e, have) && !e.is_volatile();
        let (chosen, remaining) = access::choose(&scan_source, source.base, conditions, &given);
        if chosen.rank() >= 10 {
            let mut read = needed[source.base..source.base + source.types.len()].to_vec();
            for e in &remaining {
                e.slots(&mut |slot| {
                    if let Some(read) = slot.checked_sub(source.base).and_then(|i| read.get_mut(i)) {
                        *read = true;
                    }
                });
            }
            let scan = super::Scan {
                source: scan_source,
                base: source.base,
                width,
                types: source.types.clone(),
                needed: read,
                access: chosen,
                filter: remaining,
                reverse: false,
            };
            return Ok(Plan::LookupJoin { left: Box::new(left), scan });
        }
    }
    let (keys, residual) = equalities(links, have, &leaf.slots);
    let right = plan_leaf(leaf, width, needed)?;
    Ok(Plan::HashJoin {
        left: Box::new(left),
        right: Box::new(right),
        keys,
        residual,
        outer: None,
        full: None,
    })
}

/// Whether a plan is expected to give few rows, so that looking each up is better than reading the other side.
fn selective(plan: &Plan) -> bool {
    match plan {
        Plan::Unit | Plan::Limit { .. } => true,
        Plan::Values { rows, .. } => rows.len() <= 1_000,
        Plan::Scan(scan) => {
            scan.access.point || !scan.access.equal.is_empty() || scan.access.one_of.is_some()
        }
        Plan::Filter { input, .. }
        | Plan::Project { input, .. }
        | Plan::Cut { input, .. }
        | Plan::Place { input, .. } => selective(input),
        Plan::LookupJoin { left, .. } => selective(left),
        _ => false,
    }
}
