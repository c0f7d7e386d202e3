//! The whole of a data directory, read and checked: what `chronos verify` shows.

use crate::directory::Directory;
use crate::error::OpenError;
use crate::store::check::{self, DATA_FILE, Depth, Found, Sound};
use crate::store::mark::Mark;
use crate::store::pages::Walked;
use crate::store::{Store, View};
use crate::wal_files::FileSegments;
use chronos_engine::proto::id::{GroupId, Index};
use chronos_engine::state::{ReadError, State};
use chronos_engine::wal::{self, Recovered, Segments};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The directory.
    pub data_dir: PathBuf,
    /// WAL segments read.
    pub segments: usize,
    /// Log entries in them.
    pub entries: u64,
    /// The last entry of each group's log.
    pub last: Vec<(GroupId, Index)>,
    /// What was counted in the store, if its pages could be walked.
    pub store: Option<Walked>,
    /// The state that each group's last checkpoint holds.
    pub checkpoint: Vec<(GroupId, Index)>,
    /// Worth knowing, and harmless.
    pub notes: Vec<String>,
    /// Damage: file, place, keys.
    pub damage: Vec<String>,
    /// What a start will do about the damage.
    pub advice: Option<String>,
}

impl Report {
    /// Whether everything is well.
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "data directory: {}", self.data_dir.display())?;
        writeln!(f, "wal:   {} segments, {} entries", self.segments, self.entries)?;
        for (group, last) in &self.last {
            writeln!(f, "       group {group}: the log ends at entry {last}")?;
        }
        match &self.store {
            Some(walked) => writeln!(
                f,
                "store: {} entries on {} pages, {} pages free",
                walked.entries, walked.used_pages, walked.free_pages
            )?,
            None => writeln!(f, "store: not read to its end")?,
        }
        for (group, applied) in &self.checkpoint {
            writeln!(f, "       group {group}: the last checkpoint holds entry {applied}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for damage in &self.damage {
            writeln!(f, "DAMAGED: {damage}")?;
        }
        if let Some(advice) = &self.advice {
            writeln!(f, "{advice}")?;
        }
        f.write_str(if self.is_sound() { "sound" } else { "damaged" })
    }
}

/// Reads everything in a data directory that no node uses now, and checks it. Repairs nothing; takes note, so that
/// the next start knows. `progress` is given what is being read, and how much of how much.
pub fn verify(data_dir: &Path, progress: &mut dyn FnMut(&str, u64, u64)) -> Result<Report, OpenError> {
    let directory = Directory::open(data_dir, false)?;
    let mut report = Report { data_dir: data_dir.to_owned(), ..Report::default() };
    let recovered = verify_wal(&directory, &mut report, progress)?;
    verify_store(&directory, &recovered, &mut report, progress)?;
    if report.is_sound() {
        directory.mark_verified()?;
    } else if let Some(first) = report.damage.first() {
        directory.mark_verify(first)?;
    }
    Ok(report)
}

fn verify_wal(
    directory: &Directory,
    report: &mut Report,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Recovered, OpenError> {
    let dir = directory.wal();
    let segments = FileSegments::open(&dir).map_err(OpenError::io("cannot read", &dir))?;
    report.segments = segments.ids().len();
    if let Err(missing) = directory.check_segments(&segments) {
        report.damage.push(missing.to_string());
    }
    progress("wal", 0, report.segments as u64);
    let recovered = match wal::recover(directory.wal_identity(), &segments) {
        Ok(recovered) => recovered,
        Err(damage) => {
            report.damage.push(format!("{}/{damage}", report.data_dir.display()));
            report.advice = Some(
                "the WAL's damage keeps the node from starting: put the file back from a copy".to_owned(),
            );
            return Ok(Recovered::default());
        }
    };
    progress("wal", report.segments as u64, report.segments as u64);
    if let Err(damage) = directory.check_end(&recovered) {
        report.damage.push(damage.to_string());
    }
    report.entries = recovered.groups.values().map(|log| log.entries.len() as u64).sum();
    report.last = recovered.groups.iter().map(|(group, log)| (*group, log.last())).collect();
    if let Some(cut) = &recovered.cut {
        report.notes.push(format!(
            "the WAL ends in an unfinished write that was never acknowledged: {} at byte {}; the next start cuts it",
            cut.segment, cut.offset
        ));
    }
    Ok(recovered)
}

fn verify_store(
    directory: &Directory,
    recovered: &Recovered,
    report: &mut Report,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<(), OpenError> {
    let dir = directory.store();
    let mark = match Mark::read(&dir) {
        Ok(mark) => mark,
        Err(damage) => {
            report.damage.push(damage.to_string());
            None
        }
    };
    report.checkpoint = mark.as_ref().map(|mark| mark.applied.clone()).unwrap_or_default();
    let found = check::check(&dir, mark.as_ref(), Depth::Full, &mut |done, of| {
        progress("store", done, of);
        true
    });
    match found.map_err(OpenError::io("cannot read", dir.join(DATA_FILE)))? {
        Found::New => {
            report.store = Some(Walked::default());
            if recovered.groups.values().any(|log| log.compacted.index > Index(0)) {
                report.damage.push(format!("{} is missing, and was there", dir.join(DATA_FILE).display()));
            }
        }
        Found::Lost(why) => report.damage.push(why),
        Found::Sound(Sound { walked, damaged, fall_back }) => {
            report.store = walked;
            report.damage.extend(fall_back.map(|fall_back| fall_back.why));
            report.damage.extend(damaged.listed.iter().map(ToString::to_string));
            let more = damaged.count - damaged.listed.len() as u64;
            if more > 0 {
                report.damage.push(format!("and {more} values more"));
            }
            if report.damage.is_empty() {
                let groups: Vec<GroupId> = report.checkpoint.iter().map(|(group, _)| *group).collect();
                report.damage.extend(verify_sums(&dir, &groups, recovered)?);
            }
        }
    }
    if !report.damage.is_empty() && report.advice.is_none() {
        report.advice = Some(if is_whole(recovered) {
            "the WAL has everything from the first entry on: the next start rebuilds the store from it"
                .to_owned()
        } else {
            "the WAL does not reach back far enough to rebuild the store: restore the data directory from a copy".to_owned()
        });
    }
    Ok(())
}

/// Whether the log has every entry from the first on, so that an empty store and the log make the whole state.
pub(crate) fn is_whole(recovered: &Recovered) -> bool {
    !recovered.groups.is_empty() && recovered.groups.values().all(|log| log.compacted.index == Index(0))
}

fn verify_sums(dir: &Path, groups: &[GroupId], recovered: &Recovered) -> Result<Option<String>, OpenError> {
    let damaged =
        |error: heed::Error| OpenError::Damaged { file: dir.join(DATA_FILE), problem: error.to_string() };
    // The map is as large as it must be: nothing is written.
    let store = Store::open(dir, 0).map_err(damaged)?;
    let view = store.current();
    Ok(gap(view, recovered).or_else(|| digest_difference(view, groups, &mut || true)))
}

/// Whether the store's state and the log's entries leave something out between them: the store went back, or the log
/// lost its end.
pub(crate) fn gap(view: &Arc<View>, recovered: &Recovered) -> Option<String> {
    let store: chronos_engine::SharedStore = view.clone();
    for (group, log) in &recovered.groups {
        let applied = match State::open(*group, 0, &store) {
            Ok(state) => state.snapshot(&store).applied,
            Err(error) => return Some(format!("group {group}: {error}")),
        };
        let first = log.entries.first().map_or(log.compacted.index.next(), |entry| entry.index);
        if first > applied.next() {
            return Some(format!(
                "group {group}: the store is at entry {applied}, but the WAL begins at entry {first}: the store is an older copy of itself"
            ));
        }
        if log.last() < applied {
            let last = log.last();
            return Some(format!(
                "group {group}: the store is at entry {applied}, but the WAL ends at entry {last}: WAL files are missing"
            ));
        }
    }
    None
}

/// Compares the sums that the state keeps of itself with the store's content: finds what is whole and yet not what
/// was written last, such as a page that an old copy of itself took the place of.
pub(crate) fn digest_difference(
    view: &Arc<View>,
    groups: &[GroupId],
    go_on: &mut dyn FnMut() -> bool,
) -> Option<String> {
    let compare = |group: &GroupId| -> Result<Option<String>, ReadError> {
        let store: chronos_engine::SharedStore = view.clone();
        let state = State::open(*group, 0, &store)?;
        let differences = state.digests().differences(&state.recompute_digests(&store)?);
        Ok(differences.first().map(|(tag, relation, bucket)| {
            format!(
                "group {group}: the store does not hold what was written last: {} sums differ, first that of keys {tag:02x}, relation {relation}, bucket {bucket}",
                differences.len()
            )
        }))
    };
    for group in groups {
        if !go_on() {
            return None;
        }
        match compare(group) {
            Ok(None) => {}
            Ok(difference) => return difference,
            Err(error) => return Some(format!("group {group}: {error}")),
        }
    }
    None
}
