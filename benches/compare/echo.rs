//! A server that says yes to everything and does nothing: what the client reaches against it is the client's ceiling.

use bytes::{Buf, BufMut, BytesMut};
use chronos_tests::wire::put;
use std::io::{BufRead, BufReader, Result};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// It, in a process of its own, as the others are.
pub struct Echo {
    child: Child,
    address: SocketAddr,
}

impl Echo {
    /// Starts it.
    pub fn start() -> Result<Echo> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--echo")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line)?;
        }
        let address = line.trim().parse().map_err(std::io::Error::other)?;
        Ok(Echo { child, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Its process: prints its address and serves until it is killed.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("an address"));
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // A client that goes away is nothing.
            let _ = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    let mut started = false;
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        loop {
            let tagged = usize::from(started);
            let Some(length) = input.get(tagged..tagged + 4) else { break };
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize + tagged;
            if input.len() < length {
                break;
            }
            let tag = if started { input[0] } else { 0 };
            input.advance(length);
            match tag {
                0 => {
                    started = true;
                    put(&mut out, b'R', |body| body.put_u32(0));
                    put(&mut out, b'Z', |body| body.put_u8(b'I'));
                }
                b'P' => put(&mut out, b'1', |_| {}),
                b'B' => put(&mut out, b'2', |_| {}),
                b'E' => put(&mut out, b'C', |body| body.put_slice(b"INSERT 0 1\0")),
                b'S' => put(&mut out, b'Z', |body| body.put_u8(b'I')),
                b'Q' => {
                    put(&mut out, b'C', |body| body.put_slice(b"INSERT 0 1\0"));
                    put(&mut out, b'Z', |body| body.put_u8(b'I'));
                }
                _ => {}
            }
        }
        stream.write_all(&out).await?;
        out.clear();
    }
}
