//! CREATE TOPIC, ALTER TOPIC and DROP TOPIC.

use super::Ast;
use sqlparser::ast::{Expr, ObjectName, SqlOption, Value};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// `CREATE TOPIC [IF NOT EXISTS] name [WITH (option = value, …)]`.
pub(crate) struct CreateTopic {
    pub name: ObjectName,
    pub if_not_exists: bool,
    /// Names, and values as text.
    pub options: Vec<(String, String)>,
}

/// `ALTER TOPIC [IF EXISTS] name SET (option = value, …)`, or `RESET (option, …)`.
pub(crate) struct AlterTopic {
    pub name: ObjectName,
    pub if_exists: bool,
    /// Names, and values as text; without one it is as if it had never been set.
    pub options: Vec<(String, Option<String>)>,
}

/// `DROP TOPIC [IF EXISTS] name, …`.
pub(crate) struct DropTopic {
    pub names: Vec<ObjectName>,
    pub if_exists: bool,
}

/// None if the next statement is none of them.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Option<Ast>, ParserError> {
    let verb = match parser.peek_token().token {
        Token::Word(word) => word.keyword,
        _ => return Ok(None),
    };
    if !matches!(verb, Keyword::CREATE | Keyword::ALTER | Keyword::DROP) {
        return Ok(None);
    }
    match parser.peek_nth_token(1).token {
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("topic") => {}
        _ => return Ok(None),
    }
    parser.next_token();
    parser.next_token();
    if verb == Keyword::ALTER {
        return alter(parser).map(Some);
    }
    if verb == Keyword::CREATE {
        let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
        let name = parser.parse_object_name(false)?;
        let options = parser.parse_options(Keyword::WITH)?;
        let options = options.into_iter().map(option).collect::<Result<_, _>>()?;
        Ok(Some(Ast::CreateTopic(CreateTopic { name, if_not_exists, options })))
    } else {
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let names = parser.parse_comma_separated(|p| p.parse_object_name(false))?;
        let _ = parser.parse_one_of_keywords(&[Keyword::CASCADE, Keyword::RESTRICT]);
        Ok(Some(Ast::DropTopic(DropTopic { names, if_exists })))
    }
}

fn alter(parser: &mut Parser<'_>) -> Result<Ast, ParserError> {
    let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
    let name = parser.parse_object_name(false)?;
    let options = match parser.expect_one_of_keywords(&[Keyword::SET, Keyword::RESET])? {
        Keyword::SET => {
            parser.expect_token(&Token::LParen)?;
            let given = parser.parse_comma_separated(Parser::parse_sql_option)?;
            let given = given.into_iter().map(|given| option(given).map(|(name, value)| (name, Some(value))));
            given.collect::<Result<_, _>>()?
        }
        _ => {
            parser.expect_token(&Token::LParen)?;
            let names = parser.parse_comma_separated(Parser::parse_identifier)?;
            names.into_iter().map(|name| (name.value.to_lowercase(), None)).collect()
        }
    };
    parser.expect_token(&Token::RParen)?;
    Ok(Ast::AlterTopic(AlterTopic { name, if_exists, options }))
}

/// An option's name, in small letters, and its value as text.
pub(crate) fn option(option: SqlOption) -> Result<(String, String), ParserError> {
    let bad = || ParserError::ParserError("Expected: name = value in WITH (…)".into());
    let SqlOption::KeyValue { key, value } = option else { return Err(bad()) };
    let text = match value {
        Expr::Value(value) => match value.value {
            Value::Number(text, _) | Value::SingleQuotedString(text) => text,
            Value::Boolean(b) => b.to_string(),
            _ => return Err(bad()),
        },
        Expr::Identifier(ident) => ident.value,
        _ => return Err(bad()),
    };
    Ok((key.value.to_lowercase(), text))
}
