//! The same inputs in the same order give the same outputs, byte for byte: two nodes, one script, every effect compared.

mod support;

use support::run;

#[test]
fn two_nodes_with_the_same_inputs_put_out_the_same() {
    for seed in 0..4 {
        let (one, other) = (run(seed, 1 << 20), run(seed, 1 << 20));
        let differing = one.trace.lines().zip(other.trace.lines()).position(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}: the first line that differs");
        assert_eq!(one.trace.len(), other.trace.len());
        assert_eq!(one.store.0, other.store.0);
        // It was a life worth comparing.
        for word in ["Reply", "Deliver", "Released", "CheckpointId", "\"fire\"", "\"ack\"", "Duplicate"] {
            assert!(one.trace.contains(word), "seed {seed}: no {word}");
        }
    }
    assert_ne!(run(1, 1 << 20).trace, run(2, 1 << 20).trace);
}
