//! `one-effect`: a request has one effect or none; an answer says what the log says; what the log says, somebody
//! asked for; and a definite refusal is definite.

use crate::violation::{Held, Violation};
use chronos_engine::txn::{Committed, Refused};
use chronos_proto::codec;
use chronos_proto::command::{Entry, Op, OpOutcome};
use chronos_proto::id::{RequestId, SessionId};
use std::collections::BTreeMap;

const NAME: &str = "one-effect";

/// Session and sequence, or no session and a digest of the writes.
pub type Name = (SessionId, u64);

#[derive(Clone, Debug)]
struct Asked {
    ops: Vec<Op>,
    /// What somebody knew of when it was asked first.
    floor: u64,
    refused: Option<Refused>,
    effect: Option<(u64, Vec<OpOutcome>)>,
    answered: Option<Committed>,
}

/// Every request that a client made.
#[derive(Clone, Debug, Default)]
pub struct Requests(BTreeMap<Name, Asked>);

/// What tells a request from all others. One without a session is asked once, and is told by what it writes.
pub fn name(request: RequestId, ops: &[Op]) -> Name {
    match request.session {
        SessionId(0) => (SessionId(0), codec::digest(&[], &codec::encode(ops))),
        session => (session, request.sequence),
    }
}

impl Requests {
    /// A client asks for something for the first time, when entries up to `floor` are known to somebody.
    pub fn asked(&mut self, name: Name, ops: Vec<Op>, floor: u64) {
        self.0.insert(name, Asked { ops, floor, refused: None, effect: None, answered: None });
    }

    /// The name under which an entry's request was asked: a node gives a session of its own to what has none.
    pub fn name_of(&self, request: RequestId, ops: &[Op]) -> Name {
        let own = name(request, ops);
        if self.0.contains_key(&own) { own } else { name(RequestId::default(), ops) }
    }

    /// The log holds a request's entry, and this is what it comes to.
    pub fn applied(&mut self, request: RequestId, ops: &[Op], entry: &Entry, outcomes: &[OpOutcome]) -> Held {
        let index = entry.index.0;
        let name = self.name_of(request, ops);
        let Some(asked) = self.0.get_mut(&name) else {
            return Err(Violation::safety(
                NAME,
                format!("entry {index} is {request:?}, which nobody asked for"),
            ));
        };
        if asked.ops != ops {
            let what = format!("entry {index} is {request:?} with other writes than were asked for: {ops:?}");
            return Err(Violation::safety(NAME, what));
        }
        if let Some((first, _)) = asked.effect.as_ref().filter(|(first, _)| *first != index) {
            let what = format!("{request:?} is in the log twice, at {first} and {index}");
            return Err(Violation::safety(NAME, what));
        }
        if let Some(refused) = &asked.refused {
            let what = format!("{request:?} was refused ({refused}) and yet is entry {index}");
            return Err(Violation::safety(NAME, what));
        }
        asked.effect = Some((index, outcomes.to_vec()));
        Ok(())
    }

    /// `real-time`: a request's entry comes behind all that anybody knew of when it was asked for.
    pub fn in_real_time(&self, request: RequestId, ops: &[Op]) -> Held {
        let Some(Asked { floor, effect: Some((index, _)), .. }) = self.0.get(&self.name_of(request, ops))
        else {
            return Ok(());
        };
        if index > floor {
            return Ok(());
        }
        let what =
            format!("{request:?} is entry {index}, and was asked for when somebody knew of entry {floor}");
        Err(Violation::safety("real-time", what))
    }

    /// Entries above `last` never were.
    pub fn cut(&mut self, last: u64) {
        for asked in self.0.values_mut() {
            asked.effect.take_if(|(index, _)| *index > last);
            asked.answered.take_if(|committed| committed.index.0 > last);
        }
    }

    /// The node says that it is committed.
    pub fn committed(&mut self, request: Name, committed: &Committed) -> Held {
        let Some(asked) = self.0.get_mut(&request) else { return Ok(()) };
        let wrong = match &asked.effect {
            None => Some("but the log has no such entry".to_owned()),
            Some((index, _)) if *index != committed.index.0 => Some(format!("but the log has it at {index}")),
            Some((_, outcomes)) if *outcomes != committed.outcomes => {
                Some(format!("but by the model it comes to {outcomes:?}"))
            }
            Some(_) => match &asked.answered {
                Some(first) if first != committed => Some(format!("but the first answer was {first:?}")),
                _ => None,
            },
        };
        asked.answered = Some(committed.clone());
        match wrong {
            Some(wrong) => {
                Err(Violation::safety(NAME, format!("{request:?} answered {committed:?}, {wrong}")))
            }
            None => Ok(()),
        }
    }

    /// The node says that it had no effect and will have none.
    pub fn refused(&mut self, request: Name, refused: Refused) -> Held {
        let Some(asked) = self.0.get_mut(&request) else { return Ok(()) };
        if let Some((index, _)) = &asked.effect {
            let what = format!("{request:?} is entry {index} and was refused: {refused}");
            return Err(Violation::safety(NAME, what));
        }
        asked.refused = Some(refused);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_proto::command::Command;
    use chronos_proto::id::{Index, RelationId, Term};
    use chronos_proto::time::Timestamp;
    use std::sync::Arc;

    fn request(sequence: u64) -> RequestId {
        RequestId { session: SessionId(1), sequence, floor: 0 }
    }

    fn named(sequence: u64) -> Name {
        name(request(sequence), &[])
    }

    fn ops(relation: u32) -> Vec<Op> {
        vec![Op::DropRelation(RelationId(relation))]
    }

    fn entry(index: u64) -> Entry {
        let command = Arc::new(Command::Noop);
        Entry { term: Term(1), index: Index(index), time: Timestamp(0), stamp: index, command }
    }

    fn committed(index: u64) -> Committed {
        Committed { index: Index(index), time: Timestamp(0), outcomes: vec![OpOutcome::Done] }
    }

    fn asked_and_applied() -> Requests {
        let mut requests = Requests::default();
        requests.asked(named(1), ops(1), 0);
        assert_eq!(requests.applied(request(1), &ops(1), &entry(5), &[OpOutcome::Done]), Ok(()));
        requests
    }

    #[test]
    fn a_duplicate_an_invented_and_a_changed_entry_are_seen() {
        let mut requests = asked_and_applied();
        assert!(requests.clone().applied(request(1), &ops(1), &entry(6), &[]).is_err(), "twice");
        assert!(requests.clone().applied(request(2), &ops(1), &entry(6), &[]).is_err(), "invented");
        requests.asked(named(2), ops(2), 0);
        assert!(requests.applied(request(2), &ops(1), &entry(6), &[]).is_err(), "changed");
    }

    #[test]
    fn answers_that_differ_from_the_log_are_seen() {
        let requests = asked_and_applied();
        assert_eq!(requests.clone().committed(named(1), &committed(5)), Ok(()));
        assert!(requests.clone().committed(named(1), &committed(6)).is_err(), "another place");
        let other = Committed { outcomes: vec![OpOutcome::TooLate], ..committed(5) };
        assert!(requests.clone().committed(named(1), &other).is_err(), "another outcome");
        let mut never = Requests::default();
        never.asked(named(1), ops(1), 0);
        assert!(never.committed(named(1), &committed(5)).is_err(), "never logged");
    }

    #[test]
    fn requests_without_a_session_are_told_by_what_they_write() {
        let nameless = RequestId::default();
        let mut requests = Requests::default();
        requests.asked(name(nameless, &ops(1)), ops(1), 0);
        assert_eq!(requests.applied(nameless, &ops(1), &entry(5), &[OpOutcome::Done]), Ok(()));
        assert!(requests.clone().applied(nameless, &ops(1), &entry(6), &[OpOutcome::Done]).is_err(), "twice");
        assert!(requests.applied(nameless, &ops(2), &entry(6), &[OpOutcome::Done]).is_err(), "invented");
    }

    #[test]
    fn a_refusal_is_definite() {
        assert!(asked_and_applied().refused(named(1), Refused::Conflict).is_err());
        let mut requests = Requests::default();
        requests.asked(named(1), ops(1), 0);
        assert_eq!(requests.refused(named(1), Refused::Conflict), Ok(()));
        assert!(requests.applied(request(1), &ops(1), &entry(5), &[OpOutcome::Done]).is_err());
    }
}
