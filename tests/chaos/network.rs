//! The network between the nodes: where each is, and which ways are cut.
//!
//! On the loopback interface a relay stands between the nodes. In namespaces packet filters cut and lose; where more
//! is wanted of the weather, the relay stands between them there too, on the bridge.

use crate::cluster::Place;
use crate::namespaces::Namespaces;
use crate::relay::{Relay, Weather};
use chronos_tests::node::free_base;
use chronos_tests::random::Random;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

/// The port of each node in its namespace.
const BASE: u16 = 8000;

/// Where nodes are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// All on the loopback interface, on ports of their own
    Loopback,
    /// Each in a network namespace of its own (root, `ip` and `nft`)
    Namespaces,
}

/// The network.
pub struct Network {
    places: Vec<Place>,
    relay: Option<Relay>,
    namespaces: Option<Namespaces>,
}

impl Network {
    /// For so many nodes. A relay is always on the loopback interface, and in namespaces if it is wanted.
    pub fn create(kind: Kind, nodes: usize, relay: bool, random: Random) -> Result<Network, String> {
        let (places, namespaces) = match kind {
            Kind::Loopback => (loopback(nodes), None),
            Kind::Namespaces => {
                let namespaces = Namespaces::create(nodes)?;
                let place = |node| Place::new(node, SocketAddr::new(namespaces.address(node), BASE));
                ((0..nodes).map(place).collect(), Some(namespaces))
            }
        };
        let host = namespaces.as_ref().map_or(IpAddr::from(Ipv4Addr::LOCALHOST), Namespaces::host);
        let start = || Relay::start(places.iter().map(|place: &Place| place.quic).collect(), host, random);
        let relay = (relay || namespaces.is_none()).then(start).transpose();
        Ok(Network { relay: relay.map_err(|e| format!("the relay: {e}"))?, places, namespaces })
    }

    /// Where the nodes are.
    pub fn places(&self) -> Vec<Place> {
        self.places.clone()
    }

    /// The address that the others know a node by.
    pub fn known_as(&self, node: usize) -> SocketAddr {
        self.relay.as_ref().map_or(self.places[node].quic, |relay| relay.front(node))
    }

    /// How a node's process is run.
    pub fn command(&self, node: usize, binary: &Path) -> Command {
        match &self.namespaces {
            Some(namespaces) => namespaces.command(node, binary),
            None => Command::new(binary),
        }
    }

    /// Whether nodes listen beyond loopback.
    pub fn is_open(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Cuts or mends the way from one node to another; the way back is another.
    pub fn cut(&self, from: usize, to: usize, cut: bool) -> Result<(), String> {
        match (&self.relay, &self.namespaces) {
            (Some(relay), _) => {
                relay.cut(from, to, cut);
                Ok(())
            }
            (None, Some(namespaces)) => namespaces.cut(from, to, cut),
            (None, None) => Ok(()),
        }
    }

    /// Changes what all ways do to what passes.
    pub fn weather(&self, weather: Weather) -> Result<(), String> {
        match (&self.relay, &self.namespaces) {
            (Some(relay), _) => {
                relay.weather(weather);
                Ok(())
            }
            (None, Some(namespaces)) => namespaces.lose(weather.lost),
            (None, None) => Ok(()),
        }
    }

    /// What the network saw that makes its faults worth less.
    pub fn complaint(&self) -> Option<String> {
        let strangers = self.relay.as_ref().map_or(0, Relay::strangers);
        let text = || format!("{strangers} datagrams came from no node's own address: no cut held them");
        (strangers > 0).then(text)
    }

    /// Mends everything.
    pub fn heal(&self) -> Result<(), String> {
        let ways = (0..self.places.len()).flat_map(|from| (0..self.places.len()).map(move |to| (from, to)));
        ways.into_iter().try_for_each(|(from, to)| self.cut(from, to, false))?;
        self.weather(Weather::default())
    }
}

fn loopback(nodes: usize) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    while places.len() < nodes {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_base()));
        // What follows from one address must not be another's.
        if places.iter().all(|place| place.quic.port() % 1000 != address.port() % 1000) {
            places.push(Place::new(places.len(), address));
        }
    }
    places
}
