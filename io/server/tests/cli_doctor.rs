//! `chronos doctor`: it says what is wrong, and packs what somebody else needs, without a secret.

mod common;

use chronos_node::{Fsync, RecordOptions};
use common::World;
use std::path::Path;
use std::process::{Command, Output};

fn doctor(world: &World, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.arg("doctor").arg("--http-address").arg(world.grpc());
    command.args(more).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// What is wrong beside the disk, which is the machine's matter.
fn wrong(output: &Output) -> Vec<String> {
    let said = said(output);
    let lines =
        said.lines().filter(|line| line.starts_with("WRONG") && !line.contains("are free on the disk"));
    lines.map(str::to_owned).collect()
}

fn names(bundle: &Path) -> Vec<String> {
    let output = Command::new("tar").arg("-tf").arg(bundle).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    said(&output).lines().map(|line| line.rsplit('/').next().unwrap_or(line).to_owned()).collect()
}

#[test]
fn a_node_that_is_well_is_told_and_a_weak_fsync_is_wrong() {
    let world = World::start();
    let output = doctor(&world, &[]);
    assert_eq!(wrong(&output), [""; 0]);
    let is_well = said(&output).contains("nothing is wrong");
    assert_eq!(output.status.code(), Some(if is_well { 0 } else { 1 }), "{}", said(&output));
    let weak = World::with(|config| config.fsync = Fsync::Never);
    let output = doctor(&weak, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(matches!(&wrong(&output)[..], [one] if one.contains("--fsync never")), "{}", said(&output));
}

#[test]
fn a_bundle_of_a_running_node_has_all_that_is_known_and_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("recordings");
    let recorded = record.clone();
    let world = World::with(move |config| {
        config.auth_token_admin = Some(chronos_server::config::Secret::new("admin token"));
        config.auth_token_readonly = Some(chronos_server::config::Secret::new("reader token"));
        config.record = Some(RecordOptions { dir: recorded, max_bytes: 64 << 20 });
    });
    world.sql("CREATE TABLE t (id BIGINT PRIMARY KEY)");
    let log = dir.path().join("node.log");
    std::fs::write(&log, "the last words").unwrap();
    let bundle = dir.path().join("bundle.tar");
    let (file, log) = (bundle.to_str().unwrap(), log.to_str().unwrap());
    let output = doctor(&world, &["--token", "admin token", "--bundle", file, "--log-file", log]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("that clients wrote"), "{}", said(&output));
    let names = names(&bundle);
    for name in
        ["version.txt", "findings.txt", "status.json", "metrics.txt", "config.txt", "flight.txt", "log.txt"]
    {
        assert!(names.iter().any(|other| other == name), "{name}: {names:?}");
    }
    assert!(names.iter().any(|name| name.ends_with(".chrec")), "{names:?}");
    let bytes = std::fs::read(&bundle).unwrap();
    let has = |part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
    assert!(has("Secret(…)") && has("the last words") && has("chronos_raft_term") && has("-> applied"));
    assert!(!has("admin token") && !has("reader token"));
    let again = doctor(&world, &["--token", "admin token", "--bundle", file]);
    assert_eq!(again.status.code(), Some(1), "a file that is there is not replaced");
    let other = dir.path().join("other.tar");
    let more = ["--token", "admin token", "--no-recording", "--bundle", other.to_str().unwrap()];
    assert_eq!(doctor(&world, &more).status.code(), Some(0));
    assert!(!self::names(&other).iter().any(|name| name.ends_with(".chrec")));
    assert_eq!(doctor(&world, &[]).status.code(), Some(1), "without a token there is no answer");
}

#[test]
fn a_bundle_of_a_stopped_directory_has_what_verification_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    chronos_node::open(chronos_node::Options::new(&data)).unwrap().stop();
    let bundle = dir.path().join("bundle.tar");
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    command.arg("doctor").arg("--data-dir").arg(&data);
    assert_eq!(wrong(&command.output().unwrap()), [""; 0]);
    let output = command.arg("--bundle").arg(&bundle).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(names(&bundle), ["version.txt", "findings.txt", "verify.txt", "files.txt"]);
    let bytes = std::fs::read(&bundle).unwrap();
    let has = |part: &str| bytes.windows(part.len()).any(|window| window == part.as_bytes());
    assert!(has("sound") && has("store/data.mdb"));
}
