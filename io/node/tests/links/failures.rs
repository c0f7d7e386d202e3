//! Links that end, and come back.

use crate::certificates::Authority;
use crate::support::*;
use chronos_node::link::{Lane, LinkState, SendError};
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_comes_back_when_the_peer_is_back_on_its_port() {
    let authority = Authority::new(1);
    let mut nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let two = nodes.pop().unwrap();
    let one = &nodes[0];
    let port = two.address.port();
    two.links.close();
    within("the peers were told", two.links.closed()).await;
    drop(two);
    let log = one.seen.until("down", |log| !log.downs.is_empty()).await;
    assert!(log.downs[0].1.contains("the node is stopping"), "{:?}", log.downs);
    assert_eq!(
        one.links.send(id("node2"), Lane::Control, 1, bytes::Bytes::new()),
        Err(SendError::NotConnected)
    );

    // The port is free once the old endpoint's last task has ended.
    let two = within("the port", async {
        loop {
            match (Setup { port, boot: 2, ..Setup::new(&authority, "node2") }).try_start() {
                Ok(node) => return node,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    two.dial(&[("node1", one.address)]);
    one.until_up(&two, 2).await;
    two.until_up(one, 1).await;
    assert_eq!(one.seen.log().ups.last().unwrap().boot, 2);
    assert_eq!(one.status("node2").reconnects, 1);
    one.send(&two, Lane::Replication, 5);
    two.seen.until("a message", |log| log.numbers(one.id(), Lane::Replication) == [5]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_noticed_and_healed() {
    let authority = Authority::new(1);
    let idle = Duration::from_secs(2);
    let setup = |name| Setup { idle, ..Setup::new(&authority, name) };
    let nodes = cluster(vec![setup("node1"), setup("node2")]).await;
    let [one, two] = &nodes[..] else { unreachable!() };
    two.socket.cut.store(true, Ordering::Relaxed);
    for node in &nodes {
        let log = node.seen.until("down", |log| !log.downs.is_empty()).await;
        assert!(log.downs[0].1.contains("no answer"), "{:?}", log.downs);
    }
    // The event is told just before the status shows it.
    within("the reason", async {
        while !matches!(one.status("node2").state, LinkState::Connecting { why: Some(_) }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    two.socket.cut.store(false, Ordering::Relaxed);
    one.until_up(two, 2).await;
    two.until_up(one, 2).await;
    one.send(two, Lane::Control, 9);
    two.seen.until("a message", |log| log.numbers(one.id(), Lane::Control) == [9]).await;
}

/// With an idle timeout of a minute, only the new start's own words can end the link to the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_start_of_a_peer_ends_the_link_to_the_old_one_at_once() {
    let authority = Authority::new(1);
    let nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let [one, killed] = &nodes[..] else { unreachable!() };
    killed.socket.cut.store(true, Ordering::Relaxed);
    let two = Setup { boot: 2, ..Setup::new(&authority, "node2") }.start();
    two.dial(&[("node1", one.address)]);
    let log = one.seen.until("down", |log| !log.downs.is_empty()).await;
    assert_eq!(log.downs, [(id("node2"), "it has started anew".to_owned())]);
    two.until_up(one, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_start_of_the_same_store_is_a_copy_and_refused() {
    let authority = Authority::new(1);
    let newer = Setup { boot: 5, ..Setup::new(&authority, "node2") };
    let nodes = cluster(vec![Setup::new(&authority, "node1"), newer]).await;
    let copy = Setup { boot: 4, ..Setup::new(&authority, "node2") }.start();
    copy.dial(&[("node1", nodes[0].address)]);
    let words = "this is start 4 of node2, and start 5 of the same data directory was seen before";
    copy.until_refuses("node1", words).await;
    nodes[0].seen.until_refused(words).await;
    // Another life of the store is another matter, for `admit` to judge.
    let wiped = Setup { incarnation: 2, ..Setup::new(&authority, "node2") }.start();
    wiped.dial(&[("node1", nodes[0].address)]);
    wiped.until_up(&nodes[0], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_removed_loses_both_links() {
    let authority = Authority::new(1);
    let nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let [one, two] = &nodes[..] else { unreachable!() };
    one.dial(&[]);
    let log = one.seen.until("down", |log| !log.downs.is_empty()).await;
    assert_eq!(log.downs, [(two.id(), "the peers of this node were changed".to_owned())]);
    let log = two.seen.until("down", |log| !log.downs.is_empty()).await;
    assert!(log.downs[0].1.contains("no longer counts yours among its peers"), "{:?}", log.downs);
    assert_eq!(one.status("node2").state, LinkState::NotDialled);
    one.dial(&[("node2", two.address)]);
    one.until_up(two, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_names_are_looked_up() {
    let authority = Authority::new(1);
    let (one, two) = (node(&authority, "node1"), node(&authority, "node2"));
    let address = |host: &str| chronos_node::link::PeerAddress {
        name: "node2".into(),
        address: format!("{host}:{}", two.address.port()),
    };
    one.links.set_peers([(two.id(), address("no-such-host.invalid"))].into());
    one.until_status("node2", "a failed look-up", |status| {
        matches!(&status.state, LinkState::Connecting { why: Some(why) } if why.contains("cannot look up no-such-host.invalid"))
    })
    .await;
    one.links.set_peers([(two.id(), address("localhost"))].into());
    one.until_up(&two, 1).await;
}
