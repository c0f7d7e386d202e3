//! Clients: each has a session, asks, waits, asks again under the same name, and gives up at last.

use super::machine::NAMES;
use super::{Event, World, shell};
use crate::checker::append::Mop;
use crate::checker::requests::{self, Name};
use crate::checker::serial::Saw;
use crate::chronicle::What;
use crate::knobs::Job;
use crate::marks::Mark;
use crate::rng::Rng;
use crate::violation::Held;
use chronos_engine::keys::KeyRange;
use chronos_engine::state::Sessions;
use chronos_engine::step::{Input, Published, Reply, Request, Token};
use chronos_engine::txn::{Committed, Refused, Transaction};
use chronos_proto::command::{Op, OpOutcome};
use chronos_proto::id::{RequestId, SessionId};
use chronos_proto::time::Timestamp;
use std::collections::BTreeMap;

/// A request that is not settled.
#[derive(Clone, Debug)]
pub(super) struct OpenRequest {
    transaction: Transaction,
    attempts: u32,
    /// The machine and the run of the process that was asked first.
    first: (usize, u64),
    /// Whether another machine was asked too.
    strayed: bool,
    /// Terms that had been led when it was asked first.
    terms: usize,
    token: Token,
}

impl OpenRequest {
    /// Whether a refusal is about all askings. After one of unknown outcome only a conflict can be, and only from the
    /// node that was asked before: it asks leaders of growing terms. Another may answer as the leader of a term that
    /// is over and does not know it, while what was asked first waits in the log of a later one.
    fn is_settled_by(&self, refused: &Refused) -> bool {
        match refused {
            Refused::TooLarge { .. } => true,
            Refused::Conflict => !self.strayed,
            _ => self.attempts == 1,
        }
    }
}

/// A client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    session: Option<SessionId>,
    sessions: u64,
    next: u64,
    /// The machine whose node it turns to.
    home: usize,
    pub(super) open: BTreeMap<u64, OpenRequest>,
}

/// One time that a request was sent.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    client: u64,
    /// The client's own number of the request.
    number: u64,
    pub(super) name: Name,
    /// The machine that is asked.
    at: usize,
}

impl Client {
    pub(super) fn at(home: usize) -> Client {
        Client { home, ..Client::default() }
    }

    pub(super) fn home(&self) -> usize {
        self.home
    }

    pub(super) fn turn_to(&mut self, home: usize) {
        self.home = home;
    }
}

/// What a job wants to commit, and what it saw.
#[derive(Debug, Default)]
pub(super) struct Built {
    pub(super) ops: Vec<Op>,
    pub(super) reads: Vec<KeyRange>,
    pub(super) saw: Vec<Saw>,
    /// What it does to lists, with the answers that it has if it is done.
    pub(super) lists: Vec<Mop>,
    /// From when on it would have seen something else.
    pub(super) valid_until: Option<Timestamp>,
}

impl World {
    /// A client sets out to do something.
    pub(super) fn act(&mut self, client: u64, job: Job, salt: u64) -> Held {
        let busy = self.clients.get(client as usize).is_none_or(|c| c.open.len() >= self.knobs.pipeline);
        let rng = &mut Rng::new(salt, "job");
        let stale = self.net_rng.chance(self.knobs.stale_reads);
        let Some(state) = self.clients.get(client as usize) else { return Ok(()) };
        let m = match rng.chance(if self.solo() { 0 } else { 100 }) {
            true => rng.below(self.machines.len() as u64) as usize,
            false => state.home,
        };
        self.clients[client as usize].home = m;
        if self.machines[m].wiped {
            return Ok(());
        }
        let Some(view) = self.view(m, stale, rng) else {
            self.elsewhere(client, rng.bits());
            return Ok(());
        };
        if busy {
            return Ok(());
        }
        if job == Job::Read {
            return self.look(m, salt, None);
        }
        if matches!(job, Job::Sql | Job::SqlSchema) {
            return self.speak(m, client, job, &view, rng);
        }
        let built = match job {
            Job::List => {
                let mops = self.draw_mops(rng);
                self.say_mops(client, m, &mops);
                if mops.iter().all(|mop| matches!(mop, Mop::Read(..))) {
                    return if mops.is_empty() { Ok(()) } else { self.read_lists(m, mops, salt) };
                }
                World::build_lists(&view.snapshot, mops)
            }
            job => self.build(m, job, &view, rng),
        };
        match built {
            Ok(Some(built)) => {
                self.ask(m, client, job, &view, built);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(damage) => self.damage_read(m, &damage.to_string()),
        }
    }

    /// The client turns to another node, one that is to be healed once all is to settle.
    fn elsewhere(&mut self, client: u64, salt: u64) {
        let among = if self.settling.is_some() { self.core.len() } else { self.machines.len() };
        let place = Rng::new(salt, "elsewhere").below(among as u64) as usize;
        let home = if self.settling.is_some() { self.core[place] } else { place };
        self.clients[client as usize].home = home;
    }

    fn view(&self, m: usize, stale: bool, rng: &mut Rng) -> Option<Published> {
        let up = self.machines[m].up.as_ref()?;
        if stale && !up.ring.is_empty() {
            return up.ring.get(rng.below(up.ring.len() as u64) as usize).cloned();
        }
        up.published.clone()
    }

    /// Hands a transaction to a node, under the name that is given back.
    pub(super) fn ask(&mut self, m: usize, client: u64, job: Job, view: &Published, built: Built) -> Name {
        let now = self.machines[m].clock.now(self.now);
        let first = (m, self.machines[m].run);
        let state = &mut self.clients[client as usize];
        let session = *state.session.get_or_insert_with(|| {
            state.sessions += 1;
            Sessions::id(view.clock.at(now.mono), client << 32 | state.sessions)
        });
        state.next += 1;
        let sequence = state.next;
        let named = state.open.iter().filter(|(_, open)| open.transaction.request.session == session);
        let floor = named.map(|(number, _)| *number).next().unwrap_or(sequence);
        let Built { ops, reads, saw, lists, valid_until } = built;
        let what = job.name();
        // Without a session nothing is asked twice; who asks so must tell its requests apart by what they write.
        let nameless = job.is_unique() && self.net_rng.chance(self.knobs.nameless);
        let request = if nameless { RequestId::default() } else { RequestId { session, sequence, floor } };
        let name = requests::name(request, &ops);
        self.requests.asked(name, ops.clone(), self.group.floor());
        self.saw.insert(name, saw);
        if !lists.is_empty() {
            self.lists.asked(client, sequence, lists);
        }
        let read_index = view.snapshot.applied;
        let transaction = Transaction { request, read_index, reads, valid_until, ops };
        let terms = self.group.terms();
        let open = OpenRequest { transaction, attempts: 0, first, strayed: false, terms, token: Token(0) };
        self.clients[client as usize].open.insert(sequence, open);
        self.say(&format!("c{client}"), format_args!("asks {sequence} at {}: {what}", NAMES[m]));
        self.note(|| What::Wants { client, number: sequence, job: what });
        self.send(client, sequence);
        name
    }

    fn send(&mut self, client: u64, sequence: u64) {
        self.last_token += 1;
        let token = Token(self.last_token);
        let Some(state) = self.clients.get_mut(client as usize) else { return };
        let at = state.home;
        let Some(open) = state.open.get_mut(&sequence) else { return };
        open.attempts += 1;
        open.strayed |= at != open.first.0;
        open.token = token;
        let attempts = open.attempts;
        let name = requests::name(open.transaction.request, &open.transaction.ops);
        let attempt = Attempt { client, number: sequence, name, at };
        self.tokens.insert(token, attempt);
        let delay = self.net_rng.latency(self.knobs.client_delay);
        let arrives = self.now + delay;
        self.note(|| What::Asked { client, number: sequence, attempt: attempts, node: at, arrives });
        self.after(delay, Event::Arrive(token));
        self.after(self.knobs.client_timeout, Event::Timeout(token));
    }

    /// A request is at the node's machine; it is lost if the node is not.
    pub(super) fn arrive(&mut self, token: Token) {
        let Some(attempt) = self.tokens.get(&token) else { return };
        let open = self.clients[attempt.client as usize].open.get(&attempt.number);
        let Some(transaction) = open.map(|open| open.transaction.clone()) else { return };
        let m = attempt.at;
        self.give(m, Input::Request { token, request: Request::Commit(shell::GROUP, transaction) });
    }

    pub(super) fn timed_out(&mut self, token: Token) {
        let Some(Attempt { client, number, .. }) = self.tokens.get(&token).cloned() else { return };
        let state = &mut self.clients[client as usize];
        let Some(open) = state.open.get(&number).filter(|open| open.token == token) else { return };
        let nameless = open.transaction.request.session == SessionId(0);
        if nameless || open.attempts > self.knobs.retries && self.settling.is_none() {
            // Unknown, for good.
            state.open.remove(&number);
            self.say(&format!("c{client}"), format_args!("gives up {number}"));
            self.note(|| What::GaveUp { client, number });
            return;
        }
        self.marks.hit(Mark::RequestRetried);
        if !self.solo() && self.net_rng.chance(700) {
            let salt = self.net_rng.bits();
            self.elsewhere(client, salt);
        }
        self.say(&format!("c{client}"), format_args!("asks {number} again"));
        self.send(client, number);
    }

    /// For the chronicle: a node answers a client.
    pub(super) fn replied(&mut self, m: usize, token: Token, index: Option<u64>, what: &str) {
        if let Some(Attempt { client, number, .. }) = self.tokens.get(&token) {
            let (client, number) = (*client, *number);
            self.note(|| What::Replied { node: m, client, number, index, what: what.to_owned() });
        }
    }

    /// For the chronicle: a client does not get its answer.
    pub(super) fn reply_lost(&mut self, m: usize, token: Token) {
        if let Some(Attempt { client, number, .. }) = self.tokens.get(&token) {
            let (client, number) = (*client, *number);
            self.note(|| What::ReplyLost { node: m, client, number });
        }
    }

    /// A client gets its answer.
    pub(super) fn answered(&mut self, token: Token, reply: Reply) -> Held {
        let reply: Result<Committed, Refused> = match reply {
            Reply::Commit(reply) => reply,
            // It asks again in its time, under the same name.
            _ => return Ok(()),
        };
        let Some(Attempt { client, number, name, at }) = self.tokens.get(&token).cloned() else {
            return Ok(());
        };
        let state = &mut self.clients[client as usize];
        let Some(open) = state.open.get(&number) else { return Ok(()) };
        let (attempts, first, terms) = (open.attempts, open.first, open.terms);
        match reply {
            Ok(committed) => {
                state.open.remove(&number);
                self.lists.done(client, number, token);
                if attempts > 1 {
                    self.marks.hit(Mark::RequestAnsweredAgain);
                    if first != (first.0, self.machines[first.0].run) {
                        self.marks.hit(Mark::RequestAnsweredAfterRestart);
                    }
                    if first.0 != at {
                        self.marks.hit(Mark::AnsweredByAnother);
                    }
                    if terms != self.group.terms() {
                        self.marks.hit(Mark::AnsweredAfterFailover);
                    }
                }
                for outcome in &committed.outcomes {
                    self.outcome_mark(outcome);
                }
                self.sql_committed(name, &committed)
            }
            Err(refused) => {
                match &refused {
                    Refused::Conflict => self.marks.hit(Mark::Conflict),
                    Refused::Full(_) => self.marks.hit(Mark::RefusedFull),
                    Refused::Overloaded(_) => self.marks.hit(Mark::RefusedOverloaded),
                    _ => {}
                }
                if open.is_settled_by(&refused) {
                    state.open.remove(&number);
                    if matches!(refused, Refused::Expired(_)) {
                        state.session = None;
                    }
                    self.lists.refused(client, number);
                    if refused == Refused::Conflict {
                        self.sql_conflicted(client, name);
                    }
                    return self.requests.refused(name, refused);
                }
                // Unknown, for good: it is refused whoever is asked, or its outcome is kept no longer.
                if matches!(refused, Refused::Expired(_) | Refused::Conflict) {
                    state.open.remove(&number);
                }
                Ok(())
            }
        }
    }

    fn outcome_mark(&mut self, outcome: &OpOutcome) {
        match outcome {
            OpOutcome::TooLate => self.marks.hit(Mark::CancelTooLate),
            OpOutcome::Duplicate { .. } => self.marks.hit(Mark::DedupHit),
            _ => {}
        }
    }

    /// Gives up requests that rely on entries above `last`.
    pub(super) fn forget_readers_above(&mut self, last: u64) {
        for client in &mut self.clients {
            client.open.retain(|_, open| open.transaction.read_index.0 <= last);
        }
        self.lists.forget_above(last);
    }

    /// Requests that are not settled.
    pub(super) fn open_requests(&self) -> usize {
        self.clients.iter().map(|client| client.open.len()).sum()
    }
}
