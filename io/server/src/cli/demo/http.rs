//! Just enough HTTP to post to `/ingest` as a sensor would, and to ask for `/status`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Posts JSON and waits for the answer.
pub fn post(address: &str, path: &str, json: &str) -> io::Result<Answer> {
    let head = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", json.len());
    exchange(address, &format!("POST {path} HTTP/1.0\r\nHost: {address}\r\n{head}\r\n{json}"))
}

/// Asks for a page.
pub fn get(address: &str, path: &str) -> io::Result<Answer> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"))
}

/// To an HTTP/1.0 client no server sends chunks, and the answer ends with the connection.
fn exchange(address: &str, request: &str) -> io::Result<Answer> {
    let target: SocketAddr =
        address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = parse(b"HTTP/1.0 202 Accepted\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!(answer, Answer { status: 202, body: "{}".into() });
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n\r\n"), None);
    }
}
