//! The program's contract: what it prints and how it exits.

use std::process::{Command, Output};

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
