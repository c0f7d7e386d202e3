//! Rows to the client's bytes.

use super::BINARY_HEADER;
use crate::pg::types;
use chronos_sql::copy::{Format, Header};
use chronos_sql::zone::Zone;
use chronos_sql::{Batch, Copy, ValueRef, text};

/// Writes the rows of one COPY … TO, each as one piece.
#[derive(Debug)]
pub(in crate::pg) struct Writer<'a> {
    copy: &'a Copy,
    zone: Zone,
    field: Vec<u8>,
    /// Binary data was begun: its header stands before the first row, in one piece with it.
    begun: bool,
}

impl<'a> Writer<'a> {
    pub fn new(copy: &'a Copy, zone: &Zone) -> Writer<'a> {
        Writer { copy, zone: zone.clone(), field: Vec::new(), begun: false }
    }

    /// A line that names the columns, if one is asked for.
    pub fn header(&mut self, out: &mut Vec<u8>) {
        match self.copy.options.header {
            Header::None => {}
            _ => {
                for (place, column) in self.copy.columns.iter().enumerate() {
                    self.field.clear();
                    self.field.extend_from_slice(column.name.as_bytes());
                    self.separate(place, out);
                    self.put(false, out);
                }
                out.push(b'\n');
            }
        }
    }

    /// A row.
    pub fn row(&mut self, batch: &Batch, row: usize, out: &mut Vec<u8>) {
        if self.copy.options.format == Format::Binary {
            self.binary_header(out);
            out.extend_from_slice(&(self.copy.columns.len() as i16).to_be_bytes());
            for (place, column) in self.copy.columns.iter().enumerate() {
                types::write(out, batch.value(row, place), column.ty, true, &self.zone);
            }
            return;
        }
        for place in 0..self.copy.columns.len() {
            self.separate(place, out);
            match batch.value(row, place) {
                ValueRef::Null => out.extend_from_slice(self.copy.options.null.as_bytes()),
                value => {
                    self.field.clear();
                    text::write(value, &self.zone, &mut self.field);
                    self.put(self.copy.options.force_quote[place], out);
                }
            }
        }
        out.push(b'\n');
    }

    /// What comes behind the rows, if anything does.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if self.copy.options.format == Format::Binary {
            self.binary_header(out);
            out.extend_from_slice(&(-1i16).to_be_bytes());
        }
    }

    fn binary_header(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(BINARY_HEADER);
        }
    }

    fn separate(&self, place: usize, out: &mut Vec<u8>) {
        if place > 0 {
            out.push(self.copy.options.delimiter);
        }
    }

    /// The field, so that it reads back.
    fn put(&self, forced: bool, out: &mut Vec<u8>) {
        let options = &self.copy.options;
        if options.format == Format::Csv {
            let special =
                |b: &u8| *b == options.delimiter || *b == options.quote || matches!(b, b'\n' | b'\r');
            let quoted = forced
                || self.field == options.null.as_bytes()
                || self.field.iter().any(special)
                || self.copy.columns.len() == 1 && self.field == b"\\.";
            if !quoted {
                return out.extend_from_slice(&self.field);
            }
            out.push(options.quote);
            for byte in &self.field {
                if *byte == options.quote || *byte == options.escape {
                    out.push(options.escape);
                }
                out.push(*byte);
            }
            return out.push(options.quote);
        }
        for byte in &self.field {
            let letter = match byte {
                8 => b'b',
                12 => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                11 => b'v',
                b'\\' => b'\\',
                byte if *byte == options.delimiter => *byte,
                byte => {
                    out.push(*byte);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
    }
}
