//! A death by signal explains itself, and is remembered.
//!
//! A damaged page that was not found in time can end the process with SIGSEGV or SIGBUS while LMDB reads it. The
//! handler writes one line to standard error and the signal's number into the data directory, then lets the signal
//! have its way. The next start reads the number and verifies the store in full before it serves.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];
const MESSAGE: &[u8] = b"\nchronos: died by SIGSEGV or SIGBUS. If the store's file was damaged or cut off while it was \
in use, that is why: the next start verifies all of it before it serves, and `chronos verify` shows what it finds.\n";

/// The note's file, open for the handler.
static FILE: AtomicI32 = AtomicI32::new(-1);
/// What handled the signals before.
static BEFORE: OnceLock<[libc::sigaction; 2]> = OnceLock::new();

/// Lets this process explain its death by SIGSEGV or SIGBUS, and leave a note in `file`. Signals belong to the
/// process, so the file is the first caller's.
pub(crate) fn explain(file: &Path) -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file)?;
    let handler = handle as extern "C" fn(libc::c_int);
    // SAFETY: an all-zero `sigaction` is valid, the calls read and write these structs alone, and the handler does
    // nothing but what is safe in a signal handler.
    let before = unsafe {
        let mut before = [std::mem::zeroed::<libc::sigaction>(); 2];
        let mut ours: libc::sigaction = std::mem::zeroed();
        ours.sa_sigaction = handler as usize;
        ours.sa_flags = libc::SA_ONSTACK;
        libc::sigemptyset(&mut ours.sa_mask);
        for (signal, before) in SIGNALS.iter().zip(&mut before) {
            if libc::sigaction(*signal, std::ptr::null(), before) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if BEFORE.set(before).is_err() {
            return Ok(());
        }
        FILE.store(opened.into_raw_fd(), Ordering::SeqCst);
        for signal in SIGNALS {
            if libc::sigaction(signal, &ours, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        before
    };
    debug_assert!(before.iter().all(|action| action.sa_sigaction != handler as usize));
    Ok(())
}

/// Writes the note, puts back what handled the signal before, and returns: the same instruction faults again.
extern "C" fn handle(signal: libc::c_int) {
    let note = [signal as u8];
    let at = usize::from(signal == SIGNALS[1]);
    // SAFETY: `write`, `pwrite` and `sigaction` are async-signal-safe and are given valid memory.
    unsafe {
        libc::pwrite(FILE.load(Ordering::SeqCst), note.as_ptr().cast(), note.len(), 0);
        libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
        match BEFORE.get() {
            Some(before) => libc::sigaction(signal, &before[at], std::ptr::null_mut()),
            None => libc::signal(signal, libc::SIG_DFL) as libc::c_int,
        };
    }
}
