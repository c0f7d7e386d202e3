//! What is wrong with a node, by its own status and metrics and the disk under it.

use serde_json::Value;
use std::fmt;
use std::path::Path;

/// Less free space than this is too little, whatever the disk's size.
const FREE_LEAST_BYTES: u64 = 1 << 30;
/// And less than this share of it.
const FREE_LEAST_PERCENT: u64 = 5;
/// Entries that a node may be behind before it is told.
const LAG_MAX: u64 = 10_000;
/// How far the wall clock may be from the cluster's time, in seconds: beyond it, a leader does not follow it.
const OFFSET_MAX: f64 = 0.5;

/// One thing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// It ought to be put right; otherwise it is only worth knowing.
    pub wrong: bool,
    /// What.
    pub what: String,
}

impl Finding {
    fn wrong(what: impl Into<String>) -> Finding {
        Finding { wrong: true, what: what.into() }
    }

    fn note(what: impl Into<String>) -> Finding {
        Finding { wrong: false, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.wrong { "WRONG" } else { "note" }, self.what)
    }
}

/// Bytes free and bytes in all on the disk that holds a directory; none if it is not on this machine.
pub fn free_space(dir: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

/// What a running node's status and metrics say.
pub fn of(status: &Value, metrics: &str, disk: Option<(u64, u64)>) -> Vec<Finding> {
    let mut found = Vec::new();
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    if let Some(fatal) = status["fatal"].as_str() {
        found.push(Finding::wrong(format!("the node cannot go on: {fatal}")));
    } else if status["ready"] != Value::Bool(true) {
        found.push(Finding::wrong("the node does not serve: `/readyz` says why"));
    }
    // Among them the fsync mode, certificates that expire, damage, and a disk that was full.
    found.extend(list("warnings").iter().filter_map(Value::as_str).map(Finding::wrong));
    found.extend(list("notices").iter().filter_map(Value::as_str).map(Finding::note));
    for group in list("groups") {
        let number = &group["group"];
        if group["leader_node"].is_null() {
            found.push(Finding::wrong(format!(
                "group {number} has no leader that this node knows of: is a majority of its voters up, and linked?"
            )));
        }
        let index = |key: &str| group[key].as_u64().unwrap_or(0);
        let behind = index("committed_index").saturating_sub(index("applied_index"));
        if behind > LAG_MAX {
            found
                .push(Finding::wrong(format!("group {number} is {behind} entries behind what is committed")));
        }
    }
    for member in list("members") {
        let link = member["link"].as_str().filter(|link| *link != "Connected");
        if let (false, Some(link)) = (member["this"] == Value::Bool(true), link) {
            let name = member["name"].as_str().unwrap_or("a node");
            found.push(Finding::wrong(format!("no link to {name}: {link}")));
        }
    }
    for (labels, behind) in samples(metrics, "chronos_raft_follower_lag_entries") {
        if behind > LAG_MAX as f64 {
            found.push(Finding::wrong(format!("a follower is {behind} entries behind ({labels})")));
        }
    }
    if let Some((_, offset)) = samples(metrics, "chronos_clock_offset_seconds").next()
        && offset.abs() > OFFSET_MAX
    {
        found.push(Finding::wrong(format!(
            "the wall clock is {:.3} s {} cluster time: set it, and run a time service",
            offset.abs(),
            if offset > 0.0 { "behind" } else { "ahead of" }
        )));
    }
    if status["clock"]["synchronised"] == Value::Bool(false) {
        found.push(Finding::note("the operating system does not say that its clock is synchronised"));
    }
    found.extend(disk.and_then(space));
    found
}

/// What can be seen of a directory whose node is stopped, without reading all of it.
pub fn of_directory(dir: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    if !dir.join("identity").exists() {
        return vec![Finding::wrong(format!("{} is no data directory: it has no identity", dir.display()))];
    }
    if !dir.join("clean").exists() {
        found.push(Finding::note("the last run did not end cleanly, or goes on; the next start recovers"));
        if dir.join("weak").exists() {
            found.push(Finding::wrong(
                "and it had a weak --fsync: acknowledged writes may be missing, and in a cluster the node must be caught up",
            ));
        }
    }
    for (file, what) in [
        ("verify-needed", "the next start verifies the store in full, because"),
        ("died-by-signal", "the last run died by a signal"),
    ] {
        match std::fs::read_to_string(dir.join(file)) {
            Ok(why) if !why.is_empty() => {
                found
                    .push(Finding::wrong(format!("{what} {}; `chronos verify` reads all of it", why.trim())));
            }
            _ => {}
        }
    }
    found.extend(free_space(dir).and_then(space));
    found
}

fn space((free, all): (u64, u64)) -> Option<Finding> {
    let is_low = free < FREE_LEAST_BYTES || free < all / 100 * FREE_LEAST_PERCENT;
    let megabytes = |bytes: u64| bytes >> 20;
    is_low.then(|| {
        Finding::wrong(format!(
            "{} MiB of {} are free on the disk of the data directory: writes are refused when it is full",
            megabytes(free),
            megabytes(all)
        ))
    })
}

/// The samples of a metric: labels and value.
fn samples<'a>(page: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
    page.lines().filter_map(move |line| {
        let (labelled, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let is_whole = labelled.is_empty() || labelled.starts_with('{');
        is_whole.then_some((labelled, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn well() -> Value {
        json!({
            "ready": true, "fatal": null, "warnings": [], "notices": [],
            "groups": [{"group": 0, "leader_node": "a", "committed_index": 9, "applied_index": 9}],
            "members": [{"name": "a", "this": true, "link": null}, {"name": "b", "this": false, "link": "Connected"}],
            "clock": {"synchronised": true},
        })
    }

    fn told(change: impl FnOnce(&mut Value), metrics: &str, disk: Option<(u64, u64)>) -> Vec<String> {
        let mut status = well();
        change(&mut status);
        of(&status, metrics, disk).into_iter().filter(|finding| finding.wrong).map(|f| f.what).collect()
    }

    #[test]
    fn what_is_wrong_is_found_and_nothing_else() {
        let page = "chronos_raft_follower_lag_entries{group=\"0\",peer=\"b\"} 3\nchronos_clock_offset_seconds 0.01\n";
        assert_eq!(told(|_| (), page, Some((50 << 30, 100 << 30))), [""; 0]);
        let one = |told: Vec<String>, part: &str| {
            assert!(told.len() == 1 && told[0].contains(part), "{part:?}: {told:?}");
        };
        one(told(|s| s["ready"] = json!(false), "", None), "does not serve");
        one(told(|s| s["warnings"] = json!(["--fsync never: …"]), "", None), "--fsync never");
        one(told(|s| s["groups"][0]["leader_node"] = Value::Null, "", None), "no leader");
        one(told(|s| s["groups"][0]["committed_index"] = json!(20_000), "", None), "19991 entries behind");
        one(told(|s| s["members"][1]["link"] = json!("Connecting"), "", None), "no link to b");
        let late = "chronos_raft_follower_lag_entries{group=\"0\",peer=\"b\"} 30000\n";
        one(told(|_| (), late, None), "peer=\"b\"");
        one(told(|_| (), "chronos_clock_offset_seconds -2.5\n", None), "2.500 s ahead");
        one(told(|_| (), "", Some((100 << 20, 100 << 30))), "100 MiB of 102400");
    }

    #[test]
    fn a_directory_tells_how_its_node_ended() {
        let dir = tempfile::tempdir().unwrap();
        assert!(of_directory(dir.path())[0].wrong);
        std::fs::write(dir.path().join("identity"), "1").unwrap();
        std::fs::write(dir.path().join("weak"), "").unwrap();
        std::fs::write(dir.path().join("verify-needed"), "a checksum failed").unwrap();
        let found: Vec<String> = of_directory(dir.path()).iter().map(Finding::to_string).collect();
        assert!(found[0].starts_with("note: the last run did not end cleanly"), "{found:?}");
        assert!(found[1].contains("weak --fsync") && found[2].contains("a checksum failed"), "{found:?}");
    }
}
