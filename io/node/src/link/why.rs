//! Why links end, in words for whoever has to put it right: the same words on both sides, since a refusal travels as
//! the reason of the QUIC close.

use super::frames::FrameReadError;
use quinn::{
    ConnectError, Connection, ConnectionError, Endpoint, ReadError, TransportErrorCode, VarInt, WriteError,
};

/// The longest reason that is sent, and that is believed.
const REASON_MAX_BYTES: usize = 512;

/// What a link was closed for, as its QUIC error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// The process ends. (Zero is what QUIC says when nobody said anything.)
    Stopping = 1,
    /// A certificate or a hello that is not taken.
    Refused = 2,
    /// Bytes that should not be.
    Damaged = 3,
    /// A newer link or a newer start of the other side took its place.
    Replaced = 4,
    /// The peer was removed or has another address now.
    Removed = 5,
}

impl Code {
    fn number(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// Closes with a reason; what is too long for a packet is cut.
pub(super) fn close(connection: &Connection, code: Code, reason: &str) {
    let mut end = reason.len().min(REASON_MAX_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    connection.close(code.number(), &reason.as_bytes()[..end]);
}

/// Closes every link of this process.
pub(super) fn close_endpoint(endpoint: &Endpoint) {
    endpoint.close(Code::Stopping.number(), b"the node is stopping");
}

/// Why a link did not come up, or ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    /// This side refuses the other one.
    #[error("{0}")]
    RefusedHere(String),
    /// The other side refuses this one.
    #[error("refused by the other side: {0}")]
    RefusedThere(String),
    /// What came is not what should come.
    #[error("{0}")]
    Damaged(String),
    /// All else: nobody there, a timeout, a restart.
    #[error("{0}")]
    Lost(String),
}

impl Why {
    /// It needs somebody to change something, or it would have gone by itself.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Why::RefusedHere(_) | Why::RefusedThere(_))
    }
}

impl From<ConnectionError> for Why {
    fn from(error: ConnectionError) -> Why {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = plain(&close.reason);
                match close.error_code {
                    code if code == Code::Refused.number() => Why::RefusedThere(reason),
                    code if code == Code::Damaged.number() => {
                        Why::Damaged(format!("closed by the other side: {reason}"))
                    }
                    _ => Why::Lost(format!("closed by the other side: {reason}")),
                }
            }
            ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
                Some(alert) => Why::RefusedThere(format!("{} ({})", about_ours(alert), plain(&close.reason))),
                None => {
                    Why::Lost(format!("closed by the other side: {}", plain(close.to_string().as_bytes())))
                }
            },
            ConnectionError::TransportError(error) => match alert(error.code) {
                Some(alert) => Why::RefusedHere(format!("{} ({})", about_theirs(alert), error.reason)),
                None => Why::Damaged(error.to_string()),
            },
            ConnectionError::TimedOut => Why::Lost("no answer until the timeout".into()),
            ConnectionError::Reset => {
                Why::Lost("the other side knows nothing of this link: it has restarted".into())
            }
            ConnectionError::LocallyClosed => Why::Lost("closed by this side".into()),
            other => Why::Lost(other.to_string()),
        }
    }
}

impl From<ReadError> for Why {
    fn from(error: ReadError) -> Why {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            other => Why::Damaged(other.to_string()),
        }
    }
}

impl From<WriteError> for Why {
    fn from(error: WriteError) -> Why {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            other => Why::Damaged(other.to_string()),
        }
    }
}

impl From<FrameReadError> for Why {
    fn from(error: FrameReadError) -> Why {
        match error {
            FrameReadError::Stream(error) => error.into(),
            other => Why::Damaged(other.to_string()),
        }
    }
}

impl From<ConnectError> for Why {
    fn from(error: ConnectError) -> Why {
        Why::Lost(format!("cannot connect: {error}"))
    }
}

/// The TLS alert that a transport error stands for.
fn alert(code: TransportErrorCode) -> Option<u8> {
    let code = u64::from(code);
    (0x100..0x200).contains(&code).then_some(code as u8)
}

fn about_theirs(alert: u8) -> &'static str {
    match alert {
        45 => "its certificate has expired: make a new one with `chronos certs node`",
        48 => "its certificate is not signed by this cluster's authority: is it of another cluster?",
        116 => "it shows no certificate",
        120 => "it does not speak the protocol of nodes",
        42..=49 => "its certificate is not accepted",
        _ => "the TLS handshake with it failed",
    }
}

fn about_ours(alert: u8) -> &'static str {
    match alert {
        45 => "this node's certificate has expired: make a new one with `chronos certs node`",
        48 => {
            "this node's certificate is not signed by the authority that it trusts: is it of another cluster?"
        }
        116 => "it wants a certificate, and none was shown",
        120 => "it does not speak the protocol of nodes",
        42..=49 => "it does not accept this node's certificate",
        _ => "the TLS handshake failed there",
    }
}

/// What others say goes to logs and terminals: short, and without control characters.
fn plain(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(&reason[..reason.len().min(REASON_MAX_BYTES)]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
