//! The program itself: its exit codes, and that a seed has one history.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronos-sim-turmoil"))
        .args(arguments)
        .output()
        .expect("the program runs")
}

/// It is run twice within, and a second history would be a failure.
#[test]
fn a_seed_has_one_history() {
    let output = run(&["--seed", "0x8"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for part in ["seed 0x8", "commit ", "knobs: ", "marks: ", "verdict: held", "\ntrace hash: "] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for arguments in [&["--frobnicate"][..], &["--seed"], &["--seeds", "many"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
