//! Where a line ends, across pieces of any size.

use super::bad_format;
use chronos_sql::SqlError;
use chronos_sql::copy::{Format, Options};

/// How lines end: as the first one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Unknown,
    Feed,
    Return,
    Both,
}

/// Finds line after line in bytes that grow at their end.
#[derive(Debug)]
pub(super) struct Lines {
    csv: bool,
    quote: u8,
    escape: u8,
    ending: Ending,
    /// What has been looked at of the line that is not whole yet.
    at: usize,
    quoted: bool,
}

impl Lines {
    pub fn new(options: &Options) -> Lines {
        let csv = options.format == Format::Csv;
        let (quote, escape) = (options.quote, options.escape);
        Lines { csv, quote, escape, ending: Ending::Unknown, at: 0, quoted: false }
    }

    /// The length of the first line and of the line with its end; none if it is not whole. At the end of the data,
    /// what is left is one.
    pub fn next(&mut self, data: &[u8], end: bool) -> Result<Option<(usize, usize)>, SqlError> {
        while let Some(&byte) = data.get(self.at) {
            let next = data.get(self.at + 1).copied();
            match byte {
                b'\\' if !self.csv => {
                    if next.is_none() && !end {
                        return Ok(None);
                    }
                    self.at += 1;
                }
                byte if self.csv && self.quoted && byte == self.escape && byte != self.quote => {
                    if next.is_none() && !end {
                        return Ok(None);
                    }
                    if next.is_some_and(|next| next == self.quote || next == self.escape) {
                        self.at += 1;
                    }
                }
                byte if self.csv && byte == self.quote => self.quoted = !self.quoted,
                b'\n' if !self.quoted => match self.ending {
                    Ending::Unknown | Ending::Feed => {
                        self.ending = Ending::Feed;
                        return Ok(Some(self.found(1)));
                    }
                    _ => return Err(self.unexpected("newline", "\\n")),
                },
                b'\r' if !self.quoted => match (self.ending, next) {
                    (Ending::Unknown | Ending::Both, None) if !end => return Ok(None),
                    (Ending::Unknown | Ending::Both, Some(b'\n')) => {
                        self.ending = Ending::Both;
                        return Ok(Some(self.found(2)));
                    }
                    (Ending::Unknown | Ending::Return, _) => {
                        self.ending = Ending::Return;
                        return Ok(Some(self.found(1)));
                    }
                    _ => return Err(self.unexpected("carriage return", "\\r")),
                },
                _ => {}
            }
            self.at += 1;
        }
        if !end || data.is_empty() {
            return Ok(None);
        }
        if self.quoted {
            return Err(bad_format("unterminated CSV quoted field"));
        }
        self.at = 0;
        Ok(Some((data.len(), data.len())))
    }

    fn found(&mut self, ending: usize) -> (usize, usize) {
        let length = std::mem::take(&mut self.at);
        (length, length + ending)
    }

    fn unexpected(&self, what: &str, written: &str) -> SqlError {
        if self.csv {
            return bad_format(format!("unquoted {what} found in data"))
                .hint(format!("Use quoted CSV field to represent {what}."));
        }
        bad_format(format!("literal {what} found in data"))
            .hint(format!("Use \"{written}\" to represent {what}."))
    }
}
