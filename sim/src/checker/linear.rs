//! `linear`: one object's history is linearizable: each call took effect at one moment between its invocation and its
//! completion, and the answers agree with that order.
//!
//! After Wing and Gong, with Lowe's memory of what was tried: a depth-first search that takes calls out of a linked
//! list of invocations and completions (and puts them back when it was wrong), and never visits the same set of calls
//! with the same state twice. A call whose outcome nobody knows has no completion: it may take effect at any moment
//! after its invocation, or never. The search is exponential in the worst case, so it has a budget of steps; a history
//! that it does not decide is [`Verdict::Unknown`], which is a failure of the run and not of the database.
//!
//! Histories are to be split by object before: a history of many is linearizable if each object's is.

use std::collections::BTreeSet;

/// What an object does, step by step.
pub trait Model {
    /// A call with its answer, as far as it is known.
    type Call;
    /// What the object remembers.
    type State: Clone + Ord;

    /// The state before the first call.
    fn initial() -> Self::State;

    /// The state after a call, if the call may be answered so in this state.
    fn step(state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call and the two moments it lies between. Moments are compared and nothing else: positions in a recorded history
/// serve, if no two are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timed<C> {
    /// What was called, and the answer.
    pub call: C,
    /// When it was invoked.
    pub invoked: u64,
    /// When it was answered; none if its outcome is unknown.
    pub completed: Option<u64>,
}

/// What a history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains it.
    Linearizable,
    /// There is none.
    Broken {
        /// The most calls that any order explains.
        explained: usize,
        /// A call, by its place in the slice, that no order which explains so many has room for.
        stuck: usize,
    },
    /// The budget ended first.
    Unknown,
}

/// Searches for an order of `calls`, in at most `budget` steps.
pub fn check<M: Model>(calls: &[Timed<M::Call>], budget: u64) -> Verdict {
    let mut list = List::new(calls);
    let mut open: usize = calls.iter().filter(|c| c.completed.is_some()).count();
    let mut taken = Bits::new(calls.len());
    let mut tried = BTreeSet::new();
    let mut state = M::initial();
    let mut order: Vec<(usize, M::State)> = Vec::new();
    let mut furthest = None;
    let mut at = list.first();
    for _ in 0..budget {
        if open == 0 {
            return Verdict::Linearizable;
        }
        if let Some(Entry::Invoke(call)) = at.map(|node| list.entry(node)) {
            let node = at.unwrap_or_default();
            let known = calls[call].completed.is_some();
            let next = M::step(&state, &calls[call].call).filter(|next| {
                // What may as well never have happened need not be tried where it changes nothing.
                if !known && *next == state {
                    return false;
                }
                taken.flip(call);
                let fresh = tried.insert((taken.clone(), next.clone()));
                taken.flip(call);
                fresh
            });
            match next {
                Some(next) => {
                    taken.flip(call);
                    open -= usize::from(known);
                    order.push((node, std::mem::replace(&mut state, next)));
                    list.lift(node);
                    at = list.first();
                }
                None => at = list.next(node),
            }
            continue;
        }
        // A completion that came before its call was taken, or the end: the last choice was wrong.
        if let Some(Entry::Complete(call)) = at.map(|node| list.entry(node))
            && furthest.is_none_or(|(explained, _)| order.len() > explained)
        {
            furthest = Some((order.len(), call));
        }
        let Some((node, before)) = order.pop() else {
            let (explained, stuck) = furthest.unwrap_or((0, 0));
            return Verdict::Broken { explained, stuck };
        };
        list.unlift(node);
        if let Entry::Invoke(call) = list.entry(node) {
            taken.flip(call);
            open += usize::from(calls[call].completed.is_some());
        }
        state = before;
        at = list.next(node);
    }
    Verdict::Unknown
}

/// A register with compare-and-set: what single-key reads and writes of a table are.
#[derive(Clone, Copy, Debug)]
pub struct Register;

/// A call of a [`Register`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterCall {
    /// It was read, and was this; none is a register that was never written.
    Read(Option<i64>),
    /// It was written.
    Write(i64),
    /// It was to become `to` if it was `from`.
    CompareAndSet {
        /// What it had to be.
        from: i64,
        /// What it became.
        to: i64,
        /// Whether it did; none if nobody knows.
        done: Option<bool>,
    },
}

impl Model for Register {
    type Call = RegisterCall;
    type State = Option<i64>;

    fn initial() -> Option<i64> {
        None
    }

    fn step(state: &Option<i64>, call: &RegisterCall) -> Option<Option<i64>> {
        match *call {
            RegisterCall::Read(seen) => (seen == *state).then_some(*state),
            RegisterCall::Write(value) => Some(Some(value)),
            RegisterCall::CompareAndSet { from, to, done } => {
                let matches = *state == Some(from);
                let agrees = done.is_none_or(|done| done == matches);
                agrees.then_some(if matches { Some(to) } else { *state })
            }
        }
    }
}

/// Which calls were taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(calls: usize) -> Bits {
        Bits(vec![0; calls.div_ceil(64)])
    }

    fn flip(&mut self, call: usize) {
        self.0[call / 64] ^= 1 << (call % 64);
    }
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Invoke(usize),
    Complete(usize),
}

/// Invocations and completions in the order of time, linked both ways. A lifted call keeps its links, so that it can
/// be put back in the reverse order.
struct List {
    nodes: Vec<Node>,
    head: Option<usize>,
}

struct Node {
    entry: Entry,
    previous: Option<usize>,
    next: Option<usize>,
    /// An invocation's completion.
    end: Option<usize>,
}

impl List {
    fn new<C>(calls: &[Timed<C>]) -> List {
        let invoked = calls.iter().enumerate().map(|(i, c)| (c.invoked, Entry::Invoke(i)));
        let completed =
            calls.iter().enumerate().filter_map(|(i, c)| Some((c.completed?, Entry::Complete(i))));
        let mut entries: Vec<(u64, Entry)> = invoked.chain(completed).collect();
        entries.sort_by_key(|(at, entry)| (*at, matches!(entry, Entry::Complete(_))));
        let mut ends = vec![None; calls.len()];
        for (place, (_, entry)) in entries.iter().enumerate() {
            if let Entry::Complete(call) = entry {
                ends[*call] = Some(place);
            }
        }
        let last = entries.len().saturating_sub(1);
        let node = |(place, (_, entry)): (usize, (u64, Entry))| Node {
            entry,
            previous: place.checked_sub(1),
            next: (place < last).then_some(place + 1),
            end: if let Entry::Invoke(call) = entry { ends[call] } else { None },
        };
        let nodes: Vec<Node> = entries.into_iter().enumerate().map(node).collect();
        let head = (!nodes.is_empty()).then_some(0);
        List { nodes, head }
    }

    fn first(&self) -> Option<usize> {
        self.head
    }

    fn next(&self, node: usize) -> Option<usize> {
        self.nodes[node].next
    }

    fn entry(&self, node: usize) -> Entry {
        self.nodes[node].entry
    }

    /// Takes a call out.
    fn lift(&mut self, node: usize) {
        self.unlink(node);
        if let Some(end) = self.nodes[node].end {
            self.unlink(end);
        }
    }

    /// Puts the call that was taken out last back in.
    fn unlift(&mut self, node: usize) {
        if let Some(end) = self.nodes[node].end {
            self.relink(end);
        }
        self.relink(node);
    }

    fn unlink(&mut self, node: usize) {
        let (previous, next) = (self.nodes[node].previous, self.nodes[node].next);
        match previous {
            Some(previous) => self.nodes[previous].next = next,
            None => self.head = next,
        }
        if let Some(next) = next {
            self.nodes[next].previous = previous;
        }
    }

    fn relink(&mut self, node: usize) {
        let (previous, next) = (self.nodes[node].previous, self.nodes[node].next);
        match previous {
            Some(previous) => self.nodes[previous].next = Some(node),
            None => self.head = Some(node),
        }
        if let Some(next) = next {
            self.nodes[next].previous = Some(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RegisterCall::{CompareAndSet, Read, Write};
    use super::*;
    use crate::rng::Rng;

    const BUDGET: u64 = 1_000_000;

    fn call(call: RegisterCall, invoked: u64, completed: u64) -> Timed<RegisterCall> {
        Timed { call, invoked, completed: Some(completed) }
    }

    fn unknown(call: RegisterCall, invoked: u64) -> Timed<RegisterCall> {
        Timed { call, invoked, completed: None }
    }

    fn verdict(calls: &[Timed<RegisterCall>]) -> Verdict {
        check::<Register>(calls, BUDGET)
    }

    #[test]
    fn nothing_and_one_after_the_other_are_linearizable() {
        assert_eq!(verdict(&[]), Verdict::Linearizable);
        let calls = [call(Read(None), 0, 1), call(Write(1), 2, 3), call(Read(Some(1)), 4, 5)];
        assert_eq!(verdict(&calls), Verdict::Linearizable);
    }

    #[test]
    fn calls_at_the_same_time_may_go_either_way() {
        for seen in [1, 2] {
            let calls = [call(Write(1), 0, 5), call(Write(2), 1, 6), call(Read(Some(seen)), 7, 8)];
            assert_eq!(verdict(&calls), Verdict::Linearizable, "{seen}");
        }
    }

    #[test]
    fn a_stale_read_is_seen_and_named() {
        let calls = [call(Write(1), 0, 1), call(Write(2), 2, 3), call(Read(Some(1)), 4, 5)];
        assert_eq!(verdict(&calls), Verdict::Broken { explained: 2, stuck: 2 });
        // Two reads at the same time as a write may not see new, then old.
        let calls = [
            call(Write(1), 0, 1),
            call(Write(2), 2, 9),
            call(Read(Some(2)), 3, 4),
            call(Read(Some(1)), 5, 6),
        ];
        assert!(matches!(verdict(&calls), Verdict::Broken { .. }));
    }

    #[test]
    fn a_lost_write_is_seen() {
        let calls = [call(Write(1), 0, 1), call(Read(None), 2, 3)];
        assert!(matches!(verdict(&calls), Verdict::Broken { .. }));
    }

    #[test]
    fn a_write_of_unknown_outcome_may_come_late_or_never() {
        let late = [
            call(Write(1), 0, 1),
            unknown(Write(2), 2),
            call(Read(Some(1)), 3, 4),
            call(Read(Some(2)), 5, 6),
        ];
        assert_eq!(verdict(&late), Verdict::Linearizable);
        assert_eq!(verdict(&late[..3]), Verdict::Linearizable);
        let back = [late[0].clone(), late[1].clone(), call(Read(Some(2)), 3, 4), call(Read(Some(1)), 5, 6)];
        assert!(matches!(verdict(&back), Verdict::Broken { .. }));
        let early = [call(Read(Some(2)), 0, 1), unknown(Write(2), 2)];
        assert!(matches!(verdict(&early), Verdict::Broken { .. }));
    }

    #[test]
    fn compare_and_set_tells_what_it_saw() {
        let cas = |from, to, done| CompareAndSet { from, to, done };
        let calls = [call(Write(1), 0, 1), call(cas(1, 2, Some(true)), 2, 3), call(Read(Some(2)), 4, 5)];
        assert_eq!(verdict(&calls), Verdict::Linearizable);
        let refused = [call(Write(1), 0, 1), call(cas(1, 2, Some(false)), 2, 3)];
        assert!(matches!(verdict(&refused), Verdict::Broken { .. }));
        // Two that both saw the same value, when it was there once.
        let twice =
            [call(Write(1), 0, 1), call(cas(1, 2, Some(true)), 2, 6), call(cas(1, 3, Some(true)), 3, 7)];
        assert!(matches!(verdict(&twice), Verdict::Broken { .. }));
        let maybe = [call(Write(1), 0, 1), unknown(cas(1, 2, None), 2), call(Read(Some(2)), 3, 4)];
        assert_eq!(verdict(&maybe), Verdict::Linearizable);
    }

    #[test]
    fn a_small_budget_is_an_unknown_verdict() {
        let calls = [call(Write(1), 0, 1), call(Read(Some(1)), 2, 3)];
        assert_eq!(check::<Register>(&calls, 1), Verdict::Unknown);
    }

    /// Runs of a true register are linearizable; with a read of what nobody wrote, not.
    #[test]
    fn histories_of_a_true_register_pass_and_spoiled_ones_do_not() {
        for seed in 0..20 {
            let mut rng = Rng::new(seed, "linear");
            let mut calls = history(&mut rng, 200, 10);
            assert_eq!(verdict(&calls), Verdict::Linearizable, "seed {seed}");
            calls.push(call(Write(1_000), 1_000_000, 1_000_001));
            calls.push(call(Read(Some(1_000_000)), 1_000_002, 1_000_003));
            assert!(matches!(verdict(&calls), Verdict::Broken { .. }), "seed {seed}");
        }
    }

    /// What `clients` see of a register, each call taking effect at some moment within it.
    fn history(rng: &mut Rng, calls: usize, clients: u64) -> Vec<Timed<RegisterCall>> {
        let mut state = None;
        let mut free = vec![0; clients as usize];
        let mut moment = 0u64;
        let mut out = Vec::new();
        for _ in 0..calls {
            let client = rng.below(clients) as usize;
            moment = (moment + 100).max(free[client] + 1);
            let invoked = (moment - 1).saturating_sub(rng.below(900)).max(free[client]);
            let completed = moment + rng.below(900);
            let made = match rng.below(3) {
                0 => Read(state),
                1 => Write(rng.below(5) as i64),
                _ => {
                    let from = rng.below(5) as i64;
                    CompareAndSet { from, to: rng.below(5) as i64, done: Some(state == Some(from)) }
                }
            };
            state = Register::step(&state, &made).unwrap_or(state);
            free[client] = completed + 1;
            let known = rng.below(50) > 0 || matches!(made, Read(_));
            out.push(if known { call(made, invoked, completed) } else { unknown(made, invoked) });
        }
        out
    }
}
