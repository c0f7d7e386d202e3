//! The catalogue at one applied index: decoded relations, by number and by name.

use chronos_proto::id::RelationId;
use chronos_proto::schema::Relation;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Relations by number and name. Immutable once shared; a change makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    relations: BTreeMap<RelationId, Arc<Relation>>,
    by_name: BTreeMap<String, RelationId>,
    version: u64,
    next_id: u32,
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
