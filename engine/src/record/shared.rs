//! One value in several hands.
#![expect(
    clippy::disallowed_types,
    reason = "a Store can be shared between threads by contract, though the engine asks it from one: a cell that is not Sync cannot be in it"
)]

use std::sync::{Mutex, PoisonError};

/// A cell for what a store notes while it is asked. Never contended: who steps the node is alone.
#[derive(Debug, Default)]
pub(super) struct Shared<T>(Mutex<T>);

impl<T> Shared<T> {
    pub fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
