//! Raft alone: members, their disks and a network, without a node around them.
//!
//! `scripts/*.txt` are transcripts, one claim of the literature each; `UPDATE=1 cargo test -p chronos-engine --test raft`
//! writes them anew, and the diff is the review. `random` drives the same cluster by seeds (`RAFT_SEEDS`, `RAFT_FROM`,
//! and `RAFT_TRACE=1` to see what happens); what a seed found stays as a transcript. Both run under `oracle`, which looks at every step for what must never be.
//!
//! P22 of the reliability catalogue (a leader that cannot read its own log back) has no script: Raft's log is in memory
//! from its base on, and whoever needs what is below the base gets a snapshot.

// Scripts are files, and a run over more seeds is asked for by variables.
#![allow(clippy::disallowed_methods)]

mod cluster;
mod oracle;
mod peers;
mod random;
mod script;
mod text;
