//! The PostgreSQL protocol by hand: a client that costs almost nothing, and that can also send nonsense.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection. Passwords are not its business: it is for listeners that let in whom they know.
pub struct Wire {
    stream: TcpStream,
    input: BytesMut,
}

/// What came back up to the next ReadyForQuery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// How many rows.
    pub rows: u64,
    /// The first row's columns, as sent.
    pub first: Vec<Option<Bytes>>,
    /// The command tags.
    pub tags: Vec<String>,
    /// The first error's SQLSTATE and message.
    pub error: Option<(String, String)>,
}

impl Wire {
    /// Connects and logs in as `chronos`, to the database of that name, and waits until the server is ready.
    pub async fn connect(address: SocketAddr) -> Result<Wire> {
        Wire::connect_as(address, "chronos", "chronos").await
    }

    /// Connects and logs in.
    pub async fn connect_as(address: SocketAddr, user: &str, database: &str) -> Result<Wire> {
        let mut wire = Wire::open(address).await?;
        let mut startup = BytesMut::new();
        startup.put_u32(0);
        startup.put_u32(0x0003_0000);
        for text in ["user", user, "database", database, ""] {
            startup.put_slice(text.as_bytes());
            startup.put_u8(0);
        }
        let length = startup.len() as u32;
        startup[..4].copy_from_slice(&length.to_be_bytes());
        wire.send(&startup).await?;
        match wire.answer().await?.error {
            None => Ok(wire),
            Some((state, message)) => Err(Error::other(format!("{state}: {message}"))),
        }
    }

    /// Connects and says nothing yet.
    pub async fn open(address: SocketAddr) -> Result<Wire> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, input: BytesMut::with_capacity(8192) })
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await
    }

    /// The next message: its tag and its body.
    pub async fn message(&mut self) -> Result<(u8, Bytes)> {
        loop {
            if self.input.len() >= 5 {
                let length = u32::from_be_bytes([self.input[1], self.input[2], self.input[3], self.input[4]]);
                let whole = length as usize + 1;
                if self.input.len() >= whole {
                    let mut message = self.input.split_to(whole).freeze();
                    let tag = message[0];
                    message.advance(5);
                    return Ok((tag, message));
                }
                self.input.reserve(whole - self.input.len());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads up to the next ReadyForQuery.
    pub async fn answer(&mut self) -> Result<Answer> {
        let mut answer = Answer::default();
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'Z' => return Ok(answer),
                b'D' => {
                    if answer.rows == 0 {
                        answer.first = columns(body);
                    }
                    answer.rows += 1;
                }
                b'C' => answer.tags.push(text(&body)),
                b'E' if answer.error.is_none() => answer.error = Some(error_fields(&body)),
                b'E' => {}
                b'R' if body.len() >= 4 && body[..4] != [0; 4] => {
                    return Err(Error::new(ErrorKind::PermissionDenied, "the server asks for a password"));
                }
                _ => {}
            }
        }
    }

    /// Reads up to the next ReadyForQuery and keeps nothing of it but the number of rows.
    pub async fn skim(&mut self) -> Result<u64> {
        let mut rows = 0;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                b'Z' => return Ok(rows),
                b'D' => rows += 1,
                b'E' => {
                    let (state, message) = error_fields(&body);
                    return Err(Error::other(format!("{state}: {message}")));
                }
                _ => {}
            }
        }
    }

    /// Sends and reads up to the next ReadyForQuery; an error of the server's is an error here.
    pub async fn call(&mut self, bytes: &[u8]) -> Result<Answer> {
        self.send(bytes).await?;
        let answer = self.answer().await?;
        match &answer.error {
            None => Ok(answer),
            Some((state, message)) => Err(Error::other(format!("{state}: {message}"))),
        }
    }

    /// Runs SQL by the simple protocol.
    pub async fn query(&mut self, sql: &str) -> Result<Answer> {
        let mut out = BytesMut::new();
        put(&mut out, b'Q', |body| put_text(body, sql));
        self.call(&out).await
    }

    /// Prepares a statement; the server infers the parameters' types.
    pub async fn prepare(&mut self, name: &str, sql: &str) -> Result<()> {
        let mut out = BytesMut::new();
        put_parse(&mut out, name, sql);
        put_sync(&mut out);
        self.call(&out).await.map(|_| ())
    }
}

/// Appends a message of this tag.
pub fn put(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends text and its end.
pub fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

/// Appends a Parse without parameter types.
pub fn put_parse(out: &mut BytesMut, name: &str, sql: &str) {
    put(out, b'P', |body| {
        put_text(body, name);
        put_text(body, sql);
        body.put_u16(0);
    });
}

/// Appends Bind (text parameters, text results) and Execute of a prepared statement.
pub fn put_run(out: &mut BytesMut, statement: &str, parameters: &[&str]) {
    put_run_with(out, statement, parameters.len(), |i, out| out.put_slice(parameters[i].as_bytes()));
}

/// The same; `write` writes the text of each parameter.
pub fn put_run_with(
    out: &mut BytesMut,
    statement: &str,
    count: usize,
    mut write: impl FnMut(usize, &mut BytesMut),
) {
    put(out, b'B', |body| {
        put_text(body, "");
        put_text(body, statement);
        body.put_u16(0);
        body.put_u16(count as u16);
        for i in 0..count {
            let start = body.len();
            body.put_u32(0);
            write(i, body);
            let length = (body.len() - start - 4) as u32;
            body[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
        body.put_u16(0);
    });
    put(out, b'E', |body| {
        put_text(body, "");
        body.put_u32(0);
    });
}

/// Appends a Sync.
pub fn put_sync(out: &mut BytesMut) {
    put(out, b'S', |_| {});
}

/// An ErrorResponse's SQLSTATE and message.
pub fn error_fields(body: &[u8]) -> (String, String) {
    let (mut state, mut message) = (String::new(), String::new());
    for field in body.split(|b| *b == 0).filter(|f| !f.is_empty()) {
        let value = String::from_utf8_lossy(&field[1..]).into_owned();
        match field[0] {
            b'C' => state = value,
            b'M' => message = value,
            _ => {}
        }
    }
    (state, message)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.strip_suffix(&[0]).unwrap_or(body)).into_owned()
}

fn columns(mut body: Bytes) -> Vec<Option<Bytes>> {
    let count = body.get_u16();
    let column = |_| match body.get_i32() {
        -1 => None,
        length => Some(body.split_to(length as usize)),
    };
    (0..count).map(column).collect()
}
