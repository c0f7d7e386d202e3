//! The client's bytes, in pieces of any size, to rows.

use super::fields::{self, Field};
use super::lines::Lines;
use super::{SIGNATURE, bad_format};
use crate::pg::types;
use chronos_proto::limits::TRANSACTION_MAX_BYTES;
use chronos_proto::{Type, Value};
use chronos_sql::copy::{Format, Header};
use chronos_sql::zone::Zone;
use chronos_sql::{Batch, Copy, Gather, SqlError, SqlState, text};

/// The rows of one COPY … FROM, as far as they came.
#[derive(Debug)]
pub(in crate::pg) struct Reader {
    copy: Copy,
    rows: Gather,
    lines: Lines,
    /// What is not a whole line or row yet.
    pending: Vec<u8>,
    /// Lines or rows before.
    line: u64,
    /// The header, where there is one, was read.
    begun: bool,
    /// The data said that it ends; what follows is not looked at.
    ended: bool,
}

impl Reader {
    pub fn new(copy: &Copy) -> Reader {
        Reader {
            rows: Gather::new(&copy.columns),
            lines: Lines::new(&copy.options),
            copy: copy.clone(),
            pending: Vec::new(),
            line: 0,
            begun: copy.options.format != Format::Binary && copy.options.header == Header::None,
            ended: false,
        }
    }

    /// Takes a piece.
    pub fn feed(&mut self, piece: &[u8], zone: &Zone) -> Result<(), SqlError> {
        self.pending.extend_from_slice(piece);
        self.take(false, zone)
    }

    /// The rows, once all has come.
    pub fn finish(mut self, zone: &Zone) -> Result<Vec<Batch>, SqlError> {
        self.take(true, zone)?;
        if self.copy.options.format == Format::Binary && !self.begun {
            return Err(bad_format("COPY file signature not recognized"));
        }
        if self.copy.options.format == Format::Binary && !self.ended {
            return Err(bad_format("unexpected EOF in COPY data"));
        }
        Ok(self.rows.finish())
    }

    fn take(&mut self, end: bool, zone: &Zone) -> Result<(), SqlError> {
        let pending = std::mem::take(&mut self.pending);
        let mut rest = &pending[..];
        let taken = match self.copy.options.format {
            Format::Binary => self.binary(&mut rest),
            _ => self.text(&mut rest, end, zone),
        };
        self.pending = if self.ended { Vec::new() } else { rest.to_vec() };
        taken?;
        if self.rows.bytes() > TRANSACTION_MAX_BYTES {
            let message = format!(
                "COPY is more than the limit of {} MB of one transaction",
                TRANSACTION_MAX_BYTES >> 20
            );
            return Err(SqlError::new(SqlState::LIMIT_EXCEEDED, message).hint("split it into several"));
        }
        Ok(())
    }

    fn text(&mut self, rest: &mut &[u8], end: bool, zone: &Zone) -> Result<(), SqlError> {
        while !self.ended {
            let found = self.lines.next(rest, end).map_err(|e| self.in_next(e))?;
            let Some((length, whole)) = found else { return Ok(()) };
            let line = &rest[..length];
            *rest = &rest[whole..];
            self.line += 1;
            if line == b"\\." {
                self.ended = true;
            } else if self.begun {
                self.row(line, zone)?;
            } else {
                self.begun = true;
                self.header(line)?;
            }
        }
        Ok(())
    }

    /// The first line, where it names the columns.
    fn header(&self, line: &[u8]) -> Result<(), SqlError> {
        if self.copy.options.header != Header::Match {
            return Ok(());
        }
        let mut names = Vec::new();
        self.split(line, |field| {
            names.push(String::from_utf8_lossy(&field.bytes).into_owned());
            Ok(())
        })?;
        let columns = &self.copy.columns;
        if names.len() != columns.len() {
            let message = format!(
                "wrong number of fields in header line: got {}, expected {}",
                names.len(),
                columns.len()
            );
            return Err(self.at(bad_format(message), None));
        }
        match names.iter().zip(columns.iter()).position(|(name, column)| *name != column.name) {
            None => Ok(()),
            Some(i) => {
                let (got, expected) = (&names[i], &columns[i].name);
                let message = format!(
                    "column name mismatch in header line field {}: got \"{got}\", expected \"{expected}\"",
                    i + 1
                );
                Err(self.at(bad_format(message), None))
            }
        }
    }

    fn split(&self, line: &[u8], each: impl FnMut(&Field) -> Result<(), SqlError>) -> Result<(), SqlError> {
        match self.copy.options.format {
            Format::Csv => fields::csv(line, &self.copy.options, each),
            _ => fields::text(line, &self.copy.options, each),
        }
    }

    fn row(&mut self, line: &[u8], zone: &Zone) -> Result<(), SqlError> {
        let Copy { columns, options, .. } = &self.copy;
        let rows = &mut self.rows;
        let mut count = 0;
        let mut column = None;
        let each = |field: &Field| {
            let place = count;
            count += 1;
            let Some(desc) = columns.get(place) else {
                column = None;
                return Err(bad_format("extra data after last expected column"));
            };
            column = Some(place);
            let forced = options.force_null[place] && field.bytes == options.null.as_bytes();
            let is_null = field.is_null && !options.force_not_null[place] || forced;
            let value = if is_null { Value::Null } else { read(&field.bytes, desc.ty, zone)? };
            rows.push(place, &value);
            Ok(())
        };
        let split = match options.format {
            Format::Csv => fields::csv(line, options, each),
            _ => fields::text(line, options, each),
        };
        split.map_err(|e| self.at(e, column))?;
        if let Some(missing) = self.copy.columns.get(count) {
            let message = format!("missing data for column \"{}\"", missing.name);
            return Err(self.at(bad_format(message), None));
        }
        self.rows.end_row();
        Ok(())
    }

    fn binary(&mut self, rest: &mut &[u8]) -> Result<(), SqlError> {
        if !self.begun {
            let Some(header) = rest.get(..SIGNATURE.len() + 8) else { return Ok(()) };
            let (signature, words) = header.split_at(SIGNATURE.len());
            if signature != SIGNATURE {
                return Err(bad_format("COPY file signature not recognized"));
            }
            if words[..2] != [0, 0] {
                return Err(bad_format("unrecognized critical flags in COPY file header"));
            }
            let extension = u32::from_be_bytes([words[4], words[5], words[6], words[7]]) as usize;
            let Some(body) = rest.get(header.len() + extension..) else { return Ok(()) };
            *rest = body;
            self.begun = true;
        }
        while !self.ended {
            let Some(count) = rest.first_chunk::<2>().map(|count| i16::from_be_bytes(*count)) else {
                return Ok(());
            };
            if count == -1 {
                self.ended = true;
                return Ok(());
            }
            if usize::try_from(count) != Ok(self.copy.columns.len()) {
                let message = format!("row field count is {count}, expected {}", self.copy.columns.len());
                return Err(self.in_next(bad_format(message)));
            }
            let Some((fields, after)) = binary_fields(&rest[2..], count as usize)? else { return Ok(()) };
            self.line += 1;
            for (place, bytes) in fields.into_iter().enumerate() {
                let ty = self.copy.columns[place].ty;
                let value = types::read(place + 1, bytes, true, 0, ty, &Zone::default())
                    .map_err(|e| self.at(e, Some(place)))?;
                self.rows.push(place, &value);
            }
            self.rows.end_row();
            *rest = after;
        }
        Ok(())
    }

    /// An error in the line or row that is to be read next.
    fn in_next(&mut self, error: SqlError) -> SqlError {
        self.line += 1;
        self.at(error, None)
    }

    /// Says where in the data an error is.
    fn at(&self, mut error: SqlError, column: Option<usize>) -> SqlError {
        let mut place = format!("COPY {}, line {}", self.copy.table, self.line);
        if let Some(column) = column.and_then(|place| self.copy.columns.get(place)) {
            place.push_str(&format!(", column {}", column.name));
        }
        error.context = Some(place);
        error
    }
}

/// A field of text as its type.
fn read(bytes: &[u8], ty: Type, zone: &Zone) -> Result<Value, SqlError> {
    let words = std::str::from_utf8(bytes).ok().filter(|words| !words.contains('\0'));
    let words = words.ok_or_else(|| {
        SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\"")
    })?;
    text::parse_in(words, ty, zone)
}

/// The fields of a row, NULL as none, and what follows.
type Fields<'a> = (Vec<Option<&'a [u8]>>, &'a [u8]);

/// Reads a row; none if it is not all there.
fn binary_fields(mut rest: &[u8], count: usize) -> Result<Option<Fields<'_>>, SqlError> {
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((length, after)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*length);
        rest = after;
        if length == -1 {
            fields.push(None);
            continue;
        }
        let length = usize::try_from(length).map_err(|_| bad_format("invalid field size"))?;
        let Some((field, after)) = rest.split_at_checked(length) else { return Ok(None) };
        fields.push(Some(field));
        rest = after;
    }
    Ok(Some((fields, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos_sql::copy::Options;
    use chronos_sql::{ColumnDesc, ValueRef};

    fn copy(format: Format) -> Copy {
        let column = |name: &str, ty| ColumnDesc { name: name.into(), ty, origin: None };
        let csv = format == Format::Csv;
        let options = Options {
            format,
            delimiter: if csv { b',' } else { b'\t' },
            null: if csv { String::new() } else { "\\N".into() },
            header: Header::None,
            quote: b'"',
            escape: b'"',
            force_quote: vec![false; 2],
            force_not_null: vec![false; 2],
            force_null: vec![false; 2],
        };
        let columns = vec![column("a", Type::Integer), column("b", Type::Text)];
        Copy { from: true, table: "t".into(), columns: columns.into(), options }
    }

    type Rows = Vec<(Option<i64>, Option<String>)>;

    /// The rows of pieces of this length.
    fn rows(format: Format, data: &[u8], piece: usize) -> Result<Rows, String> {
        let mut reader = Reader::new(&copy(format));
        let zone = Zone::default();
        let shown = |e: SqlError| format!("{} {}", e.code.as_str(), e.context.unwrap_or_default());
        for piece in data.chunks(piece) {
            reader.feed(piece, &zone).map_err(shown)?;
        }
        let mut out = Vec::new();
        for batch in reader.finish(&zone).map_err(shown)? {
            for row in 0..batch.len() {
                let number = if let ValueRef::Int(i) = batch.value(row, 0) { Some(i) } else { None };
                let words =
                    if let ValueRef::Text(s) = batch.value(row, 1) { Some(s.to_owned()) } else { None };
                out.push((number, words));
            }
        }
        Ok(out)
    }

    #[test]
    fn pieces_of_any_length_give_the_same_rows() {
        let text = b"1\ta\\tb\\\nc\\\\\\101\\x41\\q\r\n2\t\\N\r\n\\N\t\r\n3\t\\\\N".as_slice();
        let csv = b"1,\"a\"\"b\n,\"x\r\n2,\r\n,\"\"\r\n3,plain".as_slice();
        let mut binary = crate::pg::copy::BINARY_HEADER.to_vec();
        binary.extend_from_slice(b"\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x02hi");
        binary.extend_from_slice(b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xffleft over");
        let some = |n, s: &str| (Some(n), Some(s.to_owned()));
        let of_text =
            vec![some(1, "a\tb\nc\\AAq"), (Some(2), None), (None, Some(String::new())), some(3, "\\N")];
        let of_csv =
            vec![some(1, "a\"b\n,x"), (Some(2), None), (None, Some(String::new())), some(3, "plain")];
        let of_binary = vec![some(7, "hi"), (None, None)];
        for piece in 1..40 {
            assert_eq!(rows(Format::Text, text, piece).as_ref(), Ok(&of_text), "text by {piece}");
            assert_eq!(rows(Format::Csv, csv, piece).as_ref(), Ok(&of_csv), "CSV by {piece}");
            assert_eq!(rows(Format::Binary, &binary, piece).as_ref(), Ok(&of_binary), "binary by {piece}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases: [(Format, &[u8], &str); 9] = [
            (Format::Text, b"1\ta\nx\tb\n", "22P02 COPY t, line 2, column a"),
            (Format::Text, b"1\ta\n2\n", "22P04 COPY t, line 2"),
            (Format::Text, b"1\ta\tb\n", "22P04 COPY t, line 1"),
            (Format::Text, b"1\ta\n2\tb\rc\n", "22P04 COPY t, line 2"),
            (Format::Text, b"1\t\xff\n", "22021 COPY t, line 1, column b"),
            (Format::Csv, b"1,\"a\n2,b\n", "22P04 COPY t, line 1"),
            (Format::Binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x03", "22P04 COPY t, line 1"),
            (Format::Binary, b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0", "22P04 "),
            (Format::Binary, b"", "22P04 "),
        ];
        for (format, data, expected) in cases {
            assert_eq!(rows(format, data, 5), Err(expected.to_owned()), "{}", data.escape_ascii());
        }
        assert_eq!(rows(Format::Text, b"1\ta\n\\.\nnot looked at", 3).map(|rows| rows.len()), Ok(1));
    }

    #[test]
    fn no_bytes_panic() {
        let mut seed = 7u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        let alphabet = b"\\\"\n\r\t,.N1x\0\xff\x02";
        for _ in 0..20_000 {
            let mut data: Vec<u8> = (0..random() % 24).map(|_| alphabet[random() % alphabet.len()]).collect();
            let format = [Format::Text, Format::Csv, Format::Binary][random() % 3];
            if format == Format::Binary && random() % 4 > 0 {
                data.splice(0..0, crate::pg::copy::BINARY_HEADER.iter().copied());
            }
            let _ = rows(format, &data, 1 + random() % 8);
        }
    }
}
