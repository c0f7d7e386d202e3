//! The simulator: a node of the engine or a cluster of them, on disks, clocks and a network that misbehave, with
//! clients, subscribers, an oracle and checkers, all from one seed. `docs/SIMULATION.md` tells how to run it and how to read it.
//!
//! ```text
//! knobs, plan   what a seed means: settings and rates, then every act and its time
//! world         the event loop; in it: machines, shell (driver and disk), links, faults, clients, members, audit
//! disk, clock   the machine, as wrong as it may be and not more
//! network       the paths between machines
//! store         the checkpoint store
//! tap, model    what the log says, by a second reader, and what the state must be by it
//! checker       one promise a file
//! sql           what clients say in SQL, and what it must come to
//! trace         what happened, as lines, and their hash
//! chronicle     what happened, as values; diagram draws it, explain tells it
//! words         what nodes are told and tell, in the trace
//! replay        a recorded node, stepped through again
//! marks         which rare situations were reached
//! seeds         which seeds a command line asks for, on all cores
//! run, shrink   a seed, or many; a failing plan made small
//! hunt          planted bugs, until each is caught
//! partitions    another stage: several groups, partitioned topics, and the outbox between them
//! soak          all stages in turn for hours, and a journal of it
//! report, json  what is printed; progress on a terminal
//! ```
//!
//! Not implemented: subscribers in clusters; the driver's threads.

pub mod checker;
pub mod chronicle;
pub mod clock;
pub mod diagram;
pub mod disk;
pub mod explain;
pub mod hunt;
pub mod json;
pub mod knobs;
pub mod marks;
pub mod model;
pub mod network;
pub mod partitions;
pub mod plan;
pub mod progress;
pub mod replay;
pub mod report;
pub mod rng;
pub mod run;
pub mod seeds;
pub mod shrink;
pub mod soak;
pub mod sql;
pub mod store;
pub mod tap;
pub mod trace;
pub mod violation;
mod words;
pub mod world;
