//! Links between nodes, over real sockets on loopback: what is sent arrives in order, what is refused is refused with
//! the same words on both sides, and what is damaged drops a link and nothing else.

mod certificates;
mod failures;
mod messages;
mod refusals;
mod support;
