//! A node on real files: durability, damage, background verification, a full disk.

mod common;
mod damage;
mod durable;
mod full_disk;
mod recording;
mod scrub;
