//! The first words on a link between two nodes: who speaks, for which cluster, and in which versions.
//!
//! The node that dials says hello first; the other answers with its own or closes the link and says why. Then every lane
//! opens a stream, which begins with a frame that names the lane. The first two bytes of a hello are its versions,
//! whatever the version, so that nodes too far apart can say so; what follows the fields known here is skipped.

use crate::id::{ClusterId, Incarnation, NodeId};
use crate::limits::NODE_NAME_MAX_BYTES;
use crate::peer::{Lane, PeerHello};
use serde::{Deserialize, Serialize};

/// Frame kind of a [`Hello`], on the stream that the dialling side opens first.
pub const KIND_HELLO: u8 = 1;
/// Frame kind of the one-byte body that names a stream's lane ([`lane_number`]), first on that stream.
pub const KIND_LANE: u8 = 2;
/// The oldest version of messages between nodes that this build reads.
pub const WIRE_OLDEST: u8 = 2;
/// The version of messages between nodes that this build writes.
pub const WIRE_NEWEST: u8 = 2;

/// No host name and port are longer.
const HTTP_ADDRESS_MAX_BYTES: usize = 262;

/// Who speaks. Sent in a frame of [`KIND_HELLO`] by both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version that it reads.
    pub oldest: u8,
    /// The newest version that it reads, which it writes if the other side reads it.
    pub newest: u8,
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its id, which is [`NodeId::of_name`] of its name.
    pub from: NodeId,
    /// Its name, as in its certificate.
    pub name: String,
    /// Whom it takes the other side for.
    pub to: NodeId,
    /// The life of its store.
    pub incarnation: Incarnation,
    /// The number of the store's start.
    pub boot: u64,
    /// `host:port` of its HTTP listener, as others reach it. It stands behind the fields that every hello has, and an
    /// older build says none.
    #[serde(skip)]
    pub http: Option<String>,
}

/// Why bytes are not a hello that this build can answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// No version in common.
    #[error(
        "it speaks wire versions {oldest} to {newest}, this build {WIRE_OLDEST} to {WIRE_NEWEST}: upgrade the older one"
    )]
    Version {
        /// The oldest of the other side.
        oldest: u8,
        /// The newest of the other side.
        newest: u8,
    },
    /// Not a hello.
    #[error("its hello does not decode: {0}")]
    Damaged(String),
}

impl Hello {
    /// The body of the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = crate::codec::encode(self);
        body.extend(crate::codec::encode(&self.http));
        body
    }

    /// Reads the body of a hello frame.
    pub fn decode(body: &[u8]) -> Result<Hello, HelloError> {
        let &[oldest, newest, ..] = body else {
            return Err(HelloError::Damaged(format!("{} bytes are too few", body.len())));
        };
        if oldest > WIRE_NEWEST || newest < WIRE_OLDEST || oldest > newest {
            return Err(HelloError::Version { oldest, newest });
        }
        let damaged = |error: postcard::Error| HelloError::Damaged(error.to_string());
        let (mut hello, more) = postcard::take_from_bytes::<Hello>(body).map_err(damaged)?;
        if !more.is_empty() {
            let (http, _later) = postcard::take_from_bytes::<Option<String>>(more).map_err(damaged)?;
            hello.http = http;
        }
        if let Some(http) = hello.http.as_ref().filter(|http| http.len() > HTTP_ADDRESS_MAX_BYTES) {
            return Err(HelloError::Damaged(format!("an HTTP address of {} bytes", http.len())));
        }
        if hello.name.is_empty() || hello.name.len() > NODE_NAME_MAX_BYTES {
            return Err(HelloError::Damaged(format!("a node name of {} bytes", hello.name.len())));
        }
        Ok(hello)
    }

    /// The version that both sides read: the newest of the older one.
    pub fn version(&self) -> u8 {
        self.newest.min(WIRE_NEWEST)
    }

    /// What the engine wants to know of it.
    pub fn peer(&self) -> PeerHello {
        PeerHello { node: self.from, incarnation: self.incarnation, boot: self.boot }
    }
}

/// A lane's number on the wire.
pub fn lane_number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Replication => 1,
        Lane::Snapshot => 2,
    }
}

/// The lane of a number on the wire.
pub fn lane_of_number(number: u8) -> Option<Lane> {
    [Lane::Control, Lane::Replication, Lane::Snapshot].into_iter().find(|lane| lane_number(*lane) == number)
}
