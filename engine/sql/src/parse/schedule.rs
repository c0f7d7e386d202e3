//! CREATE, ALTER and DROP SCHEDULE.
//!
//! ```text
//! CREATE SCHEDULE [IF NOT EXISTS] name clause …
//! ALTER SCHEDULE [IF EXISTS] name PAUSE | RESUME | TRIGGER | SET clause …
//! DROP SCHEDULE [IF EXISTS] name, …
//!
//! clause:  EVERY 'interval'
//!          CRON 'expression' [TIME ZONE 'zone']
//!          STARTING 'time' | ENDING 'time' | COUNT n | JITTER 'interval'
//!          MISFIRE SKIP | MISFIRE FIRE ONCE | MISFIRE FIRE ALL [WITHIN 'interval']
//!          OVERLAP SKIP | OVERLAP ALLOW
//!          PUBLISH TO topic [KEY 'key'] [HEADERS 'json'] PAYLOAD 'text'
//!          DO statement
//! ```
//!
//! Clauses come in any order, but DO is the last, since what follows it is the statement.

use super::{Ast, offset};
use chronos_proto::schedule::Misfire;
use sqlparser::ast::{ObjectName, Value};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

pub(crate) enum ScheduleStatement {
    Create { name: ObjectName, if_not_exists: bool, clauses: Box<Clauses> },
    Alter { name: ObjectName, if_exists: bool, change: Change },
    Drop { names: Vec<ObjectName>, if_exists: bool },
}

pub(crate) enum Change {
    Pause,
    Resume,
    Trigger,
    Set(Box<Clauses>),
}

/// What is said of a schedule, as it is written.
#[derive(Default)]
pub(crate) struct Clauses {
    pub rule: Option<Rule>,
    pub zone: Option<String>,
    pub starting: Option<String>,
    pub ending: Option<String>,
    pub count: Option<u64>,
    pub jitter: Option<String>,
    pub misfire: Option<Policy>,
    pub overlap: Option<bool>,
    pub action: Option<Action>,
}

pub(crate) enum Rule {
    Every(String),
    Cron(String),
}

/// A policy, and the interval of its WITHIN.
pub(crate) struct Policy {
    pub misfire: Misfire,
    pub within: Option<String>,
}

pub(crate) enum Action {
    Publish { topic: ObjectName, key: Option<String>, headers: Option<String>, payload: String },
    Do(String),
}

/// None if the next statement is none of them. `sql` is the whole text.
pub(super) fn parse(parser: &mut Parser<'_>, sql: &str) -> Result<Option<Ast>, ParserError> {
    let first = match parser.peek_token().token {
        Token::Word(word) => word.keyword,
        _ => return Ok(None),
    };
    if !matches!(first, Keyword::CREATE | Keyword::ALTER | Keyword::DROP)
        || !is_word(&parser.peek_nth_token(1).token, "schedule")
    {
        return Ok(None);
    }
    parser.next_token();
    parser.next_token();
    let statement = match first {
        Keyword::CREATE => {
            let if_not_exists = parser.parse_keywords(&[Keyword::IF, Keyword::NOT, Keyword::EXISTS]);
            let name = parser.parse_object_name(false)?;
            ScheduleStatement::Create { name, if_not_exists, clauses: Box::new(clauses(parser, sql)?) }
        }
        Keyword::ALTER => {
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let name = parser.parse_object_name(false)?;
            let change = match word(parser)?.as_str() {
                "pause" => Change::Pause,
                "resume" => Change::Resume,
                "trigger" => Change::Trigger,
                "set" => Change::Set(Box::new(clauses(parser, sql)?)),
                _ => return expected(parser, "PAUSE, RESUME, TRIGGER or SET"),
            };
            ScheduleStatement::Alter { name, if_exists, change }
        }
        _ => {
            let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
            let names = parser.parse_comma_separated(|p| p.parse_object_name(false))?;
            let _ = parser.parse_one_of_keywords(&[Keyword::CASCADE, Keyword::RESTRICT]);
            ScheduleStatement::Drop { names, if_exists }
        }
    };
    Ok(Some(Ast::Schedule(Box::new(statement))))
}

fn is_word(token: &Token, wanted: &str) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(wanted))
}

fn accept(parser: &mut Parser<'_>, wanted: &str) -> bool {
    let is = is_word(&parser.peek_token().token, wanted);
    if is {
        parser.next_token();
    }
    is
}

/// An error at the token that was taken last.
fn expected<T>(parser: &mut Parser<'_>, wanted: &str) -> Result<T, ParserError> {
    parser.prev_token();
    let found = parser.peek_token();
    parser.expected(wanted, found)
}

/// The next word, in small letters.
fn word(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    match parser.next_token().token {
        Token::Word(word) if word.quote_style.is_none() => Ok(word.value.to_lowercase()),
        _ => expected(parser, "a clause of a schedule"),
    }
}

fn string(parser: &mut Parser<'_>) -> Result<String, ParserError> {
    match parser.parse_value()?.value {
        Value::SingleQuotedString(text)
        | Value::EscapedStringLiteral(text)
        | Value::DollarQuotedString(sqlparser::ast::DollarQuotedString { value: text, .. }) => Ok(text),
        _ => expected(parser, "a string"),
    }
}

fn clauses(parser: &mut Parser<'_>, sql: &str) -> Result<Clauses, ParserError> {
    let mut clauses = Clauses::default();
    let mut first = true;
    while first || !matches!(parser.peek_token().token, Token::EOF | Token::SemiColon) {
        first = false;
        let name = word(parser)?;
        let again = match name.as_str() {
            "every" => clauses.rule.replace(Rule::Every(string(parser)?)).is_some(),
            "cron" => clauses.rule.replace(Rule::Cron(string(parser)?)).is_some(),
            "time" if accept(parser, "zone") => clauses.zone.replace(string(parser)?).is_some(),
            "starting" => clauses.starting.replace(string(parser)?).is_some(),
            "ending" => clauses.ending.replace(string(parser)?).is_some(),
            "count" => clauses.count.replace(parser.parse_literal_uint()?).is_some(),
            "jitter" => clauses.jitter.replace(string(parser)?).is_some(),
            "misfire" => clauses.misfire.replace(policy(parser)?).is_some(),
            "overlap" => {
                let allow = match word(parser)?.as_str() {
                    "allow" => true,
                    "skip" => false,
                    _ => return expected(parser, "SKIP or ALLOW"),
                };
                clauses.overlap.replace(allow).is_some()
            }
            "publish" => clauses.action.replace(publish(parser)?).is_some(),
            "do" => {
                let start = parser.peek_token().span.start;
                parser.parse_statement()?;
                let text = text_from(sql, start, parser);
                clauses.action.replace(Action::Do(text)).is_some()
            }
            _ => return expected(parser, "a clause of a schedule"),
        };
        if again {
            let message = format!("{} is said twice", name.to_uppercase());
            return Err(ParserError::ParserError(message));
        }
    }
    Ok(clauses)
}

fn policy(parser: &mut Parser<'_>) -> Result<Policy, ParserError> {
    let of = |misfire| Policy { misfire, within: None };
    if accept(parser, "skip") {
        return Ok(of(Misfire::Skip));
    }
    if !accept(parser, "fire") {
        parser.next_token();
        return expected(parser, "SKIP, FIRE ONCE or FIRE ALL");
    }
    match word(parser)?.as_str() {
        "once" => Ok(of(Misfire::FireOnce)),
        "all" => {
            let within = if accept(parser, "within") { Some(string(parser)?) } else { None };
            Ok(Policy { misfire: Misfire::FireAll(None), within })
        }
        _ => expected(parser, "ONCE or ALL"),
    }
}

fn publish(parser: &mut Parser<'_>) -> Result<Action, ParserError> {
    if !accept(parser, "to") {
        parser.next_token();
        return expected(parser, "TO");
    }
    let topic = parser.parse_object_name(false)?;
    let (mut key, mut headers) = (None, None);
    loop {
        match word(parser)?.as_str() {
            "key" => key = Some(string(parser)?),
            "headers" => headers = Some(string(parser)?),
            "payload" => return Ok(Action::Publish { topic, key, headers, payload: string(parser)? }),
            _ => return expected(parser, "KEY, HEADERS or PAYLOAD"),
        }
    }
}

/// What was read from a place on.
fn text_from(sql: &str, start: Location, parser: &Parser<'_>) -> String {
    let next = parser.peek_token();
    let end = if next.token == Token::EOF { None } else { offset(sql, next.span.start) };
    let start = offset(sql, start).unwrap_or(sql.len());
    sql[start..end.unwrap_or(sql.len()).max(start)].trim_end().to_owned()
}
