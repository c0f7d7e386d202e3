//! Entries, and the lists they form, linked by number instead of by pointer.

use serde::{Deserialize, Serialize};

/// Names an entry from its insertion until it comes out or is cancelled; after that it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    place: u32,
    generation: u32,
}

const NONE: u32 = u32::MAX;

/// A list of entries, in the order they were added.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(super) const EMPTY: List = List { head: NONE, tail: NONE };

    pub(super) fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry<T, S> {
    pub(super) due_ms: u64,
    pub(super) sequence: S,
    pub(super) item: T,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place<T, S> {
    generation: u32,
    previous: u32,
    /// The next of its list; for a free place, the next free one.
    next: u32,
    entry: Option<Entry<T, S>>,
}

/// Places for entries; free ones are used again before new ones are made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slab<T, S> {
    places: Vec<Place<T, S>>,
    free: u32,
    len: usize,
}

impl<T, S> Slab<T, S> {
    pub(super) const fn new() -> Slab<T, S> {
        Slab { places: Vec::new(), free: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Places made so far, free ones included.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, handle: Handle) -> Option<&Entry<T, S>> {
        let place = self.places.get(handle.place as usize)?;
        place.entry.as_ref().filter(|_| place.generation == handle.generation)
    }

    /// Adds an entry to the end of a list.
    pub(super) fn push(&mut self, list: &mut List, entry: Entry<T, S>) -> Handle {
        let at = if self.free == NONE {
            assert!(self.places.len() < NONE as usize, "a wheel holds less than 2^32 timers");
            self.places.push(Place { generation: 0, previous: NONE, next: NONE, entry: None });
            (self.places.len() - 1) as u32
        } else {
            let at = self.free;
            self.free = self.places[at as usize].next;
            at
        };
        self.places[at as usize].entry = Some(entry);
        self.len += 1;
        self.link(list, at);
        Handle { place: at, generation: self.places[at as usize].generation }
    }

    /// Takes an entry out of the list it is in.
    pub(super) fn remove(&mut self, list: &mut List, handle: Handle) -> Option<Entry<T, S>> {
        self.get(handle)?;
        let (previous, next) = {
            let place = &self.places[handle.place as usize];
            (place.previous, place.next)
        };
        match previous {
            NONE => list.head = next,
            at => self.places[at as usize].next = next,
        }
        match next {
            NONE => list.tail = previous,
            at => self.places[at as usize].previous = previous,
        }
        self.release(handle.place)
    }

    /// Takes the first entry out of a list.
    pub(super) fn pop(&mut self, list: &mut List) -> Option<Entry<T, S>> {
        let at = self.unlink_first(list)?;
        self.release(at)
    }

    /// Moves the first entry of `from` to the end of the list that `choose` names for its due time.
    pub(super) fn shift<'a>(&mut self, from: &mut List, choose: impl FnOnce(u64) -> &'a mut List) -> bool {
        let Some(at) = self.unlink_first(from) else { return false };
        let due_ms = self.places[at as usize].entry.as_ref().map_or(0, |entry| entry.due_ms);
        self.link(choose(due_ms), at);
        true
    }

    fn unlink_first(&mut self, list: &mut List) -> Option<u32> {
        let at = list.head;
        if at == NONE {
            return None;
        }
        list.head = self.places[at as usize].next;
        match list.head {
            NONE => list.tail = NONE,
            next => self.places[next as usize].previous = NONE,
        }
        Some(at)
    }

    fn link(&mut self, list: &mut List, at: u32) {
        let place = &mut self.places[at as usize];
        (place.previous, place.next) = (list.tail, NONE);
        match list.tail {
            NONE => list.head = at,
            tail => self.places[tail as usize].next = at,
        }
        list.tail = at;
    }

    fn release(&mut self, at: u32) -> Option<Entry<T, S>> {
        let place = &mut self.places[at as usize];
        place.generation = place.generation.wrapping_add(1);
        place.next = self.free;
        self.free = at;
        self.len -= 1;
        place.entry.take()
    }

    /// Forgets every entry; handles given before name nothing afterwards.
    pub(super) fn clear(&mut self) {
        for at in 0..self.places.len() as u32 {
            if self.places[at as usize].entry.is_some() {
                self.release(at);
            }
        }
    }
}
