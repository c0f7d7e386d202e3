//! From text to statements, with limits on size and depth before anything recursive is built.
//!
//! The tree is sqlparser's. It overflows the stack when a deep one is dropped, so the depth is bounded on the tokens,
//! before there is a tree. Statements that PostgreSQL does not have (CREATE TOPIC, CREATE SCHEDULE), and COPY
//! with all its options, are read here, with its tokenizer.

pub(crate) mod copy;
mod depth;
pub(crate) mod fetch;
pub(crate) mod rows;
pub(crate) mod schedule;
mod topic;
mod ttl;

use crate::error::{SqlError, SqlState};
use chronos_proto::limits;
use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Whitespace};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
pub(crate) use topic::{AlterTopic, CreateTopic, DropTopic, option};

/// One parsed statement. Cheap to clone.
#[derive(Clone)]
pub struct Statement(pub(crate) Arc<Parsed>);

pub(crate) struct Parsed {
    source: Arc<str>,
    start: usize,
    end: usize,
    pub ast: Ast,
    /// Rows of the source that the tree was made without, and of this statement.
    cut: Range<usize>,
    rows: Option<rows::Cut>,
}

pub(crate) enum Ast {
    Sql(Box<ast::Statement>),
    Copy(copy::Copy),
    Fetch(fetch::Fetch),
    /// Whatever it is of: there is nothing to do.
    Vacuum,
    CreateTopic(CreateTopic),
    AlterTopic(AlterTopic),
    DropTopic(DropTopic),
    Schedule(Box<schedule::ScheduleStatement>),
}

impl Statement {
    /// The statement's own text.
    pub fn text(&self) -> &str {
        &self.0.source[self.0.start..self.0.end]
    }

    pub(crate) fn ast(&self) -> &Ast {
        &self.0.ast
    }

    /// Rows of literals behind the first of an INSERT, which are not in the tree.
    pub(crate) fn literals(
        &self,
    ) -> Option<impl ExactSizeIterator<Item = impl Iterator<Item = rows::Literal<'_>>>> {
        self.0.rows.as_ref().map(|cut| cut.rows(&self.0.source))
    }

    /// Where a token of the syntax tree stands: a character count from 1 in the whole text.
    pub(crate) fn position(&self, at: Location) -> Option<u32> {
        let Parsed { source, cut, .. } = &*self.0;
        let at = uncut(offset(&without(source, cut), at)?, cut);
        characters(source, at)
    }
}

/// The syntax tree is not shown: it costs megabytes.
impl std::fmt::Debug for Statement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Statement({:?})", self.text())
    }
}

/// The statements of a text, in order; none if it holds only space, comments and semicolons.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    if sql.len() > limits::STATEMENT_MAX_BYTES {
        return Err(SqlError::new(
            SqlState::LIMIT_EXCEEDED,
            format!(
                "statement is {} bytes, more than the limit of {}",
                sql.len(),
                limits::STATEMENT_MAX_BYTES
            ),
        )
        .hint("send large data as parameters or in several statements"));
    }
    if sql.contains('\0') {
        return Err(SqlError::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "invalid byte sequence for encoding \"UTF8\": 0x00",
        ));
    }
    match parse_tokens(sql, true) {
        Ok(Some(statements)) => Ok(statements),
        // The parser sees the whole text and says what it thinks of it.
        _ => Ok(parse_tokens(sql, false)?.unwrap_or_default()),
    }
}

/// The same. With `cut`, rows of literals are kept from the parser; none if they found no place in the trees.
fn parse_tokens(sql: &str, cut: bool) -> Result<Option<Vec<Statement>>, SqlError> {
    let dialect = PostgreSqlDialect {};
    let mut rows = if cut { rows::find(sql) } else { None };
    let cut = rows.as_ref().map_or(0..0, |rows| rows.range.clone());
    let source: Arc<str> = Arc::from(sql);
    let seen = without(sql, &cut);
    let sql = &*seen;
    let mut tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|e| SqlError::new(SqlState::SYNTAX_ERROR, e.message).at(position(sql, e.location)))?;
    depth::check(&tokens)?;
    ttl::spell_out(&mut tokens);
    mark_symmetric(&mut tokens);
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(limits::EXPRESSION_DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    let mut statements = Vec::new();
    loop {
        while parser.consume_token(&Token::SemiColon) {}
        let first = parser.peek_token();
        if first.token == Token::EOF {
            return Ok(rows.is_none().then_some(statements));
        }
        let ast = own(&mut parser, sql).map_err(|e| syntax_error(sql, &mut parser, e))?;
        let next = parser.peek_token();
        if next.token != Token::EOF && next.token != Token::SemiColon {
            return Err(near(sql, &next.token, next.span.start));
        }
        let start = offset(sql, first.span.start).unwrap_or(0);
        let end = if next.token == Token::EOF { None } else { offset(sql, next.span.start) };
        let end = end.unwrap_or(sql.len());
        let end = uncut(start + sql[start..end].trim_end().len(), &cut);
        let rows = rows.take_if(|rows| rows.belongs(&ast, |at| offset(sql, at)));
        let (source, start, cut) = (source.clone(), uncut(start, &cut), cut.clone());
        statements.push(Statement(Arc::new(Parsed { source, start, end, ast, cut, rows })));
    }
}

/// A text without a part of it.
fn without<'a>(text: &'a str, cut: &Range<usize>) -> Cow<'a, str> {
    match cut.is_empty() {
        true => Cow::Borrowed(text),
        false => Cow::Owned([&text[..cut.start], &text[cut.end..]].concat()),
    }
}

/// Where in the whole text a byte, or an end, of the one without a part is.
fn uncut(at: usize, cut: &Range<usize>) -> usize {
    if at < cut.start || cut.is_empty() { at } else { at + cut.len() }
}

/// A statement of those that are read here, or of sqlparser's.
fn own(parser: &mut Parser<'_>, sql: &str) -> Result<Ast, ParserError> {
    if let Some(ast) = schedule::parse(parser, sql)? {
        return Ok(ast);
    }
    if let Some(ast) = topic::parse(parser)? {
        return Ok(ast);
    }
    if let Some(ast) = copy::parse(parser)? {
        return Ok(ast);
    }
    if let Some(ast) = fetch::parse(parser)? {
        return Ok(ast);
    }
    if parser.parse_keyword(Keyword::VACUUM) {
        while !matches!(parser.peek_token().token, Token::SemiColon | Token::EOF) {
            parser.next_token();
        }
        return Ok(Ast::Vacuum);
    }
    Ok(Ast::Sql(Box::new(parser.parse_statement()?)))
}

/// One expression by itself: a stored DEFAULT.
pub(crate) fn parse_expression(sql: &str) -> Result<ast::Expr, SqlError> {
    let dialect = PostgreSqlDialect {};
    let mut tokens = Tokenizer::new(&dialect, sql)
        .tokenize_with_location()
        .map_err(|e| SqlError::new(SqlState::SYNTAX_ERROR, e.message))?;
    depth::check(&tokens)?;
    mark_symmetric(&mut tokens);
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(limits::EXPRESSION_DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    parser.parse_expr().map_err(|e| syntax_error(sql, &mut parser, e))
}

/// The parser knows no BETWEEN SYMMETRIC: the word becomes `!!`, an operator that PostgreSQL does not have, before the
/// lower bound. ASYMMETRIC says nothing.
fn mark_symmetric(tokens: &mut [TokenWithSpan]) {
    let mut between = false;
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::Word(word) if between && word.quote_style.is_none() => {
                if word.value.eq_ignore_ascii_case("symmetric") {
                    token.token = Token::DoubleExclamationMark;
                } else if word.value.eq_ignore_ascii_case("asymmetric") {
                    token.token = Token::Whitespace(Whitespace::Space);
                }
            }
            _ => {}
        }
        between = matches!(&token.token, Token::Word(word) if word.keyword == Keyword::BETWEEN);
    }
}

/// PostgreSQL's words for a syntax error. The parser's own say what it expected: that is the detail.
fn syntax_error(sql: &str, parser: &mut Parser<'_>, error: ParserError) -> SqlError {
    let message = match error {
        ParserError::RecursionLimitExceeded => return depth::too_complex(),
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
    };
    // It ends in "at Line: 3, Column: 7"; what it found stands before, after "found: ".
    let (text, place) =
        message.rsplit_once(" at Line: ").map_or((message.as_str(), None), |(a, b)| (a, Some(b)));
    let location = place.and_then(|place| {
        let (line, column) = place.split_once(", Column: ")?;
        Some(Location { line: line.parse().ok()?, column: column.parse().ok()? })
    });
    let Some(location) = location else {
        let next = parser.peek_token();
        return near(sql, &next.token, next.span.start).detail(text.to_owned());
    };
    match text.split_once(", found: ") {
        Some((_, "EOF")) => SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at end of input"),
        Some((_, found)) => {
            SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error at or near \"{found}\""))
        }
        None => SqlError::new(SqlState::SYNTAX_ERROR, format!("syntax error: {text}")),
    }
    .detail(text.split_once(", found: ").map_or(text, |(expected, _)| expected).to_owned())
    .at(position(sql, location))
}

fn near(sql: &str, token: &Token, location: Location) -> SqlError {
    let message = match token {
        Token::EOF => "syntax error at end of input".to_owned(),
        token => format!("syntax error at or near \"{token}\""),
    };
    SqlError::new(SqlState::SYNTAX_ERROR, message).at(position(sql, location))
}

/// The byte at which a line and column (both from 1, in characters) stand.
fn offset(sql: &str, at: Location) -> Option<usize> {
    let line = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let start = match line {
        0 => 0,
        n => sql.match_indices('\n').nth(n - 1)?.0 + 1,
    };
    sql[start..].char_indices().nth(column).map(|(i, _)| start + i).or(Some(sql.len()))
}

fn position(sql: &str, at: Location) -> Option<u32> {
    characters(sql, offset(sql, at)?)
}

/// The place of a byte, in characters from 1.
fn characters(sql: &str, at: usize) -> Option<u32> {
    u32::try_from(sql[..at].chars().count() + 1).ok()
}
