//! Rows of literals, which most of a long INSERT is.
//!
//! The tokenizer copies every value, and the parser makes a tree of each. Rows of nothing but literals, behind a first
//! one, are found in the bytes instead: the parser gets the text without them, and the binder reads each straight as
//! what its column holds.

use super::Ast;
use sqlparser::ast::{self, SetExpr};
use std::borrow::Cow;
use std::ops::Range;

/// Digits of a literal found here; a longer one is the parser's.
const DIGITS_MAX: usize = 100;

/// Rows that the parser does not see.
pub(crate) struct Cut {
    /// Where the row before them opens.
    first: usize,
    /// Where they are, commas before them included.
    pub range: Range<usize>,
    /// Literals of each row.
    width: usize,
    places: Vec<Place>,
}

/// Where a literal is.
struct Place {
    kind: Kind,
    range: Range<u32>,
}

#[derive(Clone, Copy)]
enum Kind {
    Number {
        negative: bool,
    },
    /// Between its quotes; with `doubled` there are quotes inside, two for each.
    Text {
        doubled: bool,
    },
    Bool(bool),
    Null,
}

/// A literal, as it is written.
pub(crate) enum Literal<'a> {
    /// Without its sign.
    Number {
        digits: &'a str,
        negative: bool,
    },
    Text(Cow<'a, str>),
    Bool(bool),
    Null,
}

impl Cut {
    /// The rows, out of the text that they are of.
    pub fn rows<'a>(
        &'a self,
        source: &'a str,
    ) -> impl ExactSizeIterator<Item = impl Iterator<Item = Literal<'a>>> {
        self.places.chunks(self.width).map(move |row| row.iter().map(move |place| place.read(source)))
    }

    /// Whether the statement is an INSERT that has them behind its first row. `at` tells where a token is.
    pub(super) fn belongs(
        &self,
        ast: &Ast,
        at: impl Fn(sqlparser::tokenizer::Location) -> Option<usize>,
    ) -> bool {
        let Ast::Sql(statement) = ast else { return false };
        let ast::Statement::Insert(insert) = &**statement else { return false };
        let first = values(insert).and_then(|values| values.rows.first());
        first.and_then(|row| at(row.opening_token.0.span.start)) == Some(self.first)
    }
}

impl Place {
    fn read<'a>(&self, source: &'a str) -> Literal<'a> {
        let text = &source[self.range.start as usize..self.range.end as usize];
        match self.kind {
            Kind::Number { negative } => Literal::Number { digits: text, negative },
            Kind::Text { doubled: false } => Literal::Text(Cow::Borrowed(text)),
            Kind::Text { doubled: true } => Literal::Text(Cow::Owned(text.replace("''", "'"))),
            Kind::Bool(b) => Literal::Bool(b),
            Kind::Null => Literal::Null,
        }
    }
}

/// The rows of an INSERT, if VALUES and nothing around it gives them.
pub(crate) fn values(insert: &ast::Insert) -> Option<&ast::Values> {
    let query = insert.source.as_deref()?;
    let bare = query.with.is_none() && query.order_by.is_none();
    match &*query.body {
        SetExpr::Values(values) if bare && query.limit_clause.is_none() && query.fetch.is_none() => {
            Some(values)
        }
        _ => None,
    }
}

/// Finds rows of literals in a text that begins with an INSERT.
pub(super) fn find(sql: &str) -> Option<Cut> {
    let mut bytes = Bytes { text: sql.as_bytes(), at: 0 };
    bytes.skip_to_values()?;
    bytes.skip_space();
    let first = bytes.at;
    let mut places = Vec::new();
    bytes.row(&mut places)?;
    let (width, start) = (places.len(), bytes.at);
    places.clear();
    let mut end = start;
    loop {
        let kept = places.len();
        bytes.skip_space();
        let row = bytes.take(b',').and_then(|()| {
            bytes.skip_space();
            bytes.row(&mut places)
        });
        if row.is_none() || places.len() - kept != width {
            places.truncate(kept);
            break;
        }
        end = bytes.at;
    }
    (!places.is_empty()).then_some(Cut { first, range: start..end, width, places })
}

struct Bytes<'a> {
    text: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Steps over what `of` knows; how much that was.
    fn skip(&mut self, of: impl Fn(u8) -> bool) -> usize {
        let rest = &self.text[self.at..];
        let count = rest.iter().position(|b| !of(*b)).unwrap_or(rest.len());
        self.at += count;
        count
    }

    fn skip_space(&mut self) {
        self.skip(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// To behind the VALUES of an INSERT. Whatever makes it doubtful that this is one, the parser is to see.
    fn skip_to_values(&mut self) -> Option<()> {
        let (mut depth, mut words) = (0usize, 0);
        loop {
            self.skip_space();
            match self.peek()? {
                b'(' => (depth, self.at) = (depth + 1, self.at + 1),
                b')' => (depth, self.at) = (depth.checked_sub(1)?, self.at + 1),
                b',' | b'.' => self.at += 1,
                b'"' => {
                    self.at += 1;
                    self.skip(|b| b != b'"');
                    self.take(b'"')?;
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                    let start = self.at;
                    self.skip(|b| b.is_ascii_alphanumeric() || b == b'_');
                    let word = &self.text[start..self.at];
                    words += 1;
                    if words == 1 && !word.eq_ignore_ascii_case(b"insert") {
                        return None;
                    }
                    if depth == 0 && word.eq_ignore_ascii_case(b"values") {
                        return Some(());
                    }
                }
                _ => return None,
            }
        }
    }

    /// A row of literals in parentheses.
    fn row(&mut self, places: &mut Vec<Place>) -> Option<()> {
        self.take(b'(')?;
        loop {
            self.skip_space();
            places.push(self.literal()?);
            self.skip_space();
            match self.peek()? {
                b',' => self.at += 1,
                b')' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    fn literal(&mut self) -> Option<Place> {
        let place = |kind, start: usize, end: usize| Place { kind, range: start as u32..end as u32 };
        match self.peek()? {
            b'\'' => {
                self.at += 1;
                let (start, mut doubled) = (self.at, false);
                loop {
                    self.skip(|b| b != b'\'');
                    self.take(b'\'')?;
                    if self.take(b'\'').is_none() {
                        return Some(place(Kind::Text { doubled }, start, self.at - 1));
                    }
                    doubled = true;
                }
            }
            b'-' => {
                self.at += 1;
                self.skip_space();
                let (start, end) = self.number()?;
                Some(place(Kind::Number { negative: true }, start, end))
            }
            b'0'..=b'9' | b'.' => {
                let (start, end) = self.number()?;
                Some(place(Kind::Number { negative: false }, start, end))
            }
            _ => {
                let start = self.at;
                self.skip(|b| b.is_ascii_alphabetic());
                let kind = match &self.text[start..self.at] {
                    word if word.eq_ignore_ascii_case(b"null") => Kind::Null,
                    word if word.eq_ignore_ascii_case(b"true") => Kind::Bool(true),
                    word if word.eq_ignore_ascii_case(b"false") => Kind::Bool(false),
                    _ => return None,
                };
                Some(place(kind, start, self.at))
            }
        }
    }

    /// Digits with a point in them, or none; what stands behind is looked at by the row.
    fn number(&mut self) -> Option<(usize, usize)> {
        let start = self.at;
        let mut digits = self.skip(|b| b.is_ascii_digit());
        if self.take(b'.').is_some() {
            digits += self.skip(|b| b.is_ascii_digit());
        }
        (1..=DIGITS_MAX).contains(&digits).then_some((start, self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Statement, parse_tokens};
    use sqlparser::ast::helpers::attached_token::AttachedToken;

    /// The statements, each with its own text and its tree's, rows that were cut in their place.
    fn shown(statements: &[Statement]) -> Vec<String> {
        let one = |statement: &Statement| {
            let Ast::Sql(ast) = statement.ast() else { return statement.text().to_owned() };
            let mut ast = ast.clone();
            if let ast::Statement::Insert(insert) = &mut *ast
                && let Some(rows) = statement.literals()
                && let Some(query) = &mut insert.source
                && let SetExpr::Values(values) = &mut *query.body
            {
                let row = |row: Vec<Literal<'_>>| ast::Parens {
                    opening_token: AttachedToken::empty(),
                    content: row.into_iter().map(|literal| literal.tree()).collect(),
                    closing_token: AttachedToken::empty(),
                };
                values.rows.splice(1..1, rows.map(|literals| row(literals.collect())));
            }
            format!("{} is {ast}", statement.text())
        };
        statements.iter().map(one).collect()
    }

    impl Literal<'_> {
        fn tree(&self) -> ast::Expr {
            let value = ast::Expr::Value(self.value().into());
            match self {
                Literal::Number { digits, negative: true } => ast::Expr::UnaryOp {
                    op: ast::UnaryOperator::Minus,
                    expr: Box::new(ast::Expr::Value(ast::Value::Number((*digits).into(), false).into())),
                },
                _ => value,
            }
        }
    }

    const ROW: &str = "(1, -2, - 3.5, 'it''s', NULL, true, False, .5, 2., '')";

    #[test]
    fn cut_rows_are_those_that_the_parser_sees() {
        for sql in [
            format!("INSERT INTO t VALUES {ROW}, {ROW},\n  {ROW}"),
            format!(" insert into \"a\".\"values\" (a, b) values{ROW} , {ROW}, {ROW} ON CONFLICT DO NOTHING"),
            format!(
                "INSERT INTO t VALUES {ROW},{ROW}; ; SELECT 'later', 1; INSERT INTO u VALUES {ROW}, {ROW}"
            ),
            format!("INSERT INTO t VALUES {ROW}, {ROW}, (1 + 1, $1, 3, 4, 5, 6, 7, 8, 9, 10), {ROW}"),
        ] {
            let (with, without) = (parse_tokens(&sql, true).unwrap(), parse_tokens(&sql, false).unwrap());
            let with = with.unwrap();
            assert!(with[0].literals().is_some(), "{sql}");
            assert_eq!(shown(&with), shown(&without.unwrap()), "{sql}");
        }
    }

    #[test]
    fn what_is_no_row_of_literals_is_left_to_the_parser() {
        for sql in [
            "INSERT INTO t VALUES (1), (1 + 1)",
            "INSERT INTO t VALUES (f(1)), (2)",
            "INSERT INTO t VALUES (1), (2, 3)",
            "INSERT INTO t VALUES (1), (1e5)",
            "INSERT INTO t VALUES ('a'), (E'a')",
            "INSERT INTO t VALUES ('a'), ('a'\n'b')",
            "INSERT INTO t VALUES (1), (2 -- )\n)",
            "INSERT /* VALUES (1), (2) */ INTO t VALUES (1), (2)",
            "SELECT 1; INSERT INTO t VALUES (1), (2)",
            "WITH x AS (SELECT 1) INSERT INTO t VALUES (1), (2)",
            "INSERT INTO t VALUES (nullx), (null1)",
        ] {
            let cut = find(sql).is_some();
            assert!(!cut, "{sql}");
        }
        // Where they have no place in the tree, the parser is asked again.
        for sql in [
            "INSERT INTO t VALUES (1), (2) UNION VALUES (3), (4)",
            "INSERT INTO t VALUES (1), (2) ORDER BY 1",
            "INSERT INTO t VALUES (1), (2) LIMIT 1",
        ] {
            assert!(find(sql).is_some() && parse_tokens(sql, true).unwrap().is_none(), "{sql}");
            assert!(super::super::parse(sql).is_ok_and(|s| s.len() == 1 && s[0].literals().is_none()));
        }
    }
}
