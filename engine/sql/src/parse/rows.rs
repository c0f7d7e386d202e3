//! Rows of literals, which most of a long INSERT is.
//!
//! The parser takes every value for an expression of any kind, and asks of each whether it is the name of a type. Rows
//! of nothing but literals are taken out of the tokens before it, as the trees that it would make of them, and put in
//! again behind the first row, which is left to it.

use super::Ast;
use sqlparser::ast::helpers::attached_token::AttachedToken;
use sqlparser::ast::{Expr, Parens, SetExpr, Statement, UnaryOperator, Value};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use std::collections::VecDeque;
use std::ops::Range;

/// Rows that were taken out of one statement.
pub(super) struct Lifted {
    /// Where the row before them begins.
    first: Location,
    rows: Vec<Parens<Vec<Expr>>>,
}

/// Takes rows of literals out of the INSERTs among the tokens.
pub(super) fn lift(tokens: &mut Vec<TokenWithSpan>) -> VecDeque<Lifted> {
    let mut all = VecDeque::new();
    let mut taken: Vec<Range<usize>> = Vec::new();
    let mut place = Place::Begin;
    let mut depth = 0usize;
    let mut at = 0;
    while at < tokens.len() {
        match (&tokens[at].token, place) {
            (Token::Whitespace(_), _) => {}
            (Token::SemiColon, _) => (place, depth) = (Place::Begin, 0),
            (Token::Word(word), Place::Begin) if word.keyword == Keyword::INSERT => place = Place::Insert,
            (_, Place::Begin) => place = Place::Elsewhere,
            (Token::LParen, _) => depth += 1,
            (Token::RParen, _) => depth = depth.saturating_sub(1),
            (Token::Word(word), Place::Insert) if depth == 0 && word.keyword == Keyword::VALUES => {
                place = Place::Elsewhere;
                let open = after_space(tokens, at + 1);
                if let Some(end) = row_end(tokens, open) {
                    let first = tokens[open].span.start;
                    at = end;
                    let mut rows = Vec::new();
                    while let Some((row, end)) = literal_row(tokens, at) {
                        rows.push(row);
                        at = end;
                    }
                    if !rows.is_empty() {
                        taken.push(end..at);
                        all.push_back(Lifted { first, rows });
                    }
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    let mut taken = taken.into_iter().peekable();
    let mut at = 0;
    tokens.retain(|_| {
        let keep = taken.peek().is_none_or(|range| at < range.start);
        at += 1;
        taken.next_if(|range| at == range.end);
        keep
    });
    all
}

/// Puts rows back into the statement that they are of; what is left of `all` at the end has found no place.
pub(super) fn put_back(ast: &mut Ast, all: &mut VecDeque<Lifted>) {
    let Ast::Sql(statement) = ast else { return };
    let Statement::Insert(insert) = &mut **statement else { return };
    let Some(query) = &mut insert.source else { return };
    let SetExpr::Values(values) = &mut *query.body else { return };
    let first = values.rows.first().map(|row| row.opening_token.0.span.start);
    if let Some(lifted) = all.pop_front() {
        if first == Some(lifted.first) {
            values.rows.splice(1..1, lifted.rows);
        } else {
            all.push_front(lifted);
        }
    }
}

/// Where a token is in its statement.
#[derive(Clone, Copy)]
enum Place {
    Begin,
    /// Behind INSERT, and before VALUES.
    Insert,
    Elsewhere,
}

fn after_space(tokens: &[TokenWithSpan], from: usize) -> usize {
    let space = |token: &TokenWithSpan| matches!(token.token, Token::Whitespace(_));
    from + tokens.iter().skip(from).take_while(|token| space(token)).count()
}

/// The end of the parentheses that open here.
fn row_end(tokens: &[TokenWithSpan], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.checked_sub(1)?,
            Token::SemiColon | Token::EOF => return None,
            _ => {}
        }
        if depth == 0 {
            return (at > open).then_some(at + 1);
        }
    }
    None
}

/// A comma and a row of literals, and where they end; none if something else comes.
fn literal_row(tokens: &mut [TokenWithSpan], from: usize) -> Option<(Parens<Vec<Expr>>, usize)> {
    let token = |at: usize| tokens.get(at).map(|token| &token.token);
    let comma = after_space(tokens, from);
    let open = after_space(tokens, comma + 1);
    if token(comma) != Some(&Token::Comma) || token(open) != Some(&Token::LParen) {
        return None;
    }
    let mut close = open;
    let mut count = 0;
    while close == open || token(close) == Some(&Token::Comma) {
        let mut at = after_space(tokens, close + 1);
        if token(at) == Some(&Token::Minus) {
            at = after_space(tokens, at + 1);
            token(at).filter(|token| matches!(token, Token::Number(..)))?;
        }
        token(at).filter(|token| is_literal(token))?;
        count += 1;
        close = after_space(tokens, at + 1);
    }
    if token(close) != Some(&Token::RParen) {
        return None;
    }
    let mut content = Vec::with_capacity(count);
    let mut negative = false;
    for TokenWithSpan { token, span } in &mut tokens[open + 1..close] {
        let value = match std::mem::replace(token, Token::Comma) {
            Token::Number(digits, long) => Value::Number(digits, long),
            Token::SingleQuotedString(text) => Value::SingleQuotedString(text),
            Token::Word(word) if word.keyword == Keyword::NULL => Value::Null,
            Token::Word(word) => Value::Boolean(word.keyword == Keyword::TRUE),
            Token::Minus => {
                negative = true;
                continue;
            }
            _ => continue,
        };
        let value = Expr::Value(value.with_span(*span));
        content.push(match std::mem::take(&mut negative) {
            true => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(value) },
            false => value,
        });
    }
    let attached = |at: usize| AttachedToken(tokens[at].clone());
    Some((Parens { opening_token: attached(open), content, closing_token: attached(close) }, close + 1))
}

fn is_literal(token: &Token) -> bool {
    match token {
        Token::Number(_, long) => !long,
        Token::SingleQuotedString(_) => true,
        Token::Word(word) => {
            let plain = word.quote_style.is_none();
            plain && matches!(word.keyword, Keyword::NULL | Keyword::TRUE | Keyword::FALSE)
        }
        _ => false,
    }
}
