//! The damages.

use crate::sample::Sample;
use chronos_tests::random::Random;
use std::fmt;
use std::fs;
use std::path::Path;

const PAGE: u64 = 4096;
const SECTOR: u64 = 512;

/// One damage to one file.
#[derive(Clone, Debug)]
pub struct Case {
    /// The file, below the data directory.
    pub file: String,
    /// What it is to the node.
    pub file_kind: &'static str,
    /// What is done to it.
    pub damage: Damage,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// One bit of the byte at this offset is the other.
    Flip { at: u64, bit: u8 },
    /// A sector holds something else.
    Garbage { at: u64, seed: u64 },
    /// A page is zeros.
    Zero { page: u64 },
    /// Two pages have changed places.
    Swap { a: u64, b: u64 },
    /// The file ends here.
    Cut { length: u64 },
    /// The file is empty.
    Empty,
    /// The file goes on with garbage.
    Longer { seed: u64 },
    /// The file is gone.
    Missing,
    /// The file is a copy from before.
    Older,
}

impl Case {
    /// The kind of damage, for the table.
    pub fn kind(&self) -> &'static str {
        match self.damage {
            Damage::Flip { .. } => "flipped bit",
            Damage::Garbage { .. } => "garbage sector",
            Damage::Zero { .. } => "zeroed page",
            Damage::Swap { .. } => "swapped pages",
            Damage::Cut { .. } => "cut short",
            Damage::Empty => "emptied",
            Damage::Longer { .. } => "lengthened",
            Damage::Missing => "missing",
            Damage::Older => "older copy",
        }
    }

    /// The first byte of the file that it touches.
    pub fn from(&self) -> u64 {
        match self.damage {
            Damage::Flip { at, .. } | Damage::Garbage { at, .. } => at,
            Damage::Zero { page } => page * PAGE,
            Damage::Swap { a, b } => a.min(b) * PAGE,
            Damage::Cut { length } => length,
            Damage::Longer { .. } => u64::MAX,
            Damage::Empty | Damage::Missing | Damage::Older => 0,
        }
    }

    /// Does it, to the copy in `data`.
    pub fn apply(&self, sample: &Sample, data: &Path) {
        let path = data.join(&self.file);
        let mut bytes = fs::read(&path).expect("the file is there");
        match self.damage {
            Damage::Flip { at, bit } => bytes[at as usize] ^= 1 << bit,
            Damage::Garbage { at, seed } => {
                let end = bytes.len().min((at + SECTOR) as usize);
                garbage(&mut bytes[at as usize..end], seed);
            }
            Damage::Zero { page } => page_of(&mut bytes, page).fill(0),
            Damage::Swap { a, b } => {
                let length = page_of(&mut bytes, a).len().min(page_of(&mut bytes, b).len());
                let first = page_of(&mut bytes, a)[..length].to_vec();
                let second = page_of(&mut bytes, b)[..length].to_vec();
                page_of(&mut bytes, a)[..length].copy_from_slice(&second);
                page_of(&mut bytes, b)[..length].copy_from_slice(&first);
            }
            Damage::Cut { length } => bytes.truncate(length as usize),
            Damage::Empty => bytes.clear(),
            Damage::Longer { seed } => {
                let end = bytes.len();
                bytes.resize(end + PAGE as usize, 0);
                garbage(&mut bytes[end..], seed);
            }
            Damage::Missing => return fs::remove_file(path).expect("removed"),
            Damage::Older => {
                let older = sample.older_store.as_ref().expect("an older copy");
                bytes = fs::read(older).expect("an older copy");
            }
        }
        fs::write(path, bytes).expect("written");
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.file, self.damage)
    }
}

fn page_of(bytes: &mut [u8], page: u64) -> &mut [u8] {
    let from = (page * PAGE) as usize;
    let to = bytes.len().min(from + PAGE as usize);
    &mut bytes[from..to]
}

fn garbage(bytes: &mut [u8], seed: u64) {
    let mut random = Random::new(seed);
    bytes.iter_mut().for_each(|byte| *byte = random.draw() as u8);
}

/// Every case for a sample.
pub fn cases(sample: &Sample, random: &mut Random) -> Vec<Case> {
    let mut all = Vec::new();
    for file in sample.files() {
        let bytes = fs::read(sample.data.join(&file)).expect("a file");
        let length = bytes.len() as u64;
        // Preallocated segments end in zeros; damage is for what was written.
        let used = bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last as u64 + 1);
        let file_kind = match file.as_str() {
            "store/lock.mdb" | "lock" => "lock file",
            "store/data.mdb" => "LMDB store",
            name if name.starts_with("wal/") => "WAL segment",
            _ => "small file",
        };
        let mut add = |damage| all.push(Case { file: file.clone(), file_kind, damage });
        add(Damage::Missing);
        if length == 0 {
            continue;
        }
        add(Damage::Empty);
        add(Damage::Longer { seed: random.draw() });
        add(Damage::Cut { length: length / 2 });
        add(Damage::Cut { length: length - 1 });
        if used == 0 {
            continue;
        }
        // A small file's every few bytes; a large one's head, end and a grid with jitter.
        let dense = if used < 512 { 24 } else { 12 };
        for i in 0..dense {
            add(Damage::Flip { at: i * used.min(256) / dense, bit: random.within(0..8) as u8 });
        }
        let stretches = if length < PAGE { 0 } else { 24 };
        for i in 0..stretches {
            let within = |random: &mut Random| {
                (i * used / stretches + random.within(0..used / stretches + 1)).min(used - 1)
            };
            add(Damage::Flip { at: within(random), bit: random.within(0..8) as u8 });
            if i % 2 == 0 {
                add(Damage::Garbage { at: within(random) / SECTOR * SECTOR, seed: random.draw() });
                add(Damage::Zero { page: within(random) / PAGE });
                let pages = used.div_ceil(PAGE);
                if pages > 1 {
                    let a = within(random) / PAGE;
                    add(Damage::Swap { a, b: (a + 1 + random.within(0..pages - 1)) % pages });
                }
            }
            if i % 6 == 0 {
                add(Damage::Cut { length: within(random) });
            }
        }
        if length >= PAGE {
            add(Damage::Flip { at: used - 1, bit: 0 });
            add(Damage::Cut { length: used - 1 });
            if let Some((_, from)) = sample.last_write.as_ref().filter(|(name, _)| *name == file) {
                for at in [*from, from + 8, from + 40, from + 2000, from + 5000] {
                    add(Damage::Flip { at: at.min(used - 1), bit: 3 });
                }
                add(Damage::Zero { page: from / PAGE });
                add(Damage::Zero { page: from / PAGE + 1 });
            }
        }
        if file_kind == "LMDB store" && sample.older_store.is_some() {
            add(Damage::Older);
        }
    }
    all
}
