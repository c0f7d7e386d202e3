//! The data directory: who may use it, whose it is, and how the last run ended. `docs/FORMAT.md` draws it.

use crate::error::OpenError;
use crate::wal_files::{FileSegments, list};
use chronos_engine::node::Start;
use chronos_engine::proto::id::{ClusterId, GroupId, Incarnation, Index, NodeId};
use chronos_engine::wal::Recovered;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The format of data directories that this build writes, and the newest it reads.
pub const FORMAT: u32 = 1;

const HEADER: &str = "chronos data directory";

/// In `boots`: the cluster is not known to have noted the number.
const UNNOTED: &str = "unnoted";

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
}

/// A locked data directory. The lock goes with the value, or with the process.
#[derive(Debug)]
pub(crate) struct Directory {
    root: PathBuf,
    pub(crate) identity: Identity,
    /// What the last run left at its clean stop; nothing after any other end.
    left: Left,
    /// Why the store is to be verified in full before it serves, if it is.
    pub(crate) verify_reason: Option<String>,
    /// The last run, in a weak fsync mode, may have lost what it acknowledged.
    pub(crate) doubtful: bool,
    _lock: File,
}

impl Directory {
    /// Locks a directory, making it if it is absent and may be.
    pub(crate) fn open(root: &Path, create: bool) -> Result<Directory, OpenError> {
        Directory::open_as(root, create, None)
    }

    /// The same for a node of a cluster: a new directory becomes its, and another one's is refused.
    pub(crate) fn open_as(
        root: &Path,
        create: bool,
        wanted: Option<(ClusterId, NodeId)>,
    ) -> Result<Directory, OpenError> {
        if create {
            make_dir(root)?;
        }
        let lock = lock(root)?;
        let identity_path = root.join("identity");
        let (identity, fresh) = match fs::read(&identity_path) {
            // What is not text does not match the checksum either, and is refused with the rest of what is damaged.
            Ok(bytes) => (parse_identity(root, &identity_path, &String::from_utf8_lossy(&bytes))?, false),
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                for held in ["wal", "store", DRAFT] {
                    if root.join(held).exists() {
                        return Err(OpenError::Damaged {
                            file: identity_path,
                            problem: format!(
                                "is missing, but {} is there: this was a node's directory. Restore the file, or use an empty directory",
                                root.join(held).display()
                            ),
                        });
                    }
                }
                let (cluster, node) = wanted.unwrap_or_else(|| (ClusterId(draw_u128()), NodeId(draw_u64())));
                let identity = Identity { cluster, node, incarnation: Incarnation(draw_u64()) };
                (identity, true)
            }
            Err(error) => return Err(OpenError::io("cannot read", identity_path)(error)),
        };
        if let Some((cluster, node)) = wanted
            && (cluster, node) != (identity.cluster, identity.node)
        {
            return Err(OpenError::Damaged {
                file: identity_path,
                problem: format!(
                    "this directory belongs to node {:016x} of cluster {:032x}, not to node {:016x} of cluster {:032x}: give the node its own directory, name and certificates",
                    identity.node.0, identity.cluster.0, node.0, cluster.0
                ),
            });
        }
        let left = left_behind(root)?;
        let mut directory = Directory {
            doubtful: root.join("weak").exists() && !left.clean,
            root: root.to_owned(),
            identity,
            left,
            verify_reason: None,
            _lock: lock,
        };
        if fresh {
            write_durably(&identity_path, identity_text(&identity).as_bytes())?;
        }
        if create {
            make_dir(&directory.wal())?;
            make_dir(&directory.store())?;
        }
        directory.verify_reason = directory.last_words()?;
        Ok(directory)
    }

    pub(crate) fn wal_identity(&self) -> chronos_engine::wal::Identity {
        let Identity { cluster, node, incarnation } = self.identity;
        chronos_engine::wal::Identity { cluster, node, incarnation }
    }

    /// Refuses a WAL that lacks segments which the last run is known to have left.
    pub(crate) fn check_segments(&self, segments: &FileSegments) -> Result<(), OpenError> {
        let there = segments.names();
        let problem = if let Some(missing) = self.left.segments.iter().find(|name| !there.contains(*name)) {
            format!("segment {missing}.seg is missing: it was there at the clean stop. Put it back")
        } else if there.is_empty() && self.root.join("served").exists() {
            "has no segments, but this node has served: its WAL is missing. Put it back".to_owned()
        } else {
            return Ok(());
        };
        Err(OpenError::Damaged { file: self.wal(), problem })
    }

    /// Refuses a WAL that ends before what was in it at the clean stop.
    pub(crate) fn check_end(&self, recovered: &Recovered) -> Result<(), OpenError> {
        for (group, index) in &self.left.applied {
            let last = recovered.groups.get(group).map_or(Index(0), |log| log.last());
            if last < *index {
                return Err(OpenError::Damaged {
                    file: self.wal(),
                    problem: format!(
                        "the log of group {group} ends at entry {last}, but had entry {index} at the clean stop: the end of the WAL is damaged. Put the last segment back from a copy"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Begins a start under its number, durably.
    pub(crate) fn begin(&self, drawn: u64) -> Result<Start, OpenError> {
        let path = self.boots();
        let before = match fs::read(&path) {
            Ok(bytes) => {
                let start = parse_start(&String::from_utf8_lossy(&bytes));
                Some(start.ok_or_else(|| OpenError::Damaged {
                    file: path.clone(),
                    problem: "is damaged: it does not name the last start. Remove the node from the cluster, then add it \
                              anew with an empty directory"
                        .to_owned(),
                })?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(OpenError::io("cannot read", path)(error)),
        };
        let start = Start::next(before, drawn);
        if before != Some(start) {
            write_durably(&path, format!("{}\n{UNNOTED}\n", start.number).as_bytes())?;
        }
        Ok(start)
    }

    /// The cluster has noted this start: the next one has a number of its own.
    pub(crate) fn mark_noted(&self, start: Start) -> Result<(), OpenError> {
        write_durably(&self.boots(), format!("{}\n", start.number).as_bytes())
    }

    fn boots(&self) -> PathBuf {
        self.root.join("boots")
    }

    /// From now on a WAL without segments is a lost one.
    pub(crate) fn mark_served(&self) -> Result<(), OpenError> {
        let path = self.root.join("served");
        if path.exists() { Ok(()) } else { write_durably(&path, b"the WAL was begun\n") }
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where a dying process leaves the number of the signal that killed it.
    pub(crate) fn signal_file(&self) -> PathBuf {
        self.root.join("died-by-signal")
    }

    fn verify_file(&self) -> PathBuf {
        self.root.join("verify-needed")
    }

    /// Why the store is not to be trusted before a full verification, if the last run left a reason.
    fn last_words(&self) -> Result<Option<String>, OpenError> {
        let read = |path: PathBuf| match fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(OpenError::io("cannot read", path)(error)),
        };
        if let Some(&signal) = read(self.signal_file())?.first() {
            return Ok(Some(format!("the last run died by signal {signal} while it read the store")));
        }
        let reason = read(self.verify_file())?;
        Ok((!reason.is_empty()).then(|| String::from_utf8_lossy(&reason).trim().to_owned()))
    }

    /// From here until [`Directory::mark_clean`], the run counts as unclean. In a weak fsync mode it may lose what it
    /// acknowledges; in the other that is over once nothing is in doubt any more.
    pub(crate) fn mark_running(&self, weak: bool, doubtful: bool) -> Result<(), OpenError> {
        match (weak, doubtful) {
            (true, _) => write_durably(&self.root.join("weak"), b"not every acknowledged write is synced\n")?,
            (false, false) => self.mark_trusted()?,
            (false, true) => {}
        }
        remove_durably(&self.root.join("clean"))
    }

    /// Everything that was ever acknowledged is synced here, or was brought back by a leader.
    pub(crate) fn mark_trusted(&self) -> Result<(), OpenError> {
        remove_durably(&self.root.join("weak"))
    }

    /// The run ended as it should: everything is synced. Not for a run that ends in doubt: the next one shall know.
    pub(crate) fn mark_clean(&self, applied: &[(GroupId, Index)]) -> Result<(), OpenError> {
        let segments = list(&self.wal()).map_err(OpenError::io("cannot list", self.wal()))?;
        let mut text = String::new();
        for segment in segments {
            text.push_str(&format!("segment {:016x}\n", segment.0));
        }
        for (group, index) in applied {
            text.push_str(&format!("applied {group} {index}\n"));
        }
        write_durably(&self.root.join("clean"), text.as_bytes())
    }

    /// The next start verifies the store in full before it serves.
    pub(crate) fn mark_verify(&self, reason: &str) -> Result<(), OpenError> {
        write_durably(&self.verify_file(), reason.as_bytes())
    }

    /// The store was verified in full and is well.
    pub(crate) fn mark_verified(&self) -> Result<(), OpenError> {
        remove_durably(&self.verify_file())?;
        // Emptied and not removed: a signal handler may hold it open.
        match OpenOptions::new().write(true).open(self.signal_file()).and_then(|file| file.set_len(0)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(OpenError::io("cannot empty", self.signal_file())(error))
            }
            _ => Ok(()),
        }
    }
}

/// What the clean stop of the last run wrote, if it ended so.
#[derive(Debug, Default)]
struct Left {
    clean: bool,
    segments: Vec<String>,
    applied: Vec<(GroupId, Index)>,
}

fn left_behind(root: &Path) -> Result<Left, OpenError> {
    let path = root.join("clean");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::default()),
        Err(error) => return Err(OpenError::io("cannot read", path)(error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut left = Left { clean: true, ..Left::default() };
    for line in text.lines() {
        match *line.split(' ').collect::<Vec<_>>() {
            ["segment", name] => left.segments.push(name.to_owned()),
            ["applied", group, index] => {
                let parsed = group.parse().ok().zip(index.parse().ok());
                left.applied.extend(parsed.map(|(group, index)| (GroupId(group), Index(index))));
            }
            // A damaged marker asks for less: it is a help, not a promise.
            _ => {}
        }
    }
    Ok(left)
}

/// Deletes a node's own files, and nothing else that is in its directory; says whether there were any. Refused while
/// a process has the directory.
pub fn wipe(root: &Path) -> Result<bool, OpenError> {
    if !root.join("identity").exists() {
        return Ok(false);
    }
    let _lock = lock(root)?;
    wipe_locked(root)?;
    Ok(true)
}

fn wipe_locked(root: &Path) -> Result<(), OpenError> {
    let there = |result: io::Result<()>, path: &Path| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(OpenError::io("cannot delete", path)(error))
        }
        _ => Ok(()),
    };
    for name in ["wal", "store"] {
        let path = root.join(name);
        there(fs::remove_dir_all(&path), &path)?;
    }
    // Its identity goes last: what is left of a wipe that was cut short does not pass for a new directory.
    let told = crate::recorder::FILE;
    for name in [told, "boots", "clean", "died-by-signal", "verify-needed", "served", "weak", "identity"] {
        let path = root.join(name);
        there(fs::remove_file(&path), &path)?;
    }
    sync_dir(root)
}

/// A locked directory that is to get a store from elsewhere: what was there stays as it is until the new one is whole.
pub(crate) struct Foundation {
    root: PathBuf,
    _lock: File,
}

/// Where a restored store is made.
const DRAFT: &str = "restore.tmp";

impl Foundation {
    /// Locks a directory, making it if it is absent.
    pub(crate) fn lock(root: &Path) -> Result<Foundation, OpenError> {
        make_dir(root)?;
        Ok(Foundation { root: root.to_owned(), _lock: lock(root)? })
    }

    /// What of a node is there already.
    pub(crate) fn held(&self) -> Option<PathBuf> {
        ["identity", "wal", "store"].map(|name| self.root.join(name)).into_iter().find(|path| path.exists())
    }

    /// An empty directory for the store.
    pub(crate) fn draft(&self) -> Result<PathBuf, OpenError> {
        let draft = self.root.join(DRAFT);
        self.discard()?;
        make_dir(&draft)?;
        Ok(draft)
    }

    /// Removes what was made of the store.
    pub(crate) fn discard(&self) -> Result<(), OpenError> {
        let draft = self.root.join(DRAFT);
        match fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(OpenError::io("cannot delete", draft)(error))
            }
            _ => Ok(()),
        }
    }

    /// The store that was made takes the place of all that was there. The identity comes last: what is left of an end
    /// in between is refused by the next start.
    pub(crate) fn settle(self, cluster: ClusterId, node: Option<NodeId>) -> Result<Identity, OpenError> {
        let (draft, store) = (self.root.join(DRAFT), self.root.join("store"));
        sync_dir(&draft)?;
        wipe_locked(&self.root)?;
        fs::rename(&draft, &store).map_err(OpenError::io("cannot rename", &draft))?;
        sync_dir(&self.root)?;
        let node = node.unwrap_or_else(|| NodeId(draw_u64()));
        let identity = Identity { cluster, node, incarnation: Incarnation(draw_u64()) };
        write_durably(&self.root.join("identity"), identity_text(&identity).as_bytes())?;
        Ok(identity)
    }
}

fn make_dir(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(OpenError::io("cannot make directory", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn lock(root: &Path) -> Result<File, OpenError> {
    let path = root.join("lock");
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(OpenError::io("cannot open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // The pid is for the message alone.
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(OpenError::InUse { dir: root.to_owned(), pid });
        }
        Err(error) => return Err(OpenError::io("cannot lock", &path)(error.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(OpenError::io("cannot write", &path))?;
    Ok(file)
}

fn identity_text(identity: &Identity) -> String {
    let body = format!(
        "{HEADER}\nformat = {FORMAT}\ncluster = {:032x}\nnode = {:016x}\nincarnation = {:016x}\n",
        identity.cluster.0, identity.node.0, identity.incarnation.0
    );
    let sum = crc32c::crc32c(body.as_bytes());
    format!("{body}checksum = {sum:08x}\n")
}

fn parse_start(text: &str) -> Option<Start> {
    let (number, rest) = text.split_once('\n')?;
    let noted = match rest.trim() {
        "" => true,
        UNNOTED => false,
        _ => return None,
    };
    Some(Start { number: number.parse().ok()?, noted })
}

fn parse_identity(root: &Path, path: &Path, text: &str) -> Result<Identity, OpenError> {
    let damaged = |problem: &str| OpenError::Damaged { file: path.to_owned(), problem: problem.to_owned() };
    let field = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if text.lines().next() != Some(HEADER) {
        return Err(damaged(
            "is damaged: it is not the identity of a chronos data directory; restore the file from a copy",
        ));
    }
    let format = field("format").and_then(|v| v.parse().ok());
    let format: u32 = format.ok_or_else(|| damaged("names no format; restore the file from a copy"))?;
    if format > FORMAT {
        return Err(OpenError::NewerFormat { dir: root.to_owned(), found: format, supported: FORMAT });
    }
    let body = text.find("checksum = ").map(|at| &text[..at]).unwrap_or_default();
    let sum = field("checksum").and_then(|v| u32::from_str_radix(v, 16).ok());
    let hex = |name| field(name).and_then(|v| u128::from_str_radix(v, 16).ok());
    let short = |name| hex(name).and_then(|v| u64::try_from(v).ok());
    match (hex("cluster"), short("node"), short("incarnation")) {
        (Some(cluster), Some(node), Some(incarnation)) if sum == Some(crc32c::crc32c(body.as_bytes())) => {
            Ok(Identity {
                cluster: ClusterId(cluster),
                node: NodeId(node),
                incarnation: Incarnation(incarnation),
            })
        }
        _ => Err(damaged("is damaged: its checksum does not hold; restore the file from a copy")),
    }
}

/// Replaces a small file: after a crash it is the old one or the new one, whole.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), OpenError> {
    let temporary = path.with_extension("tmp");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(OpenError::io("cannot write", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn remove_durably(path: &Path) -> Result<(), OpenError> {
    match fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_dir),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(OpenError::io("cannot remove", path)(error)),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> Result<(), OpenError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|dir| dir.sync_all()).map_err(OpenError::io("cannot sync directory", path))
}

/// Sixteen bytes of the operating system's randomness, never zero.
fn draw_u128() -> u128 {
    loop {
        let mut bytes = [0; 16];
        let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
        let value = u128::from_le_bytes(bytes);
        if drawn == Ok(bytes.len()) && value != 0 {
            return value;
        }
    }
}

pub(crate) fn draw_u64() -> u64 {
    ((draw_u128() >> 64) as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_identity_and_has_one_owner() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        let first = Directory::open(&dir, true).unwrap();
        let Err(OpenError::InUse { pid, .. }) = Directory::open(&dir, true) else { panic!("opened twice") };
        assert_eq!(pid, std::process::id().to_string());
        let identity = first.identity;
        first.mark_running(true, false).unwrap();
        drop(first);
        let second = Directory::open(&dir, true).unwrap();
        assert_eq!(second.identity, identity);
        assert!(second.doubtful);
        fs::write(second.wal().join("0000000000000007.seg"), b"").unwrap();
        second.mark_clean(&[(GroupId(0), Index(9))]).unwrap();
        second.mark_verify("a value did not match").unwrap();
        drop(second);
        let third = Directory::open(&dir, true).unwrap();
        third.check_segments(&FileSegments::open(&third.wal()).unwrap()).unwrap();
        let error = third.check_end(&Recovered::default()).unwrap_err();
        assert!(error.to_string().contains("ends at entry 0, but had entry 9"), "{error}");
        fs::remove_file(third.wal().join("0000000000000007.seg")).unwrap();
        let error = third.check_segments(&FileSegments::open(&third.wal()).unwrap()).unwrap_err();
        assert!(error.to_string().contains("0000000000000007.seg is missing"), "{error}");
        assert!(!third.doubtful);
        assert_eq!(third.verify_reason.as_deref(), Some("a value did not match"));
        third.mark_verified().unwrap();
        drop(third);
        assert_eq!(Directory::open(&dir, true).unwrap().verify_reason, None);
    }

    #[test]
    fn a_start_has_a_number_of_its_own_once_the_one_before_was_noted() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::open(root.path(), true).unwrap();
        let first = directory.begin(7).unwrap();
        assert_eq!(directory.begin(8).unwrap(), first);
        directory.mark_noted(first).unwrap();
        let second = directory.begin(8).unwrap();
        assert!(Start::is_older(first.number, second.number) && !second.noted);
        assert_eq!(directory.begin(9).unwrap(), second);
        // What an older build left: a count alone.
        fs::write(root.path().join("boots"), "4\n").unwrap();
        assert_eq!(Start::epoch_of(directory.begin(7).unwrap().number), 5);
        fs::write(root.path().join("boots"), "4\nx\n").unwrap();
        assert!(directory.begin(7).unwrap_err().to_string().contains("does not name the last start"));
    }

    #[test]
    fn a_newer_or_damaged_identity_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path();
        drop(Directory::open(dir, true).unwrap());
        let path = dir.join("identity");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("format = 1", "format = 2")).unwrap();
        let error = Directory::open(dir, true).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 2, supported: 1, .. }), "{error}");
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 0x04;
            fs::write(&path, &bytes).unwrap();
            assert!(Directory::open(dir, true).is_err(), "byte {at} flipped and accepted");
        }
        fs::remove_file(&path).unwrap();
        let error = Directory::open(dir, true).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }
}
