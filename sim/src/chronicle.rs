//! The chronicle of a run: what happened as values, where the trace has lines. Who draws a run or tells it in words
//! reads this. It is kept when the trace's lines are, and costs nothing otherwise.

use crate::plan::{Act, End};
use crate::violation::Violation;
use chronos_engine::raft::Role;
use chronos_engine::step::Trace;
use std::collections::BTreeSet;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// The step of the world's loop.
    pub step: u64,
    /// Simulated microseconds since the run began.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What happened. Nodes are counted from zero here, and from one wherever they are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A message leaves a node. It is lost if it arrives never.
    Sent {
        /// Who sends it.
        from: usize,
        /// To whom.
        to: usize,
        /// When it arrives.
        arrives: Option<u64>,
        /// What it says.
        what: String,
    },
    /// What arrives now was sent to a process that is gone, or over a link that is.
    Missed {
        /// Who sent it.
        from: usize,
        /// To whom.
        to: usize,
    },
    /// A process starts and has recovered.
    Started {
        /// Where.
        node: usize,
        /// The last entry of its log.
        last: u64,
    },
    /// A process ends.
    Ended {
        /// Where.
        node: usize,
        /// How.
        end: End,
    },
    /// A node's group has another role or term.
    Role {
        /// Which node.
        node: usize,
        /// Its role now.
        role: Role,
        /// Its term.
        term: u64,
    },
    /// A node takes entries for committed.
    Committed {
        /// Which node.
        node: usize,
        /// Through this one.
        index: u64,
    },
    /// A node hands an entry to its disk.
    Logged {
        /// Which node.
        node: usize,
        /// With which write.
        write: u64,
        /// The entry's place.
        index: u64,
        /// Its term.
        term: u64,
        /// What it says.
        what: String,
    },
    /// A node cuts its log.
    Truncated {
        /// Which node.
        node: usize,
        /// From this entry on.
        from: u64,
    },
    /// A write is on the medium, and all before it.
    Durable {
        /// Whose.
        node: usize,
        /// Which.
        write: u64,
    },
    /// The engine's own account of something.
    Engine {
        /// Whose.
        node: usize,
        /// What it says.
        trace: Trace,
    },
    /// A client sets out to have something committed.
    Wants {
        /// Who.
        client: u64,
        /// The client's own number of it.
        number: u64,
        /// What kind of thing.
        job: &'static str,
    },
    /// A client asks, or asks again.
    Asked {
        /// Who.
        client: u64,
        /// The client's own number of the request.
        number: u64,
        /// How often it asked for this, with this time.
        attempt: u32,
        /// The node that is asked.
        node: usize,
        /// When the request is there.
        arrives: u64,
    },
    /// A node answers a client.
    Replied {
        /// Which node.
        node: usize,
        /// Whom.
        client: u64,
        /// The client's own number of the request.
        number: u64,
        /// The entry, if the answer is that it is committed.
        index: Option<u64>,
        /// The answer.
        what: String,
    },
    /// An answer to a client is lost.
    ReplyLost {
        /// Whose.
        node: usize,
        /// Who does not get it.
        client: u64,
        /// The client's own number of the request.
        number: u64,
    },
    /// A client gives up on a request, whose outcome stays unknown.
    GaveUp {
        /// Who.
        client: u64,
        /// The client's own number of the request.
        number: u64,
    },
    /// A read is answered.
    Read {
        /// By which node.
        node: usize,
        /// It sees entries through this one.
        index: u64,
        /// Somebody knew of this one when it began.
        known: u64,
    },
    /// An act of the plan that goes against the cluster.
    Planned {
        /// Whom it concerns, if it is one.
        node: Option<usize>,
        /// Its number in the plan.
        number: u32,
        /// What.
        act: Act,
    },
    /// Paths lose what is sent on them.
    Cut {
        /// From whom to whom.
        paths: Vec<(usize, usize)>,
    },
    /// They no longer do.
    Mended {
        /// From whom to whom.
        paths: Vec<(usize, usize)>,
    },
    /// A fault ends on one machine.
    Recovered {
        /// Which.
        node: usize,
        /// What is as it was.
        what: &'static str,
    },
    /// Clients and faults stop, and a core must settle.
    Settling {
        /// The core.
        core: Vec<usize>,
    },
    /// A checker saw a promise broken.
    Failed(Violation),
}

/// A node's name in print.
pub fn node_name(node: usize) -> String {
    format!("n{}", node + 1)
}

/// The nodes that a text names, as `n3` or as `node 3`.
pub fn nodes_named(text: &str, nodes: usize) -> BTreeSet<usize> {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let number = |word: &str| word.parse::<usize>().ok().filter(|number| (1..=nodes).contains(number));
    let mut named = BTreeSet::new();
    for (place, word) in words.iter().enumerate() {
        let after_node = place > 0 && words[place - 1] == "node";
        let found = word.strip_prefix('n').and_then(number).or_else(|| number(word).filter(|_| after_node));
        named.extend(found.map(|number| number - 1));
    }
    named
}

/// A role in print.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

#[cfg(test)]
mod tests {
    use super::nodes_named;

    #[test]
    fn nodes_are_found_in_the_words_of_a_verdict() {
        let named = |text| nodes_named(text, 5).into_iter().collect::<Vec<_>>();
        assert_eq!(named("a read at n3 sees entry 2, and 5 was known before"), [2]);
        assert_eq!(named("index 4 is term 7 on node 1 and term 8 on n5, not n9"), [0, 4]);
    }
}
