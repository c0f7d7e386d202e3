//! COPY: its options are any word with any value, and older spellings without parentheses.

use super::Ast;
use sqlparser::ast::{Ident, ObjectName, Query};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{IsOptional, Parser, ParserError};
use sqlparser::tokenizer::{Token, Word};

/// `COPY source FROM|TO place options`.
pub(crate) struct Copy {
    pub source: Source,
    /// FROM; else TO.
    pub from: bool,
    /// Not over the connection: a file, or a program.
    pub elsewhere: bool,
    /// Names in lower case.
    pub options: Vec<(String, Given)>,
    /// There is a WHERE.
    pub filtered: bool,
}

pub(crate) enum Source {
    Table(ObjectName, Vec<Ident>),
    Query(Box<Query>),
}

/// What an option is given.
pub(crate) enum Given {
    Nothing,
    Text(String),
    Columns(Vec<Ident>),
    /// `*`
    All,
}

/// None if the next statement is another.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<Ast>, ParserError> {
    if !parser.parse_keyword(Keyword::COPY) {
        return Ok(None);
    }
    let mut options = Vec::new();
    // The oldest spelling has the format in front.
    let next = parser.peek_nth_token(1).token;
    let of_source = matches!(&next, Token::Word(word) if matches!(word.keyword, Keyword::FROM | Keyword::TO));
    if !of_source && next != Token::LParen && next != Token::Period && parser.parse_keyword(Keyword::BINARY) {
        options.push(("format".to_owned(), Given::Text("binary".into())));
    }
    let source = if parser.consume_token(&Token::LParen) {
        let query = parser.parse_query()?;
        parser.expect_token(&Token::RParen)?;
        Source::Query(query)
    } else {
        let name = parser.parse_object_name(false)?;
        Source::Table(name, parser.parse_parenthesized_column_list(IsOptional::Optional, false)?)
    };
    let from = match parser.parse_one_of_keywords(&[Keyword::FROM, Keyword::TO]) {
        Some(keyword) => keyword == Keyword::FROM,
        None => return parser.expected("FROM or TO", parser.peek_token()),
    };
    let elsewhere = if parser.parse_one_of_keywords(&[Keyword::STDIN, Keyword::STDOUT]).is_some() {
        false
    } else {
        let _ = parser.parse_keyword(Keyword::PROGRAM);
        parser.parse_literal_string()?;
        true
    };
    let _ = parser.parse_keyword(Keyword::WITH);
    if parser.consume_token(&Token::LParen) {
        options.extend(parser.parse_comma_separated(option)?);
        parser.expect_token(&Token::RParen)?;
    } else {
        while let Some(option) = old_option(parser)? {
            options.push(option);
        }
    }
    let filtered = parser.parse_keyword(Keyword::WHERE);
    if filtered {
        parser.parse_expr()?;
    }
    Ok(Some(Ast::Copy(Copy { source, from, elsewhere, options, filtered })))
}

fn option(parser: &mut Parser<'_>) -> Result<(String, Given), ParserError> {
    let name = parser.parse_identifier()?.value.to_lowercase();
    let given = match parser.peek_token().token {
        Token::Comma | Token::RParen => Given::Nothing,
        Token::LParen => Given::Columns(columns(parser)?),
        Token::Mul => {
            parser.next_token();
            Given::All
        }
        Token::Word(Word { value, .. }) => {
            parser.next_token();
            Given::Text(value)
        }
        Token::Number(digits, _) => {
            parser.next_token();
            Given::Text(digits)
        }
        Token::EscapedStringLiteral(text) => {
            parser.next_token();
            Given::Text(text)
        }
        _ => Given::Text(parser.parse_literal_string()?),
    };
    Ok((name, given))
}

fn columns(parser: &mut Parser<'_>) -> Result<Vec<Ident>, ParserError> {
    parser.parse_parenthesized_column_list(IsOptional::Mandatory, false)
}

/// One option of the spelling without parentheses; none at their end.
fn old_option(parser: &mut Parser<'_>) -> Result<Option<(String, Given)>, ParserError> {
    let Token::Word(word) = parser.peek_token().token else { return Ok(None) };
    let name = word.value.to_lowercase();
    match name.as_str() {
        "csv" | "binary" | "text" => {
            parser.next_token();
            Ok(Some(("format".into(), Given::Text(name))))
        }
        "header" | "freeze" => {
            parser.next_token();
            Ok(Some((name, Given::Nothing)))
        }
        "delimiter" | "delimiters" | "null" | "quote" | "escape" | "encoding" => {
            parser.next_token();
            let _ = parser.parse_keyword(Keyword::AS);
            let name = if name == "delimiters" { "delimiter".into() } else { name };
            let text = match parser.peek_token().token {
                Token::EscapedStringLiteral(text) => {
                    parser.next_token();
                    text
                }
                _ => parser.parse_literal_string()?,
            };
            Ok(Some((name, Given::Text(text))))
        }
        "force" => {
            parser.next_token();
            let name = if parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]) {
                "force_not_null"
            } else if parser.parse_keyword(Keyword::NULL) {
                "force_null"
            } else {
                let _ = parser.parse_identifier()?;
                "force_quote"
            };
            if parser.consume_token(&Token::Mul) {
                return Ok(Some((name.into(), Given::All)));
            }
            let columns = parser.parse_comma_separated(Parser::parse_identifier)?;
            Ok(Some((name.into(), Given::Columns(columns))))
        }
        _ => Ok(None),
    }
}
