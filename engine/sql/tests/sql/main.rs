//! SQL on the engine's own node.

mod conflicts;
mod hostile;
mod scripts;
mod support;
