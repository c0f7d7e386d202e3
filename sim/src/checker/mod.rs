//! The checkers, one a file. Each keeps its own memory and is told facts; none looks into the engine. A checker's
//! name is what a report cites, and its tests show it hand-made bad histories.

pub mod append;
pub mod clock;
pub mod dedup;
pub mod delivery;
pub mod digest;
pub mod linear;
pub mod log;
pub mod memory;
pub mod one;
pub mod raft;
pub mod requests;
pub mod schedules;
pub mod serial;
pub mod sql;
pub mod state;
pub mod timers;
