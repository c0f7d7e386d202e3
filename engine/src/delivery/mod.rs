//! placeholder
use crate::state::records::ConsumerRecord;
use crate::step::{self, SubscriberId, Subscription};
use chronos_proto::command::Command;
use chronos_proto::id::RelationId;
use chronos_proto::time::Instant;
#[derive(Default)]
pub struct Delivery {}
#[allow(unused)]
impl Delivery {
    pub fn len(&self) -> usize {
        0
    }
    pub fn open(&mut self, id: SubscriberId, s: Subscription, p: Vec<(u32, u64, Option<ConsumerRecord>)>) {}
    pub fn credit(&mut self, id: SubscriberId, more: u32) {}
    pub fn ack(&mut self, id: SubscriberId, o: Vec<(u32, u64)>) -> Option<Command> {
        None
    }
    pub fn nack(&mut self, id: SubscriberId, o: Vec<(u32, u64)>, until: Instant) {}
    pub fn close(&mut self, id: SubscriberId) {}
    pub fn released(&mut self, t: RelationId, p: u32, end: u64) {}
    pub fn acked(&mut self, t: RelationId, g: &str, o: &[(u32, u64)]) {}
    pub fn dropped(&mut self, t: RelationId) {}
    pub fn tick(&mut self, now: Instant) -> Vec<Command> {
        Vec::new()
    }
    pub fn poll(&mut self, now: Instant, out: &mut Vec<step::Delivery>) {}
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }
}
