//! What is wrong is refused, with the same words on both sides and no effect.

use crate::certificates::{Authority, EXPIRED, GOOD, Tls};
use crate::support::*;
use chronos_node::link::Lane;
use chronos_proto::hello::{Hello, KIND_HELLO};
use chronos_proto::limits::FRAME_MAX_BYTES;
use quinn::Endpoint;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// One node dials another; each says what it has to say, and nothing happens.
async fn refused(dialler: Setup, acceptor: Setup, expects: &str, here: &str, there: &str) {
    let (one, two) = (dialler.start(), acceptor.start());
    one.dial(&[(expects, two.address)]);
    one.until_refuses(expects, here).await;
    two.seen.until_refused(there).await;
    for node in [&one, &two] {
        let log = node.seen.log();
        assert!(log.ups.is_empty() && log.received.is_empty(), "{log:?}");
    }
}

fn with(authority: &Authority, name: &str, tls: Arc<Tls>) -> Setup {
    Setup { tls, ..Setup::new(authority, name) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused_by_its_authority() {
    let (ours, theirs) = (Authority::new(1), Authority::new(2));
    refused(
        Setup::new(&ours, "node1"),
        Setup::new(&theirs, "node2"),
        "node2",
        "its certificate is not signed by this cluster's authority",
        "this node's certificate is not signed by the authority that it trusts",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_under_one_authority_is_refused_by_its_certificate() {
    let authority = Authority::new(1);
    let tls = authority.issue(&["chronos://000000000000000000000000000000ff/node/node2"], GOOD);
    let words = "the certificate of node2 is of cluster 000000000000000000000000000000ff";
    refused(Setup::new(&authority, "node1"), with(&authority, "node2", tls), "node2", words, words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused_on_either_side() {
    let authority = Authority::new(1);
    let old = |name: &str| {
        let uri = format!("chronos://{:032x}/node/{name}", authority.cluster);
        with(&authority, name, authority.issue(&[&uri], EXPIRED))
    };
    let (theirs, ours) = ("its certificate has expired", "this node's certificate has expired");
    refused(Setup::new(&authority, "node1"), old("node2"), "node2", theirs, ours).await;
    refused(old("node1"), Setup::new(&authority, "node2"), "node2", ours, theirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_for_something_else_is_refused() {
    let authority = Authority::new(1);
    let one = || Setup::new(&authority, "node1");
    let words = "there is node9, not node2: check the addresses of the peers of node1";
    refused(one(), Setup::new(&authority, "node9"), "node2", words, words).await;
    let words = "there is node1, this node itself, not node2";
    refused(one(), one(), "node2", words, words).await;

    let edge = authority.issue(&[&format!("chronos://{:032x}/edge/barn", authority.cluster)], GOOD);
    let words = "its certificate is for the edge barn, not for a node";
    refused(one(), with(&authority, "barn", edge), "barn", words, words).await;
    let nobody = authority.issue(&["https://example.org/"], GOOD);
    let words = "its certificate: the certificate has no chronos:// name";
    refused(one(), with(&authority, "node2", nobody.clone()), "node2", words, words).await;
    refused(with(&authority, "node1", nobody), Setup::new(&authority, "node2"), "node2", words, words).await;
    let uri = |name: &str| format!("chronos://{:032x}/node/{name}", authority.cluster);
    let two_names = authority.issue(&[&uri("node1"), &uri("node2")], GOOD);
    let words = "its certificate: the certificate has more than one chronos:// name";
    refused(one(), with(&authority, "node2", two_names), "node2", words, words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_life_of_a_known_node_is_refused_by_name() {
    let authority = Authority::new(1);
    let words = "node1 was wiped: its store is number 8, and the member's is 7";
    let acceptor = || Setup {
        admit: Box::new(|hello, name| match hello.incarnation.0 {
            7 => Ok(()),
            other => Err(format!("{name} was wiped: its store is number {other}, and the member's is 7")),
        }),
        ..Setup::new(&authority, "node2")
    };
    let dialler = |incarnation| Setup { incarnation, ..Setup::new(&authority, "node1") };
    refused(dialler(8), acceptor(), "node2", words, words).await;
    // And the other way round: who dials checks too.
    let words = "node2 was wiped: its store is number 1, and the member's is 7";
    refused(
        acceptor_as(acceptor(), &authority, "node1"),
        Setup::new(&authority, "node2"),
        "node2",
        words,
        words,
    )
    .await;
    let (one, two) = (dialler(7).start(), acceptor().start());
    one.dial(&[("node2", two.address)]);
    one.until_up(&two, 1).await;
}

fn acceptor_as(setup: Setup, authority: &Authority, name: &str) -> Setup {
    Setup { name: name.into(), tls: authority.node(name), ..setup }
}

/// A hello that is sent as it stands, and how it is answered.
async fn greets(authority: &Authority, two: &Node, greeting: &[u8]) -> String {
    let raw = Raw::connect(&authority.node("node1"), two).await;
    let (mut send, _receive) = raw.connection.open_bi().await.unwrap();
    send.write_all(greeting).await.unwrap();
    send.finish().unwrap();
    let reason = raw.closed().await;
    two.seen.until_refused(&reason).await;
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_is_wrong_is_answered_with_the_reason() {
    let authority = Authority::new(1);
    let two = node(&authority, "node2");
    let good = hello(&authority, "node1", &two);
    let said = |hello: Hello| framed(KIND_HELLO, &hello.encode());
    for (hello, words) in [
        (Hello { oldest: 1, newest: 1, ..good.clone() }, "it speaks wire versions 1 to 1, this build 2 to 2"),
        (Hello { oldest: 3, newest: 4, ..good.clone() }, "it speaks wire versions 3 to 4, this build 2 to 2"),
        (
            Hello { cluster: chronos_proto::id::ClusterId(9), ..good.clone() },
            "node1 belongs to cluster 00000000000000000000000000000009, and node2 to cluster \
             00000000000000000000000000000001",
        ),
        (
            Hello { name: "node3".into(), from: id("node3"), ..good.clone() },
            "and its certificate is for node1",
        ),
        (Hello { from: id("node3"), ..good.clone() }, "and its certificate is for node1"),
        (Hello { to: id("node3"), ..good.clone() }, "and this is node2"),
        (Hello { name: "n".repeat(100), ..good.clone() }, "a node name of 100 bytes"),
    ] {
        let reason = greets(&authority, &two, &said(hello)).await;
        assert!(reason.contains(words), "{reason}");
    }
    for (bytes, words) in [
        (&framed(KIND_HELLO, &[2, 2, 7])[..], "its hello does not decode"),
        (&framed(9, &good.encode()), "a frame of kind 9 where a hello should be"),
        (&framed(KIND_HELLO, &vec![1; 5_000]), "a frame of 5000 bytes where at most 4096 are expected"),
        (b"GET / HTTP/1.1\r\n\r\n", "not a chronos frame"),
        (&said(good.clone())[..20], "the stream ended within a frame"),
        (b"", "the stream ended before a hello"),
    ] {
        let reason = greets(&authority, &two, bytes).await;
        assert!(reason.contains(words), "{reason}");
    }
    let log = two.seen.log();
    assert!(log.ups.is_empty() && log.received.is_empty());
    assert!(!two.links.status().iter().any(|status| status.heard));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_drops_the_link_and_nothing_else() {
    let authority = Authority::new(1);
    let two = node(&authority, "node2");
    let good = framed(7, &1u32.to_le_bytes());
    let mut flipped = good.clone();
    flipped[17] ^= 4;
    let mut oversize = framed(7, b"");
    oversize[8..12].copy_from_slice(&(FRAME_MAX_BYTES as u32 + 1).to_le_bytes());
    let mut newer = good.clone();
    newer[3] = 9;
    let cases: [(&[u8], &str); 6] = [
        (&flipped, "damaged on the way"),
        (&oversize, "frame of 16777217 bytes is over the limit of 16777216"),
        (&newer, "frame version 9 is not supported"),
        (b"once upon a time", "not a chronos frame"),
        (&framed(UNKNOWN_KIND, b"?"), "a frame of kind 200 is not taken: nobody knows this kind"),
        (&good[..18], "the stream ended within a frame"),
    ];
    for (n, (bytes, words)) in cases.iter().enumerate() {
        let raw = Raw::greeted(&authority, "node1", &two).await;
        raw.lane(1, bytes).await;
        let reason = raw.closed().await;
        assert!(reason.contains(words), "{reason}");
        two.until_status("node1", "a broken link is counted", |status| status.broken == n as u64 + 1).await;
    }
    for (lanes, words) in
        [(&[7][..], "a stream that names no lane"), (&[0, 0], "a second stream for the lane Control")]
    {
        let raw = Raw::greeted(&authority, "node1", &two).await;
        for lane in lanes {
            raw.lane(*lane, b"").await;
        }
        assert_eq!(raw.closed().await, words);
    }
    assert!(two.seen.log().received.is_empty());

    // What came before the damage counts, and a node that makes sense is welcome.
    let raw = Raw::greeted(&authority, "node1", &two).await;
    raw.lane(0, &[&good[..], &flipped].concat()).await;
    raw.closed().await;
    let one = node(&authority, "node1");
    one.dial(&[("node2", two.address)]);
    one.until_up(&two, 1).await;
    one.send(&two, Lane::Control, 2);
    two.seen.until("messages", |log| log.numbers(id("node1"), Lane::Control) == [1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_is_ignored() {
    let authority = Authority::new(1);
    let nodes = cluster(vec![Setup::new(&authority, "node1"), Setup::new(&authority, "node2")]).await;
    let [one, two] = &nodes[..] else { unreachable!() };
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = 88_172_645_463_325_252u64;
    for number in 0..2_000u32 {
        let mut datagram: Vec<u8> = Vec::new();
        for _ in 0..(number % 1_400) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            datagram.push(random as u8);
        }
        // Some look like the first packet of a connection.
        if number % 3 == 0 && datagram.len() > 5 {
            datagram[0] |= 0xC0;
            datagram[1..5].copy_from_slice(&1u32.to_be_bytes());
        }
        socket.send_to(&datagram, two.address).unwrap();
        if number % 10 == 0 {
            one.send(two, Lane::Control, number / 10);
        }
    }
    let log = two.seen.until("messages", |log| log.received.len() == 200).await;
    assert_eq!(log.numbers(one.id(), Lane::Control), (0..200).collect::<Vec<u32>>());
    assert!(log.downs.is_empty() && one.seen.log().downs.is_empty());
}

/// Handshakes that are begun and not gone on with, from addresses that receive nothing: with a few of them under way,
/// newcomers must show their address, so that the rest cost nothing and a node still gets in.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_stall_do_not_keep_a_node_out() {
    let authority = Authority::new(1);
    let two = node(&authority, "node2");
    let mut stalled = Vec::new();
    for _ in 0..80 {
        let socket = Socket::bind(0).unwrap();
        let config = quinn::EndpointConfig::default();
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(config, None, socket.clone(), runtime).unwrap();
        let config =
            quinn::ClientConfig::new(chronos_node::link::TlsConfigs::client(&*authority.node("node1")));
        socket.deaf.store(true, Ordering::Relaxed);
        let connecting = endpoint.connect_with(config, two.address, "chronos").unwrap();
        stalled.push((endpoint, connecting));
    }
    within("handshakes", async {
        while two.links.totals().handshakes < 8 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let one = node(&authority, "node1");
    one.dial(&[("node2", two.address)]);
    one.until_up(&two, 1).await;
    let totals = two.links.totals();
    assert!(totals.overload == 0 && totals.handshakes < 16, "{totals:?}");
    drop(stalled);
}
