//! Transactions that append to lists and read them, and the history of them that is judged at the end.
//!
//! A list is the rows of one table from `list * ROOM` on, one an element. Half of the lists are read as a range, the
//! other half row by row up to the first that is missing. A list gets a few elements and then no more, so that
//! readings stay short; and a run has so many transactions and no more, so that judging is quick.

use super::World;
use super::clients::Built;
use super::jobs::{Row, primary_key};
use super::machine::NAMES;
use crate::checker::append::{self, Finding, Known, Mop, Txn};
use crate::checker::serial::Saw;
use crate::marks::Mark;
use crate::rng::Rng;
use crate::violation::{Class, Held, Violation};
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys::{self, KeyRange};
use chronos_engine::state::records::ReadError;
use chronos_engine::step::Token;
use chronos_proto::schema::Relation;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};

/// The table of all lists. Nobody drops it, and no other job writes to it.
pub(super) const TABLE: &str = "l0";
/// Row ids that belong to one list.
const ROOM: i64 = 1_000;
/// Lists that are written to at one time.
const AT_ONCE: u64 = 4;
/// Appends that are tried on each, in the mean.
const ELEMENTS_EACH: u64 = 10;
/// Transactions of a run.
const TXNS_MAX: usize = 400;
/// A history of so many transactions that were done is worth the name.
const WORTH_JUDGING: usize = 20;

/// The history so far.
#[derive(Debug, Default)]
pub(super) struct Lists {
    txns: Vec<Txn>,
    /// The log position that each which was done is at, or was read at.
    at: BTreeMap<usize, u64>,
    /// Of requests that are not settled: by client and its number.
    open: BTreeMap<(u64, u64), usize>,
    /// Positions of answers that have left their node, and are not known to be lost.
    promised: BTreeMap<Token, u64>,
    appended: u64,
    moment: u64,
}

impl Lists {
    /// A transaction is about to be asked for. Its place in the history.
    fn begins(&mut self, mops: Vec<Mop>) -> usize {
        self.moment += 1;
        self.txns.push(Txn { invoked: self.moment, completed: None, known: Known::Unknown, mops });
        self.txns.len() - 1
    }

    fn ends(&mut self, place: usize, known: Known) {
        self.moment += 1;
        self.txns[place].completed = Some(self.moment);
        self.txns[place].known = known;
    }

    /// A client asks for a transaction, with the answers that it has if it is done.
    pub(super) fn asked(&mut self, client: u64, number: u64, mops: Vec<Mop>) {
        let place = self.begins(mops);
        self.open.insert((client, number), place);
    }

    /// An answer leaves a node: the transaction is at this position.
    pub(super) fn promised(&mut self, token: Token, index: u64) {
        self.promised.insert(token, index);
    }

    /// A client is told that it is done.
    pub(super) fn done(&mut self, client: u64, number: u64, token: Token) {
        let Some(place) = self.open.remove(&(client, number)) else { return };
        if let Some(index) = self.promised.remove(&token) {
            self.at.insert(place, index);
            self.ends(place, Known::Done);
        }
    }

    /// A client is told that nothing was done.
    pub(super) fn refused(&mut self, client: u64, number: u64) {
        if let Some(place) = self.open.remove(&(client, number)) {
            self.ends(place, Known::Refused);
        }
    }

    /// A weak fsync mode lost what was above: whoever was told of it knows nothing now.
    pub(super) fn forget_above(&mut self, last: u64) {
        self.promised.retain(|_, index| *index <= last);
        let gone: Vec<usize> =
            self.at.iter().filter(|(_, index)| **index > last).map(|(place, _)| *place).collect();
        for place in gone {
            self.at.remove(&place);
            (self.txns[place].known, self.txns[place].completed) = (Known::Unknown, None);
        }
    }

    /// Every list that was ever chosen.
    fn all(&self) -> BTreeSet<i64> {
        self.txns.iter().flat_map(|txn| &txn.mops).map(Mop::key).collect()
    }
}

/// The rows that a list's range has.
fn range(table: &Relation, list: i64) -> (Bytes, Bytes, KeyRange) {
    let (from, to) = (primary_key(list * ROOM), primary_key((list + 1) * ROOM));
    let range = KeyRange { start: keys::row(table.id, &from), end: keys::row(table.id, &to) };
    (from, to, range)
}

/// What a list holds.
fn elements(snapshot: &Snapshot, table: &Relation, list: i64) -> Result<Vec<i64>, ReadError> {
    let (.., range) = range(table, list);
    snapshot.scan(&range, false).map(|entry| Ok(Row::decode(&entry?.1)?.number)).collect()
}

impl Built {
    /// Reads a list and relies on what it read.
    fn list(&mut self, snapshot: &Snapshot, table: &Relation, list: i64) -> Result<Vec<i64>, ReadError> {
        let found = elements(snapshot, table, list)?;
        if list % 2 == 0 {
            let (from, to, range) = range(table, list);
            let rows = snapshot.scan(&range, false).map(|entry| {
                let (key, value) = entry?;
                Ok::<_, ReadError>((Bytes::copy_from_slice(keys::row_primary_key(&key)), value))
            });
            self.saw.push(Saw::Rows(table.id, from, to, rows.collect::<Result<_, _>>()?));
            self.reads.push(range);
        } else {
            for place in 0..=found.len() as i64 {
                let key = primary_key(list * ROOM + place);
                let state_key = keys::row(table.id, &key);
                self.saw.push(Saw::Row(table.id, key, snapshot.get(&state_key)?));
                self.reads.push(KeyRange::point(state_key));
            }
        }
        Ok(found)
    }
}

impl World {
    /// One to four appends and readings; none once there were enough.
    pub(super) fn draw_mops(&mut self, rng: &mut Rng) -> Vec<Mop> {
        let mut mops = self.draw_readings(rng);
        for mop in mops.iter_mut().filter(|_| rng.chance(500)) {
            self.lists.appended += 1;
            *mop = Mop::Append(mop.key(), self.next_number() as i64);
        }
        mops
    }

    /// One to four readings of lists that are written to now; none once there were enough.
    pub(super) fn draw_readings(&self, rng: &mut Rng) -> Vec<Mop> {
        if self.lists.txns.len() >= TXNS_MAX {
            return Vec::new();
        }
        let used_up = self.lists.appended / (AT_ONCE * ELEMENTS_EACH);
        let count = rng.range(1, 4);
        (0..count).map(|_| Mop::Read((used_up * AT_ONCE + rng.below(AT_ONCE)) as i64, None)).collect()
    }

    /// The transaction that these steps come to; none if there is no table for them.
    pub(super) fn build_lists(snapshot: &Snapshot, mops: Vec<Mop>) -> Result<Option<Built>, ReadError> {
        let Some(table) = snapshot.catalog.by_name(TABLE) else { return Ok(None) };
        let mut built = Built::on(table);
        let mut lists: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for mut mop in mops {
            let key = mop.key();
            let list = match lists.entry(key) {
                Entry::Occupied(list) => list.into_mut(),
                Entry::Vacant(place) => place.insert(built.list(snapshot, table, key)?),
            };
            match &mut mop {
                Mop::Append(_, element) => {
                    let number = *element;
                    let row = Row { number, ..Row::default() };
                    built.put(snapshot, table, key * ROOM + list.len() as i64, |_| Some(row))?;
                    list.push(number);
                }
                Mop::Read(_, answer) => *answer = Some(list.clone()),
            }
            built.lists.push(mop);
        }
        Ok(Some(built))
    }

    /// Readings alone: they need no entry, but the newest state.
    pub(super) fn read_lists(&mut self, m: usize, mops: Vec<Mop>, salt: u64) -> Held {
        let place = self.lists.begins(mops);
        self.look(m, salt, Some(place))
    }

    /// The readings at this place of the history are answered by a state.
    pub(super) fn lists_read(&mut self, m: usize, place: usize, snapshot: &Snapshot) -> Held {
        let table = snapshot.catalog.by_name(TABLE);
        let mut mops = self.lists.txns[place].mops.clone();
        for mop in &mut mops {
            let Mop::Read(list, answer) = mop else { continue };
            let found = table.map_or(Ok(Vec::new()), |table| elements(snapshot, table, *list));
            match found {
                Ok(found) => *answer = Some(found),
                Err(damage) => return self.damage_read(m, &damage.to_string()),
            }
        }
        self.lists.txns[place].mops = mops;
        self.lists.at.insert(place, snapshot.applied.0);
        self.lists.ends(place, Known::Done);
        Ok(())
    }

    /// The readings at this place of the history were refused.
    pub(super) fn lists_unread(&mut self, place: usize) {
        self.lists.ends(place, Known::Refused);
    }

    /// The verdict on the whole history, after a last reading of every list at each member of the core.
    pub(super) fn judge_lists(&mut self) -> Held {
        let all: Vec<Mop> = self.lists.all().into_iter().map(|list| Mop::Read(list, None)).collect();
        let members: Vec<usize> = self.core.iter().copied().filter(|m| self.is_member(*m)).collect();
        for m in members {
            let Some(view) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
                continue;
            };
            if !all.is_empty() {
                let place = self.lists.begins(all.clone());
                self.lists_read(m, place, &view.snapshot)?;
            }
        }
        let txns = &self.lists.txns;
        let done = txns.iter().filter(|txn| txn.known == Known::Done).count();
        if done >= WORTH_JUDGING {
            self.marks.hit(Mark::ListsJudged);
        }
        let read: BTreeSet<i64> = txns
            .iter()
            .flat_map(|txn| &txn.mops)
            .filter_map(|mop| if let Mop::Read(_, Some(list)) = mop { Some(list) } else { None })
            .flatten()
            .copied()
            .collect();
        let unknown = txns.iter().filter(|txn| txn.known == Known::Unknown).flat_map(|txn| &txn.mops);
        let seen = unknown.filter(|mop| matches!(mop, Mop::Append(_, element) if read.contains(element)));
        if seen.count() > 0 {
            self.marks.hit(Mark::UnknownAppendRead);
        }
        for (checker, findings) in
            [(append::NAME, append::check(txns)), ("register", append::registers(txns))]
        {
            let first = findings.into_iter().find(|finding| *finding != Finding::Nothing);
            match first {
                None | Some(Finding::Nothing) => {}
                Some(Finding::Unknown(what)) => {
                    return Err(Violation { class: Class::Unknown, checker, what });
                }
                Some(Finding::Lost(what) | Finding::Doubled(what) | Finding::Anomaly(what)) => {
                    return Err(Violation::safety(checker, what));
                }
            }
        }
        let count = txns.len();
        self.say("check", format_args!("{count} transactions over lists are strictly serializable"));
        Ok(())
    }

    /// In the trace: what a client's transaction over lists is.
    pub(super) fn say_mops(&mut self, client: u64, m: usize, mops: &[Mop]) {
        let steps: Vec<String> = mops
            .iter()
            .map(|mop| match mop {
                Mop::Append(list, element) => format!("{list} gets {element}"),
                Mop::Read(list, Some(found)) => format!("{list} is {found:?}"),
                Mop::Read(list, None) => format!("{list}?"),
            })
            .collect();
        self.say(&format!("c{client}"), format_args!("lists at {}: {}", NAMES[m], steps.join(", ")));
    }
}
