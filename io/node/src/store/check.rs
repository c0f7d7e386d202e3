//! Looks at a store's file before LMDB maps it, and decides what it is good for.
//!
//! | mark | file | what is found | what is done |
//! |---|---|---|---|
//! | no | no, or never written | a new store | made |
//! | yes | missing, empty or shorter than marked | lost | rebuilt from the WAL, if that has everything; else refused |
//! | any | both meta pages and the whole tree sound | sound | opened |
//! | any | the newer state damaged, the older sound | damaged | the older is taken; the WAL, kept that far, goes on |
//! | any | values that fail their checksum, the tree sound | damaged | rebuilt as above; else opened, and those keys are refused |
//! | any | anything else | damaged | rebuilt as above; else refused |
//!
//! A store is *rebuilt* by beginning an empty one: the engine replays the whole log. A damaged file is kept beside it.

use super::mark::Mark;
use super::pages::{Damage, Meta, PageFile, Progress, WalkError, Walked};
use crate::directory::sync_dir;
use crate::error::OpenError;
use bytes::Bytes;
use chronos_engine::state::sealed;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The name of the data file in a store's directory.
pub const DATA_FILE: &str = "data.mdb";
/// Where a damaged data file is kept.
const KEPT_FILE: &str = "data.mdb.damaged";
/// Damaged values that are listed; more are counted.
const LISTED_MAX: usize = 100;

/// How thoroughly to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The length and the meta pages.
    Quick,
    /// Every page and every value.
    Full,
}

/// What a file is good for.
#[derive(Debug)]
pub enum Found {
    /// There is no store yet.
    New,
    /// It may be opened.
    Sound(Sound),
    /// It is missing, though there was one, or it is not to be mapped.
    Lost(String),
}

/// A file that may be mapped.
#[derive(Debug)]
pub struct Sound {
    /// What was counted, if all of it was looked at.
    pub walked: Option<Walked>,
    /// Values that fail their checksum.
    pub damaged: DamagedValues,
    /// The newer state is damaged: the older one, in this slot, is to be made the newest.
    pub fall_back: Option<FallBack>,
}

/// The older of two states is to be taken.
#[derive(Debug)]
pub struct FallBack {
    keep: Meta,
    /// What is wrong with the newer one.
    pub why: String,
}

/// Values that fail their checksum.
#[derive(Clone, Debug, Default)]
pub struct DamagedValues {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub listed: Vec<Damage>,
}

impl std::fmt::Display for DamagedValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} damaged values", self.count)?;
        if let Some(first) = self.listed.first() {
            write!(f, ", first {first}")?;
        }
        Ok(())
    }
}

/// Looks at the file in a store's directory; changes nothing.
pub fn check(dir: &Path, mark: Option<&Mark>, depth: Depth, progress: Progress<'_>) -> io::Result<Found> {
    let path = dir.join(DATA_FILE);
    let length = match fs::metadata(&path) {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let marked = mark.map_or(0, |mark| mark.length);
    if length == 0 && marked == 0 && mark.is_none_or(|mark| mark.txn == 0) {
        return Ok(Found::New);
    }
    if length < marked {
        return Ok(Found::Lost(format!(
            "{} is {length} bytes long, but had {marked} after its last checkpoint: it was truncated, emptied or removed",
            path.display()
        )));
    }
    let pages = match PageFile::open(&path) {
        Ok(pages) => pages,
        Err(error) => return lost(error),
    };
    let mut metas = Vec::new();
    let mut why = None;
    for slot in [0, 1] {
        match pages.meta(slot) {
            Ok(meta) => metas.push(meta),
            Err(WalkError::Damage(damage)) => why = Some(damage.to_string()),
            Err(WalkError::Io(error)) => return Err(error),
        }
    }
    metas.sort_by_key(|meta| std::cmp::Reverse(meta.txn));
    if let [newer, older] = &metas[..]
        && newer.txn - older.txn > 1
    {
        // One of the two numbers is damaged, and which cannot be told from here.
        return Ok(Found::Lost(format!(
            "{}: its meta pages are of transactions {} and {}, which are not neighbours",
            path.display(),
            newer.txn,
            older.txn
        )));
    }
    if depth == Depth::Quick && metas.len() == 2 {
        return Ok(Found::Sound(Sound { walked: None, damaged: DamagedValues::default(), fall_back: None }));
    }
    for meta in metas {
        let mut damaged = DamagedValues::default();
        match walk(&pages, &meta, &mut damaged, progress) {
            Ok(walked) => {
                let fall_back = why.map(|why| FallBack { keep: meta, why });
                return Ok(Found::Sound(Sound { walked: Some(walked), damaged, fall_back }));
            }
            Err(WalkError::Damage(damage)) => why = why.or(Some(damage.to_string())),
            Err(WalkError::Io(error)) => return Err(error),
        }
    }
    Ok(Found::Lost(why.unwrap_or_else(|| format!("{} has no meta page", path.display()))))
}

fn lost(error: WalkError) -> io::Result<Found> {
    match error {
        WalkError::Damage(damage) => Ok(Found::Lost(damage.to_string())),
        WalkError::Io(error) => Err(error),
    }
}

/// Walks one state of a file and opens the seal of every value.
pub fn walk(
    pages: &PageFile,
    meta: &Meta,
    damaged: &mut DamagedValues,
    progress: Progress<'_>,
) -> Result<Walked, WalkError> {
    let mut visit = |key: &[u8], value: &[u8]| {
        if sealed::open(key, &Bytes::copy_from_slice(value)).is_err() {
            damaged.count += 1;
            if damaged.listed.len() < LISTED_MAX {
                damaged.listed.push(pages.damaged_value(key));
            }
        }
        Ok(())
    };
    pages.walk(meta, &mut visit, progress)
}

/// Makes the older state of a file its newest, by writing it over the damaged meta page as the one before it.
pub fn fall_back(dir: &Path, fall_back: &FallBack) -> Result<(), OpenError> {
    let path = dir.join(DATA_FILE);
    let write = || -> io::Result<()> {
        let pages = match PageFile::open(&path) {
            Ok(pages) => pages,
            Err(WalkError::Io(error)) => return Err(error),
            Err(WalkError::Damage(damage)) => return Err(io::Error::other(damage.to_string())),
        };
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let (page, at) = pages.meta_page_before(&fall_back.keep)?;
        file.write_all_at(&page, at)?;
        file.sync_all()
    };
    write().map_err(OpenError::io("cannot repair", path))
}

/// Moves a damaged file out of the way, so that an empty store takes its place.
pub fn set_aside(dir: &Path) -> Result<Option<PathBuf>, OpenError> {
    let (path, kept) = (dir.join(DATA_FILE), dir.join(KEPT_FILE));
    let moved = match fs::rename(&path, &kept) {
        Ok(()) => Some(kept),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(OpenError::io("cannot move", path)(error)),
    };
    sync_dir(dir)?;
    Ok(moved)
}
