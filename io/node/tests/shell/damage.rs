//! Damage to the files of a stopped node. Each is repaired, refused with a message, or harmless: never wrong data,
//! and never a death by signal. The table in `docs/FORMAT.md` is this sweep's.

use crate::common::*;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

type Rows = BTreeMap<u64, Bytes>;

/// A stopped node's directory with checkpoints behind it, and rows that only the WAL has.
struct Fixture {
    dir: tempfile::TempDir,
    rows: Rows,
}

fn value(n: u64) -> Vec<u8> {
    n.to_le_bytes().into_iter().cycle().take(if n.is_multiple_of(40) { 6_000 } else { 60 }).collect()
}

/// With `checkpoints` above one the WAL no longer reaches back to the first entry.
fn fixture(checkpoints: u64) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let node = open(&dir.path().join("data"));
    create(&node);
    for round in 0..=checkpoints {
        let mut ops = Vec::new();
        for n in 0..150 {
            ops.push(replace(&node, n * (round + 1), &value(n + round)));
        }
        commit(&node, ops).unwrap();
        if round < checkpoints {
            checkpoint(&node);
        }
    }
    let rows = rows(&node);
    node.stop();
    Fixture { dir, rows }
}

/// What became of each damage, in all and by kind.
#[derive(Debug, Default)]
struct Tally {
    repaired: u32,
    refused: u32,
    harmless: u32,
    kinds: BTreeMap<String, [u32; 3]>,
}

impl Tally {
    /// The kind is what stands before the colon.
    fn count(&mut self, what: &str, outcome: usize) {
        let kind = what.split(':').next().unwrap_or_default();
        self.kinds.entry(kind.to_owned()).or_default()[outcome] += 1;
        *[&mut self.repaired, &mut self.refused, &mut self.harmless][outcome] += 1;
    }

    /// As the table in `docs/FORMAT.md`.
    fn print(&self) {
        for (kind, [repaired, refused, harmless]) in &self.kinds {
            println!("| {kind} | {repaired} | {refused} | {harmless} |");
        }
    }
}

const REPAIRED: usize = 0;
const REFUSED: usize = 1;
const HARMLESS: usize = 2;

impl Fixture {
    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Damages a copy, opens it, and holds it to the promise.
    fn try_damage(&self, tally: &mut Tally, what: &str, damage: impl FnOnce(&Path)) {
        let copy = self.dir.path().join("copy");
        if copy.exists() {
            fs::remove_dir_all(&copy).unwrap();
        }
        copy_dir(&self.data(), &copy);
        damage(&copy);
        let report = chronos_node::verify(&copy, &mut |_, _, _| ());
        match chronos_node::open(options(&copy)) {
            Err(error) => {
                tally.count(what, REFUSED);
                let message = error.to_string();
                assert!(message.contains(&copy.display().to_string()), "{what}: names no file: {message}");
                assert!(
                    report.is_err() || !report.unwrap().is_sound(),
                    "{what}: verify says sound, open {message}"
                );
            }
            Ok(node) => {
                let notices = node.status().unwrap().notices;
                if self.all_rows_are_there(&node, what) {
                    match notices.is_empty() {
                        true => tally.count(what, HARMLESS),
                        false => tally.count(what, REPAIRED),
                    }
                } else {
                    tally.count(what, REFUSED);
                    assert!(!notices.is_empty(), "{what}: rows are refused and nothing says why");
                }
                node.stop();
            }
        }
    }

    /// False if some rows are refused by an error; a wrong or missing row is a failure.
    fn all_rows_are_there(&self, node: &chronos_node::NodeHandle, what: &str) -> bool {
        let snapshot = node.published().snapshot;
        let mut all = true;
        for (n, row) in &self.rows {
            match snapshot.get(&chronos_engine::keys::row(TABLE, &row_key(*n))) {
                Ok(found) => assert_eq!(found.as_ref(), Some(row), "{what}: row {n}"),
                Err(_) => all = false,
            }
        }
        all
    }
}

fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn store(dir: &Path) -> PathBuf {
    dir.join("store/data.mdb")
}

fn sweep_store(fixture: &Fixture) -> Tally {
    let mut tally = Tally::default();
    let length = fs::metadata(store(&fixture.data())).unwrap().len() as usize;
    let pages = length / 4096;
    // The fields of both meta pages, then a byte here and there.
    let metas = (0..152).step_by(5).flat_map(|at| [at, 4096 + at]);
    for at in metas.chain((8192..length).step_by(length / 60)) {
        let bit = at % 8;
        fixture.try_damage(&mut tally, &format!("one bit flipped: {bit} of byte {at}"), |dir| {
            edit(&store(dir), |bytes| bytes[at] ^= 1 << bit);
        });
    }
    for page in (0..pages).step_by((pages / 25).max(1)) {
        let at = page * 4096;
        fixture.try_damage(&mut tally, &format!("one page zeroed: {page}"), |dir| {
            edit(&store(dir), |bytes| bytes[at..at + 4096].fill(0));
        });
        fixture.try_damage(&mut tally, &format!("truncated: to {page} pages"), |dir| {
            edit(&store(dir), |bytes| bytes.truncate(at));
        });
        let other = (page + 3) % pages * 4096;
        fixture.try_damage(&mut tally, &format!("two pages swapped: {page}"), |dir| {
            edit(&store(dir), |bytes| {
                let (a, b) = (bytes[at..at + 4096].to_vec(), bytes[other..other + 4096].to_vec());
                bytes[at..at + 4096].copy_from_slice(&b);
                bytes[other..other + 4096].copy_from_slice(&a);
            });
        });
    }
    fixture.try_damage(&mut tally, "the file removed", |dir| fs::remove_file(store(dir)).unwrap());
    fixture
        .try_damage(&mut tally, "the folder removed", |dir| fs::remove_dir_all(dir.join("store")).unwrap());
    tally
}

#[test]
fn a_damaged_store_is_rebuilt_while_the_wal_has_everything() {
    let tally = sweep_store(&fixture(1));
    tally.print();
    assert!(tally.repaired > 50, "{tally:?}");
    assert_eq!(tally.refused, 0, "{tally:?}");
}

#[test]
fn a_damaged_store_is_refused_when_the_wal_cannot_rebuild_it() {
    let fixture = fixture(4);
    let tally = sweep_store(&fixture);
    tally.print();
    assert!(tally.refused > 50, "{tally:?}");
    assert!(tally.repaired > 0, "the checkpoint before the last is never used: {tally:?}");
}

#[test]
fn an_old_store_is_never_taken_for_a_new_one() {
    let fixture = fixture(1);
    let old = fs::read(store(&fixture.data())).unwrap();
    let mark = fs::read(fixture.data().join("store/mark")).unwrap();
    let node = open(&fixture.data());
    for n in 0..4 {
        commit(&node, vec![put(100_000 + n, b"newer")]).unwrap();
        checkpoint(&node);
    }
    let rows = rows(&node);
    node.stop();
    let fixture = Fixture { rows, ..fixture };
    let mut tally = Tally::default();
    fixture.try_damage(&mut tally, "an old file", |dir| fs::write(store(dir), &old).unwrap());
    fixture.try_damage(&mut tally, "an old file and mark", |dir| {
        fs::write(store(dir), &old).unwrap();
        fs::write(dir.join("store/mark"), &mark).unwrap();
    });
    fixture.try_damage(&mut tally, "no file and no mark", |dir| {
        fs::remove_file(store(dir)).unwrap();
        fs::remove_file(dir.join("store/mark")).unwrap();
    });
    assert_eq!(tally.refused, 3, "{tally:?}");
}

/// An old copy of one page: its number, its seals and its shape are right, only the sums are not.
#[test]
fn a_page_that_went_back_in_time_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = open(&data);
    create(&node);
    commit(&node, (0..150).map(|n| put(n, &value(n))).collect()).unwrap();
    checkpoint(&node);
    let mut images = vec![fs::read(store(&data)).unwrap()];
    for round in 0..6 {
        commit(&node, vec![replace(&node, 70, &[round as u8; 60])]).unwrap();
        checkpoint(&node);
        images.push(fs::read(store(&data)).unwrap());
    }
    let rows = rows(&node);
    node.stop();
    let fixture = Fixture { dir, rows };
    let last = fs::read(store(&data)).unwrap();
    let mut tally = Tally::default();
    for (i, image) in images.iter().enumerate() {
        for at in (0..image.len().min(last.len())).step_by(4096) {
            if image[at..at + 4096] != last[at..at + 4096] {
                fixture.try_damage(
                    &mut tally,
                    &format!("a page gone back: {} of checkpoint {i}", at / 4096),
                    |dir| {
                        edit(&store(dir), |bytes| {
                            bytes[at..at + 4096].copy_from_slice(&image[at..at + 4096])
                        });
                    },
                );
            }
        }
    }
    assert!(tally.refused > 3, "{tally:?}");
}

#[test]
fn a_damaged_wal_is_refused_or_harmless() {
    let fixture = fixture(2);
    let mut tally = Tally::default();
    let segments = || {
        let mut names: Vec<_> =
            fs::read_dir(fixture.data().join("wal")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for name in segments() {
        let file = |dir: &Path| dir.join("wal").join(&name);
        let length = fs::metadata(file(&fixture.data())).unwrap().len() as usize;
        for at in (0..length).step_by(length / 40) {
            fixture.try_damage(&mut tally, &format!("one bit flipped: {name:?} byte {at}"), |dir| {
                edit(&file(dir), |bytes| bytes[at] ^= 0x10);
            });
        }
        for at in (0..length).step_by(length / 6) {
            fixture.try_damage(&mut tally, &format!("truncated: {name:?} to {at}"), |dir| {
                edit(&file(dir), |bytes| bytes.truncate(at));
            });
            fixture.try_damage(&mut tally, &format!("4 KiB zeroed: {name:?} from {at}"), |dir| {
                edit(&file(dir), |bytes| bytes[at..(at + 4096).min(length)].fill(0));
            });
        }
        fixture.try_damage(&mut tally, &format!("a segment removed: {name:?}"), |dir| {
            fs::remove_file(file(dir)).unwrap()
        });
    }
    fixture.try_damage(&mut tally, "all segments removed", |dir| {
        fs::remove_dir_all(dir.join("wal")).unwrap();
        fs::create_dir(dir.join("wal")).unwrap();
    });
    fixture.try_damage(&mut tally, "wal folder removed", |dir| fs::remove_dir_all(dir.join("wal")).unwrap());
    tally.print();
    assert!(tally.refused > 20, "{tally:?}");
}

#[test]
fn verify_reads_everything_and_finds_a_sound_directory_sound() {
    let fixture = fixture(3);
    let mut seen = Vec::new();
    let report =
        chronos_node::verify(&fixture.data(), &mut |what, done, of| seen.push((what.to_owned(), done, of)))
            .unwrap();
    assert!(report.is_sound(), "{report}");
    assert!(report.store.as_ref().unwrap().entries > 300 && report.entries > 0, "{report}");
    assert_eq!(report.checkpoint.len(), 1);
    assert!(seen.iter().any(|(what, _, _)| what == "wal"));
    assert!(report.to_string().ends_with("sound"));
    let node = open(&fixture.data());
    assert!(
        chronos_node::verify(&fixture.data(), &mut |_, _, _| ()).unwrap_err().to_string().contains("in use")
    );
    node.stop();
}
