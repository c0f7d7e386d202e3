//! The network between the nodes: where each is, and which ways are cut.

use crate::cluster::Place;
use crate::relay::{Relay, Weather};
use chronos_tests::node::free_base;
use chronos_tests::random::Random;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// All nodes on the loopback interface, and a relay between them.
pub struct Network {
    places: Vec<Place>,
    relay: Relay,
}

impl Network {
    /// So many nodes on free ports.
    pub fn loopback(nodes: usize, random: Random) -> Result<Network, String> {
        let mut places: Vec<Place> = Vec::new();
        while places.len() < nodes {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_base()));
            if places.iter().all(|place| place.quic.port() % 1000 != address.port() % 1000) {
                places.push(Place::new(places.len(), address));
            }
        }
        let relay = Relay::start(places.iter().map(|place| place.quic).collect(), random);
        Ok(Network { places, relay: relay.map_err(|e| format!("the relay: {e}"))? })
    }

    /// Where the nodes are.
    pub fn places(&self) -> Vec<Place> {
        self.places.clone()
    }

    /// The address that the others know a node by.
    pub fn known_as(&self, node: usize) -> SocketAddr {
        self.relay.front(node)
    }

    /// How a node's process is run.
    pub fn command(&self, _node: usize, binary: &Path) -> Command {
        Command::new(binary)
    }

    /// Cuts or mends the way from one node to another; the way back is another.
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        self.relay.cut(from, to, cut);
    }

    /// Changes what all ways do to what passes.
    pub fn weather(&self, weather: Weather) {
        self.relay.weather(weather);
    }

    /// What the network saw that makes its faults worth less.
    pub fn complaint(&self) -> Option<String> {
        let strangers = self.relay.strangers();
        let text = || format!("{strangers} datagrams came from no node's own address: no cut held them");
        (strangers > 0).then(text)
    }

    /// Mends everything.
    pub fn heal(&self) {
        for from in 0..self.places.len() {
            (0..self.places.len()).for_each(|to| self.cut(from, to, false));
        }
        self.weather(Weather::default());
    }
}
