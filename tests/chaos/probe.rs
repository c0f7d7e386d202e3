//! How long the disk under the nodes makes anybody wait: a file of the run's own that is written and synced all along.
//! A leader whose disk stands still steps down, and rightly; on a busy machine that explains many a gap.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(100);

/// A thread that writes and syncs. Dropped, it ends.
pub struct Probe {
    path: PathBuf,
    ended: Arc<AtomicBool>,
    slowest_ms: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// In a folder on the disk in question.
    pub fn start(folder: &Path) -> io::Result<Probe> {
        let path = folder.join("probe");
        let mut file = File::create(&path)?;
        let (ended, slowest_ms) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end, slowest) = (ended.clone(), slowest_ms.clone());
        let thread = std::thread::Builder::new().name("probe".into()).spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let start = Instant::now();
                if let Err(e) = file.write_all(&[1; 512]).and_then(|()| file.sync_data()) {
                    return eprintln!("chaos: the disk is not probed any more: {e}");
                }
                slowest.fetch_max(start.elapsed().as_millis() as u64, Ordering::Relaxed);
                std::thread::sleep(EVERY);
            }
        })?;
        Ok(Probe { path, ended, slowest_ms, thread: Some(thread) })
    }

    /// What the slowest write and sync took so far, in milliseconds.
    pub fn slowest_ms(&self) -> u64 {
        self.slowest_ms.load(Ordering::Relaxed)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A probe that panicked has said so.
            let _ = thread.join();
        }
        // A file that stays is only untidy.
        let _ = fs::remove_file(&self.path);
    }
}
