//! An HTTP/1.1 client that sends what it is told, well-formed or not.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// A connection that is kept open between requests.
pub struct Http {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Whether the status says that it was done.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Http {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Http> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Http { stream: BufReader::new(stream), out: Vec::new() })
    }

    /// Sends one request and reads its answer.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response> {
        self.out.clear();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: chronos\r\ncontent-length: {}\r\n", body.len());
        self.out.extend_from_slice(head.as_bytes());
        for (name, value) in headers {
            self.out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        self.out.extend_from_slice(b"\r\n");
        self.out.extend_from_slice(body);
        // A server may answer and close before it has read all of a body it refuses.
        let written = self.stream.get_mut().write_all(&self.out).await;
        match self.read().await {
            Ok(response) => Ok(response),
            Err(error) => Err(written.err().unwrap_or(error)),
        }
    }

    async fn read(&mut self) -> Result<Response> {
        let status_line = self.line().await?;
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| malformed(&status_line))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(|_| malformed(&line))?;
                let start = response.body.len();
                response.body.resize(start + size, 0);
                self.stream.read_exact(&mut response.body[start..]).await?;
                self.line().await?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| malformed(length))?;
            response.body.resize(length, 0);
            self.stream.read_exact(&mut response.body).await?;
        }
        Ok(response)
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

fn malformed(line: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("not HTTP: {line:?}"))
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> Result<Response> {
    Http::connect(address).await?.send("GET", path, &[], b"").await
}

/// One POST of JSON on a connection of its own.
pub async fn post(address: SocketAddr, path: &str, body: &str) -> Result<Response> {
    let json = [("content-type", "application/json")];
    Http::connect(address).await?.send("POST", path, &json, body.as_bytes()).await
}
