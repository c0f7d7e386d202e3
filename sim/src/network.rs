//! The network between machines: when a message arrives, and whether it does.
//!
//! Each ordered pair of machines is a path of its own. Messages of one lane arrive in the order in which they were
//! sent, as on a stream; lanes overtake each other. Raft and what it stands on are held to more: unless a message
//! counts on the stream, this run's network may reorder and double it. A path that is cut loses what is sent on it;
//! one that is clogged keeps it until the clog ends.

use crate::knobs::NetworkKnobs;
use crate::rng::Rng;
use chronos_proto::peer::Lane;

/// One direction between two machines.
#[derive(Clone, Debug, Default)]
struct Path {
    /// How many partitions cut it.
    cuts: u32,
    cut_since: u64,
    clogged_until: u64,
    /// When the last message of each lane arrives.
    lanes: [u64; 3],
}

/// When a message and its double arrive; none is lost.
pub type Arrivals = (Option<u64>, Option<u64>);

/// All paths.
#[derive(Clone, Debug)]
pub struct Network {
    machines: usize,
    paths: Vec<Path>,
    knobs: NetworkKnobs,
    rng: Rng,
    calm: bool,
}

impl Network {
    /// A whole network between so many machines.
    pub fn new(machines: usize, knobs: &NetworkKnobs, seed: u64) -> Network {
        let paths = vec![Path::default(); machines * machines];
        Network { machines, paths, knobs: knobs.clone(), rng: Rng::new(seed, "paths"), calm: false }
    }

    fn path(&mut self, from: usize, to: usize) -> &mut Path {
        &mut self.paths[from * self.machines + to]
    }

    /// Whether nothing gets through.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.paths[from * self.machines + to].cuts > 0
    }

    /// Since when nothing gets through, if that is so.
    pub fn cut_since(&self, from: usize, to: usize) -> Option<u64> {
        let path = &self.paths[from * self.machines + to];
        (path.cuts > 0).then_some(path.cut_since)
    }

    /// One partition more cuts the path.
    pub fn cut(&mut self, from: usize, to: usize, now: u64) {
        let path = self.path(from, to);
        if path.cuts == 0 {
            path.cut_since = now;
        }
        path.cuts += 1;
    }

    /// One partition less.
    pub fn mend(&mut self, from: usize, to: usize) {
        let path = self.path(from, to);
        path.cuts = path.cuts.saturating_sub(1);
    }

    /// No partition cuts it any more.
    pub fn mend_all(&mut self, from: usize, to: usize) {
        let path = self.path(from, to);
        path.cuts = 0;
        path.clogged_until = 0;
        path.lanes = [0; 3];
    }

    /// What is sent arrives at this time at the earliest.
    pub fn clog(&mut self, from: usize, to: usize, until: u64) {
        let path = self.path(from, to);
        path.clogged_until = path.clogged_until.max(until);
    }

    /// From now on messages are neither lost nor doubled nor late.
    pub fn calm(&mut self) {
        self.calm = true;
    }

    /// A link begins anew: nothing of the old one is waited for.
    pub fn link(&mut self, from: usize, to: usize) {
        self.path(from, to).lanes = [0; 3];
    }

    /// A message is sent; `stream` if it counts on arriving once and in order, or not at all.
    pub fn send(&mut self, from: usize, to: usize, lane: Lane, stream: bool, now: u64) -> Arrivals {
        let (knobs, calm) = (self.knobs.clone(), self.calm);
        if self.is_cut(from, to) || !calm && self.rng.chance(knobs.loss) {
            return (None, None);
        }
        let mean = if calm { knobs.delay.min(2_000) } else { knobs.delay };
        let mut latency = self.rng.exponential(mean);
        if !calm && knobs.tail > 0 && self.rng.chance(5) {
            latency += self.rng.below(knobs.tail);
        }
        let reordered = !calm && !stream && self.rng.chance(knobs.reorder);
        let doubled = !calm && !stream && self.rng.chance(knobs.double);
        let late = if doubled { self.rng.below(knobs.delay * 20 + 200_000) } else { 0 };
        let path = self.path(from, to);
        let mut at = (now + 20 + latency).max(path.clogged_until);
        let last = &mut path.lanes[lane as usize];
        if !reordered {
            at = at.max(*last);
            *last = at;
        }
        (Some(at), doubled.then_some(at + late))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(reorder: u32) -> Network {
        let knobs = NetworkKnobs { delay: 1_000, reorder, ..NetworkKnobs::default() };
        Network::new(2, &knobs, 1)
    }

    fn arrivals(network: &mut Network) -> Vec<u64> {
        (0..200).filter_map(|n| network.send(0, 1, Lane::Control, false, n * 10).0).collect()
    }

    #[test]
    fn a_lane_keeps_its_order_unless_the_network_reorders() {
        assert!(arrivals(&mut network(0)).is_sorted());
        assert!(!arrivals(&mut network(500)).is_sorted());
    }

    #[test]
    fn a_cut_path_loses_and_a_clogged_one_delays_in_one_direction() {
        let mut network = network(0);
        network.cut(0, 1, 5);
        assert_eq!(network.send(0, 1, Lane::Control, false, 10), (None, None));
        assert!(network.send(1, 0, Lane::Control, false, 10).0.is_some());
        network.mend(0, 1);
        network.clog(0, 1, 9_000_000);
        assert!(network.send(0, 1, Lane::Control, false, 10).0 >= Some(9_000_000));
    }
}
