//! From a directory to a running node: lock, WAL, store, engine. Each step looks before it changes anything.

use crate::directory::Directory;
use crate::error::OpenError;
use crate::handle::NodeHandle;
use crate::options::{Fsync, Options};
use crate::runner::{self, Parts};
use crate::status::VerifyState;
use crate::store::Store;
use crate::store::check::{self, DATA_FILE, Depth, Found, Sound};
use crate::store::mark::Mark;
use crate::verify::{digest_difference, gap, is_whole};
use crate::wal_files::{FileDisk, FileSegments};
use chronos_engine::proto::id::{GroupId, Index, NodeId};
use chronos_engine::state::State;
use chronos_engine::wal::{self, Recovered};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Opens a data directory, recovers what is in it, and runs the node until [`NodeHandle::stop`]. Returns once the
/// node takes reads and writes.
pub fn open(options: Options) -> Result<NodeHandle, OpenError> {
    let wanted = options.cluster.as_ref().map(|cluster| (cluster.id, NodeId::of_name(&options.name)));
    let mut directory = Directory::open_as(&options.data_dir, true, wanted)?;
    let wal_dir = directory.wal();
    let segments = FileSegments::open(&wal_dir).map_err(OpenError::io("cannot read", &wal_dir))?;
    directory.check_segments(&segments)?;
    let identity = directory.wal_identity();
    let recovered = wal::recover(identity, &segments)
        .map_err(|damage| OpenError::Wal { dir: options.data_dir.clone(), damage: Box::new(damage) })?;
    directory.check_end(&recovered)?;
    let mut notices = Vec::new();
    if let Some(cut) = &recovered.cut {
        notices.push(format!(
            "the WAL ended in an unfinished write, which was never acknowledged and was cut: {} at byte {}, lsn {}",
            cut.segment, cut.offset, cut.lsn
        ));
    }
    let doubtful = doubt(&directory, &options, &mut notices);
    directory.mark_running(options.fsync != Fsync::Always, doubtful)?;
    if options.explain_signals {
        let file = directory.signal_file();
        crate::signals::explain(&file).map_err(OpenError::io("cannot prepare", &file))?;
    }
    let (store, verify) = open_store(&mut directory, &options, &recovered, &mut notices)?;
    let disk = Box::new(FileDisk::open(&wal_dir).map_err(OpenError::io("cannot open", &wal_dir))?);
    runner::start(Parts {
        options,
        directory,
        recovered,
        store,
        disk,
        verify: Arc::new(Mutex::new(verify)),
        doubtful,
        notices,
    })
}

/// Whether the last run may have lost what it acknowledged, so that the node of a cluster must be caught up first.
fn doubt(directory: &Directory, options: &Options, notices: &mut Vec<String>) -> bool {
    if !directory.doubtful || options.cluster.is_none() {
        return false;
    }
    notices.push(match options.accept_loss {
        true => "the last run had a weak --fsync and did not end cleanly; by --accept-loss the node takes part as it is, and what was acknowledged and is on no disk of a majority is lost".to_owned(),
        false => "the last run had a weak --fsync and did not end cleanly, so acknowledged writes may be missing here: the node neither votes nor leads until a leader has caught it up. If a majority stopped so, nobody can: then start that majority with --accept-loss".to_owned(),
    });
    !options.accept_loss
}

/// Checks the store's file as thoroughly as there is reason to, repairs what can be, and maps it.
fn open_store(
    directory: &mut Directory,
    options: &Options,
    recovered: &Recovered,
    notices: &mut Vec<String>,
) -> Result<(Store, VerifyState), OpenError> {
    let dir = directory.store();
    let path = dir.join(DATA_FILE);
    let mark = Mark::read(&dir)?;
    // A state that came as a snapshot may be ahead of its log, if the process ended in between.
    let mut ahead: Vec<(GroupId, Index, Index)> = Vec::new();
    for (group, applied) in mark.iter().flat_map(|mark| &mark.applied) {
        let last = recovered.groups.get(group).map_or(Index(0), |log| log.last());
        if last < *applied {
            ahead.push((*group, last, *applied));
        }
    }
    let wal_dir = directory.wal();
    let missing = |(group, last, applied): &(GroupId, Index, Index)| OpenError::Damaged {
        file: wal_dir.clone(),
        problem: format!(
            "the log of group {group} ends at entry {last}, but the last checkpoint held entry {applied}: WAL files are missing. Put them back"
        ),
    };
    let length = std::fs::metadata(&path).map_or(0, |meta| meta.len());
    let small = length <= options.profile.verify_at_open_bytes;
    let reason = directory.verify_reason.clone();
    let depth = if small || reason.is_some() { Depth::Full } else { Depth::Quick };
    let found = check::check(&dir, mark.as_ref(), depth, &mut |_, _| true);
    let found = found.map_err(OpenError::io("cannot read", &path))?;
    if !matches!(&found, Found::Sound(sound) if sound.damaged.count == 0)
        && let Some(first) = ahead.first()
    {
        return Err(missing(first));
    }
    let begin_anew = |why: &str, notices: &mut Vec<String>| -> Result<(), OpenError> {
        if !is_whole(recovered) {
            return Err(OpenError::Damaged { file: path.clone(), problem: refusal(why) });
        }
        let kept = check::set_aside(&dir)?;
        let kept =
            kept.map_or(String::new(), |kept| format!("; the damaged file is kept as {}", kept.display()));
        notices.push(format!(
            "the store was damaged ({why}) and is rebuilt from the WAL, which has everything{kept}"
        ));
        Ok(())
    };
    let verify = match found {
        Found::New if recovered.groups.values().any(|log| log.compacted.index > Index(0)) => {
            let why = format!("{} is missing, and was there", path.display());
            return Err(OpenError::Damaged { file: path, problem: refusal(&why) });
        }
        Found::New => VerifyState::Verified,
        Found::Lost(why) => {
            begin_anew(&why, notices)?;
            VerifyState::Verified
        }
        Found::Sound(Sound { damaged, .. }) if damaged.count > 0 && is_whole(recovered) => {
            begin_anew(&damaged.to_string(), notices)?;
            VerifyState::Verified
        }
        Found::Sound(Sound { damaged, walked, fall_back }) => {
            if let Some(fall_back) = &fall_back {
                check::fall_back(&dir, fall_back)?;
                notices.push(format!(
                    "the newest checkpoint was damaged ({}); the one before it and the WAL since are used",
                    fall_back.why
                ));
            }
            match (damaged.count, walked) {
                (0, Some(_)) => VerifyState::Verified,
                (0, None) => VerifyState::Pending,
                _ => VerifyState::Damaged(damaged.to_string()),
            }
        }
    };
    let mut store = map(&dir, options, &path)?;
    for gone in &ahead {
        let view: chronos_engine::SharedStore = store.current().clone();
        let state = State::open(gone.0, 0, &view).ok();
        let whole = state.filter(|state| {
            let installed = state.installed(&view).ok().flatten();
            installed.is_some_and(|installed| installed.index == state.applied())
        });
        if whole.is_none() {
            return Err(missing(gone));
        }
    }
    if verify == VerifyState::Verified {
        let groups: Vec<_> = mark.iter().flat_map(|mark| &mark.applied).map(|(group, _)| *group).collect();
        if store.current().id() > 0
            && let Some(difference) = digest_difference(store.current(), &groups, &mut || true)
        {
            drop(store);
            begin_anew(&difference, notices)?;
            store = map(&dir, options, &path)?;
        }
    }
    if let Some(gap) = gap(store.current(), recovered) {
        return Err(OpenError::Damaged { file: path, problem: refusal(&gap) });
    }
    if mark.is_none() {
        let made = Mark { length: store.file_bytes(), ..Mark::default() };
        made.write(&dir)?;
    }
    match &verify {
        VerifyState::Verified => directory.mark_verified()?,
        VerifyState::Damaged(what) => {
            directory.mark_verify(what)?;
            notices.push(format!("the store has damaged values, which are refused: {what}"));
        }
        _ => {}
    }
    if let Some(reason) = reason {
        notices.push(format!("the store was verified in full before serving, because {reason}"));
    }
    Ok((store, verify))
}

fn refusal(why: &str) -> String {
    format!(
        "{why}. The WAL does not reach back far enough to rebuild it. Restore the data directory from a copy; `chronos verify` lists all that is damaged. Nothing was changed"
    )
}

fn map(dir: &Path, options: &Options, path: &Path) -> Result<Store, OpenError> {
    Store::open(dir, options.profile.store_max_bytes)
        .map_err(|error| OpenError::Damaged { file: path.to_owned(), problem: error.to_string() })
}
