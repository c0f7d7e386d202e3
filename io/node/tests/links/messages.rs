//! What is sent arrives.

use crate::certificates::{Authority, GOOD, LATER};
use crate::support::*;
use bytes::Bytes;
use chronos_node::link::{Lane, LinkConfig, Links, PeerAddress, SendError};
use chronos_node::tls::{Development, Role};
use chronos_proto::id::Incarnation;
use chronos_proto::limits::FRAME_MAX_BYTES;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const LANES: [Lane; 3] = [Lane::Control, Lane::Replication, Lane::Snapshot];

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_exchange_messages_in_order_on_every_lane() {
    let authority = Authority::new(1);
    let mut setups = Vec::new();
    for name in ["node1", "node2", "node3"] {
        setups.push(Setup { snapshot_frames: 1_000, ..Setup::new(&authority, name) });
    }
    let nodes = cluster(setups).await;
    const COUNT: u32 = 500;
    for number in 0..COUNT {
        for from in &nodes {
            for to in nodes.iter().filter(|to| to.name != from.name) {
                LANES.iter().for_each(|lane| from.send(to, *lane, number));
            }
        }
    }
    let expected: Vec<u32> = (0..COUNT).collect();
    for to in &nodes {
        let log = to.seen.until("every message", |log| log.received.len() == 2 * 3 * COUNT as usize).await;
        for from in nodes.iter().filter(|from| from.name != to.name) {
            LANES.iter().for_each(|lane| assert_eq!(log.numbers(from.id(), *lane), expected));
            let status = to.status(&from.name);
            assert!(status.heard && status.rtt.is_some());
            for lane in status.lanes {
                assert_eq!((lane.received_frames, lane.received_bytes), (500, 2_000));
                assert_eq!((lane.sent_frames, lane.sent_bytes, lane.dropped), (500, 2_000, 0));
            }
        }
        assert!(log.downs.is_empty() && log.refused.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_may_be_as_long_as_the_limit_and_no_longer() {
    let authority = Authority::new(1);
    let nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let body = Bytes::from((0..FRAME_MAX_BYTES).map(|n| ((n * 31) >> 7) as u8).collect::<Vec<u8>>());
    let [one, two] = &nodes[..] else { unreachable!() };
    one.links.send(two.id(), Lane::Snapshot, 9, body.clone()).unwrap();
    one.links.send(two.id(), Lane::Snapshot, 9, Bytes::new()).unwrap();
    let log = two.seen.until("both frames", |log| log.received.len() == 2).await;
    assert!(log.received[0].3 == body && log.received[0].2 == 9);
    assert_eq!(log.received[1].3, Bytes::new());

    let longer = Bytes::from(vec![0; FRAME_MAX_BYTES + 1]);
    assert_eq!(
        one.links.send(two.id(), Lane::Snapshot, 9, longer),
        Err(SendError::TooLong(FRAME_MAX_BYTES + 1))
    );
    let stranger = one.links.send(id("node7"), Lane::Control, 9, Bytes::new());
    assert_eq!(stranger, Err(SendError::NotConnected));
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_stand_still_do_not_hold_up_control() {
    let authority = Authority::new(1);
    let nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let [one, two] = &nodes[..] else { unreachable!() };
    two.seen.full[1].store(true, Ordering::Relaxed);
    two.seen.full[2].store(true, Ordering::Relaxed);

    // Both bulk lanes are filled until their queues refuse more and nothing moves: windows and queues are full.
    let mut taken = [0u32; 2];
    let chunk = |number: u32| {
        let mut chunk = vec![0; 256 << 10];
        chunk[..4].copy_from_slice(&number.to_le_bytes());
        Bytes::from(chunk)
    };
    for (at, lane) in [(0, Lane::Replication), (1, Lane::Snapshot)] {
        let mut idle = 0;
        let mut sent = 0;
        while idle < 50 {
            match one.links.send(two.id(), lane, 9, chunk(taken[at])) {
                Ok(()) => taken[at] += 1,
                Err(SendError::Full { .. }) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
                Err(other) => panic!("{other}"),
            }
            let now = one.status("node2").lanes[at + 1].sent_frames;
            let queue_full = one.status("node2").lanes[at + 1].dropped > 0;
            idle = if queue_full && now == sent { idle + 1 } else { 0 };
            sent = now;
        }
    }
    let status = one.status("node2");
    assert!(status.lanes[1].dropped > 0 && status.lanes[2].dropped > 0, "{status:?}");
    assert!(status.lanes[2].queued_frames > 0);

    for number in 0..200 {
        one.send(two, Lane::Control, number);
    }
    let log = two.seen.until("control messages", |log| log.received.len() == 200).await;
    assert_eq!(log.numbers(one.id(), Lane::Control), (0..200).collect::<Vec<u32>>());

    // With room again, everything that was taken arrives, in order.
    two.seen.full[1].store(false, Ordering::Relaxed);
    two.seen.full[2].store(false, Ordering::Relaxed);
    two.links.room();
    let all = 200 + (taken[0] + taken[1]) as usize;
    let log = two.seen.until("the bulk", |log| log.received.len() == all).await;
    assert_eq!(log.numbers(one.id(), Lane::Replication), (0..taken[0]).collect::<Vec<u32>>());
    assert_eq!(log.numbers(one.id(), Lane::Snapshot), (0..taken[1]).collect::<Vec<u32>>());
    assert!(log.downs.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_message_without_room_is_dropped_and_counted() {
    let authority = Authority::new(1);
    let nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let [one, two] = &nodes[..] else { unreachable!() };
    two.seen.full[0].store(true, Ordering::Relaxed);
    one.send(two, Lane::Control, 1);
    two.until_status("node1", "an overrun", |status| status.lanes[0].overrun == 1).await;
    two.seen.full[0].store(false, Ordering::Relaxed);
    one.send(two, Lane::Control, 2);
    let log = two.seen.until("the next message", |log| !log.received.is_empty()).await;
    assert_eq!(log.numbers(one.id(), Lane::Control), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_serve_new_links_and_old_links_last() {
    let authority = Authority::new(1);
    let (first, second) = (Setup::new(&authority, "node1"), Setup::new(&authority, "node2"));
    let tls = [first.tls.clone(), second.tls.clone()];
    let nodes = cluster(vec![first, second]).await;
    let [one, two] = &nodes[..] else { unreachable!() };
    let before = one.status("node2").certificate_expires.unwrap();

    authority.renew(&tls[0], "node1", LATER);
    authority.renew(&tls[1], "node2", LATER);
    let three = node(&authority, "node3");
    three.dial(&[("node2", two.address)]);
    two.dial(&[("node1", one.address), ("node3", three.address)]);
    three.until_up(two, 1).await;
    two.until_up(&three, 1).await;
    let after = three.status("node2").certificate_expires.unwrap();
    let ten_years = i64::from(LATER - GOOD) * 365 * 86_400 * 1_000_000;
    assert!(after.0 - before.0 >= ten_years, "{before:?} {after:?}");

    one.send(two, Lane::Control, 1);
    two.send(one, Lane::Control, 2);
    two.seen.until("the old link", |log| log.numbers(one.id(), Lane::Control) == [1]).await;
    let log = one.seen.until("the old link", |log| log.numbers(two.id(), Lane::Control) == [2]).await;
    assert!(log.downs.is_empty() && two.seen.log().downs.is_empty());
    assert_eq!(one.status("node2").certificate_expires, Some(before));
}

/// The certificates that nodes of one data root share, over sockets that the links bind themselves.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_development_certificates_are_linked() {
    let root = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let credentials = Development::open(root.path()).unwrap().credentials(Role::Node, name).unwrap();
        let seen = Arc::new(Recorder::new(Box::new(|_, _| Ok(()))));
        let config = LinkConfig::new(credentials.cluster(), name, Incarnation(1), 1, Arc::new(credentials));
        (Links::bind(config, "127.0.0.1:0".parse().unwrap(), seen.clone()).unwrap(), seen)
    };
    let ((one, seen), (two, heard)) = (start("node1"), start("node2"));
    let address = PeerAddress { name: "node2".into(), address: two.local_addr().unwrap().to_string() };
    one.set_peers([(two.node(), address)].into());
    seen.until("a link", |log| log.ups.len() == 1).await;
    one.send(two.node(), Lane::Control, 7, Bytes::from_static(&[5, 0, 0, 0])).unwrap();
    heard.until("a message", |log| log.numbers(one.node(), Lane::Control) == [5]).await;
}
