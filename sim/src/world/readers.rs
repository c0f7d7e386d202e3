//! Readers: subscribers with credits and acknowledgements, and clients that look around.

use super::machine::NAMES;
use super::shell::GROUP;
use super::{Event, World};
use crate::checker::delivery::Counted;
use crate::chronicle::What;
use crate::marks::Mark;
use crate::rng::Rng;
use crate::violation::{Held, Violation};
use chronos_engine::step::{
    Delivery, Fresh, Input, Published, ReadAt, Request, Start, SubscriberId, SubscriberInput, Subscription,
    Token,
};
use chronos_engine::txn::Refused;
use chronos_proto::id::RelationId;
use chronos_proto::time::Timestamp;
use std::collections::BTreeSet;

/// A subscriber of the plan: it comes, goes, and comes back after a restart.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    pub(super) wanted: bool,
    pub(super) open: Option<SubscriberId>,
    /// The machine that it is subscribed at.
    at: usize,
    salt: u64,
    /// Offsets that it was handed, to tell a second time from a first.
    nacked: BTreeSet<(RelationId, u32, u64)>,
}

/// A read that a client waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    salt: u64,
    /// What somebody knew of when it began: it must see that.
    floor: u64,
    /// The readings of lists that wait for it, by their place in the history.
    lists: Option<usize>,
}

impl World {
    /// It comes, or goes.
    pub(super) fn toggle_reader(&mut self, reader: u64, salt: u64) {
        let state = &mut self.readers[reader as usize];
        state.wanted = !state.wanted;
        state.salt = salt;
        if state.wanted {
            self.open_reader(reader);
        } else if let Some(id) = self.readers[reader as usize].open.take() {
            self.say("sub", format_args!("{} closes", id.0));
            self.delivery.closed(id);
            let m = self.readers[reader as usize].at;
            self.give(m, Input::Subscriber { id, event: SubscriberInput::Close });
        }
    }

    /// The group of a reader: some share one, some have none.
    fn group_of(reader: u64) -> Option<String> {
        match reader % 3 {
            0 | 1 => Some(format!("g{}", reader % 2)),
            _ => None,
        }
    }

    pub(super) fn open_reader(&mut self, reader: u64) {
        let state = &self.readers[reader as usize];
        if !state.wanted || state.open.is_some() {
            return;
        }
        let stays = |m: &usize| self.settling.is_none() || self.core.contains(m);
        let Some(m) = self.leader().filter(stays) else {
            self.after(200_000, Event::Open(reader));
            return;
        };
        let Some(published) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
            // It comes back when somebody answers.
            if self.machines[m].up.is_some() {
                self.after(50_000, Event::Open(reader));
            }
            return;
        };
        let name = if reader.is_multiple_of(2) { "e0" } else { "e1" };
        let Some(topic) = published.snapshot.catalog.by_name(name).map(|r| r.id) else {
            self.after(500_000, Event::Open(reader));
            return;
        };
        self.last_subscriber += 1;
        let id = SubscriberId(self.last_subscriber);
        let rng = &mut Rng::new(state.salt, "subscription");
        let consumer_group = Self::group_of(reader);
        let credit = *rng.pick(&[1, 2, 20]);
        let start = match &consumer_group {
            Some(_) => Start::Earliest,
            None => *rng.pick(&[Start::Earliest, Start::Latest, Start::Offset(3)]),
        };
        self.say("sub", format_args!("{} opens {name} {consumer_group:?} {start:?} credit={credit}", id.0));
        self.delivery.opened(id, m, topic, consumer_group.clone(), u64::from(credit));
        self.readers[reader as usize].open = Some(id);
        self.readers[reader as usize].at = m;
        let ack_timeout_ms = self.knobs.ack_timeout_ms;
        let event = SubscriberInput::Open(Subscription {
            topic,
            partitions: Vec::new(),
            consumer_group,
            start,
            credit,
            ack_timeout_ms,
        });
        self.give(m, Input::Subscriber { id, event });
    }

    /// The process is gone, and with it every subscription.
    pub(super) fn readers_lost(&mut self, m: usize) {
        for place in 0..self.readers.len() {
            let reader = &mut self.readers[place];
            if let Some(id) = reader.open.take_if(|_| reader.at == m) {
                self.delivery.closed(id);
                if !self.solo() {
                    self.after(300_000, Event::Open(place as u64));
                }
            }
        }
    }

    pub(super) fn reader_closed(&mut self, id: SubscriberId) {
        for reader in 0..self.readers.len() {
            if self.readers[reader].open == Some(id) {
                self.readers[reader].open = None;
                self.after(300_000, Event::Open(reader as u64));
            }
        }
    }

    pub(super) fn reopen_readers(&mut self) {
        for reader in 0..self.readers.len() as u64 {
            if self.readers[reader as usize].wanted {
                let delay = self.net_rng.range(1_000, 300_000);
                self.after(delay, Event::Open(reader));
            }
        }
    }

    /// The node hands events out.
    pub(super) fn deliver(&mut self, m: usize, delivery: Delivery) -> Held {
        let Delivery { subscriber: id, topic, partition, offsets } = delivery;
        self.say(NAMES[m], format_args!("delivers {offsets:?} of {topic} to {}", id.0));
        let now = self.machines[m].clock.now(self.now).mono;
        let Some(published) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
            return Err(Violation::safety(
                "delivery",
                "an event was delivered before anything was published",
            ));
        };
        let Some(place) = self.readers.iter().position(|reader| reader.open == Some(id)) else {
            // It closed while the delivery was on its way.
            return Ok(());
        };
        let group = Self::group_of(place as u64);
        let until = now.0 + self.knobs.ack_timeout_ms * 1_000;
        for (offset, before) in offsets {
            let known;
            let done = match &group {
                Some(g) if self.solo() => self.model.done.get(&(topic, g.clone(), partition)),
                Some(g) => match published.snapshot.consumer(topic, g, partition) {
                    Ok(record) => {
                        known = (0..record.floor).chain(record.done.iter().copied()).collect();
                        Some(&known)
                    }
                    Err(damage) => return self.damage_read(m, &damage.to_string()),
                },
                None => None,
            };
            let again = group.as_ref().is_some_and(|g| self.delivery.was_handed(topic, g, partition, offset));
            self.delivery.delivered(id, partition, offset, (now.0, until), done)?;
            if let Some(group) = &group {
                match Counted::read(&published.snapshot, topic, group, partition, offset) {
                    Ok(counted) => counted.handed_again(offset, before)?,
                    Err(damage) => return self.damage_read(m, &damage.to_string()),
                }
            }
            let read = published.read_time(now);
            match published.snapshot.events(topic, partition, offset, 1, read) {
                Ok(events) if events.first().is_some_and(|e| e.offset == offset) => {}
                Ok(_) => {
                    let what = format!(
                        "offset {offset} of topic {topic} was delivered and cannot be read at {read}"
                    );
                    return Err(Violation::safety("delivery", what));
                }
                Err(damage) => return self.damage_read(m, &damage.to_string()),
            }
            if again {
                let nacked = self.readers[place].nacked.remove(&(topic, partition, offset));
                self.marks.hit(match (nacked, before) {
                    (true, _) => Mark::RedeliveredAfterNack,
                    (false, 0) => Mark::GroupResumedAfterRestart,
                    (false, _) => Mark::Redelivered,
                });
            }
            self.plan_return(m, id, partition, offset, group.is_some());
        }
        Ok(())
    }

    fn plan_return(&mut self, m: usize, id: SubscriberId, partition: u32, offset: u64, grouped: bool) {
        let calm = self.settling.is_some();
        let delay = self.net_rng.latency(if calm { 1_000 } else { 20_000 });
        if grouped && !calm && self.net_rng.chance(self.knobs.ack_lost) {
            // Forgotten: it comes again when its time is up. The reader goes on.
            self.say("sub", format_args!("{} forgets {offset}", id.0));
            self.delivery.credited(id, 1);
            self.give(m, Input::Subscriber { id, event: SubscriberInput::Credit(1) });
            return;
        }
        let done = !grouped || calm || !self.net_rng.chance(self.knobs.nack);
        self.after(delay, Event::Return { id, partition, offset, done });
    }

    /// A subscriber says what became of an offset.
    pub(super) fn give_back(&mut self, id: SubscriberId, partition: u32, offset: u64, done: bool) {
        let Some(place) = self.readers.iter().position(|reader| reader.open == Some(id)) else { return };
        let m = self.readers[place].at;
        if Self::group_of(place as u64).is_some() {
            self.delivery.returned(id, partition, offset);
            let event = if done {
                SubscriberInput::Ack(vec![(partition, offset)])
            } else {
                let topic = self.delivery.members().find(|(m, ..)| *m == id).map(|(_, topic, _)| topic);
                if let Some(topic) = topic {
                    for reader in &mut self.readers {
                        reader.nacked.insert((topic, partition, offset));
                    }
                }
                let delay_ms = self.net_rng.below(200);
                SubscriberInput::Nack {
                    offsets: vec![(partition, offset)],
                    delay_ms,
                    reason: "refused".into(),
                }
            };
            self.say("sub", format_args!("{} returns {offset}: done={done}", id.0));
            self.give(m, Input::Subscriber { id, event });
        }
        self.delivery.credited(id, 1);
        self.give(m, Input::Subscriber { id, event: SubscriberInput::Credit(1) });
    }

    /// A client wants to read what is the newest at a machine: lists, or something of everything.
    pub(super) fn look(&mut self, m: usize, salt: u64, lists: Option<usize>) -> Held {
        let Some(view) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
            return Ok(());
        };
        let now = self.machines[m].clock.now(self.now).mono;
        let fresh = match view.fresh {
            Fresh::Alone => true,
            Fresh::Until(until) => now < until,
            Fresh::Ask => false,
        };
        if fresh && !self.solo() {
            self.marks.hit(Mark::ReadByLease);
            self.sees(m, &view, self.group.floor())?;
        }
        if fresh {
            return self.seen(m, &view, view.read_time(now), salt, lists);
        }
        self.last_token += 1;
        let token = Token(self.last_token);
        self.looks.insert(token, Look { salt, floor: self.group.floor(), lists });
        self.give(m, Input::Request { token, request: Request::Read(GROUP) });
        Ok(())
    }

    /// A node tells from where on a read may be answered.
    pub(super) fn read_reply(&mut self, m: usize, token: Token, reply: Result<ReadAt, Refused>) -> Held {
        let Some(look) = self.looks.remove(&token) else {
            return Err(Violation::safety(
                "linearizable",
                format!("a read {token:?}, which nobody asked for"),
            ));
        };
        let at = match reply {
            Ok(at) => at,
            Err(refused) => {
                self.say(NAMES[m], format_args!("read {} refused: {refused}", token.0));
                self.marks.hit(Mark::ReadRefused);
                if let Some(place) = look.lists {
                    self.lists_unread(place);
                }
                return Ok(());
            }
        };
        self.say(NAMES[m], format_args!("read {} at {}", token.0, at.index));
        let Some(view) = self.machines[m].up.as_ref().and_then(|up| up.published.clone()) else {
            return Err(Violation::safety(
                "linearizable",
                "a read was answered before anything was published",
            ));
        };
        if view.snapshot.applied < at.index {
            let what =
                format!("a read at {} was answered while {} is published", at.index, view.snapshot.applied);
            self.witnessed(Err(Violation::safety("linearizable", what)))?;
        }
        let leads = self.leader() == Some(m);
        self.marks.hit(if leads { Mark::ReadByQuorum } else { Mark::ReadOnFollower });
        self.sees(m, &view, look.floor)?;
        self.seen(m, &view, at.time, look.salt, look.lists)
    }

    /// A client sees the state that it asked for.
    fn seen(&mut self, m: usize, view: &Published, time: Timestamp, salt: u64, lists: Option<usize>) -> Held {
        match lists {
            Some(place) => self.lists_read(m, place, &view.snapshot),
            None => self.read(m, view, time, &mut Rng::new(salt, "look")),
        }
    }

    /// A read sees all that anybody knew of when it began.
    fn sees(&mut self, m: usize, view: &Published, floor: u64) -> Held {
        let index = view.snapshot.applied.0;
        self.note(|| What::Read { node: m, index, known: floor });
        if index < floor {
            let what = format!("a read at {} sees entry {index}, and {floor} was known before", NAMES[m]);
            self.witnessed(Err(Violation::safety("linearizable", what)))?;
        }
        self.group.known_to_client(index);
        Ok(())
    }

    /// A client looks at a topic and at a few rows.
    fn read(&mut self, m: usize, view: &Published, read_time: Timestamp, rng: &mut Rng) -> Held {
        let topics: Vec<RelationId> =
            view.snapshot.catalog.iter().filter(|r| r.topic().is_some()).map(|r| r.id).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let topic = *rng.pick(&topics);
        let from = rng.below(10);
        let events = match view.snapshot.events(topic, 0, from, 40, read_time) {
            Ok(events) => events,
            Err(damage) => return self.damage_read(m, &damage.to_string()),
        };
        for event in events {
            self.event_seen(topic, event.offset, &event.stored, read_time)?;
        }
        debug_assert_eq!(view.snapshot.group, GROUP);
        if self.knobs.speaks_sql() { self.query(m, view, read_time, rng) } else { Ok(()) }
    }
}
