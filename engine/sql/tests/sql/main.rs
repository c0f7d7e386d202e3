//! SQL on the engine's own node.

mod bulk;
mod conflicts;
mod hostile;
mod schedules;
mod scripts;
mod support;
mod ttl;
