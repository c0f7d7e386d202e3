//! The simulated disk under the WAL.
//!
//! What it assumes of the medium, and nothing more: a synced byte stays; a sector is 512 bytes; what was written and
//! not synced may be there after a power cut or not, sector by sector, in any order, and a sector may be torn; a
//! process's death loses nothing that was written; after a failed sync what it covered may be gone though it can
//! still be read; a file that was made or removed is so for good once the operation has ended.

use crate::rng::Rng;
use bytes::Bytes;
use chronos_engine::wal::SegmentId;
use std::collections::BTreeMap;

/// What the medium writes at once.
pub const SECTOR: usize = 512;

/// A write that is in the page cache.
#[derive(Clone, Debug)]
struct Cached {
    offset: usize,
    bytes: Bytes,
    /// Its sync failed: it can be read, but the kernel holds it for clean and never writes it.
    ghost: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    cached: Vec<Cached>,
}

impl File {
    fn image(&self) -> Vec<u8> {
        let mut image = self.durable.clone();
        for write in &self.cached {
            put(&mut image, write.offset, &write.bytes);
        }
        image
    }
}

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(place) = image.get_mut(offset..offset + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// How much of the unsynced sectors a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None.
    None,
    /// All.
    All,
    /// Each by itself.
    Some,
    /// Each by itself, some torn in the middle.
    Torn,
    /// Those up to a point.
    Prefix,
}

impl Survival {
    /// Drawn.
    pub fn draw(rng: &mut Rng) -> Survival {
        *rng.pick(&[Survival::None, Survival::All, Survival::Some, Survival::Torn, Survival::Prefix])
    }
}

/// The WAL's files.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    files: BTreeMap<SegmentId, File>,
}

impl Disk {
    /// Makes a file of zeroes, durably.
    pub fn create(&mut self, segment: SegmentId, bytes: usize) {
        self.files.insert(segment, File { durable: vec![0; bytes], cached: Vec::new() });
    }

    /// Removes a file, durably.
    pub fn remove(&mut self, segment: SegmentId) {
        self.files.remove(&segment);
    }

    /// Writes to the page cache. False if there is no such place.
    pub fn write(&mut self, segment: SegmentId, offset: u64, bytes: Bytes) -> bool {
        let Some(file) = self.files.get_mut(&segment) else { return false };
        let offset = offset as usize;
        if offset + bytes.len() > file.durable.len() {
            return false;
        }
        let sectors = |at: usize, len: usize| at / SECTOR..(at + len).div_ceil(SECTOR);
        let mine = sectors(offset, bytes.len());
        for cached in &mut file.cached {
            let theirs = sectors(cached.offset, cached.bytes.len());
            if theirs.start < mine.end && mine.start < theirs.end {
                cached.ghost = false;
            }
        }
        file.cached.push(Cached { offset, bytes, ghost: false });
        true
    }

    /// Makes what was written durable. False if there is no such file.
    pub fn sync(&mut self, segment: SegmentId) -> bool {
        let Some(file) = self.files.get_mut(&segment) else { return false };
        let (ghosts, dirty) = std::mem::take(&mut file.cached).into_iter().partition(|c| c.ghost);
        file.cached = ghosts;
        for write in dirty as Vec<Cached> {
            put(&mut file.durable, write.offset, &write.bytes);
        }
        true
    }

    /// A sync that fails: some of it reaches the medium, and the kernel forgets that the rest has not.
    pub fn fail_sync(&mut self, segment: SegmentId, rng: &mut Rng) {
        if let Some(file) = self.files.get_mut(&segment) {
            settle(&mut file.durable, &file.cached, Survival::draw(rng), rng);
            file.cached.iter_mut().for_each(|c| c.ghost = true);
        }
    }

    /// The power goes: every unsynced sector meets its fate. True if any was lost.
    pub fn power_cut(&mut self, survival: Survival, rng: &mut Rng) -> bool {
        let mut lost = false;
        for file in self.files.values_mut() {
            let wanted = file.image();
            let dirty: Vec<Cached> =
                std::mem::take(&mut file.cached).into_iter().filter(|c| !c.ghost).collect();
            settle(&mut file.durable, &dirty, survival, rng);
            lost |= wanted != file.durable;
        }
        lost
    }

    /// What a process that starts now reads.
    pub fn images(&self) -> impl Iterator<Item = (SegmentId, Vec<u8>)> + '_ {
        self.files.iter().map(|(&segment, file)| (segment, file.image()))
    }

    /// What is on the medium for certain.
    pub fn durable_images(&self) -> impl Iterator<Item = (SegmentId, Vec<u8>)> + '_ {
        self.files.iter().map(|(&segment, file)| (segment, file.durable.clone()))
    }

    /// Whether there is such a file.
    pub fn contains(&self, segment: SegmentId) -> bool {
        self.files.contains_key(&segment)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|f| f.durable.len() as u64).sum()
    }

    /// How many files there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is no file.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What is on the medium at a place, if there is so much.
    pub fn on_medium(&self, segment: SegmentId, offset: usize, length: usize) -> Option<&[u8]> {
        self.files.get(&segment)?.durable.get(offset..offset + length)
    }

    /// Puts bytes on the medium behind everybody's back.
    pub fn overwrite(&mut self, segment: SegmentId, offset: usize, bytes: &[u8]) {
        if let Some(file) = self.files.get_mut(&segment) {
            put(&mut file.durable, offset, bytes);
        }
    }
}

/// Puts those unsynced sectors into `durable` that survive. A sector that was written several times keeps what it
/// was after any number of its writes.
fn settle(durable: &mut [u8], dirty: &[Cached], survival: Survival, rng: &mut Rng) {
    let mut sectors: BTreeMap<usize, Vec<(usize, &[u8])>> = BTreeMap::new();
    for write in dirty {
        let (mut at, mut rest) = (write.offset, &write.bytes[..]);
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(SECTOR - at % SECTOR));
            sectors.entry(at / SECTOR).or_default().push((at, head));
            at += head.len();
            rest = tail;
        }
    }
    let cut = rng.below(sectors.len() as u64 + 1) as usize;
    for (i, versions) in sectors.values().enumerate() {
        let kept = match survival {
            Survival::None => 0,
            Survival::All => versions.len(),
            Survival::Some | Survival::Torn => rng.range(0, versions.len() as u64) as usize,
            Survival::Prefix => {
                if i < cut {
                    versions.len()
                } else {
                    0
                }
            }
        };
        for (at, bytes) in &versions[..kept] {
            put(durable, *at, bytes);
        }
        if survival == Survival::Torn && kept < versions.len() && rng.chance(300) {
            let (at, bytes) = versions[kept];
            let torn = rng.below(bytes.len() as u64) as usize;
            if rng.chance(500) {
                put(durable, at, &bytes[..torn])
            } else {
                put(durable, at + torn, &bytes[torn..])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId(1);

    fn disk_with(writes: &[(u64, usize, u8)]) -> Disk {
        let mut disk = Disk::default();
        disk.create(SEGMENT, 8 * SECTOR);
        for &(offset, length, byte) in writes {
            assert!(disk.write(SEGMENT, offset, Bytes::from(vec![byte; length])));
        }
        disk
    }

    fn image(disk: &Disk) -> Vec<u8> {
        disk.images().next().expect("one file").1
    }

    #[test]
    fn a_killed_process_loses_nothing_and_a_power_cut_keeps_what_was_synced() {
        let mut disk = disk_with(&[(0, 100, 1)]);
        assert!(disk.sync(SEGMENT));
        assert!(disk.write(SEGMENT, 100, Bytes::from_static(&[2; 100])));
        assert_eq!(image(&disk)[100..200], [2; 100]);
        assert!(disk.power_cut(Survival::None, &mut Rng::new(1, "t")));
        assert_eq!(image(&disk)[..100], [1; 100]);
        assert_eq!(image(&disk)[100..200], [0; 100]);
    }

    #[test]
    fn unsynced_sectors_survive_in_any_order() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut disk = disk_with(&[(0, 3 * SECTOR, 7)]);
            disk.power_cut(Survival::Some, &mut Rng::new(seed, "t"));
            let image = image(&disk);
            seen.insert([image[0], image[SECTOR], image[2 * SECTOR]]);
        }
        assert_eq!(seen.len(), 8, "every subset of three sectors: {seen:?}");
    }

    #[test]
    fn after_a_failed_sync_the_bytes_can_be_read_but_never_become_durable() {
        let mut rng = Rng::new(3, "t");
        for _ in 0..50 {
            let mut disk = disk_with(&[(0, 2 * SECTOR, 9)]);
            disk.fail_sync(SEGMENT, &mut rng);
            assert_eq!(image(&disk)[..2 * SECTOR], [9; 2 * SECTOR]);
            let before = disk.durable_images().next();
            assert!(disk.sync(SEGMENT));
            assert_eq!(before, disk.durable_images().next());
        }
    }

    #[test]
    fn a_write_outside_its_file_is_refused() {
        let mut disk = disk_with(&[]);
        assert!(!disk.write(SEGMENT, 8 * SECTOR as u64, Bytes::from_static(b"x")));
        assert!(!disk.write(SegmentId(2), 0, Bytes::from_static(b"x")));
    }
}
