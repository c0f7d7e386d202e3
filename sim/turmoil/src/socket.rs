//! The UDP socket between quinn and turmoil. What turmoil cannot do to single datagrams happens here, on their way in:
//! each may be lost, doubled or late. (Turmoil's own `fail_rate` breaks a link until it is repaired.)

use chronos_sim::rng::Rng;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use turmoil::net::UdpSocket;

/// Datagrams that wait to be read; more are dropped, as by a kernel.
const QUEUE: usize = 1_024;
/// The longest datagram that quinn sends.
const DATAGRAM_MAX: usize = 2_048;

/// What becomes of datagrams on their way in, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// Never arrives.
    pub lost: u32,
    /// Arrives twice.
    pub doubled: u32,
    /// Arrives up to [`Weather::late_ms`] later, behind others.
    pub late: u32,
    /// How much later, in milliseconds.
    pub late_ms: u64,
}

/// What happened to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Never arrived.
    pub lost: u64,
    /// Arrived twice.
    pub doubled: u64,
    /// Arrived behind others.
    pub late: u64,
}

type Datagram = (SocketAddr, Vec<u8>);

/// A socket of one process.
#[derive(Debug)]
pub struct Socket {
    udp: Arc<UdpSocket>,
    arrived: Mutex<mpsc::Receiver<Datagram>>,
}

impl Socket {
    /// Binds the port of this host, and reads datagrams through the weather.
    pub async fn bind(
        port: u16,
        weather: Arc<Mutex<Weather>>,
        tally: Arc<Mutex<Tally>>,
        rng: Rng,
    ) -> io::Result<Arc<Socket>> {
        let udp = Arc::new(UdpSocket::bind(("0.0.0.0", port)).await?);
        let (send, arrived) = mpsc::channel(QUEUE);
        tokio::spawn(pump(udp.clone(), send, weather, tally, rng));
        Ok(Arc::new(Socket { udp, arrived: Mutex::new(arrived) }))
    }
}

async fn pump(
    udp: Arc<UdpSocket>,
    send: mpsc::Sender<Datagram>,
    weather: Arc<Mutex<Weather>>,
    tally: Arc<Mutex<Tally>>,
    mut rng: Rng,
) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
        let now = *weather.lock().unwrap_or_else(PoisonError::into_inner);
        let (lost, doubled, late) = (rng.chance(now.lost), rng.chance(now.doubled), rng.chance(now.late));
        {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            tally.lost += u64::from(lost);
            tally.doubled += u64::from(doubled && !lost);
            tally.late += u64::from(late && !lost);
        }
        for copy in 0..if lost { 0 } else { 1 + u8::from(doubled) } {
            let datagram = (from, buffer[..length].to_vec());
            if late || copy > 0 {
                let wait = Duration::from_millis(rng.range(1, now.late_ms.max(1)));
                let send = send.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    let _full = send.try_send(datagram);
                });
            } else {
                let _full = send.try_send(datagram);
            }
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            self.udp.try_send_to(datagram, transmit.destination)?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        match arrived.poll_recv(cx) {
            Poll::Ready(Some((addr, bytes))) => {
                let len = bytes.len().min(buffer.len());
                buffer[..len].copy_from_slice(&bytes[..len]);
                *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                Poll::Ready(Ok(1))
            }
            Poll::Ready(None) => Poll::Ready(Err(io::Error::other("the socket is closed"))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

/// A simulated socket always takes more.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Quinn's timers and tasks on the host's tokio, whose clock is simulated.
#[derive(Debug)]
pub struct Simulated;

impl Runtime for Simulated {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a simulated host has no sockets of the machine"))
    }

    fn now(&self) -> std::time::Instant {
        tokio::time::Instant::now().into_std()
    }
}
