//! What a node records can be stepped through again, and what goes wrong with it never harms the node.

use crate::common::*;
use chronos_engine::record::{Entries, Origin, Player};
use chronos_engine::step::Outputs;
use chronos_node::{Exit, NodeHandle, Options, RecordOptions, recordings};
use std::path::{Path, PathBuf};

fn open_recorded(dir: &Path, record: &Path, max_bytes: u64) -> NodeHandle {
    let record = Some(RecordOptions { dir: record.to_owned(), max_bytes });
    chronos_node::open(Options { record, ..options(dir) }).unwrap()
}

/// Steps through a recording; how many steps there were, and whether it begins with an image.
fn replay(file: &Path) -> (u64, bool) {
    let bytes = std::fs::read(file).unwrap();
    let mut entries = Entries::of(&bytes).unwrap();
    let beginning = entries.beginning().unwrap();
    let is_image = matches!(beginning.opening.origin, Origin::Image(_));
    let (mut recorded, mut out) = (beginning.made.hash, Outputs::default());
    let (player, mut played) = Player::open(beginning, &mut out);
    let (mut player, mut steps) = (player.unwrap(), 0);
    loop {
        assert_eq!(played.unanswered, None, "step {steps} of {}", file.display());
        assert_eq!(Some(played.hash), recorded, "step {steps} of {}", file.display());
        let Some(step) = entries.step().unwrap() else { break };
        recorded = step.made.hash;
        steps += 1;
        out.effects.clear();
        played = player.step(step, &mut out);
    }
    assert_eq!(entries.rest(), 0);
    (steps, is_image)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    recordings(dir, "node").unwrap()
}

#[test]
fn a_run_over_checkpoints_and_a_restart_is_replayed_step_by_step() {
    let (dir, record) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = open_recorded(dir.path(), record.path(), 64 << 20);
    create(&node);
    for round in 0..3u64 {
        for n in 0..100 {
            commit(&node, vec![replace(&node, n * 7 % 150, &round.to_le_bytes())]).unwrap();
        }
        checkpoint(&node);
    }
    assert_eq!(node.stop(), Exit::Stopped);
    // What the second run finds in the store is in its recording as far as the engine looks at it.
    let node = open_recorded(dir.path(), record.path(), 64 << 20);
    for n in 0..100 {
        commit(&node, vec![replace(&node, n, b"again")]).unwrap();
    }
    let status = node.status().unwrap().recording.unwrap();
    assert!(status.written_bytes > 0 && status.stopped.is_none() && status.gaps == 0, "{status:?}");
    assert_eq!(node.stop(), Exit::Stopped);
    let files = files(record.path());
    assert_eq!(files.len(), 2);
    for file in files {
        let (steps, is_image) = replay(&file);
        assert!(steps > 100 && !is_image, "{steps} steps");
    }
}

#[test]
fn recordings_are_bounded_and_each_is_whole_by_itself() {
    let (dir, record) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let max_bytes = chronos_node::MAX_BYTES_LEAST;
    let node = open_recorded(dir.path(), record.path(), max_bytes);
    create(&node);
    let payload = vec![7; 16 << 10];
    let first = files(record.path()).remove(0);
    let mut n = 0;
    while first.exists() {
        commit(&node, vec![replace(&node, n % 20, &payload)]).unwrap();
        n += 1;
        if n.is_multiple_of(50) {
            checkpoint(&node);
        }
        let all: u64 = files(record.path()).iter().filter_map(|file| Some(file.metadata().ok()?.len())).sum();
        assert!(all <= max_bytes, "{all} bytes after {n} commits");
    }
    assert_eq!(node.stop(), Exit::Stopped);
    let files = files(record.path());
    assert!(files.len() > 1, "{files:?}");
    let replayed: Vec<_> = files.iter().map(|file| replay(file)).collect();
    assert!(replayed.iter().all(|(_, is_image)| *is_image), "{replayed:?}");
    assert!(replayed.iter().map(|(steps, _)| steps).sum::<u64>() > 50, "{replayed:?}");
}

#[test]
fn a_directory_that_cannot_be_written_ends_the_recording_and_not_the_node() {
    let (dir, record) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = record.path().join("no directory");
    std::fs::write(&file, b"").unwrap();
    let node = open_recorded(dir.path(), &file, 64 << 20);
    create(&node);
    until(|| node.status().unwrap().recording.unwrap().stopped.is_some());
    let why = node.status().unwrap().recording.unwrap().stopped.unwrap();
    assert!(why.contains("cannot record") && why.contains("no directory"), "{why}");
    commit(&node, vec![put(1, b"goes on")]).unwrap();
    assert_eq!(rows(&node).len(), 1);
    assert_eq!(node.stop(), Exit::Stopped);
}
