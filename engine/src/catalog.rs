//! The catalogue at one applied index: decoded relations, by number and by name.

use chronos_proto::id::{GroupId, RelationId};
use chronos_proto::schema::Relation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Relations by number and name. Immutable once shared; a change makes a new one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Catalog {
    relations: BTreeMap<RelationId, Arc<Relation>>,
    by_name: BTreeMap<String, RelationId>,
    version: u64,
    next_id: u32,
    partition_groups: u32,
}

impl Catalog {
    /// The first number given to a user's relation.
    pub const FIRST_ID: u32 = 16;

    /// Rises with every change: what cached plans are valid for.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The number that the next relation gets; numbers are never reused.
    pub fn next_id(&self) -> RelationId {
        RelationId(self.next_id.max(Self::FIRST_ID))
    }

    /// By number.
    pub fn get(&self, id: RelationId) -> Option<&Arc<Relation>> {
        self.relations.get(&id)
    }

    /// By name, as folded.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Relation>> {
        self.relations.get(self.by_name.get(name)?)
    }

    /// All, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Relation>> {
        self.relations.values()
    }

    /// Groups beside group 0 that this node knows: new topics' partitions are dealt to the groups 1 to this one.
    pub fn partition_groups(&self) -> u32 {
        self.partition_groups
    }

    pub(crate) fn set_partition_groups(&mut self, groups: u32) {
        self.partition_groups = groups;
    }

    /// Every group that keeps a partition of a topic of several, ascending.
    pub fn homes(&self) -> BTreeSet<GroupId> {
        self.iter().filter(|relation| relation.is_partitioned()).flat_map(|r| r.homes()).collect()
    }

    /// Adds or replaces one.
    pub fn put(&mut self, relation: Relation) {
        if let Some(old) = self.relations.get(&relation.id) {
            self.by_name.remove(&old.name);
        }
        self.next_id = self.next_id.max(relation.id.0 + 1);
        self.by_name.insert(relation.name.clone(), relation.id);
        self.relations.insert(relation.id, Arc::new(relation));
        self.version += 1;
    }

    /// Removes one.
    pub fn remove(&mut self, id: RelationId) {
        if let Some(old) = self.relations.remove(&id) {
            self.by_name.remove(&old.name);
            self.version += 1;
        }
    }

    /// Keeps numbers below `next` from being given again: dropped relations leave their mark so.
    pub fn reserve(&mut self, next: u32) {
        self.next_id = self.next_id.max(next);
    }
}
