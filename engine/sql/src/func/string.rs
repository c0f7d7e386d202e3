//! Text and bytes.

use super::{float, functions, int, str, text};
use crate::error::{SqlError, SqlState};
use crate::exec::eval::EvalCx;
use crate::exec::vector::ValueRef;
use crate::text::format;
use bytes::Bytes;
use chronos_proto::{Type, Value};

/// The longest string that a function makes: `repeat` and the pads are bounded by it.
const STRING_MAX_BYTES: usize = 64 << 20;

functions! { TABLE:
    "||" (Text, Text) -> Text Immutable Row |a, _| text([str(a[0]), str(a[1])].concat());
    "||" (Text, any) -> Text Immutable Row |a, _| text([str(a[0]), &cast(a[1])].concat());
    "||" (any, Text) -> Text Immutable Row |a, _| text([&cast(a[0]), str(a[1])].concat());
    "||" (Bytes, Bytes) -> Bytes Immutable Row |a, _| Ok(Value::Bytes(Bytes::from([blob(a[0]), blob(a[1])].concat())));
    "concat" (any) variadic -> Text Stable RowNulls |a, _| text(a.iter().map(|v| shown(*v)).collect::<String>());
    "concat_ws" (Text, any) variadic -> Text Stable RowNulls |a, _| {
        if a[0].is_null() {
            return Ok(Value::Null);
        }
        text(a[1..].iter().filter(|v| !v.is_null()).map(|v| shown(*v)).collect::<Vec<_>>().join(str(a[0])))
    };
    "lower" (Text) -> Text Immutable Row |a, _| text(str(a[0]).to_lowercase());
    "upper" (Text) -> Text Immutable Row |a, _| text(str(a[0]).chars().map(upper).collect::<String>());
    "initcap" (Text) -> Text Immutable Row |a, _| {
        let mut fresh = true;
        let each = |c: char| {
            let out: String = if fresh { upper(c).into() } else { c.to_lowercase().collect() };
            fresh = !c.is_alphanumeric();
            out
        };
        text(str(a[0]).chars().map(each).collect::<String>())
    };
    "length" (Text) -> Integer Immutable Row |a, _| Ok(Value::Int(str(a[0]).chars().count() as i64));
    "char_length" (Text) -> Integer Immutable Row |a, _| Ok(Value::Int(str(a[0]).chars().count() as i64));
    "character_length" (Text) -> Integer Immutable Row |a, _| Ok(Value::Int(str(a[0]).chars().count() as i64));
    "octet_length" (Text) -> Integer Immutable Row |a, _| Ok(Value::Int(str(a[0]).len() as i64));
    "length" (Bytes) -> Integer Immutable Row |a, _| Ok(Value::Int(blob(a[0]).len() as i64));
    "octet_length" (Bytes) -> Integer Immutable Row |a, _| Ok(Value::Int(blob(a[0]).len() as i64));
    "bit_length" (Text) -> Integer Immutable Row |a, _| Ok(Value::Int(str(a[0]).len() as i64 * 8));
    "substr" (Text, Int) -> Text Immutable Row |a, _| substring(str(a[0]), int(a[1]), None);
    "substr" (Text, Int, Int) -> Text Immutable Row |a, _| substring(str(a[0]), int(a[1]), Some(int(a[2])));
    "substring" (Text, Int) -> Text Immutable Row |a, _| substring(str(a[0]), int(a[1]), None);
    "substring" (Text, Int, Int) -> Text Immutable Row |a, _| substring(str(a[0]), int(a[1]), Some(int(a[2])));
    "left" (Text, Int) -> Text Immutable Row |a, _| text(left(str(a[0]), int(a[1])));
    "right" (Text, Int) -> Text Immutable Row |a, _| {
        let count = str(a[0]).chars().count() as i64;
        let skip = if int(a[1]) >= 0 { (count - int(a[1]).min(count)).max(0) } else { int(a[1]).saturating_neg() };
        text(str(a[0]).chars().skip(usize::try_from(skip).unwrap_or(usize::MAX)).collect::<String>())
    };
    "btrim" (Text) -> Text Immutable Row |a, _| text(str(a[0]).trim_matches(' '));
    "ltrim" (Text) -> Text Immutable Row |a, _| text(str(a[0]).trim_start_matches(' '));
    "rtrim" (Text) -> Text Immutable Row |a, _| text(str(a[0]).trim_end_matches(' '));
    "btrim" (Text, Text) -> Text Immutable Row |a, _| text(str(a[0]).trim_matches(|c| str(a[1]).contains(c)));
    "ltrim" (Text, Text) -> Text Immutable Row |a, _| text(str(a[0]).trim_start_matches(|c| str(a[1]).contains(c)));
    "rtrim" (Text, Text) -> Text Immutable Row |a, _| text(str(a[0]).trim_end_matches(|c| str(a[1]).contains(c)));
    "lpad" (Text, Int) -> Text Immutable Row |a, _| pad(str(a[0]), int(a[1]), " ", true);
    "lpad" (Text, Int, Text) -> Text Immutable Row |a, _| pad(str(a[0]), int(a[1]), str(a[2]), true);
    "rpad" (Text, Int) -> Text Immutable Row |a, _| pad(str(a[0]), int(a[1]), " ", false);
    "rpad" (Text, Int, Text) -> Text Immutable Row |a, _| pad(str(a[0]), int(a[1]), str(a[2]), false);
    "repeat" (Text, Int) -> Text Immutable Row |a, _| {
        let count = usize::try_from(int(a[1])).unwrap_or(0);
        bounded(str(a[0]).len().saturating_mul(count))?;
        text(str(a[0]).repeat(count))
    };
    "replace" (Text, Text, Text) -> Text Immutable Row |a, _| {
        if str(a[1]).is_empty() {
            return text(str(a[0]));
        }
        bounded(str(a[0]).matches(str(a[1])).count().saturating_mul(str(a[2]).len()))?;
        text(str(a[0]).replace(str(a[1]), str(a[2])))
    };
    "translate" (Text, Text, Text) -> Text Immutable Row |a, _| {
        let to: Vec<char> = str(a[2]).chars().collect();
        let each = |c: char| match str(a[1]).chars().position(|f| f == c) {
            Some(i) => to.get(i).copied(),
            None => Some(c),
        };
        text(str(a[0]).chars().filter_map(each).collect::<String>())
    };
    "reverse" (Text) -> Text Immutable Row |a, _| text(str(a[0]).chars().rev().collect::<String>());
    "strpos" (Text, Text) -> Integer Immutable Row |a, _| Ok(Value::Int(position(str(a[1]), str(a[0]))));
    "position" (Text, Text) -> Integer Immutable Row |a, _| Ok(Value::Int(position(str(a[0]), str(a[1]))));
    "starts_with" (Text, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(str(a[0]).starts_with(str(a[1]))));
    "^@" (Text, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(str(a[0]).starts_with(str(a[1]))));
    "split_part" (Text, Text, Int) -> Text Immutable Row |a, _| {
        let n = int(a[2]);
        if n == 0 {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER, "field position must not be zero"));
        }
        let parts: Vec<&str> = if str(a[1]).is_empty() { vec![str(a[0])] } else { str(a[0]).split(str(a[1])).collect() };
        let at = if n > 0 { n - 1 } else { parts.len() as i64 + n };
        text(usize::try_from(at).ok().and_then(|i| parts.get(i)).copied().unwrap_or_default())
    };
    "ascii" (Text) -> Integer Immutable Row |a, _| Ok(Value::Int(str(a[0]).chars().next().map_or(0, |c| i64::from(u32::from(c)))));
    "chr" (Int) -> Text Immutable Row |a, _| {
        let c = u32::try_from(int(a[0])).ok().filter(|c| *c != 0).and_then(char::from_u32);
        let c = c.ok_or_else(|| SqlError::new(SqlState::LIMIT_EXCEEDED, "requested character is not valid"))?;
        text(c.to_string())
    };
    "to_hex" (Integer) -> Text Immutable Row |a, _| text(format!("{:x}", int(a[0]) as i32));
    "to_hex" (Int) -> Text Immutable Row |a, _| text(format!("{:x}", int(a[0])));
    "encode" (Bytes, Text) -> Text Immutable Row |a, _| match str(a[1]) {
        "hex" => text(blob(a[0]).iter().map(|b| format!("{b:02x}")).collect::<String>()),
        "escape" => text(blob(a[0]).iter().map(|b| match b {
            b'\\' => "\\\\".to_owned(),
            0x20..=0x7E => char::from(*b).to_string(),
            _ => format!("\\{b:03o}"),
        }).collect::<String>()),
        "base64" => text(base64(blob(a[0]))),
        other => Err(SqlError::new(SqlState::INVALID_PARAMETER, format!("unrecognized encoding: \"{other}\""))),
    };
    "decode" (Text, Text) -> Bytes Immutable Row |a, _| match str(a[1]) {
        "hex" => crate::text::parse(&format!("\\x{}", str(a[0])), Type::Bytes),
        "escape" => crate::text::parse(str(a[0]), Type::Bytes),
        "base64" => unbase64(str(a[0])).map(|b| Value::Bytes(Bytes::from(b))).ok_or_else(|| {
            SqlError::new(SqlState::INVALID_PARAMETER, "invalid base64")
        }),
        other => Err(SqlError::new(SqlState::INVALID_PARAMETER, format!("unrecognized encoding: \"{other}\""))),
    };
    "convert_from" (Bytes, Text) -> Text Immutable Row |a, _| match std::str::from_utf8(blob(a[0])) {
        Ok(s) => text(s),
        Err(_) => Err(SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, "invalid byte sequence for encoding \"UTF8\"")),
    };
    "convert_to" (Text, Text) -> Bytes Immutable Row |a, _| Ok(Value::Bytes(Bytes::copy_from_slice(str(a[0]).as_bytes())));
    "quote_ident" (Text) -> Text Immutable Row |a, _| {
        let plain = !str(a[0]).is_empty()
            && !str(a[0]).starts_with(|c: char| c.is_ascii_digit())
            && str(a[0]).bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        text(if plain { str(a[0]).to_owned() } else { format!("\"{}\"", str(a[0]).replace('"', "\"\"")) })
    };
    "quote_literal" (Text) -> Text Immutable Row |a, _| text(format!("'{}'", str(a[0]).replace('\'', "''")));
    "like" (Text, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(like(str(a[0]), str(a[1]), Some('\\'), false)?));
    "ilike" (Text, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(like(str(a[0]), str(a[1]), Some('\\'), true)?));
    "like" (Text, Text, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(like(str(a[0]), str(a[1]), escape(str(a[2]))?, false)?));
    "ilike" (Text, Text, Text) -> Bool Immutable Row |a, _| Ok(Value::Bool(like(str(a[0]), str(a[1]), escape(str(a[2]))?, true)?));
    "md5" (Text) -> Text Immutable Row |a, _| text(md5(str(a[0]).as_bytes()));
    "gen_random_uuid" () -> Uuid Volatile Row gen_random_uuid;
    "uuid_generate_v4" () -> Uuid Volatile Row gen_random_uuid;
    "to_char" (Float, Text) -> Text Immutable Row |a, _| number_to_char(float(a[0]), str(a[1]));
}

/// Letters whose capital is several stay as they are.
fn upper(c: char) -> char {
    let mut capitals = c.to_uppercase();
    match (capitals.next(), capitals.next()) {
        (Some(capital), None) => capital,
        _ => c,
    }
}

/// As a cast to text has it.
fn cast(v: ValueRef<'_>) -> String {
    match v {
        ValueRef::Bool(b) => b.to_string(),
        v => shown(v),
    }
}

fn shown(v: ValueRef<'_>) -> String {
    format(v)
}

fn blob(v: ValueRef<'_>) -> &[u8] {
    if let ValueRef::Bytes(b) = v { b } else { &[] }
}

pub(super) fn bounded(bytes: usize) -> Result<(), SqlError> {
    if bytes <= STRING_MAX_BYTES {
        return Ok(());
    }
    Err(SqlError::new(SqlState::LIMIT_EXCEEDED, "requested length too large"))
}

fn substring(s: &str, from: i64, count: Option<i64>) -> Result<Value, SqlError> {
    if count.is_some_and(|c| c < 0) {
        return Err(SqlError::new(SqlState::SUBSTRING_ERROR, "negative substring length not allowed"));
    }
    let end = count.map_or(i64::MAX, |c| from.saturating_add(c));
    let start = from.max(1);
    let skip = usize::try_from(start - 1).unwrap_or(usize::MAX);
    let take = usize::try_from(end.saturating_sub(start).max(0)).unwrap_or(usize::MAX);
    text(s.chars().skip(skip).take(take).collect::<String>())
}

fn left(s: &str, n: i64) -> String {
    let take = if n >= 0 { n } else { (s.chars().count() as i64).saturating_add(n).max(0) };
    s.chars().take(usize::try_from(take).unwrap_or(usize::MAX)).collect()
}

fn pad(s: &str, length: i64, fill: &str, front: bool) -> Result<Value, SqlError> {
    let length = usize::try_from(length).unwrap_or(0);
    bounded(length)?;
    let have = s.chars().count();
    if have >= length || fill.is_empty() {
        return text(s.chars().take(length).collect::<String>());
    }
    let filling: String = fill.chars().cycle().take(length - have).collect();
    text(if front { filling + s } else { s.to_owned() + &filling })
}

fn position(needle: &str, hay: &str) -> i64 {
    hay.find(needle).map_or(0, |at| hay[..at].chars().count() as i64 + 1)
}

pub(super) fn escape(s: &str) -> Result<Option<char>, SqlError> {
    let mut chars = s.chars();
    match (chars.next(), chars.next()) {
        (None, _) => Ok(None),
        (one, None) => Ok(one),
        _ => Err(SqlError::new(SqlState::INVALID_ESCAPE, "invalid escape string")
            .hint("Escape string must be empty or one character.")),
    }
}

/// LIKE: `%` any run, `_` any one. Backtracks only to the last `%`, so it is never worse than quadratic.
pub(crate) fn like(s: &str, pattern: &str, escape: Option<char>, fold: bool) -> Result<bool, SqlError> {
    enum Part {
        Run,
        One,
        Char(char),
    }
    let mut parts = Vec::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            c if Some(c) == escape => match chars.next() {
                Some(next) => Part::Char(next),
                None => {
                    return Err(SqlError::new(
                        SqlState::INVALID_ESCAPE,
                        "LIKE pattern must not end with escape character",
                    ));
                }
            },
            '%' => Part::Run,
            '_' => Part::One,
            c => Part::Char(c),
        });
    }
    let same = |a: char, b: char| a == b || fold && a.to_lowercase().eq(b.to_lowercase());
    let text: Vec<char> = s.chars().collect();
    let (mut at, mut part) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let matched = match parts.get(part) {
            Some(Part::Run) => {
                retry = Some((at, part));
                part += 1;
                continue;
            }
            Some(Part::One) => at < text.len(),
            Some(Part::Char(c)) => text.get(at).is_some_and(|t| same(*t, *c)),
            None if at == text.len() => return Ok(true),
            None => false,
        };
        if matched {
            at += 1;
            part += 1;
            continue;
        }
        match retry {
            Some((from, run)) if from < text.len() => {
                retry = Some((from + 1, run));
                (at, part) = (from + 1, run + 1);
            }
            _ => return Ok(false),
        }
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let n = (0..3).fold(0u32, |n, i| n << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = char::from(BASE64[(n >> (18 - 6 * i) & 63) as usize]);
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

fn unbase64(s: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = s.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let body = digits.iter().rposition(|b| *b != b'=').map_or(0, |i| i + 1);
    if !digits.len().is_multiple_of(4) || digits.len() - body > 2 {
        return None;
    }
    let (mut bits, mut n, mut out) = (0u32, 0, Vec::new());
    for b in &digits[..body] {
        n = n << 6 | BASE64.iter().position(|d| d == b)? as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((n >> bits) as u8);
            n &= (1 << bits) - 1;
        }
    }
    Some(out)
}

/// A random UUID from the statement's seed (version 4).
fn gen_random_uuid(_: &[ValueRef<'_>], cx: &EvalCx<'_>) -> Result<Value, SqlError> {
    Ok(Value::Uuid(uuid(cx)))
}

pub(crate) fn uuid(cx: &EvalCx<'_>) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&cx.random().to_be_bytes());
    out[8..].copy_from_slice(&cx.random().to_be_bytes());
    out[6] = out[6] & 0x0F | 0x40;
    out[8] = out[8] & 0x3F | 0x80;
    out
}

/// The number patterns in daily use: `9`, `0`, `.`, `,` and `FM`.
fn number_to_char(x: f64, format: &str) -> Result<Value, SqlError> {
    let (fill, body) = match format.strip_prefix("FM") {
        Some(body) => (false, body),
        None => (true, format),
    };
    if !body.chars().all(|c| matches!(c, '9' | '0' | '.' | ',')) {
        return Err(SqlError::unsupported(format!("to_char format \"{format}\"")));
    }
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    let number = format!("{:.*}", fraction.len(), x.abs());
    let (digits, decimals) = number.split_once('.').unwrap_or((&number, ""));
    let places = whole.chars().filter(|c| *c != ',').count();
    if digits.len() > places && digits != "0" {
        return text("#".repeat(body.len() + usize::from(fill)));
    }
    let padded = format!("{digits:>places$}");
    let mut source = padded.chars();
    let mut out = String::new();
    let mut begun = false;
    for c in whole.chars() {
        if c == ',' {
            out.push_str(if begun {
                ","
            } else if fill {
                " "
            } else {
                ""
            });
            continue;
        }
        let d = source.next().unwrap_or(' ');
        begun |= d != ' ' || c == '0';
        match d {
            ' ' if begun => out.push('0'),
            ' ' if !fill => {}
            d => out.push(d),
        }
    }
    let sign = if x < 0.0 {
        "-"
    } else if fill {
        " "
    } else {
        ""
    };
    let lead = out.len() - out.trim_start().len();
    let point = if fraction.is_empty() { "" } else { "." };
    text(format!("{}{sign}{}{point}{decimals}", &out[..lead], &out[lead..]))
}

/// RFC 1321, for the programs that ask for it; not for secrets.
fn md5(input: &[u8]) -> String {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut message = input.to_vec();
    message.push(0x80);
    message.resize((message.len() + 8).div_ceil(64) * 64 - 8, 0);
    message.extend_from_slice(&(input.len() as u64 * 8).to_le_bytes());
    let mut state = [0x6745_2301u32, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];
    for block in message.chunks_exact(64) {
        let word = |i: usize| {
            u32::from_le_bytes([block[4 * i], block[4 * i + 1], block[4 * i + 2], block[4 * i + 3]])
        };
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64 {
            let (f, g) = match i / 16 {
                0 => ((b & c) | (!b & d), i),
                1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
                2 => (b ^ c ^ d, (3 * i + 5) % 16),
                _ => (c ^ (b | !d), 7 * i % 16),
            };
            let k = (((i + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(f).wrapping_add(k).wrapping_add(word(g));
            (a, d, c, b) = (d, c, b, b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4])));
        }
        for (s, v) in state.iter_mut().zip([a, b, c, d]) {
            *s = s.wrapping_add(v);
        }
    }
    state.iter().flat_map(|s| s.to_le_bytes()).map(|b| format!("{b:02x}")).collect()
}
