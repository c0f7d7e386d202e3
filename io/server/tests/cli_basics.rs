//! What the binary says without a node.

use std::process::{Command, Output};

fn chronos(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CHRONOS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn version() {
    let output = chronos(&["--version"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("chronos {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_line_that_makes_no_sense_is_exit_code_2() {
    for line in [
        &["frobnicate"][..],
        &[],
        &["client", "--leader", "nowhere"],
        &["client", "--leader", "127.0.0.1:65000", "-e", "select 1"],
        &["publish", "alerts", "x", "--at", "tomorrow"],
        &["publish", "alerts", "x", "--at", "0", "--in", "2s"],
        &["subscribe", "alerts", "--from", "somewhere"],
        &["config", "show", "--fsync", "sometimes"],
        &["config", "show", "--config", "/nonexistent/chronos.toml"],
    ] {
        let output = chronos(line, &[]);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{line:?}");
    }
}

#[test]
fn config_show_tells_where_each_value_came_from() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "max_connections = 7\n").unwrap();
    let path = file.path().to_str().unwrap();
    let environment = [("CHRONOS_FSYNC", "interval=5ms"), ("CHRONOS_AUTH_TOKEN_ADMIN", "open sesame")];
    let output = chronos(&["config", "show", "--config", path, "--address", "127.0.0.1:9100"], &environment);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let shown = stdout(&output);
    let line = |key: &str| {
        let line = shown.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{shown}")).to_owned()
    };
    assert!(line("address").contains("127.0.0.1:9100") && line("address").ends_with("flag --address"));
    assert!(line("pg_address").contains("127.0.0.1:11100"));
    assert!(line("fsync").contains("interval=5ms") && line("fsync").ends_with("environment CHRONOS_FSYNC"));
    assert!(line("max_connections").contains(path));
    assert!(line("data_dir").ends_with("default"));
    assert!(!shown.contains("sesame"));
}

#[test]
fn no_node_is_a_clear_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().to_string();
    drop(listener);
    for line in [
        &["client", "--pg-address", &free, "-e", "select 1"][..],
        &["topic", "list", "--pg-address", &free],
        &["publish", "alerts", "x", "--http-address", &free],
    ] {
        let output = chronos(line, &[]);
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        let said = stderr(&output);
        assert!(said.contains(&free) && said.contains("chronos dev"), "{said}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = chronos(&["completions", shell], &[]);
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("subscribe"), "{shell}");
    }
}
