#![no_main]
use chronos_engine::wal::{Identity, SegmentId, recover};
use chronos_proto::id::{ClusterId, Incarnation, NodeId};
use std::collections::BTreeMap;

// The first byte says where the rest is cut into two segment files.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((cut, rest)) = data.split_first() else { return };
    let (first, second) = rest.split_at(rest.len() * usize::from(*cut) / 256);
    let segments = BTreeMap::from([(SegmentId(1), first), (SegmentId(2), second)]);
    let identity = Identity { cluster: ClusterId(1), node: NodeId(1), incarnation: Incarnation(1) };
    let _ = recover(identity, &segments);
});
