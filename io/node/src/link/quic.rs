//! What QUIC is told: TLS from outside, everything bounded, nobody moves.

use super::{LinkConfig, StartError};
use crate::directory::draw_u64;
use crate::tls::Credentials;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use std::sync::Arc;
use std::time::Duration;

/// Where links take their TLS from. Asked at every handshake, so that new certificates serve new links while the old
/// ones last. Both configurations check the other side's certificate against the cluster's authority, whatever host it
/// is reached by, resume nothing and take no early data; for which node a certificate is, the link itself checks.
pub trait TlsConfigs: Send + Sync {
    /// For links that are accepted.
    fn server(&self) -> Arc<QuicServerConfig>;
    /// For links that are dialled.
    fn client(&self) -> Arc<QuicClientConfig>;
}

impl TlsConfigs for Credentials {
    fn server(&self) -> Arc<QuicServerConfig> {
        self.current().quic_server()
    }

    fn client(&self) -> Arc<QuicClientConfig> {
        self.current().quic_client()
    }
}

/// Streams of one link, besides the greeting.
const LANES: u32 = 3;
/// The most handshakes that are under way at once; more are refused.
pub(super) const HANDSHAKES_MAX: usize = 64;
/// With this many under way, whoever comes next must first show that it receives at its address.
pub(super) const HANDSHAKES_UNVALIDATED: usize = 8;
/// Received bytes that are kept for each handshake not yet looked at.
const UNACCEPTED_BYTES: u64 = 16 << 10;

/// Of the connection ids that a node gives itself, in bytes. Those that a client makes up for its first packet have at
/// least eight, so a late packet of a handshake that this process knows nothing of is told from a first one by its length.
/// With eight it would be decrypted with the wrong keys, and one time in four counted as a link refused.
const CONNECTION_ID_BYTES: usize = 7;

struct ConnectionIds;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&draw_u64().to_le_bytes()[..CONNECTION_ID_BYTES])
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn endpoint(config: &LinkConfig) -> EndpointConfig {
    let mut endpoint = EndpointConfig::default();
    endpoint.rng_seed(config.rng_seed);
    endpoint.cid_generator(|| Box::new(ConnectionIds));
    endpoint
}

pub(super) fn server(config: &LinkConfig) -> Result<quinn::ServerConfig, StartError> {
    let mut transport = transport(config)?;
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(LANES))
        .max_concurrent_bidi_streams(VarInt::from_u32(1));
    let mut server = quinn::ServerConfig::with_crypto(config.tls.server());
    server
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(UNACCEPTED_BYTES)
        .incoming_buffer_size_total(UNACCEPTED_BYTES * HANDSHAKES_MAX as u64);
    Ok(server)
}

/// The transport of links that are dialled: the other side opens no stream.
pub(super) fn client_transport(config: &LinkConfig) -> Result<Arc<TransportConfig>, StartError> {
    let mut transport = transport(config)?;
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_concurrent_bidi_streams(VarInt::from_u32(0));
    Ok(Arc::new(transport))
}

fn transport(config: &LinkConfig) -> Result<TransportConfig, StartError> {
    let idle = IdleTimeout::try_from(config.idle_timeout)
        .map_err(|_| StartError::IdleTimeout(config.idle_timeout))?;
    let window = u64::from(config.stream_window);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.keep_alive))
        // A lane that nobody reads, or that the network does not take, holds at most its own window on either side:
        // the connection's windows always have room left for the control lane.
        .stream_receive_window(VarInt::from_u32(config.stream_window))
        .receive_window(VarInt::try_from(4 * window).unwrap_or(VarInt::MAX))
        .send_window(8 * window)
        .datagram_receive_buffer_size(None)
        // The first retransmission of a handshake comes after 300 ms.
        .initial_rtt(Duration::from_millis(100));
    Ok(transport)
}
