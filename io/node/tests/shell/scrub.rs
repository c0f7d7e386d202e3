//! What is found while a node runs: by the background verification, and by a death that explains itself.

use crate::common::*;
use chronos_node::{Exit, NodeHandle, OpenError, Options, Profile, VerifyState};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

const LEAF: u8 = 0x02;

/// A stopped node with rows on many pages; with `deep` its WAL does not reach back to the first entry.
fn fill(dir: &Path, deep: bool) {
    let node = open(dir);
    create(&node);
    commit(&node, (0..2_000).map(|n| put(n, &[n as u8; 100])).collect()).unwrap();
    checkpoint(&node);
    if deep {
        for n in 0..3 {
            commit(&node, vec![replace(&node, n, &[0xAB; 100])]).unwrap();
            checkpoint(&node);
        }
    }
    node.stop();
}

/// Opens without a full verification before serving.
fn open_unverified(dir: &Path) -> Result<NodeHandle, OpenError> {
    let options = options(dir);
    let profile = Profile { verify_at_open_bytes: 0, ..options.profile };
    chronos_node::open(Options { profile, ..options })
}

/// Damages the leaf page that holds row 1000; the closure gets the page and where in it the row's value is.
fn damage_a_leaf(dir: &Path, damage: impl FnOnce(&mut [u8], usize)) {
    let path = dir.join("store/data.mdb");
    let mut bytes = fs::read(&path).unwrap();
    let key = chronos_engine::keys::row(TABLE, &row_key(1_000));
    let at = bytes.windows(key.len()).position(|window| window == key).expect("row 1000");
    let page = at / 4096 * 4096;
    assert_eq!(bytes[page + 10], LEAF);
    damage(&mut bytes[page..page + 4096], at - page + key.len() + 10);
    fs::write(&path, bytes).unwrap();
}

/// The damage may be found before the node is ready.
fn run_until_damage_is_found(dir: &Path) -> String {
    match open_unverified(dir) {
        Ok(node) => match node.wait() {
            Exit::Fatal(why) => {
                assert_eq!(node.stop(), Exit::Fatal(why.clone()));
                why
            }
            Exit::Stopped => panic!("it stopped as if all were well"),
        },
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_sound_store_is_verified_in_the_background() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), true);
    let node = open_unverified(dir.path()).unwrap();
    until(|| node.status().unwrap().store.verify == VerifyState::Verified);
    commit(&node, vec![put(5_000, b"goes on")]).unwrap();
    checkpoint(&node);
    assert_eq!(node.stop(), Exit::Stopped);
}

#[test]
fn damage_found_in_the_background_stops_the_node_and_the_next_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), true);
    damage_a_leaf(dir.path(), |page, _| page.fill(0));
    let why = run_until_damage_is_found(dir.path());
    assert!(why.contains("data.mdb, page") && why.contains("Restart it"), "{why}");
    let error = open_unverified(dir.path()).unwrap_err().to_string();
    assert!(error.contains("data.mdb, page") && error.contains("chronos verify"), "{error}");
}

#[test]
fn damage_found_in_the_background_is_repaired_by_the_next_start_if_the_wal_can() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), false);
    damage_a_leaf(dir.path(), |page, _| page.fill(0));
    run_until_damage_is_found(dir.path());
    let node = open_unverified(dir.path()).unwrap();
    let notices = node.status().unwrap().notices;
    assert!(notices.iter().any(|notice| notice.contains("and the WAL since are used")), "{notices:?}");
    assert_eq!(rows(&node).len(), 2_000);
    assert_eq!(node.stop(), Exit::Stopped);
}

#[test]
fn a_damaged_value_is_refused_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), true);
    damage_a_leaf(dir.path(), |page, value| page[value] ^= 1);
    for open in [open_unverified, |dir: &Path| chronos_node::open(options(dir))] {
        let node = open(dir.path()).unwrap();
        // The verdict is there first, the driver's notice of it a moment later.
        until(|| matches!(node.status().unwrap().store.verify, VerifyState::Damaged(_)));
        until(|| node.status().unwrap().notices.iter().any(|notice| notice.contains("1 damaged values")));
        let snapshot = node.published().snapshot;
        let key = |n| chronos_engine::keys::row(TABLE, &row_key(n));
        let refused: Vec<_> = (0..2_000).filter(|n| snapshot.get(&key(*n)).is_err()).collect();
        assert_eq!(refused, [1_000]);
        assert_eq!(node.stop(), Exit::Stopped);
    }
}

/// Run by the test below in a process of its own.
#[test]
fn child_dies_by_a_wild_read() {
    let Ok(dir) = std::env::var("CHRONOS_TEST_CHILD_DIR") else { return };
    let _node = chronos_node::open(Options { explain_signals: true, ..options(dir.as_ref()) }).unwrap();
    // SAFETY: none: the fault is what is tested.
    unsafe { std::ptr::read_volatile(64 as *const u8) };
}

#[test]
fn a_death_by_signal_is_explained_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), true);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "scrub::child_dies_by_a_wild_read", "--nocapture"])
        .env("CHRONOS_TEST_CHILD_DIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(child.status.signal().is_some(), "{:?}", child.status);
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("chronos: died by SIGSEGV"), "{said}");
    let node = open_unverified(dir.path()).unwrap();
    let notices = node.status().unwrap().notices;
    assert!(notices.iter().any(|n| n.contains("verified in full") && n.contains("signal 11")), "{notices:?}");
    node.stop();
    let node = open_unverified(dir.path()).unwrap();
    let notices = node.status().unwrap().notices;
    assert!(notices.is_empty(), "it is told once: {notices:?}");
    node.stop();
}
