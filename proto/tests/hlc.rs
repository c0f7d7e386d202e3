//! The stamp rule against `uhlc::HLC`, and the promises that it makes by itself.

use chronos_proto::stamp::{Hlc, Stamp, physical, to_timestamp};
use chronos_proto::{NodeId, Timestamp};
use proptest::prelude::*;
use std::cell::Cell;
use std::time::Duration;

const DRIFT_MAX: Duration = Duration::from_millis(500);
const START: i64 = 1_733_856_000_000_000;

thread_local! {
    /// `uhlc` takes its clock as a plain function.
    static CLOCK: Cell<u64> = const { Cell::new(0) };
}

fn clock() -> uhlc::NTP64 {
    uhlc::NTP64(CLOCK.get())
}

fn reference(node: NodeId) -> uhlc::HLC {
    let id = uhlc::ID::try_from(node.0.to_le_bytes()).expect("a node is not 0");
    uhlc::HLCBuilder::new().with_id(id).with_clock(clock).with_max_delta(DRIFT_MAX).build()
}

#[derive(Clone, Debug)]
enum Do {
    /// The clock moves, also back.
    Move(i64),
    Issue,
    /// A stamp comes whose time is this far from the clock's, in NTP64.
    Merge(i64),
}

fn operation() -> impl Strategy<Value = Do> {
    let ntp_ms = (1i64 << 32) / 1_000;
    prop_oneof![
        2 => prop_oneof![Just(0), Just(1), -2_000_000i64..2_000_000].prop_map(Do::Move),
        4 => Just(Do::Issue),
        2 => (-40i64..40).prop_map(Do::Merge),
        2 => (-1_000 * ntp_ms..1_000 * ntp_ms).prop_map(Do::Merge),
        1 => (-40i64..40).prop_map(move |n| Do::Merge(500 * ntp_ms + n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn issues_and_merges_as_uhlc_does(operations in prop::collection::vec(operation(), 1..200)) {
        let (ours, theirs) = (NodeId(7), reference(NodeId(7)));
        let mut hlc = Hlc::default();
        let mut now = Timestamp(START);
        let mut greatest = 0;
        CLOCK.set(physical(now));
        for operation in operations {
            match operation {
                Do::Move(micros) => {
                    now = Timestamp(now.0 + micros);
                    CLOCK.set(physical(now));
                }
                Do::Issue => {
                    let stamp = Stamp { time: hlc.issue(now), node: ours };
                    prop_assert_eq!(Some(theirs.new_timestamp()), stamp.to_uhlc());
                    prop_assert!(stamp.time > greatest, "a stamp came twice");
                    prop_assert!(to_timestamp(stamp.time).0 >= now.0 - 1, "below the clock");
                    greatest = stamp.time;
                }
                Do::Merge(distance) => {
                    let stamp = Stamp { time: physical(now).saturating_add_signed(distance), node: NodeId(9) };
                    let theirs = theirs.update_with_timestamp(&stamp.to_uhlc().expect("node 9"));
                    let before = hlc;
                    let ours = hlc.merge(stamp, now, DRIFT_MAX);
                    prop_assert_eq!(ours.is_err(), theirs.is_err());
                    match ours {
                        Ok(()) => greatest = greatest.max(stamp.time),
                        Err(refused) => {
                            prop_assert_eq!(refused.node, stamp.node);
                            prop_assert_eq!(hlc, before, "a refused stamp left a mark");
                        }
                    }
                    prop_assert_eq!(distance > (1i64 << 32) / 2, theirs.is_err());
                }
            }
        }
    }

    #[test]
    fn times_and_stamps_convert_to_the_microsecond(micros in 0i64..253_402_300_799_999_999) {
        // Seconds of an NTP64 have 32 bits: times beyond 2106 do not fit.
        let micros = micros % (i64::from(u32::MAX) * 1_000_000);
        let time = to_timestamp(physical(Timestamp(micros)));
        prop_assert!((micros - 1..=micros).contains(&time.0), "{} became {}", micros, time.0);
    }

    #[test]
    fn stamps_order_by_time_then_node(a in any::<(u64, u64)>(), b in any::<(u64, u64)>()) {
        let stamp = |(time, node)| Stamp { time, node: NodeId(node) };
        prop_assert_eq!(stamp(a).cmp(&stamp(b)), a.cmp(&b));
    }
}

#[test]
fn a_stuck_clock_never_repeats_a_stamp() {
    // More events than the counter has room for: it carries into the physical part.
    let mut hlc = Hlc::above(physical(Timestamp(START)));
    let mut last = hlc.last();
    for _ in 0..1 << 16 {
        let next = hlc.issue(Timestamp(START));
        assert!(next > last);
        last = next;
    }
    assert!(to_timestamp(last).0 - START < 20, "65536 events cost {} us", to_timestamp(last).0 - START);
}

#[test]
fn a_restart_goes_on_above_the_stored_mark_though_the_clock_went_back() {
    let mark = physical(Timestamp(START));
    assert!(Hlc::above(mark).issue(Timestamp(START - 3_600_000_000)) > mark);
}

#[test]
fn nobody_has_no_stamp() {
    assert_eq!(Stamp { time: 1, node: NodeId(0) }.to_uhlc(), None);
}
