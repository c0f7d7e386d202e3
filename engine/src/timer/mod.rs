//! The hierarchical timing wheel that holds the near future of the timer index in memory.
//!
//! ```text
//! level 0    64 slots of 1 ms        due in this 64 ms
//! level 1    64 slots of 64 ms       due in this 4.1 s
//! level 2    64 slots of 4.1 s       due in this 4.4 min
//! ...
//! level 10   16 slots of 36 million years: a u64 of milliseconds needs no overflow list
//! ```
//!
//! Time is read as digits in base 64. An entry lies at the level of the highest digit in which its due time differs
//! from the wheel's present, in the slot of that digit: its place is a function of the two, so nothing has to be
//! stored to find it again. When the present reaches a slot of an upper level, its entries move down; each entry
//! moves at most once a level, and only when time passes its slot, so insert and cancel take constant time and a
//! tick constant time an entry.
//!
//! A due time is in whole milliseconds. A caller that knows it more finely rounds *up* for the wheel (nothing may
//! come before it is due) and keeps the fine one in the order, the `S` of [`Wheel`]: entries come out by
//! (due millisecond, `S`), and since rounding keeps order, by (fine due, sequence) if that is what `S` is.
//!
//! Entries live in a slab and are linked by number; a slot's list is two numbers. The wheel never allocates for a
//! tick or a cancel, and its memory is that of the most entries it held at once.
//!
//! Not here: the window. Which timers are near, and refilling from the ordered index when time comes closer, is the
//! node's. There is no limit on how many entries one `advance` hands out either.

mod level;
mod slab;
mod wheel;

pub use slab::Handle;
pub use wheel::Wheel;
