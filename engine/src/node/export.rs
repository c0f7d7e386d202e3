//! A group's state for a backup: as it is at its applied index, readable while writes go on.

use super::Node;
use crate::state::snapshot::Snapshot;
use crate::store::{Pin, SharedStore};
use chronos_proto::id::{ClusterId, GroupId};
use chronos_proto::raft::LogId;

/// One group's state at one index. It keeps a view of the store readable for as long as it lives.
pub struct Export {
    /// The cluster.
    pub cluster: ClusterId,
    /// The last entry in it.
    pub last: LogId,
    /// What the ids that clients chose are hashed with.
    pub hash_seed: u64,
    /// All of the state, its group record being that of this very index.
    pub snapshot: Snapshot,
    _pin: Option<Pin>,
}

impl Node {
    /// The state of a group as it is applied here; none where this node is no member of the group, so that what it has
    /// may be anything. Whoever wants all that was acknowledged asks first from where on a read may be answered.
    pub fn export(&self, id: GroupId, store: &SharedStore) -> Option<Export> {
        let group = self.groups.get(&id)?;
        group.raft.configuration().contains(self.config.node).then(|| Export {
            cluster: self.config.cluster,
            last: LogId { term: group.state.applied_term, index: group.state.applied },
            hash_seed: group.state.hash_seed(),
            snapshot: group.state.portable(store),
            _pin: store.clone().pin(),
        })
    }
}
