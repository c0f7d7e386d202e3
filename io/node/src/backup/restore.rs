//! From a snapshot file to a data directory.

use super::reader::{Part, ReadError, Reader, Summary};
use crate::directory::Foundation;
use crate::error::OpenError;
use crate::options::Profile;
use crate::store::{CheckpointError, Store};
use bytes::Bytes;
use chronos_engine::proto::codec::DecodeError;
use chronos_engine::proto::id::{ClusterId, Incarnation, NodeId};
use chronos_engine::proto::membership::Member;
use chronos_engine::state::Founding;
use chronos_engine::state::overlay::Layer;
use chronos_engine::step::{Checkpoint, CheckpointId, GroupCheckpoint};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Bytes that one transaction of the new store takes.
const BATCH_BYTES: usize = 8 << 20;

/// What a snapshot is restored to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The node that begins a cluster with it; none for a node that is and stays alone.
    pub node: Option<(ClusterId, Member)>,
    /// What is there already goes.
    pub force: bool,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What was in the file.
    pub summary: Summary,
    /// The cluster that the directory is of.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeId,
    /// The life of its store: a new one.
    pub incarnation: Incarnation,
}

/// Why nothing was restored. What the directory held is as it was, unless the message says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is not taken.
    #[error("{}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: ReadError,
    },
    /// The directory holds data.
    #[error(
        "{} is there: the directory holds a node's data. Restore to an empty directory, or say --force to replace it",
        held.display()
    )]
    Occupied {
        /// What was found.
        held: PathBuf,
    },
    /// The directory could not be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The new store could not be written.
    #[error("the new store could not be written: {0}. What was in the directory is as it was")]
    Store(String),
}

impl From<CheckpointError> for RestoreError {
    fn from(error: CheckpointError) -> RestoreError {
        RestoreError::Store(error.to_string())
    }
}

/// Makes a data directory of a snapshot file that was [checked](super::check): a node that is opened with it begins a
/// cluster of its own with exactly that state, a new store and a new history. The new store is made beside what is there,
/// and takes its place when it is whole.
pub fn restore(
    file: &Path,
    summary: Summary,
    target: &Target,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Restored, RestoreError> {
    let foundation = Foundation::lock(&target.data_dir)?;
    if let Some(held) = foundation.held().filter(|_| !target.force) {
        return Err(RestoreError::Occupied { held });
    }
    let draft = foundation.draft()?;
    let member = target.node.as_ref().map(|(_, member)| member);
    if let Err(error) = fill(&draft, file, &summary, member, progress) {
        // What it takes up matters more than a second error.
        let _ = foundation.discard();
        return Err(error);
    }
    let cluster = target.node.as_ref().map_or(summary.head.cluster, |(cluster, _)| *cluster);
    let identity = foundation.settle(cluster, member.map(|member| member.node))?;
    Ok(Restored { summary, cluster, node: identity.node, incarnation: identity.incarnation })
}

/// Writes the store.
fn fill(
    draft: &Path,
    file: &Path,
    summary: &Summary,
    member: Option<&Member>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), RestoreError> {
    let failed = |error: ReadError| RestoreError::File { file: file.to_owned(), error };
    let opened = File::open(file).map_err(|error| failed(error.into()))?;
    let mut reader = Reader::open(BufReader::with_capacity(1 << 20, opened)).map_err(failed)?;
    let store = Store::open(draft, Profile::STANDARD.store_max_bytes);
    let mut filling = Filling {
        store: store.map_err(|error| RestoreError::Store(error.to_string()))?,
        layer: Layer::new(),
        bytes: 0,
        checkpoints: 0,
        ends: Vec::new(),
    };
    let mut founding: Option<Founding> = None;
    loop {
        let at = reader.at();
        let undecodable =
            |error: DecodeError| failed(ReadError::Damaged { offset: at, what: error.to_string() });
        match (reader.next_part().map_err(failed)?, &mut founding) {
            (Part::Group(head), _) => {
                let (index, seed) = (head.last.index, head.hash_seed);
                founding = Some(Founding::new(head.group, index, head.time, seed, member.cloned()));
            }
            (Part::Entries(entries), Some(founding)) => {
                for (key, value) in entries {
                    if founding.keeps(&key, &value).map_err(undecodable)? {
                        filling.put(founding, key, value)?;
                    }
                }
                progress(reader.at(), summary.bytes);
            }
            (Part::GroupEnd(_), Some(_)) => {
                if let Some(founding) = founding.take() {
                    filling.end(founding).map_err(|error| match error {
                        Ending::Decode(error) => undecodable(error),
                        Ending::Write(error) => error,
                    })?;
                }
            }
            (Part::End, _) => break,
            (Part::Entries(_) | Part::GroupEnd(_), None) => unreachable!("the reader knows the order"),
        }
    }
    filling.finish()
}

/// A store that is being filled.
struct Filling {
    store: Store,
    layer: Layer,
    bytes: usize,
    checkpoints: u64,
    /// What makes each group's keys its state, for the last transaction.
    ends: Vec<GroupCheckpoint>,
}

enum Ending {
    Decode(DecodeError),
    Write(RestoreError),
}

impl Filling {
    fn put(&mut self, founding: &Founding, key: Bytes, value: Bytes) -> Result<(), RestoreError> {
        self.bytes += key.len() + value.len();
        self.layer.insert(key, Some(value));
        if self.bytes >= BATCH_BYTES { self.flush(founding) } else { Ok(()) }
    }

    fn flush(&mut self, founding: &Founding) -> Result<(), RestoreError> {
        self.bytes = 0;
        let layer = std::mem::take(&mut self.layer);
        self.write(vec![part(founding, layer, None)])
    }

    fn end(&mut self, founding: Founding) -> Result<(), Ending> {
        self.flush(&founding).map_err(Ending::Write)?;
        let empty = part(&founding, Layer::new(), None);
        let (added, root) = founding.finish().map_err(Ending::Decode)?;
        let layer = added.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.ends.push(GroupCheckpoint { layer, root: Some(root), ..empty });
        Ok(())
    }

    fn write(&mut self, groups: Vec<GroupCheckpoint>) -> Result<(), RestoreError> {
        self.checkpoints += 1;
        let checkpoint = Checkpoint { id: CheckpointId(self.checkpoints), groups };
        self.store.write(&checkpoint, &AtomicBool::new(false))?;
        Ok(())
    }

    fn finish(mut self) -> Result<(), RestoreError> {
        let ends = std::mem::take(&mut self.ends);
        self.write(ends)
    }
}

fn part(founding: &Founding, layer: Layer, root: Option<Bytes>) -> GroupCheckpoint {
    GroupCheckpoint {
        group: founding.group(),
        generation: founding.generation(),
        applied: founding.last().index,
        term: founding.last().term,
        layer,
        root,
    }
}
