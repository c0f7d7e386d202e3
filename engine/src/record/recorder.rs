//! The recorder around a node: it stands between the driver and [`Node::step`].

use super::shared::Shared;
use super::tap::{Heard, Tap};
use super::{Entry, Label, Made, Opening, Origin, digest, header, put};
use crate::node::{Config, Node};
use crate::step::{Action, Effect, Fatal, Input, Outputs};
use crate::store::SharedStore;
use crate::wal::Recovered;
use chronos_proto::time::Now;
use std::sync::Arc;

/// Steps a node and writes down what it was given. The bytes gather until they are [taken](Recorder::take).
pub struct Recorder {
    heard: Arc<Shared<Heard>>,
    number: u32,
    view: SharedStore,
    tap: SharedStore,
    hash: u64,
    /// A step is under way.
    pending: bool,
    bytes: Vec<u8>,
}

impl Recorder {
    /// Makes a node, as [`Node::new`] does, and the recording of it.
    pub fn open(
        label: Label,
        config: Config,
        now: Now,
        recovered: Recovered,
        store: &SharedStore,
        out: &mut Outputs,
    ) -> (Result<Node, Fatal>, Recorder) {
        let opening = Opening { label, config, now, origin: Origin::Recovered(Box::new(recovered)) };
        let mut recorder = Recorder::begin(&opening, store);
        let before = out.effects.len();
        let node = opening.make(&recorder.tap, out);
        recorder.came_to(&mut out.effects[before..]);
        (node, recorder)
    }

    /// A recording of a node that runs already; none while there is no [image](Node::image) of it.
    pub fn anew(label: Label, node: &Node, store: &SharedStore) -> Option<Recorder> {
        let origin = Origin::Image(node.image()?.into());
        let opening = Opening { label, config: node.config().clone(), now: node.now(), origin };
        let mut recorder = Recorder::begin(&opening, store);
        recorder.came_to(&mut []);
        Some(recorder)
    }

    fn begin(opening: &Opening, store: &SharedStore) -> Recorder {
        let heard = Arc::new(Shared::<Heard>::default());
        let view = store.clone();
        let tap = Arc::new(Tap { number: 0, view: view.clone(), heard: heard.clone() });
        let mut bytes = header().to_vec();
        put(&Entry::<_, Input>::Opening(opening), &mut bytes);
        Recorder { heard, number: 0, view, tap, hash: 0, pending: true, bytes }
    }

    /// A step, as [`Node::step`] takes it.
    pub fn step(&mut self, node: &mut Node, now: Now, input: Input, store: &SharedStore, out: &mut Outputs) {
        if !Arc::ptr_eq(store, &self.view) {
            self.number += 1;
            self.view = store.clone();
            self.tap = Arc::new(Tap { number: self.number, view: store.clone(), heard: self.heard.clone() });
        }
        let before = out.effects.len();
        let entry = Entry::<Opening, _>::Input { now, store: self.number, input: &input };
        put(&entry, &mut self.bytes);
        self.pending = true;
        node.step(now, input, &self.tap, out);
        self.came_to(&mut out.effects[before..]);
    }

    /// A step has ended. Readers are not listened to: what they are shown reads the store itself.
    fn came_to(&mut self, effects: &mut [Effect]) {
        self.hash = digest::effects(self.hash, effects);
        self.pending = false;
        self.put_effects(Some(self.hash));
        for effect in effects {
            if let Action::Publish(published) = &mut effect.action {
                published.snapshot.store = self.view.clone();
            }
        }
    }

    fn put_effects(&mut self, hash: Option<u64>) {
        let reads = self.heard.with(|heard| std::mem::take(&mut heard.reads));
        put(&Entry::<Opening, Input>::Effects(Made { reads, hash }), &mut self.bytes);
    }

    /// The engine panicked: the step under way has no end, but what was asked in it is known.
    pub fn broken_off(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.put_effects(None);
        }
    }

    /// What was recorded since this was last called.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// The running hash over all effects so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// Whoever still reads through a tap is not listened to any more.
impl Drop for Recorder {
    fn drop(&mut self) {
        self.heard.with(Heard::stop);
    }
}
