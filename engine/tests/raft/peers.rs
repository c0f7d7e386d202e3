//! What a peer hands in is checked: nothing that no leader would send reaches the log.

use crate::cluster::Cluster;
use crate::text;
use chronos_engine::raft::Settings;
use chronos_proto::command::Entry;
use chronos_proto::id::{Index, NodeId, Term};
use chronos_proto::raft::{LogId, Message};
use chronos_proto::time::Timestamp;

fn entry(index: u64, term: u64) -> Entry {
    let (index, term) = (Index(index), Term(term));
    Entry { term, index, time: Timestamp(9), stamp: index.0, command: text::command("e") }
}

#[test]
fn entries_that_no_leader_would_send_are_not_taken() {
    let place = |index, term| LogId { term: Term(term), index: Index(index) };
    for (previous, entries) in [
        // A gap, in front and in between; an order that is wrong.
        (place(0, 0), vec![entry(2, 1)]),
        (place(0, 0), vec![entry(1, 1), entry(3, 1)]),
        (place(0, 0), vec![entry(1, 1), entry(1, 1)]),
        // Terms that fall along the log, or are beyond the leader's.
        (place(0, 0), vec![entry(1, 2), entry(2, 1)]),
        (place(0, 0), vec![entry(1, 4)]),
    ] {
        let mut cluster = Cluster::new(Settings::default(), 1, 3);
        let message = Message::Append { term: Term(3), previous, entries, commit: Index(9) };
        cluster.at(NodeId(2), |raft, now| raft.receive(now, NodeId(1), message));
        let status = cluster.raft(NodeId(2)).expect("it is up").status();
        assert_eq!((status.last, status.committed), (LogId::default(), Index(0)));
        assert!(cluster.wire.is_empty(), "answered: {:?}", cluster.wire);
    }
}

#[test]
fn nobody_acknowledges_more_than_the_leader_has() {
    let mut cluster = Cluster::new(Settings::default(), 1, 3);
    cluster.at(NodeId(1), |raft, now| raft.campaign(now));
    cluster.deliver_all();
    let before = cluster.raft(NodeId(1)).expect("it is up").status();
    for matched in [Index(2), Index(u64::MAX - 1)] {
        let message = Message::Appended { term: before.term, matched };
        cluster.at(NodeId(1), |raft, now| raft.receive(now, NodeId(2), message));
    }
    let rejected =
        Message::AppendRejected { term: before.term, previous: Index(u64::MAX), hint: LogId::default() };
    cluster.at(NodeId(1), |raft, now| raft.receive(now, NodeId(3), rejected));
    let after = cluster.raft(NodeId(1)).expect("it is up").status();
    assert_eq!(after.committed, before.committed);
    assert_eq!(after.followers[&NodeId(2)], before.followers[&NodeId(2)]);
}
