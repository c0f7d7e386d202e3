//! FETCH and MOVE, with every direction that PostgreSQL has.

use super::Ast;
use crate::cursor::Direction;
use sqlparser::ast::Ident;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// `FETCH|MOVE [direction] [FROM|IN] name`.
pub(crate) struct Fetch {
    pub name: Ident,
    pub direction: Direction,
    /// FETCH; else MOVE, whose rows nobody wants.
    pub shown: bool,
}

/// None if the next statement is another.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<Ast>, ParserError> {
    let shown = match parser.peek_token().token {
        Token::Word(word) if word.quote_style.is_some() => return Ok(None),
        Token::Word(word) if word.value.eq_ignore_ascii_case("fetch") => true,
        Token::Word(word) if word.value.eq_ignore_ascii_case("move") => false,
        _ => return Ok(None),
    };
    parser.next_token();
    let direction = direction(parser)?;
    let _ = parser.parse_one_of_keywords(&[Keyword::FROM, Keyword::IN]);
    let name = parser.parse_identifier()?;
    Ok(Some(Ast::Fetch(Fetch { name, direction, shown })))
}

fn direction(parser: &mut Parser<'_>) -> Result<Direction, ParserError> {
    const WORDS: &[Keyword] = &[
        Keyword::NEXT,
        Keyword::PRIOR,
        Keyword::FIRST,
        Keyword::LAST,
        Keyword::ABSOLUTE,
        Keyword::RELATIVE,
        Keyword::ALL,
        Keyword::FORWARD,
        Keyword::BACKWARD,
    ];
    Ok(match parser.parse_one_of_keywords(WORDS) {
        Some(Keyword::PRIOR) => Direction::Forward(-1),
        Some(Keyword::FIRST) => Direction::Absolute(1),
        Some(Keyword::LAST) => Direction::Absolute(-1),
        Some(Keyword::ABSOLUTE) => Direction::Absolute(number(parser)?),
        Some(Keyword::RELATIVE) => Direction::Relative(number(parser)?),
        Some(Keyword::ALL) => Direction::All,
        Some(Keyword::FORWARD) if parser.parse_keyword(Keyword::ALL) => Direction::All,
        Some(Keyword::BACKWARD) if parser.parse_keyword(Keyword::ALL) => Direction::BackwardAll,
        Some(Keyword::FORWARD) if is_number(parser) => Direction::Forward(number(parser)?),
        Some(Keyword::BACKWARD) if is_number(parser) => Direction::Forward(-number(parser)?),
        Some(Keyword::BACKWARD) => Direction::Forward(-1),
        None if is_number(parser) => Direction::Forward(number(parser)?),
        _ => Direction::Forward(1),
    })
}

fn is_number(parser: &Parser<'_>) -> bool {
    matches!(parser.peek_token().token, Token::Number(..) | Token::Minus | Token::Plus)
}

/// A count of 32 bits.
fn number(parser: &mut Parser<'_>) -> Result<i64, ParserError> {
    let negative = parser.consume_token(&Token::Minus);
    let _ = !negative && parser.consume_token(&Token::Plus);
    let next = parser.next_token();
    match &next.token {
        Token::Number(digits, false) => match digits.parse::<i32>() {
            Ok(count) => Ok(if negative { -i64::from(count) } else { i64::from(count) }),
            Err(_) => parser.expected("a count of 32 bits", next),
        },
        _ => parser.expected("a count", next),
    }
}
