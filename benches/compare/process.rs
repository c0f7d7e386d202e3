//! What the operating system says of a server's processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Result, Write};
use std::path::Path;
use std::time::Instant;

/// /proc counts in these.
const TICKS_A_SECOND: f64 = 100.0;

/// CPU time that a process and its descendants had used at a moment.
pub struct Cpu {
    root: u32,
    ticks: BTreeMap<u32, u64>,
}

impl Cpu {
    /// Of this process and those below it.
    pub fn of(root: u32) -> Cpu {
        let ticks = family(root).into_iter().filter_map(|pid| Some((pid, used(pid)?))).collect();
        Cpu { root, ticks }
    }

    /// How much they have used since, in seconds.
    pub fn seconds_since(&self) -> f64 {
        let now = Cpu::of(self.root);
        let since =
            |(pid, ticks): (&u32, &u64)| ticks.saturating_sub(self.ticks.get(pid).copied().unwrap_or(0));
        now.ticks.iter().map(since).sum::<u64>() as f64 / TICKS_A_SECOND
    }
}

/// CPU time that this process alone has used, in seconds.
pub fn own_seconds() -> f64 {
    used(std::process::id()).unwrap_or(0) as f64 / TICKS_A_SECOND
}

/// Resident memory of a process and those below it, in bytes; pages that they share are counted once.
pub fn memory(root: u32) -> u64 {
    let proportional = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    family(root).into_iter().filter_map(proportional).sum::<u64>() * 1024
}

fn family(root: u32) -> Vec<u32> {
    let mut parents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = fields(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            parents.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(parents.get(&pid).into_iter().flatten());
        next += 1;
    }
    found
}

/// The fields of /proc/PID/stat from the state on: the name before it may hold anything.
fn fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn used(pid: u32) -> Option<u64> {
    let fields = fields(pid)?;
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(number(11)? + number(12)?)
}

/// What a 4 KB append and its fdatasync take on this disk: the median of a hundred, in microseconds.
pub fn sync_micros(dir: &Path) -> Result<u64> {
    let path = dir.join(format!("chronos-compare-{}.sync", std::process::id()));
    let mut file = File::create(&path)?;
    let mut taken = Vec::new();
    for _ in 0..100 {
        let start = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        taken.push(start.elapsed().as_micros() as u64);
    }
    fs::remove_file(path)?;
    taken.sort_unstable();
    Ok(taken[taken.len() / 2])
}
