//! EXPLAIN: the plan as indented lines.

use super::{Plan, Scan, ScanSource};
use crate::action::{Action, Rows, Target};

pub(crate) fn explain(action: &Action) -> Vec<String> {
    let mut lines = Vec::new();
    match action {
        Action::Query(plan) => show(plan, 0, &mut lines),
        Action::Insert(insert) => {
            line(0, format!("Insert on {}", target(&insert.target)), &mut lines);
            match &insert.rows {
                Rows::Values(rows) => line(1, format!("Values ({} rows)", rows.len()), &mut lines),
                Rows::Query(plan) => show(plan, 1, &mut lines),
                Rows::Copied(_) => line(1, "Copied rows".into(), &mut lines),
            }
        }
        Action::Update(update) => {
            line(0, format!("Update on {}", target(&update.target)), &mut lines);
            show(&update.plan, 1, &mut lines);
        }
        Action::Delete(delete) => {
            line(0, format!("Delete on {}", target(&delete.target)), &mut lines);
            show(&delete.plan, 1, &mut lines);
        }
        _ => line(0, "Utility".into(), &mut lines),
    }
    lines
}

fn target(target: &Target) -> &str {
    match target {
        Target::Table(relation) | Target::Topic(relation) => &relation.name,
        Target::Timers => "chronos.timers",
    }
}

fn line(depth: usize, text: String, lines: &mut Vec<String>) {
    let arrow = if depth == 0 { "" } else { "->  " };
    lines.push(format!(
        "{:indent$}{arrow}{text}",
        "",
        indent = depth.saturating_sub(1) * 6 + usize::from(depth > 0) * 2
    ));
}

fn show(plan: &Plan, depth: usize, lines: &mut Vec<String>) {
    let mut node = |text: String, inputs: &[&Plan]| {
        line(depth, text, lines);
        inputs.iter().for_each(|p| show(p, depth + 1, lines));
    };
    match plan {
        Plan::Unit => node("Result".into(), &[]),
        Plan::Values { rows, .. } => node(format!("Values ({} rows)", rows.len()), &[]),
        Plan::Scan(scan) => node(show_scan(scan), &[]),
        Plan::Place { input, .. } => node("Subquery Scan".into(), &[input]),
        Plan::Filter { input, conditions } => {
            node(format!("Filter ({} conditions)", conditions.len()), &[input])
        }
        Plan::Project { input, exprs } => node(format!("Project ({} columns)", exprs.len()), &[input]),
        Plan::HashJoin { left, right, keys, outer, full, .. } => {
            let name = match (full.is_some(), outer.is_some(), keys.is_empty()) {
                (true, _, false) => "Hash Full Join",
                (true, _, true) => "Nested Loop Full Join",
                (false, true, false) => "Hash Left Join",
                (false, true, true) => "Nested Loop Left Join",
                (false, false, false) => "Hash Join",
                (false, false, true) => "Nested Loop",
            };
            node(name.into(), &[left, right]);
        }
        Plan::LookupJoin { left, scan } => {
            node("Nested Loop by Key".into(), &[left]);
            line(depth + 1, show_scan(scan), lines);
        }
        Plan::Aggregate { input, groups, .. } => {
            node(if groups.is_empty() { "Aggregate" } else { "HashAggregate" }.into(), &[input]);
        }
        Plan::Apply { left, right, outer, .. } => {
            node(if outer.is_some() { "Lateral Left Join" } else { "Lateral Join" }.into(), &[left, right]);
        }
        Plan::Window { input, calls } => node(format!("WindowAgg ({} functions)", calls.len()), &[input]),
        Plan::DistinctOn { input, keys } => node(format!("Unique on {} columns", keys.len()), &[input]),
        Plan::Union { inputs } => node("Append".into(), &inputs.iter().collect::<Vec<_>>()),
        Plan::SetOp { left, right, except, all } => {
            let name = if *except { "Except" } else { "Intersect" };
            node(format!("HashSetOp {name}{}", if *all { " All" } else { "" }), &[left, right]);
        }
        Plan::Shared { id, plan } => node(format!("CTE Scan ({id})"), &[plan]),
        Plan::Working { id } => node(format!("WorkTable Scan ({id})"), &[]),
        Plan::Recursive { id, base, step, .. } => node(format!("Recursive Union ({id})"), &[base, step]),
        Plan::Distinct { input } => node("Distinct".into(), &[input]),
        Plan::Sort { input, in_order_if_short: true, .. } => node("Sort unless in order".into(), &[input]),
        Plan::Sort { input, limit, .. } => {
            node(if limit.is_some() { "Top-K Sort" } else { "Sort" }.into(), &[input])
        }
        Plan::Limit { input, .. } => node("Limit".into(), &[input]),
        Plan::Cut { input, .. } => show(input, depth, lines),
    }
}

fn show_scan(scan: &Scan) -> String {
    let (name, table) = match &scan.source {
        ScanSource::Table(relation) => (relation.name.as_str(), relation.table()),
        ScanSource::Topic(relation) => (relation.name.as_str(), None),
        ScanSource::Timers => ("chronos.timers", None),
        ScanSource::System(table) => (table.name, None),
        ScanSource::State(table) => (table.name, None),
        ScanSource::Series(_) => ("generate_series", None),
    };
    let by = match scan.access.index {
        Some(id) => {
            table.and_then(|t| t.indexes.iter().find(|i| i.id == id)).map_or("index", |i| i.name.as_str())
        }
        None => "primary key",
    };
    let how = if scan.access.is_full() {
        format!("Scan on {name}")
    } else if scan.access.point {
        format!("Point Lookup on {name} by {by}")
    } else {
        format!("Range Scan on {name} by {by} ({} equal)", scan.access.equal.len())
    };
    let backward = if scan.reverse { " backward" } else { "" };
    let filter = if scan.filter.is_empty() {
        String::new()
    } else {
        format!(", {} conditions checked", scan.filter.len())
    };
    format!("{how}{backward}{filter}")
}
