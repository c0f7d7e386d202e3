//! The background verification of a store that was too large to verify before serving.
//!
//! It walks the checkpoint that was current at the start, page by page, with a view of it held so that none of its
//! pages is used again meanwhile; then it compares the sums. It reads at a bounded rate and stops when asked.

use crate::status::VerifyState;
use crate::store::check::{DATA_FILE, DamagedValues, walk};
use crate::store::pages::{Meta, PageFile, WalkError};
use crate::store::{Pin, View};
use crate::verify::digest_difference;
use chronos_engine::proto::id::GroupId;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The pause after every 256 pages: it bounds the rate to about half a gigabyte a second.
const PAUSE: Duration = Duration::from_millis(2);

/// What is to be scrubbed.
pub(crate) struct Scrub {
    pages: PageFile,
    meta: Meta,
    /// None of its pages is used again while it is pinned.
    view: Pin,
    groups: Vec<GroupId>,
    state: Arc<Mutex<VerifyState>>,
    stop: Arc<AtomicBool>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing is wrong.
    Sound,
    /// Some values fail their checksum; reads of them are refused.
    Values(String),
    /// The file's structure or content is wrong: it is not to be read any further.
    Damaged(String),
    /// It was stopped.
    Stopped,
}

impl Scrub {
    /// Prepares to scrub the newest checkpoint, before any other can be written.
    pub(crate) fn new(
        dir: &Path,
        view: &Arc<View>,
        groups: Vec<GroupId>,
        state: Arc<Mutex<VerifyState>>,
        stop: Arc<AtomicBool>,
    ) -> Result<Scrub, WalkError> {
        let pages = PageFile::open(&dir.join(DATA_FILE))?;
        let (first, second) = (pages.meta(0)?, pages.meta(1)?);
        let meta = if first.txn > second.txn { first } else { second };
        Ok(Scrub { pages, meta, view: view.pin(), groups, state, stop })
    }

    pub(crate) fn run(self) -> Ended {
        let mut damaged = DamagedValues::default();
        let mut progress = |pages, of| {
            self.set(VerifyState::Running { pages, of });
            std::thread::sleep(PAUSE);
            !self.stop.load(Ordering::Relaxed)
        };
        let walked = walk(&self.pages, &self.meta, &mut damaged, &mut progress);
        let ended = match walked {
            _ if self.stop.load(Ordering::Relaxed) => return Ended::Stopped,
            Err(WalkError::Damage(damage)) => Ended::Damaged(damage.to_string()),
            Err(WalkError::Io(error)) => Ended::Damaged(format!("the store cannot be read: {error}")),
            Ok(_) if damaged.count > 0 => Ended::Values(damaged.to_string()),
            Ok(_) => {
                let mut go_on = || !self.stop.load(Ordering::Relaxed);
                match digest_difference(&self.view, &self.groups, &mut go_on) {
                    Some(difference) => Ended::Damaged(difference),
                    None if go_on() => Ended::Sound,
                    None => return Ended::Stopped,
                }
            }
        };
        self.set(match &ended {
            Ended::Sound | Ended::Stopped => VerifyState::Verified,
            Ended::Values(what) | Ended::Damaged(what) => VerifyState::Damaged(what.clone()),
        });
        ended
    }

    fn set(&self, state: VerifyState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
