//! A node whose disk is slow and whose WAL takes hardly anything meanwhile.

mod support;

use chronos_engine::node::Config;
use chronos_engine::step::{Input, Start, SubscriberId, SubscriberInput, Subscription};
use chronos_proto::command::{Event, Op};
use support::{ALERTS, Run, run};

/// A tick at exactly its deadline must not ask for another at the same moment for long, whatever the disk owes: the
/// driver would spin.
#[test]
fn deadlines_that_are_met_go_away() {
    for seed in 0..8 {
        // In half of the runs the WAL takes hardly anything while a write is on its way.
        let mut run = run(seed, if seed % 2 == 0 { 1 << 20 } else { 1 });
        for _ in 0..400 {
            let Some((at, reason)) = run.node.next_deadline() else { break };
            run.mono = run.mono.max(at.0);
            let mut ticks = 0;
            while run.node.next_deadline().is_some_and(|(at, _)| at.0 <= run.mono) {
                run.step(Input::Tick);
                ticks += 1;
                assert!(ticks < 50, "seed {seed}: {ticks} ticks for {reason:?} and none the wiser");
            }
            run.trace.clear();
            // The disk answers now and then; it owes several writes meanwhile.
            if run.rng.one_in(3) {
                run.answer();
            }
        }
    }
}

/// A consumer group's start and its acknowledgements are logged in their order when there is room again.
#[test]
fn progress_that_found_no_room_is_logged_later() {
    let mut world = Run::new(1, 1);
    world.make_relations();
    let publish = || Op::Publish { topic: ALERTS, partition: 0, event: Event::default(), claim: false };
    world.step(Input::QueueDrained);
    world.settle();
    world.commit(vec![publish(), publish()]);
    world.step(Input::QueueDrained);
    world.settle();
    // One write is on its way and one entry waits behind it: there is no room.
    world.commit(vec![publish()]);
    world.step(Input::QueueDrained);
    world.commit(vec![publish()]);
    world.trace.clear();
    let id = SubscriberId(1);
    let consumer_group = Some("g".to_owned());
    let open = Subscription {
        topic: ALERTS,
        partitions: Vec::new(),
        consumer_group,
        start: Start::Offset(1),
        credit: 9,
        ack_timeout_ms: 0,
    };
    world.step(Input::Subscriber { id, event: SubscriberInput::Open(open) });
    world.step(Input::Subscriber { id, event: SubscriberInput::Ack(vec![(0, 1)]) });
    assert!(!world.trace.contains("\"ack\""));
    world.settle();
    world.step(Input::QueueDrained);
    world.settle();
    let snapshot = world.node.state(chronos_proto::GroupId(0)).expect("the group").snapshot(&world.shared);
    let progress = snapshot.consumer(ALERTS, "g", 0).expect("progress");
    assert_eq!(progress.floor, 2, "{progress:?}\n{}", world.trace);
}

/// The WAL stays below its bound while checkpoints keep up. One that takes long has writes refused, and the log is given
/// up to it.
#[test]
fn the_wal_is_bounded() {
    let settings = |config| Config { wal_max_bytes: 512 << 10, segment_bytes: 16 << 10, ..config };
    let mut world = Run::with(1, settings);
    world.make_relations();
    let publish = |world: &mut Run| {
        let event = Event { payload: vec![7; 4_000].into(), ..Event::default() };
        world.commit(vec![Op::Publish { topic: ALERTS, partition: 0, event, claim: false }]);
        world.step(Input::QueueDrained);
        world.trace.clear();
    };
    let most = |world: &Run| world.node.status().wal_kept_bytes;
    let mut peak = 0;
    for _ in 0..600 {
        publish(&mut world);
        world.settle();
        peak = peak.max(most(&world));
    }
    let status = world.node.status();
    assert!(peak > 128 << 10 && peak <= 512 << 10, "{peak}");
    assert_eq!(status.wal_shortened, 0, "there was room for the checkpoint before the last");
    // The store takes its time.
    let mut late = Vec::new();
    for _ in 0..300 {
        publish(&mut world);
        while let Some(owed) = world.owed.pop_front() {
            match owed {
                Input::CheckpointDurable(_) => late.push(owed),
                owed => world.step(owed),
            }
        }
    }
    let (kept, refusing) = (most(&world), world.node.status().refusing);
    assert!(kept > 512 << 10 && kept <= 544 << 10, "{kept}");
    assert!(refusing.is_some_and(|why| why.contains("the log is at its bound")));
    world.owed.extend(late);
    world.settle();
    world.step(Input::QueueDrained);
    world.settle();
    let status = world.node.status();
    assert!(status.wal_shortened > 0 && status.wal_kept_bytes <= 512 << 10, "{status:?}");
    assert_eq!(status.refusing, None);
}
