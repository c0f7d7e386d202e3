//! From a line to its fields.

use super::bad_format;
use chronos_sql::SqlError;
use chronos_sql::copy::Options;

/// One field: its bytes, and whether it was NULL's word or (in CSV) quoted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    pub bytes: Vec<u8>,
    pub is_null: bool,
    pub quoted: bool,
}

/// Splits a line of the text format. Escapes are resolved, but for what stands for NULL.
pub(super) fn text(
    line: &[u8],
    options: &Options,
    mut each: impl FnMut(&Field) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let mut field = Field::default();
    let mut begin = 0;
    let mut at = 0;
    loop {
        let byte = line.get(at).copied();
        match byte {
            Some(b'\\') if at + 1 < line.len() => {
                at += 2;
                let escaped = line[at - 1];
                let byte = match escaped {
                    b'b' => 8,
                    b'f' => 12,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'v' => 11,
                    b'0'..=b'7' => number(line, at - 1, 3, 8, &mut at),
                    b'x' if line.get(at).is_some_and(u8::is_ascii_hexdigit) => {
                        number(line, at, 2, 16, &mut at)
                    }
                    other => other,
                };
                field.bytes.push(byte);
                continue;
            }
            Some(byte) if byte != options.delimiter => field.bytes.push(byte),
            end => {
                field.is_null = line[begin..at] == *options.null.as_bytes();
                each(&field)?;
                field.bytes.clear();
                if end.is_none() {
                    return Ok(());
                }
                begin = at + 1;
            }
        }
        at += 1;
    }
}

/// At most `most` digits from `from` on; `at` is left behind them.
fn number(line: &[u8], from: usize, most: usize, base: u32, at: &mut usize) -> u8 {
    let digit = |byte: &u8| (*byte as char).to_digit(base);
    let digits = line[from..].iter().take(most).map_while(digit);
    let (count, value) = digits.fold((0, 0), |(count, value), digit| (count + 1, value * base + digit));
    *at = from + count;
    value as u8
}

/// Splits a line of CSV.
pub(super) fn csv(
    line: &[u8],
    options: &Options,
    mut each: impl FnMut(&Field) -> Result<(), SqlError>,
) -> Result<(), SqlError> {
    let mut field = Field::default();
    let mut inside = false;
    let mut at = 0;
    loop {
        match line.get(at).copied() {
            None if inside => return Err(bad_format("unterminated CSV quoted field")),
            Some(byte) if inside => {
                let next = line.get(at + 1).copied();
                if byte == options.escape && next.is_some_and(|n| n == options.quote || n == options.escape) {
                    field.bytes.extend(next);
                    at += 1;
                } else if byte == options.quote {
                    inside = false;
                } else {
                    field.bytes.push(byte);
                }
            }
            Some(byte) if byte == options.quote => (inside, field.quoted) = (true, true),
            Some(byte) if byte != options.delimiter => field.bytes.push(byte),
            end => {
                field.is_null = !field.quoted && field.bytes == options.null.as_bytes();
                each(&field)?;
                field.bytes.clear();
                field.quoted = false;
                if end.is_none() {
                    return Ok(());
                }
            }
        }
        at += 1;
    }
}
