//! The replicated state of one group.
pub mod keys;
pub mod overlay;
pub mod records;
pub mod sealed;
pub mod snapshot;
