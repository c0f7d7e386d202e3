//! The first thing a newcomer runs.

use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_chronos"))
        .arg("demo")
        .env("TMPDIR", folder.path())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    let took = begin.elapsed();
    let shown = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{shown}\n{said}");
    for fact in ["19,226 rows: all of them", "alert-1 was due", "SIGKILL", "alert-2 came once", " 0 lost"] {
        assert!(shown.contains(fact), "no {fact:?} in\n{shown}");
    }
    assert!(took < Duration::from_secs(60), "{took:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the directory is removed");
}
