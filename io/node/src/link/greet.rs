//! The greeting: both sides show a certificate in the TLS handshake and say hello, and each checks the other.

use super::Shared;
use super::frames::{self, FrameReader};
use super::identity::Identity;
use super::queue::Outgoing;
use super::why::Why;
use bytes::Bytes;
use chronos_proto::hello::{Hello, KIND_HELLO, WIRE_NEWEST, WIRE_OLDEST};
use chronos_proto::id::NodeId;
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::oneshot;

/// No hello is longer.
const HELLO_MAX_BYTES: usize = 4 << 10;

impl Shared {
    /// Who is at the other end, by its certificate: a node of this cluster, and not this one.
    pub(super) fn identify(&self, connection: &Connection) -> Result<Identity, Why> {
        let identity = Identity::of(connection).map_err(|error| Why::RefusedHere(error.to_string()))?;
        if identity.cluster != self.config.cluster {
            return Err(Why::RefusedHere(format!(
                "the certificate of {} is of cluster {:032x}, and {} belongs to cluster {:032x}",
                identity.name, identity.cluster.0, self.config.name, self.config.cluster.0
            )));
        }
        Ok(identity)
    }

    /// Says who this node is, as the last words on that half of the stream.
    pub(super) async fn say_hello(&self, stream: &mut SendStream, to: NodeId) -> Result<(), Why> {
        let hello = Hello {
            oldest: WIRE_OLDEST,
            newest: WIRE_NEWEST,
            cluster: self.config.cluster,
            from: self.node,
            name: self.config.name.clone(),
            to,
            incarnation: self.config.incarnation,
            boot: self.config.boot,
            http: self.config.http.clone(),
        };
        let mut frame = vec![Outgoing { kind: KIND_HELLO, body: Bytes::from(hello.encode()) }];
        frames::write(stream, &mut frame).await?;
        stream.finish().map_err(|error| Why::Lost(error.to_string()))
    }

    /// Hears who the other side says it is, and checks it against its certificate and this node.
    pub(super) async fn hear_hello(&self, stream: RecvStream, identity: &Identity) -> Result<Hello, Why> {
        let body = match FrameReader::new(stream).next(HELLO_MAX_BYTES).await? {
            Some((KIND_HELLO, body)) => body,
            Some((kind, _)) => {
                return Err(Why::Damaged(format!("a frame of kind {kind} where a hello should be")));
            }
            None => return Err(Why::Damaged("the stream ended before a hello".into())),
        };
        let hello = Hello::decode(&body).map_err(|error| Why::RefusedHere(error.to_string()))?;
        self.check(&hello, identity).map_err(Why::RefusedHere)?;
        let (answer, admitted) = oneshot::channel();
        self.events.admit(hello.peer(), hello.name.clone(), answer);
        match admitted.await {
            Ok(Ok(())) => Ok(hello),
            Ok(Err(why)) => Err(Why::RefusedHere(why)),
            Err(_) => Err(Why::Lost("this node is stopping".into())),
        }
    }

    fn check(&self, hello: &Hello, identity: &Identity) -> Result<(), String> {
        let (here, cluster) = (&self.config.name, self.config.cluster);
        if hello.cluster != cluster {
            return Err(format!(
                "{} belongs to cluster {:032x}, and {here} to cluster {:032x}: one of them was pointed at the other's peers",
                hello.name, hello.cluster.0, cluster.0
            ));
        }
        if hello.name != identity.name || hello.from != identity.node() {
            return Err(format!(
                "it says it is {} (id {}), and its certificate is for {} (id {})",
                hello.name,
                hello.from,
                identity.name,
                identity.node()
            ));
        }
        if hello.from == self.node {
            return Err(format!("both sides are {here}: a node dials itself, or two nodes have one name"));
        }
        if hello.to != self.node {
            return Err(format!(
                "it looks for node id {}, and this is {here} (id {}): check the addresses of its peers",
                hello.to, self.node
            ));
        }
        Ok(())
    }
}
