//! The clients. Each asks one node, one thing after the other, and writes down what it asked and what it was told.
//!
//! - [`append`]: transactions over lists; [`set`]: inserts; [`register`]: single rows; [`timer`]: scheduled events.
//! - An answer may be good, a definite failure, or leave it open whether the thing was done: a lost connection, a
//!   deadline, or the server's own word that it does not know. What is open stays open, and the client goes on under
//!   a new number.

mod append;
mod register;
mod set;
mod timer;

use crate::cluster::Place;
use crate::history::{Act, Kind, Recorder};
use chronos_tests::random::Random;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

/// How long a call may take before its client gives it up.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long the last readings may take each.
const LAST_DEADLINE: Duration = Duration::from_secs(60);
/// How long a client waits after it could not even ask.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What the clients share.
pub struct World {
    /// The history.
    pub recorder: Rc<Recorder>,
    /// The nodes that are asked.
    pub places: Vec<Place>,
    next: Cell<i64>,
    registers: Cell<i64>,
    appends: Cell<i64>,
    stopped: Cell<bool>,
}

impl World {
    /// A world without clients.
    pub fn new(recorder: Rc<Recorder>, places: Vec<Place>) -> Rc<World> {
        let [next, registers, appends] = std::array::from_fn(|_| Cell::new(0));
        Rc::new(World { recorder, places, next, registers, appends, stopped: Cell::new(false) })
    }

    /// Tells the clients to end after the call that is under way.
    pub fn stop(&self) {
        self.stopped.set(true);
    }

    fn stopped(&self) -> bool {
        self.stopped.get()
    }

    /// A number that nothing else in the run has.
    fn unique(&self) -> i64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }
}

/// Makes the tables and the topic, as soon as a node lets it.
pub async fn prepare(world: &Rc<World>, limit: Duration) -> Result<(), String> {
    let mut client = Asker::new(world, 0);
    let statements = [append::TABLE, register::TABLE, set::TABLE, timer::TOPIC];
    let all = async {
        for statement in statements {
            loop {
                match client.connected().await {
                    Ok(sql) => match sql.batch_execute(statement).await {
                        Ok(()) => break,
                        // 42P07: an attempt before, of unknown outcome, was done.
                        Err(e) if e.code().is_some_and(|code| code.code() == "42P07") => break,
                        Err(e) if !is_passing(&e) => return Err(format!("{statement}: {}", message(&e))),
                        Err(_) => client.session = None,
                    },
                    Err(_) => client.session = None,
                }
                tokio::time::sleep(BACK_OFF).await;
            }
        }
        Ok(())
    };
    let told = tokio::time::timeout(limit, all).await;
    told.unwrap_or_else(|_| Err(format!("no node made the tables within {limit:?}")))
}

/// Starts all clients: so many of each kind a node that all kinds are under way at any time, and ten of registers at
/// most, so that their checker can follow.
pub fn start(world: &Rc<World>, random: &mut Random) -> Vec<JoinHandle<()>> {
    let mut tasks = Vec::new();
    for node in 0..world.places.len() {
        let registers = (10 / world.places.len()).min(2);
        let kinds = [(0, 2), (1, 3), (2, registers), (3, 1), (4, 1)];
        for (kind, clients) in kinds {
            for _ in 0..clients {
                let (asker, random) = (Asker::new(world, node), random.split());
                tasks.push(match kind {
                    0 => tokio::task::spawn_local(append::work(asker, random)),
                    1 => tokio::task::spawn_local(set::work(asker, random)),
                    2 => tokio::task::spawn_local(register::work(asker, random)),
                    3 => tokio::task::spawn_local(timer::schedule(asker, random)),
                    _ => tokio::task::spawn_local(timer::watch(asker)),
                });
            }
        }
    }
    tasks
}

/// Reads everything once more, on every node, and waits before it until no timer is pending. Returns what could not
/// be read.
pub async fn read_all(world: &Rc<World>) -> Vec<String> {
    let mut failures = Vec::new();
    for node in 0..world.places.len() {
        let mut asker = Asker::new(world, node);
        asker.deadline = LAST_DEADLINE;
        let name = &world.places[node].name;
        if !timer::none_is_pending(&mut asker).await {
            failures.push(format!("{name}: timers are pending {LAST_DEADLINE:?} after the last was due"));
        }
        let told = [
            ("the set", set::read(&mut asker).await),
            ("the topic", timer::read(&mut asker).await),
            ("the lists", append::read_all(&mut asker).await),
        ];
        let failed = told.into_iter().filter(|(_, told)| !told);
        failures.extend(failed.map(|(what, _)| format!("{name}: {what} could not be read in the end")));
    }
    failures
}

/// Why a call was not done.
enum Trouble {
    /// Surely not done.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// One client of one node.
struct Asker {
    world: Rc<World>,
    node: usize,
    process: i64,
    deadline: Duration,
    session: Option<Session>,
}

struct Session {
    sql: Client,
    connection: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // Else it would wait for answers of a node that may be gone or paused.
        self.connection.abort();
    }
}

impl Asker {
    fn new(world: &Rc<World>, node: usize) -> Asker {
        let (world, process) = (world.clone(), world.recorder.process());
        Asker { world, node, process, deadline: DEADLINE, session: None }
    }

    /// Asks, and writes down the invocation and the completion. The answer, if it is good.
    async fn ask(
        &mut self,
        asked: Act,
        writes: bool,
        work: impl AsyncFnOnce(&Client, &Cell<bool>) -> Result<Act, Error>,
    ) -> Option<Act> {
        let (world, process, node) = (self.world.clone(), self.process, self.node);
        let add = |kind, act, error| world.recorder.add(process, &world.places[node].name, kind, act, error);
        let deadline = self.deadline;
        // Not yet an invocation: nothing is sent but the wish to connect.
        if self.connected().await.is_err() {
            tokio::time::sleep(BACK_OFF).await;
            return None;
        }
        add(Kind::Invoke, asked.clone(), None);
        // Whether what was sent so far may have an effect.
        let at_stake = Cell::new(writes);
        let told = match &self.session {
            Some(session) => tokio::time::timeout(deadline, work(&session.sql, &at_stake)).await,
            None => return None,
        };
        let trouble = match told {
            Ok(Ok(answer)) => {
                add(Kind::Ok, answer.clone(), None);
                return Some(answer);
            }
            Ok(Err(error)) => trouble(&error, at_stake.get()),
            Err(_) => {
                self.session = None;
                let text = format!("no answer within {deadline:?}");
                if at_stake.get() { Trouble::Unknown(text) } else { Trouble::Refused(text) }
            }
        };
        match trouble {
            Trouble::Refused(why) => add(Kind::Fail, asked, Some(why)),
            Trouble::Unknown(why) => {
                add(Kind::Info, asked, Some(why));
                self.process = self.world.recorder.process();
                self.session = None;
            }
        }
        tokio::time::sleep(BACK_OFF).await;
        None
    }

    async fn connected(&mut self) -> Result<&Client, String> {
        let usable = self.session.take().filter(|session| !session.sql.is_closed());
        let session = match usable {
            Some(session) => session,
            None => {
                let address = self.world.places[self.node].pg;
                let mut config = tokio_postgres::Config::new();
                config.host(address.ip().to_string()).port(address.port()).user("chronos").dbname("chronos");
                let told = tokio::time::timeout(DEADLINE, config.connect(NoTls)).await;
                let told = told.map_err(|_| format!("no connection within {DEADLINE:?}"))?;
                let (sql, connection) = told.map_err(|e| message(&e))?;
                let connection = tokio::task::spawn_local(async move {
                    // The error is that of the calls that were under way.
                    let _ = connection.await;
                });
                Session { sql, connection }
            }
        };
        Ok(&self.session.insert(session).sql)
    }
}

/// What an error says of the call.
fn trouble(error: &Error, at_stake: bool) -> Trouble {
    let text = message(error);
    let open = match error.code().map(|code| code.code()) {
        // Without the server's word the connection broke.
        None => true,
        Some(code) => code.starts_with("08") || code.starts_with("XX") || matches!(code, "57P01" | "57P02"),
    };
    if open && at_stake { Trouble::Unknown(text) } else { Trouble::Refused(text) }
}

/// Whether it is worth asking again.
fn is_passing(error: &Error) -> bool {
    error.code().is_none_or(|code| {
        let code = code.code();
        ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class))
    })
}

/// The code and the server's words without what differs from call to call, so that equal ones can be counted.
fn message(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => {
            let words = told.message().split(|c: char| c.is_ascii_digit()).next().unwrap_or_default();
            format!("{} {}", told.code().code(), words.trim_end())
        }
        None => error.to_string(),
    }
}

/// The rows of a simple query's answer: the text of the columns.
fn rows<const N: usize>(messages: &[SimpleQueryMessage]) -> Vec<[Option<&str>; N]> {
    messages.iter().filter_map(columns).collect()
}

fn columns<const N: usize>(message: &SimpleQueryMessage) -> Option<[Option<&str>; N]> {
    match message {
        SimpleQueryMessage::Row(row) => Some(std::array::from_fn(|column| row.get(column))),
        _ => None,
    }
}

/// How many rows a simple statement changed.
fn changed(messages: &[SimpleQueryMessage]) -> u64 {
    let count = |message: &_| match message {
        SimpleQueryMessage::CommandComplete(n) => *n,
        _ => 0,
    };
    messages.iter().map(count).sum()
}

/// Between two calls of a client.
async fn think(random: &mut Random, up_to_ms: u64) {
    tokio::time::sleep(Duration::from_millis(random.within(0..up_to_ms))).await;
}
