//! The player: a node that is stepped through a recording.

use super::shared::Shared;
use super::tap::scan_query;
use super::{Answer, Beginning, Query, Read, Step, digest};
use crate::node::Node;
use crate::step::{Fatal, Outputs};
use crate::store::{SharedStore, Store, StoreError};
use bytes::Bytes;
use chronos_proto::codec;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What a step came to, beside its effects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The running hash over the effects of all steps so far.
    pub hash: u64,
    /// A question to the store that the recorded node did not ask.
    pub unanswered: Option<String>,
}

/// A node over what a recording says of its store.
pub struct Player {
    /// The node.
    pub node: Node,
    script: Arc<Shared<Script>>,
    number: u32,
    store: SharedStore,
    hash: u64,
}

impl Player {
    /// The node as it was when the recording began. Its first effects go to `out`.
    pub fn open(beginning: Beginning, out: &mut Outputs) -> (Result<Player, Fatal>, Played) {
        let (opening, reads) = (beginning.opening, beginning.made.reads);
        let script = Arc::new(Shared::<Script>::default());
        script.with(|script| script.add(reads));
        let store: SharedStore = Arc::new(View { number: 0, script: script.clone() });
        let node = opening.make(&store, out);
        let hash = digest::effects(0, &out.effects);
        let played = Played { hash, unanswered: script.with(|script| script.unanswered.take()) };
        (node.map(|node| Player { node, script, number: 0, store, hash }), played)
    }

    /// The next step. Its effects go to `out`.
    pub fn step(&mut self, step: Step, out: &mut Outputs) -> Played {
        self.script.with(|script| script.add(step.made.reads));
        if step.store != self.number {
            self.number = step.store;
            self.store = Arc::new(View { number: self.number, script: self.script.clone() });
        }
        let before = out.effects.len();
        self.node.step(step.now, step.input, &self.store, out);
        self.hash = digest::effects(self.hash, &out.effects[before..]);
        Played { hash: self.hash, unanswered: self.script.with(|script| script.unanswered.take()) }
    }
}

/// Every answer of the recording so far.
#[derive(Default)]
struct Script {
    /// By the number of the store and the question's bytes.
    answers: BTreeMap<(u32, Vec<u8>), Answer>,
    unanswered: Option<String>,
}

impl Script {
    fn add(&mut self, reads: Vec<Read>) {
        let keyed = |read: Read| ((read.store, codec::encode(&read.query)), read.answer);
        self.answers.extend(reads.into_iter().map(keyed));
    }

    fn answer(&mut self, store: u32, query: &Query) -> Result<Answer, StoreError> {
        match self.answers.get(&(store, codec::encode(query))) {
            Some(Answer::Failed(error)) => Err(error.clone()),
            Some(answer) => Ok(answer.clone()),
            None => {
                let what = format!("store {store}: {query:?}");
                self.unanswered.get_or_insert(what.clone());
                Err(StoreError::Io(format!("not in the recording: {what}")))
            }
        }
    }
}

struct View {
    number: u32,
    script: Arc<Shared<Script>>,
}

const OTHER: &str = "the recording answers a question of another kind";

impl Store for View {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let query = Query::Get(Bytes::copy_from_slice(key));
        match self.script.with(|script| script.answer(self.number, &query))? {
            Answer::Value(value) => Ok(value),
            _ => Err(StoreError::Io(OTHER.to_owned())),
        }
    }

    fn scan(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        limit: usize,
        out: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        let query = scan_query(from, to, reverse, limit);
        match self.script.with(|script| script.answer(self.number, &query))? {
            Answer::Entries(entries) => {
                out.extend(entries);
                Ok(())
            }
            _ => Err(StoreError::Io(OTHER.to_owned())),
        }
    }
}
