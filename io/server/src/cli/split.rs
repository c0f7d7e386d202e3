//! Cuts a script into statements at its semicolons, as psql does: not in strings, quoted names, dollar quotes or
//! comments.

/// What a piece of script comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Split<'a> {
    /// A statement without its semicolon, and what follows it.
    Statement(&'a str, &'a str),
    /// More input is needed: what is there has no end yet.
    Open(&'a str),
    /// Nothing but blanks and comments.
    Blank,
}

/// Cuts off the first statement.
pub fn split(script: &str) -> Split<'_> {
    let bytes = script.as_bytes();
    let mut at = 0;
    let mut start = None;
    while at < bytes.len() {
        let rest = &script[at..];
        let skip = match bytes[at] {
            b';' => match start {
                Some(start) => return Split::Statement(script[start..at].trim_end(), &script[at + 1..]),
                None => Some(1),
            },
            b'-' if rest.starts_with("--") => Some(rest.find('\n').unwrap_or(rest.len())),
            b'/' if rest.starts_with("/*") => Some(comment(rest)),
            b if b.is_ascii_whitespace() => Some(1),
            _ => None,
        };
        at += skip.unwrap_or_else(|| {
            start.get_or_insert(at);
            token(script, at)
        });
        if at > bytes.len() {
            // A string, name or comment that has no end yet.
            return Split::Open(&script[start.unwrap_or(0)..]);
        }
    }
    match start {
        Some(start) => Split::Open(&script[start..]),
        None => Split::Blank,
    }
}

/// Bytes of a block comment, which may hold others; beyond the end if it has none.
fn comment(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len() + 1
}

/// Bytes of the token at `at`; beyond the end if it has none.
fn token(script: &str, at: usize) -> usize {
    let rest = &script[at..];
    match rest.as_bytes()[0] {
        b'\'' => quoted(rest, b'\'', is_escape_string(script, at)),
        b'"' => quoted(rest, b'"', false),
        b'$' => dollar(script, at),
        _ => rest.chars().next().map_or(1, char::len_utf8),
    }
}

/// Whether the quote at `at` opens a string with backslash escapes: an E stands before it, as a word of its own.
fn is_escape_string(script: &str, at: usize) -> bool {
    let mut before = script[..at].chars().rev();
    matches!(before.next(), Some('e' | 'E')) && !before.next().is_some_and(is_word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn quoted(text: &str, quote: u8, escapes: bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            b if b == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len() + 1
}

fn dollar(script: &str, at: usize) -> usize {
    let rest = &script[at..];
    if script[..at].chars().next_back().is_some_and(is_word) {
        return 1;
    }
    let Some(end) = rest[1..].find('$').map(|end| end + 2) else { return 1 };
    let (tag, name) = (&rest[..end], &rest[1..end - 1]);
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(is_word) {
        return 1;
    }
    rest[end..].find(tag).map_or(rest.len() + 1, |close| end + close + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut script: &str) -> (Vec<&str>, bool) {
        let mut statements = Vec::new();
        loop {
            match split(script) {
                Split::Statement(statement, rest) => {
                    statements.push(statement);
                    script = rest;
                }
                Split::Open(rest) => {
                    statements.push(rest);
                    return (statements, true);
                }
                Split::Blank => return (statements, false),
            }
        }
    }

    #[test]
    fn semicolons_end_statements() {
        assert_eq!(all("select 1; select 2 ;\n;;"), (vec!["select 1", "select 2"], false));
        assert_eq!(all("select 1"), (vec!["select 1"], true));
        assert_eq!(all("  -- nothing\n /* at /* all */ */ ;"), (vec![], false));
    }

    #[test]
    fn semicolons_inside_do_not() {
        for inside in [
            "select 'a;b', 'it''s;'",
            r"select E'\';', e'\\', E''';\';'",
            "select \"a;\"\"b\" from t",
            "select $$;$$, $tag$ ; $$ ; $tag$",
            "select 1 -- ;\n+ 1",
            "select 1 /* ; /* ; */ ; */ + 1",
            "select $1, a$b$c from t",
        ] {
            let script = format!("{inside}; select 2;");
            assert_eq!(all(&script), (vec![inside, "select 2"], false), "{inside}");
        }
    }

    #[test]
    fn a_backslash_is_plain_in_a_plain_string() {
        assert_eq!(all(r"select '\'; select note'\';"), (vec![r"select '\'", r"select note'\'"], false));
    }

    #[test]
    fn what_is_not_closed_stays_open() {
        for open in ["select 'a;", "select \"a;", "select $$ ;", "select 1 /* ;"] {
            assert_eq!(split(open), Split::Open(open), "{open}");
        }
        assert_eq!(split("/* ;"), Split::Open("/* ;"));
    }
}
