//! A store that is listened to: what the engine asks it, and what it answers, the first time.

use super::shared::Shared;
use super::{Answer, Query, Read};
use crate::store::{Pin, SharedStore, Store, StoreError};
use bytes::Bytes;
use chronos_proto::codec;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

/// Questions that are remembered as asked; beyond it all are forgotten, and asked again are recorded again.
const REMEMBERED_MAX: usize = 1 << 16;

/// What was heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// And not recorded yet.
    pub reads: Vec<Read>,
    known: BTreeSet<u128>,
    stopped: bool,
}

impl Heard {
    pub fn stop(&mut self) {
        *self = Heard { stopped: true, ..Heard::default() };
    }

    fn note(&mut self, store: u32, query: Query, answer: impl FnOnce() -> Answer) {
        if self.stopped {
            return;
        }
        let name = codec::keyed_hash(u64::from(store), &codec::encode(&query));
        if self.known.len() == REMEMBERED_MAX {
            self.known.clear();
        }
        if self.known.insert(name) {
            self.reads.push(Read { store, query, answer: answer() });
        }
    }
}

/// One view of the store, by its number.
pub(super) struct Tap {
    pub number: u32,
    pub view: SharedStore,
    pub heard: Arc<Shared<Heard>>,
}

impl Store for Tap {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let answer = self.view.get(key);
        let heard = || match &answer {
            Ok(value) => Answer::Value(value.clone()),
            Err(error) => Answer::Failed(error.clone()),
        };
        let query = Query::Get(Bytes::copy_from_slice(key));
        self.heard.with(|all| all.note(self.number, query, heard));
        answer
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        let begin = out.len();
        let answer = self.view.scan(from, to, reverse, limit, out);
        let query = scan_query(from, to, reverse, limit);
        let heard = || match &answer {
            Ok(()) => Answer::Entries(out[begin..].to_vec()),
            Err(error) => Answer::Failed(error.clone()),
        };
        self.heard.with(|all| all.note(self.number, query, heard));
        answer
    }

    fn pin(self: Arc<Self>) -> Option<Pin> {
        self.view.clone().pin()
    }
}

pub(super) fn scan_query(from: Bound<&[u8]>, to: Bound<&[u8]>, reverse: bool, limit: usize) -> Query {
    Query::Scan { from: from.map(Bytes::copy_from_slice), to: to.map(Bytes::copy_from_slice), reverse, limit }
}
