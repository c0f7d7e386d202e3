//! Transcripts: commands, a rule, everything that then happened.
//!
//! ```text
//! cluster nodes=3 [spare=1] [leader=n1] [leases] [append_bytes=N] [inflight=N] [uncommitted=N] [rest=MILLIS]
//! campaign n1          propose n1 TEXT       change n1 +n4 -n2 ~n5     (voter, gone, learner)
//! transfer n1 n2       read n1               unreachable n1 n2         compact n1
//! deliver              all, and what follows, until nobody says anything
//! deliver WHAT…        what is under way and matches: a kind, n1->n2, n1->, ->n2
//! drop WHAT…           lost         double WHAT…   twice      late WHAT… / late   set aside, and back again
//! cut n1 | n2 n3       both ways    cut n1 -> n2   one way    heal
//! hold n1              its writes stay under way; finish n1 [COUNT]; unhold n1
//! hold-snapshots n1    then: snapshot n1 n3 [fails]           hold-installs n3, then: install n3 [fails]
//! crash n1 [keep=N]    of the writes under way N are on disk; crash-at-install n3; restart n1
//! pause n1 / resume n1 / rate n1 PERMILLE              wake n1              silent n1   (its leader's node is)
//! tick n1              at its next deadline       pass 700ms   everybody's, all messages arriving
//! wait 700ms           time passes, and nobody looks at the clock
//! status [n1]          log n1                     members n1           lease n1
//! ```
//!
//! `quietly` before a command leaves out what happens.

use crate::cluster::{Cluster, Packet};
use crate::text;
use chronos_engine::raft::{Change, Role, Settings};
use chronos_proto::id::{GroupId, NodeId};
use chronos_proto::membership::Configuration;
use std::fmt::Display;
use std::path::Path;

struct Script {
    cluster: Cluster,
    late: Vec<Packet>,
}

fn node(word: &str) -> NodeId {
    let number = word.strip_prefix('n').and_then(|number| number.parse().ok());
    NodeId(number.unwrap_or_else(|| panic!("{word} is not a node")))
}

fn option<T: std::str::FromStr>(words: &[&str], name: &str) -> Option<T> {
    let value = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} makes no sense")))
}

fn matches(packet: &Packet, words: &[&str]) -> bool {
    words.iter().all(|word| match word.split_once("->") {
        Some((from, to)) => {
            (from.is_empty() || node(from) == packet.from) && (to.is_empty() || node(to) == packet.to)
        }
        None => *word == packet.message.kind(),
    })
}

impl Script {
    fn begin(words: &[&str]) -> Script {
        let mut settings = Settings { leases: words.contains(&"leases"), ..Settings::default() };
        if let Some(bytes) = option(words, "append_bytes") {
            settings.append_bytes_max = bytes;
        }
        if let Some(appends) = option(words, "inflight") {
            settings.inflight_max = appends;
        }
        if let Some(bytes) = option(words, "uncommitted") {
            settings.uncommitted_bytes_max = bytes;
        }
        if let Some(millis) = option::<u64>(words, "rest") {
            settings.rest_after_us = millis * 1_000;
        }
        let voters = option(words, "nodes").unwrap_or(3);
        let mut cluster = Cluster::new(settings, 1, voters);
        for id in voters + 1..=voters + option(words, "spare").unwrap_or(0) {
            cluster.add(NodeId(id), Configuration::default());
        }
        if let Some(leader) = option::<String>(words, "leader") {
            let leader = node(&leader);
            // Whoever slept through an election timeout is no obstacle.
            cluster.now = 2_000_000;
            cluster.at(leader, |raft, now| raft.campaign(now));
            cluster.deliver_all();
            cluster.tick(leader);
            cluster.deliver_all();
            assert_eq!(cluster.raft(leader).map(|raft| raft.role()), Some(Role::Leader));
        }
        cluster.trace = Some(Vec::new());
        Script { cluster, late: Vec::new() }
    }

    fn refused<T, E: Display>(&mut self, id: NodeId, result: Option<Result<T, E>>) {
        match result {
            Some(Ok(_)) => {}
            Some(Err(why)) => self.cluster.log(|| format!("n{id}: {why}")),
            None => self.cluster.log(|| format!("n{id} is down")),
        }
    }

    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().expect("a command");
        let first = || node(rest.first().unwrap_or_else(|| panic!("{line}: which node?")));
        let second = || node(rest.get(1).unwrap_or_else(|| panic!("{line}: which other node?")));
        let cluster = &mut self.cluster;
        match *verb {
            "quietly" => {
                let trace = cluster.trace.take();
                self.run(&rest.join(" "));
                self.cluster.trace = trace;
            }
            "campaign" => {
                cluster.at(first(), |raft, now| raft.campaign(now));
            }
            "propose" => {
                let result = cluster.propose(first(), &rest[1..].join(" "));
                self.refused(first(), result);
            }
            "change" => {
                let changes: Vec<Change> = rest[1..].iter().map(|word| change(word)).collect();
                let result = cluster.at(first(), |raft, _| raft.change_membership(&changes));
                self.refused(first(), result);
            }
            "transfer" => {
                let result = cluster.at(first(), |raft, _| raft.transfer(second()));
                self.refused(first(), result);
            }
            "read" => {
                let id = first();
                let asked = match cluster.read(id) {
                    Some(number) => format!("n{id} is asked for read {number}"),
                    None => format!("n{id} does not lead: no read"),
                };
                // The answer may be there already; the question comes before it.
                let trace = cluster.trace.as_mut().expect("a trace");
                let answered = trace.iter().rposition(|line| !line.starts_with(&format!("n{id} answers")));
                trace.insert(answered.map_or(0, |place| place + 1).min(trace.len()), asked);
            }
            "unreachable" => {
                cluster.at(first(), |raft, _| raft.unreachable(second()));
            }
            "wake" => {
                cluster.at(first(), |raft, now| raft.wake(now));
            }
            "silent" => {
                cluster.at(first(), |raft, now| raft.leader_silent(now));
            }
            "compact" => cluster.compact(first()),
            "deliver" if rest.is_empty() => cluster.deliver_all(),
            "deliver" => {
                let mut chosen = Vec::new();
                cluster.wire.retain(|packet| {
                    let matches = matches(packet, rest);
                    if matches {
                        chosen.push(packet.clone());
                    }
                    !matches
                });
                for packet in chosen {
                    cluster.wire.insert(0, packet);
                    cluster.deliver(0);
                }
            }
            "drop" => {
                for packet in std::mem::take(&mut cluster.wire) {
                    if matches(&packet, rest) {
                        cluster.log(|| text::sent(packet.from, packet.to, &packet.message, true));
                    } else {
                        cluster.wire.push(packet);
                    }
                }
            }
            "double" => {
                let twice: Vec<Packet> =
                    cluster.wire.iter().filter(|packet| matches(packet, rest)).cloned().collect();
                cluster.wire.extend(twice);
            }
            "late" if rest.is_empty() => cluster.wire.append(&mut self.late),
            "late" => {
                for packet in std::mem::take(&mut cluster.wire) {
                    if matches(&packet, rest) { self.late.push(packet) } else { cluster.wire.push(packet) }
                }
            }
            "cut" => match rest.iter().position(|word| *word == "|") {
                Some(place) => {
                    for one in &rest[..place] {
                        for other in &rest[place + 1..] {
                            cluster.cut.insert((node(one), node(other)));
                            cluster.cut.insert((node(other), node(one)));
                        }
                    }
                }
                None => {
                    assert_eq!(rest[1], "->", "{line}");
                    cluster.cut.insert((node(rest[0]), node(rest[2])));
                }
            },
            "heal" => cluster.cut.clear(),
            "hold" => self.member(first()).holds_writes = true,
            "hold-snapshots" => self.member(first()).holds_snapshots = true,
            "hold-installs" => self.member(first()).holds_installs = true,
            "finish" => {
                cluster
                    .finish(first(), rest.get(1).map_or(usize::MAX, |count| count.parse().expect("a count")));
            }
            "unhold" => {
                cluster.finish(first(), usize::MAX);
                self.member(first()).holds_writes = false;
            }
            "snapshot" => cluster.send_snapshot(first(), second(), !rest.contains(&"fails")),
            "install" => cluster.install(first(), !rest.contains(&"fails")),
            "crash" => cluster.crash(first(), option(rest, "keep").unwrap_or(0)),
            "crash-at-install" => cluster.crash_at_install(first()),
            "restart" => cluster.restart(first()),
            "pause" => self.member(first()).paused = true,
            "resume" => self.member(first()).paused = false,
            "rate" => self.member(first()).rate = rest[1].parse().expect("thousandths"),
            "tick" => {
                let id = first();
                let at = cluster.raft(id).and_then(|raft| raft.next_deadline());
                if let Some(at) = at {
                    let rate = cluster.members[&id].rate;
                    cluster.now = cluster.now.max((at.0 * 1_000).div_ceil(rate));
                }
                cluster.tick(id);
            }
            "pass" | "wait" => {
                let millis = rest[0].strip_suffix("ms").and_then(|millis| millis.parse::<u64>().ok());
                let micros = millis.unwrap_or_else(|| panic!("{line}: how many ms?")) * 1_000;
                if *verb == "pass" { cluster.pass(micros) } else { cluster.now += micros }
            }
            "status" => {
                let ids = if rest.is_empty() { cluster.ids() } else { vec![first()] };
                for id in ids {
                    let line = match cluster.raft(id) {
                        Some(raft) => text::status(id, raft),
                        None => format!("n{id} down"),
                    };
                    cluster.log(|| line);
                }
            }
            "log" => {
                let id = first();
                let raft = cluster.raft(id).expect("it is up");
                let entries: Vec<String> = raft.log().iter().map(text::entry).collect();
                cluster.log(|| format!("n{id} has [{}]", entries.join(", ")));
            }
            "members" => {
                let id = first();
                let raft = cluster.raft(id).expect("it is up");
                let line = format!("n{id} is in {}", text::members(raft.configuration()));
                cluster.log(|| line);
            }
            "lease" => {
                let id = first();
                let now = cluster.clock(id);
                let until = cluster.raft(id).and_then(|raft| raft.lease_until());
                cluster.log(|| match until {
                    Some(until) if until > now => {
                        format!("n{id} has a lease for {} ms", until.micros_since(now) / 1_000)
                    }
                    _ => format!("n{id} has no lease"),
                });
            }
            _ => panic!("{line}: no such command"),
        }
    }

    fn member(&mut self, id: NodeId) -> &mut crate::cluster::Member {
        self.cluster.members.get_mut(&id).expect("a member")
    }
}

fn change(word: &str) -> Change {
    match word.split_at(1) {
        ("+", id) => Change::AddVoter(node(id)),
        ("-", id) => Change::Remove(node(id)),
        ("~", id) => Change::AddLearner(node(id)),
        _ => panic!("{word} is not a change"),
    }
}

/// Runs a transcript's commands; the transcript as it should be comes back.
fn play(source: &str) -> String {
    let mut script: Option<Script> = None;
    let mut out = String::new();
    let mut happened = false;
    for line in source.lines() {
        match line {
            // What happened then was written by an earlier run.
            _ if happened && !line.is_empty() => continue,
            "" => {
                happened = false;
                out.push('\n');
            }
            "---" => {
                out.push_str("---\n");
                happened = true;
                let trace = script.as_mut().and_then(|script| script.cluster.trace.as_mut());
                for line in trace.map(std::mem::take).unwrap_or_default() {
                    out.push_str(&line);
                    out.push('\n');
                }
            }
            comment if comment.starts_with('#') => {
                out.push_str(comment);
                out.push('\n');
            }
            command => {
                out.push_str(command);
                out.push('\n');
                let words: Vec<&str> = command.split_whitespace().collect();
                match (words.first(), &mut script) {
                    (Some(&"cluster"), _) => script = Some(Script::begin(&words[1..])),
                    (_, Some(script)) => script.run(command),
                    (_, None) => panic!("{command}: there is no cluster yet"),
                }
            }
        }
    }
    out
}

#[test]
fn every_transcript_is_what_happens() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/raft/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(&dir)
        .expect("scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut differ = Vec::new();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        println!("{name}");
        let source = std::fs::read_to_string(&path).expect("a transcript");
        let now = play(&source);
        if now == source {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &now).expect("written");
        } else {
            let (was, is) = source.lines().zip(now.lines()).find(|(was, is)| was != is).unwrap_or_default();
            differ.push(format!("{name}: was `{was}`, is `{is}`"));
        }
    }
    assert!(differ.is_empty(), "UPDATE=1 writes them anew; look at the diff:\n{}", differ.join("\n"));
}

#[test]
fn a_settings_group_is_what_it_says() {
    let script = Script::begin(&["nodes=5", "spare=1", "leader=n2"]);
    let raft = script.cluster.raft(NodeId(2)).expect("it is up");
    assert_eq!((raft.group(), raft.configuration().voters.len()), (GroupId(0), 5));
    assert_eq!(script.cluster.ids().len(), 6);
}
