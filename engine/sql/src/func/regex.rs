//! Regular expressions: PostgreSQL's advanced ones where they mean the same to the crate, which takes linear time.

use super::{functions, int, str, text};
use crate::array::flat;
use crate::error::{SqlError, SqlState};
use crate::exec::vector::ValueRef;
use chronos_proto::Value;
use chronos_proto::value::Element;
use regex::{Captures, Regex, RegexBuilder};
use std::cell::RefCell;
use std::rc::Rc;

/// Memory that a compiled pattern may take.
const PATTERN_MAX_BYTES: usize = 1 << 20;
/// Compiled patterns kept by a thread.
const KEPT: usize = 16;

functions! { TABLE:
    "~" (Text, Text) -> Bool Immutable Row |a, _| matches(a, "");
    "~*" (Text, Text) -> Bool Immutable Row |a, _| matches(a, "i");
    "regexp_like" (Text, Text) -> Bool Immutable Row |a, _| matches(a, "");
    "regexp_like" (Text, Text, Text) -> Bool Immutable Row |a, _| matches(a, str(a[2]));
    "similar to" (Text, Text) -> Bool Immutable Row |a, _| similar(a, Some('\\'));
    "similar to" (Text, Text, Text) -> Bool Immutable Row |a, _| similar(a, super::string::escape(str(a[2]))?);
    "regexp_replace" (Text, Text, Text) -> Text Immutable Row |a, _| replace(a, "");
    "regexp_replace" (Text, Text, Text, Text) -> Text Immutable Row |a, _| replace(a, str(a[3]));
    "regexp_match" (Text, Text) -> [Text] Immutable Row |a, _| first(a, "");
    "regexp_match" (Text, Text, Text) -> [Text] Immutable Row |a, _| first(a, str(a[2]));
    "regexp_split_to_array" (Text, Text) -> [Text] Immutable Row |a, _| split(a, "");
    "regexp_split_to_array" (Text, Text, Text) -> [Text] Immutable Row |a, _| split(a, str(a[2]));
    "regexp_count" (Text, Text) -> Integer Immutable Row |a, _| {
        Ok(Value::Int(compiled(str(a[1]), "")?.find_iter(str(a[0])).count() as i64))
    };
    "regexp_count" (Text, Text, Integer) -> Integer Immutable Row |a, _| {
        Ok(Value::Int(compiled(str(a[1]), "")?.find_iter(from(str(a[0]), int(a[2]))?).count() as i64))
    };
    "regexp_substr" (Text, Text) -> Text Immutable Row |a, _| {
        Ok(compiled(str(a[1]), "")?.find(str(a[0])).map_or(Value::Null, |m| Value::Text(m.as_str().into())))
    };
    "regexp_instr" (Text, Text) -> Integer Immutable Row |a, _| {
        let found = compiled(str(a[1]), "")?.find(str(a[0])).map(|m| str(a[0])[..m.start()].chars().count() + 1);
        Ok(Value::Int(found.unwrap_or(0) as i64))
    };
    "substring" (Text, Text) -> Text Immutable Row |a, _| {
        let regex = compiled(str(a[1]), "")?;
        let found = regex.captures(str(a[0])).and_then(|c| if c.len() > 1 { c.get(1) } else { c.get(0) });
        Ok(found.map_or(Value::Null, |m| Value::Text(m.as_str().into())))
    };
}

fn from(s: &str, start: i64) -> Result<&str, SqlError> {
    let skip = usize::try_from(start).ok().and_then(|n| n.checked_sub(1)).ok_or_else(|| {
        SqlError::new(SqlState::INVALID_PARAMETER, format!("invalid value for parameter \"start\": {start}"))
    })?;
    Ok(s.char_indices().nth(skip).map_or("", |(at, _)| &s[at..]))
}

thread_local! {
    /// The patterns used last, the newest at the end: what a pattern means depends on nothing else.
    static COMPILED: RefCell<Vec<(String, String, Rc<Regex>)>> = const { RefCell::new(Vec::new()) };
}

fn compiled(pattern: &str, flags: &str) -> Result<Rc<Regex>, SqlError> {
    COMPILED.with_borrow_mut(|kept| {
        if let Some(at) = kept.iter().position(|(p, f, _)| p == pattern && f == flags) {
            return Ok(kept[at].2.clone());
        }
        let regex = Rc::new(compile(pattern, flags)?);
        if kept.len() == KEPT {
            kept.remove(0);
        }
        kept.push((pattern.to_owned(), flags.to_owned(), regex.clone()));
        Ok(regex)
    })
}

fn compile(pattern: &str, flags: &str) -> Result<Regex, SqlError> {
    let invalid =
        |why: String| SqlError::new(SqlState(*b"2201B"), format!("invalid regular expression: {why}"));
    let (mut pattern, mut literal) = (pattern, false);
    let (mut fold, mut lines, mut spaced, mut dot_newline) = (false, false, false, true);
    if let Some(rest) = pattern.strip_prefix("***=") {
        (pattern, literal) = (rest, true);
    } else if let Some(rest) = pattern.strip_prefix("***:") {
        pattern = rest;
    }
    let mut embedded = "";
    if let Some((inner, rest)) = pattern.strip_prefix("(?").and_then(|p| p.split_once(')'))
        && !inner.is_empty()
        && inner.bytes().all(|b| b.is_ascii_alphabetic())
    {
        (embedded, pattern) = (inner, rest);
    }
    for flag in flags.chars().chain(embedded.chars()) {
        match flag {
            'i' => fold = true,
            'c' => fold = false,
            'n' | 'm' => (lines, dot_newline) = (true, false),
            'p' => dot_newline = false,
            'w' => lines = true,
            's' => (lines, dot_newline) = (false, true),
            'x' => spaced = true,
            'q' => literal = true,
            'g' | 'e' | 't' => {}
            other => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    let source = if literal { regex::escape(pattern) } else { translated(pattern)? };
    RegexBuilder::new(&source)
        .case_insensitive(fold)
        .multi_line(lines)
        .dot_matches_new_line(dot_newline)
        .ignore_whitespace(spaced)
        .size_limit(PATTERN_MAX_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                SqlError::new(SqlState::TOO_COMPLEX, "regular expression is too complex")
            }
            other => {
                let text = other.to_string();
                invalid(text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned())
            }
        })
}

/// PostgreSQL's escapes in the crate's: `\m`, `\M`, `\y`, `\Y`, `\Z`; and braces that count nothing are themselves.
fn translated(pattern: &str) -> Result<String, SqlError> {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('m') if !in_class => out.push_str("\\b{start}"),
                Some('M') if !in_class => out.push_str("\\b{end}"),
                Some('y') if !in_class => out.push_str("\\b"),
                Some('Y') if !in_class => out.push_str("\\B"),
                Some('A') if !in_class => out.push_str("\\A"),
                Some('Z') if !in_class => out.push_str("\\z"),
                Some(digit @ '1'..='9') if !in_class => {
                    return Err(SqlError::unsupported(format!("a back reference (\\{digit})")));
                }
                Some(c) if c.is_ascii_alphanumeric() => {
                    out.push('\\');
                    out.push(c);
                }
                Some(c) => out.push_str(&regex::escape(&c.to_string())),
                None => {
                    return Err(SqlError::new(
                        SqlState(*b"2201B"),
                        "invalid regular expression: invalid escape \\ sequence",
                    ));
                }
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                if chars.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
            }
            '[' => {
                // A named class stays; any other bracket is itself.
                if chars.peek() == Some(&':') {
                    out.push('[');
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str("\\[");
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn matches(a: &[ValueRef<'_>], flags: &str) -> Result<Value, SqlError> {
    Ok(Value::Bool(compiled(str(a[1]), flags)?.is_match(str(a[0]))))
}

/// SIMILAR TO: SQL's own patterns, which match the whole text.
fn similar(a: &[ValueRef<'_>], escape: Option<char>) -> Result<Value, SqlError> {
    let mut out = String::from("^(?:");
    let mut chars = str(a[1]).chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == escape => match chars.next() {
                Some(next) => out.push_str(&regex::escape(&next.to_string())),
                None => {
                    return Err(SqlError::new(SqlState::INVALID_ESCAPE, "invalid escape sequence"));
                }
            },
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            c if in_class => out.push(c),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out.push_str(")$");
    Ok(Value::Bool(compiled(&out, "")?.is_match(str(a[0]))))
}

/// `\1` and `\&` of a replacement, in place.
fn expanded(captures: &Captures<'_>, replacement: &str, out: &mut String) {
    let mut chars = replacement.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some(d @ '0'..='9') => {
                let group = captures.get(d as usize - '0' as usize).filter(|_| d != '0');
                out.push_str(group.map_or("", |m| m.as_str()));
            }
            Some('&') => out.push_str(captures.get(0).map_or("", |m| m.as_str())),
            Some('\\') | None => out.push('\\'),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
        }
    }
}

fn replace(a: &[ValueRef<'_>], flags: &str) -> Result<Value, SqlError> {
    let regex = compiled(str(a[1]), flags)?;
    let source = str(a[0]);
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    let count = if flags.contains('g') { usize::MAX } else { 1 };
    for captures in regex.captures_iter(source).take(count) {
        let Some(whole) = captures.get(0) else { continue };
        out.push_str(&source[at..whole.start()]);
        expanded(&captures, str(a[2]), &mut out);
        super::string::bounded(out.len())?;
        at = whole.end();
    }
    out.push_str(&source[at..]);
    text(out)
}

/// The groups of a match, or all of it where there are none.
fn groups(captures: &Captures<'_>) -> Value {
    let from = usize::from(captures.len() > 1);
    let group = |i| captures.get(i).map_or(Value::Null, |m: regex::Match<'_>| Value::Text(m.as_str().into()));
    flat(Element::TEXT, &(from..captures.len()).map(group).collect::<Vec<_>>())
}

fn first(a: &[ValueRef<'_>], flags: &str) -> Result<Value, SqlError> {
    if flags.contains('g') {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER,
            "regexp_match() does not support the \"global\" option",
        )
        .hint("Use the regexp_matches function instead."));
    }
    Ok(compiled(str(a[1]), flags)?.captures(str(a[0])).map_or(Value::Null, |c| groups(&c)))
}

fn split(a: &[ValueRef<'_>], flags: &str) -> Result<Value, SqlError> {
    let regex = compiled(str(a[1]), flags)?;
    let source = str(a[0]);
    let (mut parts, mut at) = (Vec::new(), 0);
    for found in regex.find_iter(source) {
        // An empty match at either end parts nothing.
        if found.is_empty() && (found.start() == 0 || found.end() == source.len()) {
            continue;
        }
        parts.push(Value::Text(source[at..found.start()].to_owned()));
        at = found.end();
    }
    parts.push(Value::Text(source[at..].to_owned()));
    Ok(flat(Element::TEXT, &parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_brought_over() {
        assert_eq!(translated(r"\mfoo\M[[:digit:]a[]").unwrap(), r"\b{start}foo\b{end}[[:digit:]a\[]");
        assert!(translated(r"(a)\1").is_err());
    }
}
