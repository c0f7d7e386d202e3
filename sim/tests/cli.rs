//! The program's contract: what it prints and how it exits.

use chronos_engine::node::Config;
use chronos_engine::record::{Label, Recorder};
use chronos_engine::step::{Action, Input, Outputs};
use chronos_engine::store::{MemoryStore, SharedStore};
use chronos_engine::wal::{Recovered, WalOp};
use chronos_proto::id::{ClusterId, Incarnation, NodeId};
use chronos_proto::time::{Instant, Now, Timestamp};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chronos-sim")).args(arguments).output().expect("the simulator runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn hash(output: &Output) -> String {
    let text = text(output);
    let line = text.lines().find_map(|line| line.strip_prefix("trace hash: ")).expect("a trace hash line");
    assert!(line.len() == 16 && line.bytes().all(|b| b.is_ascii_hexdigit()), "{line:?}");
    line.to_owned()
}

#[test]
fn a_seed_prints_its_knobs_marks_verdict_and_one_hash_in_two_processes() {
    let (first, second) =
        (sim(&["--seed", "7", "--steps", "4000"]), sim(&["--seed", "0x7", "--steps", "4000"]));
    assert_eq!(first.status.code(), Some(0), "{}", text(&first));
    assert_eq!(hash(&first), hash(&second));
    let text = text(&first);
    for part in ["seed 0x7", "commit ", "fsync=", "faults/m ", "marks: ", "steps: 4000", "verdict: held"] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn wrong_usage_is_told_and_exits_with_2() {
    for wrong in [
        &["--sede", "7"][..],
        &["--seed", "seven"],
        &["--profile", "none"],
        &["--shrink"],
        &["--bug", "none"],
    ] {
        let output = sim(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("exit codes"), "{wrong:?}");
    }
    assert_eq!(sim(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_diagram_is_bounded_whole_and_the_same_for_a_seed() {
    let draw = |name: &str| {
        let file = std::env::temp_dir().join(format!("chronos-sim-{}-{name}.svg", std::process::id()));
        let path = file.to_str().expect("a path in UTF-8").to_owned();
        let output = sim(&["--seed", "7", "--steps", "3000", "--svg", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let svg = std::fs::read_to_string(&file).expect("the diagram is written");
        std::fs::remove_file(&file).expect("the diagram can be removed");
        svg
    };
    let (first, second) = (draw("first"), draw("second"));
    assert_eq!(first, second);
    assert!(first.starts_with("<svg ") && first.ends_with("</svg>\n"));
    assert!(first.len() < 100_000, "{} bytes", first.len());
    for part in [">n1</text>", "heartbeat or its answer", "commit ", "held so far"] {
        assert!(first.contains(part), "{part:?} is missing");
    }
}

#[test]
fn a_few_seeds_hold_and_are_summed_up() {
    let output = sim(&["--seed", "1", "--seeds", "3", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("\"seeds\":3,"), "{}", text(&output));
}

#[cfg(feature = "planted-bugs")]
mod planted {
    use super::{hash, sim, text};

    #[test]
    fn a_failure_is_explained_in_words_and_told_to_machines() {
        let planted = ["--profile", "single", "--bug", "ack-before-sync"];
        let told = sim(&[&["explain", "1"][..], &planted].concat());
        assert_eq!(told.status.code(), Some(3), "{}", text(&told));
        for part in [
            "reply-after-sync was broken: ",
            "It promises: nobody is told of an entry",
            "In it, line by line:",
        ] {
            assert!(text(&told).contains(part), "{part:?} is missing in {}", text(&told));
        }
        let object = sim(&[&["--seed", "1", "--json"][..], &planted].concat());
        assert_eq!(object.status.code(), Some(3));
        assert_eq!(text(&object).lines().count(), 1);
        for part in [
            "\"failure\":{\"invariant\":\"reply-after-sync\",\"class\":\"safety\",",
            "\"replay\":\"cargo sim --seed 0x1 --profile single --bug ack-before-sync --steps ",
            "\"exit\":3}",
        ] {
            assert!(text(&object).contains(part), "{part:?} is missing in {}", text(&object));
        }
        let held = sim(&["explain", "7", "--steps", "500"]);
        assert_eq!((held.status.code(), text(&held).contains("nothing to explain")), (Some(0), true));
    }

    /// The alarm rings: a planted bug fails by its class, names its checker, and shows how to see it again.
    #[test]
    fn a_failure_names_checker_seed_and_replay_and_shrinks() {
        let failed = sim(&["--seed", "1", "--profile", "single", "--bug", "ack-before-sync"]);
        assert_eq!(failed.status.code(), Some(3), "{}", text(&failed));
        let report = text(&failed);
        for part in [
            "FAILED reply-after-sync: ",
            "replay: cargo sim --seed 0x1 --profile single --bug ack-before-sync --steps ",
        ] {
            assert!(report.contains(part), "{part:?} is missing in {report}");
        }
        let shrunk = sim(&["--seed", "1", "--profile", "single", "--bug", "ack-before-sync", "--shrink"]);
        assert_eq!(shrunk.status.code(), Some(3), "{}", text(&shrunk));
        let only = text(&shrunk)
            .lines()
            .rev()
            .find_map(|line| Some(line.strip_prefix("replay: cargo sim ")?.to_owned()));
        let only = only.expect("a replay line");
        let again = sim(&only.split(' ').collect::<Vec<_>>());
        assert_eq!((again.status.code(), hash(&again)), (Some(3), hash(&shrunk)));
    }
}

/// A node alone that writes its first entries, as it was recorded, and the hash that it came to.
fn recording() -> (Vec<u8>, u64) {
    let store: SharedStore = Arc::new(MemoryStore::default());
    let config = Config::new(ClusterId(1), NodeId(1), Incarnation(1), 1, 1);
    let label = Label { build: "a test".to_owned(), name: "alone".to_owned() };
    let now = |mono| Now { mono: Instant(mono), wall: Timestamp(1_700_000_000_000_000 + mono as i64) };
    let mut out = Outputs::default();
    let (node, mut recorder) = Recorder::open(label, config, now(0), Recovered::default(), &store, &mut out);
    let mut node = node.expect("it begins");
    for mono in 1..30 {
        let effects = std::mem::take(&mut out.effects);
        let durable = effects.into_iter().rev().find_map(|effect| match effect.action {
            Action::Wal(WalOp::Sync { write, .. }) => Some(Input::WriteDurable(write)),
            _ => None,
        });
        let input = durable.unwrap_or(if mono % 2 == 0 { Input::Tick } else { Input::QueueDrained });
        recorder.step(&mut node, now(mono * 10_000), input, &store, &mut out);
    }
    (recorder.take(), recorder.hash())
}

#[test]
fn a_recording_is_replayed_with_its_hash_and_a_damaged_one_is_told() {
    let dir = std::env::temp_dir().join(format!("chronos-sim-{}-recordings", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let (bytes, recorded) = recording();
    let file = dir.join("alone-00000000000000000001.chrec");
    let replay =
        |path: &Path, more: &[&str]| sim(&[&["--replay", path.to_str().expect("UTF-8")], more].concat());
    std::fs::write(&file, &bytes).expect("the recording is written");
    let svg = dir.join("drawn.svg");
    let output = replay(&dir, &["--svg", svg.to_str().expect("UTF-8")]);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(hash(&output), format!("{recorded:016x}"));
    for part in
        ["node alone", "recorded by a test", "group 0 commits through 1", "verdict: held", "steps: 29"]
    {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
    assert!(std::fs::read_to_string(&svg).expect("a diagram").contains("n1 is alone"));
    assert!(text(&replay(&file, &["--trace"])).contains("wal    write"), "the trace has every event");

    std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("the recording is written");
    let torn = text(&replay(&file, &[]));
    assert!(torn.contains("steps: 28") && torn.contains("no whole step"), "{torn}");
    std::fs::write(&file, &bytes[1..]).expect("the recording is written");
    let output = replay(&file, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a recording"));
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
    assert_eq!(replay(&dir, &[]).status.code(), Some(2), "nothing is there");
}
