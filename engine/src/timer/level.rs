//! One level: 64 slots, a bit for each that tells whether it holds anything, and the arithmetic of digits.

use super::slab::List;
use serde::{Deserialize, Serialize};

/// Bits of a digit.
const DIGIT_BITS: u32 = 6;
/// Slots of a level.
const SLOTS: usize = 1 << DIGIT_BITS;
/// Levels that a u64 needs.
pub(super) const LEVELS: usize = u64::BITS.div_ceil(DIGIT_BITS) as usize;

/// The level of a due time: the highest digit in which it differs from the present. None if they are equal.
pub(super) fn level_of(present: u64, due: u64) -> Option<usize> {
    let differing = (present ^ due).checked_ilog2()?;
    Some((differing / DIGIT_BITS) as usize)
}

/// The digit of a time at a level.
pub(super) fn digit(time: u64, level: usize) -> usize {
    ((time >> (level as u32 * DIGIT_BITS)) as usize) & (SLOTS - 1)
}

/// Serde takes arrays of up to 32.
mod slots {
    use super::{List, SLOTS};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(slots: &[List; SLOTS], serializer: S) -> Result<S::Ok, S::Error> {
        slots.as_slice().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[List; SLOTS], D::Error> {
        let slots = Vec::deserialize(deserializer)?;
        slots.try_into().map_err(|_| D::Error::custom("a level has another number of slots"))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Level {
    /// Bit `n` is set exactly if slot `n` holds something.
    occupied: u64,
    #[serde(with = "slots")]
    slots: [List; SLOTS],
}

impl Level {
    pub(super) const EMPTY: Level = Level { occupied: 0, slots: [List::EMPTY; SLOTS] };

    /// A slot, to be added to.
    pub(super) fn fill(&mut self, slot: usize) -> &mut List {
        self.occupied |= 1 << slot;
        &mut self.slots[slot]
    }

    /// Changes a slot, and notes if it became empty.
    pub(super) fn edit<R>(&mut self, slot: usize, change: impl FnOnce(&mut List) -> R) -> R {
        let result = change(&mut self.slots[slot]);
        if self.slots[slot].is_empty() {
            self.occupied &= !(1 << slot);
        }
        result
    }

    /// Empties a slot.
    pub(super) fn take(&mut self, slot: usize) -> List {
        self.occupied &= !(1 << slot);
        std::mem::replace(&mut self.slots[slot], List::EMPTY)
    }

    /// The first slot that holds something. Those at or before the present's digit are always empty.
    pub(super) fn first(&self) -> Option<usize> {
        (self.occupied != 0).then(|| self.occupied.trailing_zeros() as usize)
    }
}

/// When a slot of a level begins, seen from the present.
pub(super) fn slot_start(present: u64, level: usize, slot: usize) -> u64 {
    let shift = level as u32 * DIGIT_BITS;
    let above = present.checked_shr(shift + DIGIT_BITS).unwrap_or(0);
    let above = above.checked_shl(shift + DIGIT_BITS).unwrap_or(0);
    above | (slot as u64) << shift
}
