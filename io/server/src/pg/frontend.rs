//! What a client sends, read in place from the connection's buffer.
//!
//! Nothing is copied and nothing is trusted: lengths, counts and text are checked before use, and a message must be
//! consumed to its last byte.

use std::str;

/// A message that is not what the protocol says. The connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A type that does not exist.
    #[error("invalid frontend message type {0}")]
    Kind(u8),
    /// A length below what a message has.
    #[error("invalid message length {0}")]
    Length(i32),
    /// Above the limit.
    #[error("message of {0} bytes is over the limit of {1}")]
    TooLong(usize, usize),
    /// Its body is wrong.
    #[error("malformed {what} message: {why}")]
    Body {
        /// The message.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

/// What comes first on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Startup<'a> {
    /// A question for TLS.
    Ssl,
    /// A question for GSSAPI encryption.
    Gss,
    /// Cancels what another connection is doing.
    Cancel {
        /// Its number.
        pid: i32,
        /// Its secret.
        secret: i32,
    },
    /// A session: minor protocol version and parameters.
    Session {
        /// The minor version asked for.
        minor: u16,
        /// Names and values.
        parameters: Vec<(&'a str, &'a str)>,
    },
}

/// What comes after.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A simple query.
    Query(&'a str),
    /// Makes a prepared statement.
    Parse {
        /// Its name; empty for the unnamed one.
        name: &'a str,
        /// Its text.
        sql: &'a str,
        /// Declared parameter types; 0 is none.
        types: Vec<u32>,
    },
    /// Makes a portal.
    Bind(Bind<'a>),
    /// Asks what a statement or portal looks like.
    Describe(Target<'a>),
    /// Runs a portal.
    Execute {
        /// Its name.
        portal: &'a str,
        /// At most this many rows; 0 is all.
        max_rows: usize,
    },
    /// Forgets a statement or portal.
    Close(Target<'a>),
    /// Asks for what is buffered.
    Flush,
    /// Ends a pipeline.
    Sync,
    /// Says goodbye.
    Terminate,
    /// A password, or a message of an exchange that proves it.
    Password(&'a [u8]),
    /// A piece of the data of a COPY.
    CopyData(&'a [u8]),
    /// The end of it.
    CopyDone,
    /// The client gives it up, for this reason.
    CopyFail(&'a str),
}

/// A statement or a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a str),
    /// A portal.
    Portal(&'a str),
}

/// A Bind message; its lists are read by iterating.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal made.
    pub portal: &'a str,
    /// From this statement.
    pub statement: &'a str,
    /// Formats of the parameters: none, one for all, or one each.
    pub param_formats: Formats,
    /// The parameters; none is NULL.
    pub params: Vec<Option<&'a [u8]>>,
    /// Formats of the result columns, likewise.
    pub result_formats: Formats,
}

/// Which of many values are binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Formats {
    /// All text.
    #[default]
    Text,
    /// All binary.
    Binary,
    /// One by one: true is binary.
    Each(Vec<bool>),
}

impl Formats {
    /// Whether value `i` is binary.
    pub fn binary(&self, i: usize) -> bool {
        match self {
            Formats::Text => false,
            Formats::Binary => true,
            Formats::Each(each) => each.get(i).copied().unwrap_or(false),
        }
    }

    /// Whether this can describe `count` values.
    pub fn fits(&self, count: usize) -> bool {
        match self {
            Formats::Each(each) => each.len() == count,
            _ => true,
        }
    }
}

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;
/// The longest startup packet, as in PostgreSQL.
const STARTUP_MAX: usize = 10_000;

/// Reads a startup packet and its length; none if it is not all there yet.
pub fn startup(input: &[u8]) -> Result<Option<(Startup<'_>, usize)>, Malformed> {
    let Some((length, _)) = input.split_first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let total = usize::try_from(length).map_err(|_| Malformed::Length(length))?;
    if total < 8 {
        return Err(Malformed::Length(length));
    }
    if total > STARTUP_MAX {
        return Err(Malformed::TooLong(total, STARTUP_MAX));
    }
    let Some(body) = input.get(4..total) else { return Ok(None) };
    let mut body = Body { what: "startup", rest: body };
    let startup = match body.i32()? {
        SSL_REQUEST => Startup::Ssl,
        GSS_REQUEST => Startup::Gss,
        CANCEL_REQUEST => Startup::Cancel { pid: body.i32()?, secret: body.i32()? },
        version if version >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let name = body.text()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, body.text()?));
            }
            Startup::Session { minor: version as u16, parameters }
        }
        _ => return Err(body.wrong("unsupported protocol version: this server speaks 3.0")),
    };
    body.end()?;
    Ok(Some((startup, total)))
}

/// Reads one message and its whole length; none if it is not all there yet.
pub fn message(input: &[u8], max_bytes: usize) -> Result<Option<(Message<'_>, usize)>, Malformed> {
    let Some(([kind, length @ ..], _)) = input.split_first_chunk::<5>() else {
        return match input.first() {
            Some(&kind) if what(kind).is_none() => Err(Malformed::Kind(kind)),
            _ => Ok(None),
        };
    };
    let what = what(*kind).ok_or(Malformed::Kind(*kind))?;
    let length = i32::from_be_bytes(*length);
    let total = usize::try_from(length).map_err(|_| Malformed::Length(length))? + 1;
    if total < 5 {
        return Err(Malformed::Length(length));
    }
    if total > max_bytes {
        return Err(Malformed::TooLong(total, max_bytes));
    }
    let Some(body) = input.get(5..total) else { return Ok(None) };
    let mut body = Body { what, rest: body };
    let message = match kind {
        b'Q' => Message::Query(body.text()?),
        b'P' => {
            let (name, sql) = (body.text()?, body.text()?);
            let count = body.count()?;
            let types = (0..count).map(|_| body.i32().map(|oid| oid as u32)).collect::<Result<_, _>>()?;
            Message::Parse { name, sql, types }
        }
        b'B' => Message::Bind(bind(&mut body)?),
        b'D' => Message::Describe(target(&mut body)?),
        b'C' => Message::Close(target(&mut body)?),
        b'E' => {
            let portal = body.text()?;
            Message::Execute { portal, max_rows: usize::try_from(body.i32()?).unwrap_or(0) }
        }
        b'H' => Message::Flush,
        b'S' => Message::Sync,
        b'X' => Message::Terminate,
        b'p' => Message::Password(std::mem::take(&mut body.rest)),
        b'd' => Message::CopyData(std::mem::take(&mut body.rest)),
        b'c' => Message::CopyDone,
        _ => Message::CopyFail(body.text()?),
    };
    body.end()?;
    Ok(Some((message, total)))
}

/// Reads the first message of a SASL exchange: the mechanism, and what it is told.
pub fn sasl_initial(body: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let mut body = Body { what: "SASLInitialResponse", rest: body };
    let mechanism = body.text()?;
    let length = usize::try_from(body.i32()?).map_err(|_| body.wrong("there is no response in it"))?;
    let data = body.take(length)?;
    body.end()?;
    Ok((mechanism, data))
}

fn what(kind: u8) -> Option<&'static str> {
    Some(match kind {
        b'Q' => "Query",
        b'P' => "Parse",
        b'B' => "Bind",
        b'D' => "Describe",
        b'C' => "Close",
        b'E' => "Execute",
        b'H' => "Flush",
        b'S' => "Sync",
        b'X' => "Terminate",
        b'p' => "Password",
        b'd' => "CopyData",
        b'c' => "CopyDone",
        b'f' => "CopyFail",
        _ => return None,
    })
}

fn target<'a>(body: &mut Body<'a>) -> Result<Target<'a>, Malformed> {
    match body.take(1)? {
        b"S" => Ok(Target::Statement(body.text()?)),
        b"P" => Ok(Target::Portal(body.text()?)),
        _ => Err(body.wrong("neither statement nor portal")),
    }
}

fn bind<'a>(body: &mut Body<'a>) -> Result<Bind<'a>, Malformed> {
    let (portal, statement) = (body.text()?, body.text()?);
    let param_formats = formats(body)?;
    let count = body.count()?;
    let mut params = Vec::with_capacity(count.min(body.rest.len() / 4));
    for _ in 0..count {
        params.push(match body.i32()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).map_err(|_| body.wrong("negative parameter length"))?;
                Some(body.take(length)?)
            }
        });
    }
    let result_formats = formats(body)?;
    Ok(Bind { portal, statement, param_formats, params, result_formats })
}

fn formats(body: &mut Body<'_>) -> Result<Formats, Malformed> {
    let one = |body: &mut Body<'_>| match body.u16()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(body.wrong("unknown format code")),
    };
    Ok(match body.count()? {
        0 => Formats::Text,
        1 if one(body)? => Formats::Binary,
        1 => Formats::Text,
        count => Formats::Each((0..count).map(|_| one(body)).collect::<Result<_, _>>()?),
    })
}

struct Body<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn wrong(&self, why: &'static str) -> Malformed {
        Malformed::Body { what: self.what, why }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(self.wrong("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        self.u16().map(usize::from)
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A zero-terminated text.
    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = self.rest.iter().position(|&b| b == 0).ok_or(self.wrong("a text has no end"))?;
        let text = str::from_utf8(&self.rest[..end]).map_err(|_| self.wrong("a text is not UTF-8"))?;
        self.rest = &self.rest[end + 1..];
        Ok(text)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.wrong("bytes after its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![kind];
        out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    const BIND: &[u8] = b"\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\0";

    #[test]
    fn a_bind_reads_back() {
        let bytes = framed(b'B', BIND);
        let (message, length) = message(&bytes, 1000).unwrap().unwrap();
        assert_eq!(length, bytes.len());
        let expected = Bind {
            portal: "",
            statement: "s",
            param_formats: Formats::Binary,
            params: vec![Some(b"hi"), None],
            result_formats: Formats::Text,
        };
        assert_eq!(message, Message::Bind(expected));
    }

    #[test]
    fn every_shortened_body_is_refused_and_every_shortened_stream_waits() {
        let bodies: [(u8, &[u8]); 5] = [
            (b'B', BIND),
            (b'P', b"n\0SELECT 1\0\0\x01\0\0\0\x17"),
            (b'Q', b"x\0"),
            (b'D', b"Sx\0"),
            (b'E', b"\0\0\0\0\0"),
        ];
        for (kind, body) in bodies {
            let whole = framed(kind, body);
            assert!(message(&whole, 1000).unwrap().is_some());
            for cut in 0..body.len() {
                assert!(message(&framed(kind, &body[..cut]), 1000).is_err(), "{} cut to {cut}", kind as char);
            }
            for cut in 0..whole.len() {
                assert_eq!(message(&whole[..cut], 1000), Ok(None));
            }
        }
    }

    #[test]
    fn limits_and_nonsense() {
        assert_eq!(message(b"?", 10), Err(Malformed::Kind(b'?')));
        assert_eq!(message(b"Q\0\0\0\x03", 10), Err(Malformed::Length(3)));
        assert_eq!(message(b"Q\xff\0\0\x03", 10), Err(Malformed::Length(-16_777_213)));
        assert_eq!(message(b"Q\0\0\0\x20", 10), Err(Malformed::TooLong(33, 10)));
        assert!(message(&framed(b'Q', b"\xff\0"), 100).is_err());
    }

    #[test]
    fn the_first_sasl_message() {
        assert_eq!(sasl_initial(b"SCRAM\0\0\0\0\x02hi"), Ok(("SCRAM", &b"hi"[..])));
        for wrong in [
            &b""[..],
            b"SCRAM",
            b"SCRAM\0",
            b"SCRAM\0\xff\xff\xff\xff",
            b"S\0\0\0\0\x02h",
            b"S\0\0\0\0\x01hi",
        ] {
            assert!(sasl_initial(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn startup_packets() {
        assert_eq!(startup(b"\0\0\0\x08\x04\xd2\x16\x2f").unwrap(), Some((Startup::Ssl, 8)));
        let session = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
        let parameters = vec![("user", "me")];
        assert_eq!(startup(session).unwrap(), Some((Startup::Session { minor: 0, parameters }, 17)));
        assert!(startup(b"\0\0\0\x08\0\x02\0\0").is_err());
        assert!(startup(b"GET / HTTP/1.1\r\n").is_err());
    }
}
