//! A history: what clients asked and were told, and what was done to the cluster, one JSON object a line.
//!
//! Invocations and completions are written by one process with one monotonic clock, and in the order in which they
//! happened: an invocation before it is sent, a completion after it has arrived. A process has at most one call under
//! way; after an outcome that nobody knows, its client goes on under a new number. Transactions have the form that
//! Elle reads, and other checkers of its format.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Nanoseconds since the run began.
    pub time: u64,
    /// Who: a client's number, or [`NEMESIS`].
    pub process: i64,
    /// Which node was asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Invocation or completion.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What was asked, in a completion with its answer.
    #[serde(flatten)]
    pub act: Act,
    /// Why it failed or is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The process number of what is no client.
pub const NEMESIS: i64 = -1;

/// What a line says of its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It was done.
    Ok,
    /// It was surely not done.
    Fail,
    /// Nobody knows; or a remark.
    Info,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "f", content = "value", rename_all = "kebab-case")]
pub enum Act {
    /// What this run is.
    Run(Run),
    /// Something was done to the cluster.
    Fault(Fault),
    /// A fault was taken back, in words.
    Heal(String),
    /// The cluster was asked to heal and what became of it.
    Settled(Settled),
    /// A transaction over lists.
    Txn(Vec<Mop>),
    /// An element was put into the set.
    Add(i64),
    /// All elements of the set.
    Elements(Vec<i64>),
    /// A register, by key, was read.
    Read(i64, Option<i64>),
    /// A register, by key, was written.
    Write(i64, i64),
    /// A register, by key, was to become the third if it was the second; whether it did.
    Cas(i64, i64, i64, Option<bool>),
    /// An event was scheduled.
    Schedule(Timer),
    /// Events that a reader saw for the first time.
    Seen(Vec<Fired>),
    /// All events of the topic.
    Events(Vec<Fired>),
}

/// What a run is: enough to run it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// The arguments that repeat it.
    pub arguments: String,
    /// The nodes at the start.
    pub nodes: usize,
}

/// One thing done to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// In words.
    pub what: String,
    /// It took the leader away, and left a majority that can elect another.
    pub leader_lost: bool,
    /// Clocks are wrong while other nodes are missing: right ones may be outvoted, and time may run ahead for good.
    #[serde(default)]
    pub time_in_doubt: bool,
}

/// How the quiet phase at the end went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// How long until there was a leader and all nodes were equal; none if that never came.
    pub took_ms: Option<u64>,
    /// What stood in the way, or was found: the text of a failure each.
    pub failures: Vec<String>,
    /// The slowest sync of a file beside the nodes' own, over the whole run.
    #[serde(default)]
    pub slowest_sync_ms: u64,
}

/// A scheduled event. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// Its message id.
    pub id: String,
    /// When it is due.
    pub due: i64,
}

/// An event as the topic shows it. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Its message id.
    pub id: String,
    /// When it was due.
    pub due: Option<i64>,
    /// When it was fired, or published because its time had passed.
    pub at: i64,
    /// The reader's clock.
    pub seen: i64,
}

/// One step of a transaction over lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum Mop {
    /// An element was appended to a key's list.
    Append(i64, i64),
    /// A key's list was read, and was this.
    Read(i64, Option<Vec<i64>>),
}

impl TryFrom<Value> for Mop {
    type Error = String;

    fn try_from(value: Value) -> Result<Mop, String> {
        let wrong = || format!("neither [\"append\", key, element] nor [\"r\", key, list]: {value}");
        let key = value.get(1).and_then(Value::as_i64).ok_or_else(wrong)?;
        let (name, last) = (value.get(0).and_then(Value::as_str), value.get(2).ok_or_else(wrong)?);
        match (name, last) {
            (Some("append"), last) => Ok(Mop::Append(key, last.as_i64().ok_or_else(wrong)?)),
            (Some("r"), Value::Null) => Ok(Mop::Read(key, None)),
            (Some("r"), Value::Array(list)) => {
                let elements = list.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>();
                Ok(Mop::Read(key, Some(elements.ok_or_else(wrong)?)))
            }
            _ => Err(wrong()),
        }
    }
}

impl From<Mop> for Value {
    fn from(mop: Mop) -> Value {
        match mop {
            Mop::Append(key, element) => json!(["append", key, element]),
            Mop::Read(key, list) => json!(["r", key, list]),
        }
    }
}

/// Writes a history.
pub struct Recorder {
    start: Instant,
    out: Mutex<BufWriter<File>>,
    processes: AtomicU64,
}

impl Recorder {
    /// Into a fresh file.
    pub fn create(path: &Path) -> io::Result<Recorder> {
        let out = Mutex::new(BufWriter::new(File::create(path)?));
        Ok(Recorder { start: Instant::now(), out, processes: AtomicU64::new(0) })
    }

    /// The clock of the history, in nanoseconds.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number for a client that no call is under way of.
    pub fn process(&self) -> i64 {
        self.processes.fetch_add(1, Ordering::Relaxed) as i64
    }

    /// Adds a line. A history that cannot be written is worth nothing, so that ends the run.
    pub fn add(&self, process: i64, node: &str, kind: Kind, act: Act, error: Option<String>) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line { time: self.now(), process, node: node.to_owned(), kind, act, error };
        let written = serde_json::to_writer(&mut *out, &line).map_err(io::Error::from);
        let written = written.and_then(|()| out.write_all(b"\n"));
        written.unwrap_or_else(|e| panic!("the history cannot be written: {e}"));
    }

    /// Adds a remark of the nemesis.
    pub fn remark(&self, act: Act) {
        self.add(NEMESIS, "", Kind::Info, act, None);
    }

    /// Brings what was added to the file.
    pub fn flush(&self) -> io::Result<()> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Reads a history. The last line may be cut short: a run that was killed is a history too.
pub fn read(path: &Path) -> Result<Vec<Line>, String> {
    let failed = |e: io::Error| format!("cannot read the history {}: {e}", path.display());
    let file = BufReader::new(File::open(path).map_err(failed)?);
    let texts = file.lines().collect::<io::Result<Vec<String>>>().map_err(failed)?;
    let mut lines = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        match serde_json::from_str(text) {
            Ok(line) => lines.push(line),
            Err(_) if at + 1 == texts.len() && !lines.is_empty() => {}
            Err(e) => return Err(format!("{}:{}: not a line of a history: {e}", path.display(), at + 1)),
        }
    }
    Ok(lines)
}

/// A call: its invocation, and its completion if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The place of its invocation in the history.
    pub invoked: usize,
    /// The place of its completion; none if the history ends before it.
    pub completed: Option<usize>,
    /// The invocation.
    pub asked: &'a Line,
    /// The completion.
    pub told: Option<&'a Line>,
}

impl Call<'_> {
    /// Its outcome; what has no completion is unknown.
    pub fn outcome(&self) -> Kind {
        self.told.map_or(Kind::Info, |line| line.kind)
    }

    /// What was asked, with the answer if there is one.
    pub fn act(&self) -> &Act {
        match self.told {
            Some(line) if line.kind == Kind::Ok => &line.act,
            _ => &self.asked.act,
        }
    }
}

/// Pairs invocations with completions, in the order of invocation.
pub fn calls(lines: &[Line]) -> Vec<Call<'_>> {
    let mut under_way = std::collections::BTreeMap::new();
    let mut calls: Vec<Call<'_>> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if line.process == NEMESIS {
            continue;
        }
        if line.kind == Kind::Invoke {
            under_way.insert(line.process, calls.len());
            calls.push(Call { invoked: at, completed: None, asked: line, told: None });
        } else if let Some(call) = under_way.remove(&line.process) {
            calls[call].completed = Some(at);
            calls[call].told = Some(line);
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_back() {
        let acts = [
            Act::Run(Run { seed: 7, arguments: "--nodes 3".into(), nodes: 3 }),
            Act::Fault(Fault { what: "kill n1".into(), leader_lost: true, time_in_doubt: false }),
            Act::Settled(Settled { took_ms: Some(3), failures: vec!["n2 ended".into()], slowest_sync_ms: 4 }),
            Act::Txn(vec![Mop::Append(1, 2), Mop::Read(3, Some(vec![4, 5])), Mop::Read(3, None)]),
            Act::Add(1),
            Act::Elements(vec![1, 2]),
            Act::Read(1, None),
            Act::Write(1, 2),
            Act::Cas(1, 2, 3, Some(true)),
            Act::Schedule(Timer { id: "t-1".into(), due: 5 }),
            Act::Events(vec![Fired { id: "t-1".into(), due: Some(5), at: 6, seen: 7 }]),
        ];
        for act in acts {
            let line =
                Line { time: 1, process: 2, node: "n1".into(), kind: Kind::Ok, act, error: Some("x".into()) };
            let text = serde_json::to_string(&line).expect("JSON");
            assert_eq!(serde_json::from_str::<Line>(&text).expect(&text), line);
        }
    }

    #[test]
    fn transactions_have_the_form_that_elle_reads() {
        let act = Act::Txn(vec![Mop::Append(1, 2), Mop::Read(3, None)]);
        let line = Line { time: 9, process: 0, node: "n1".into(), kind: Kind::Invoke, act, error: None };
        let text = serde_json::to_value(&line).expect("JSON");
        let expected = json!({"time": 9, "process": 0, "node": "n1", "type": "invoke", "f": "txn",
                              "value": [["append", 1, 2], ["r", 3, null]]});
        assert_eq!(text, expected);
    }

    #[test]
    fn a_history_that_was_cut_short_is_read_up_to_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.jsonl");
        let recorder = Recorder::create(&path).expect("a file");
        let process = recorder.process();
        recorder.add(process, "n1", Kind::Invoke, Act::Add(1), None);
        recorder.add(process, "n1", Kind::Ok, Act::Add(1), None);
        recorder.flush().expect("written");
        let whole = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &whole[..whole.len() - 5]).expect("a file");
        let lines = read(&path).expect("a history");
        assert_eq!(lines.len(), 1);
        assert_eq!(calls(&lines)[0].outcome(), Kind::Info);
        std::fs::write(&path, b"{}\n{}\n").expect("a file");
        assert!(read(&path).is_err());
    }
}
