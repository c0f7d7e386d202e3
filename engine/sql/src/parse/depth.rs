//! How deep a tree the tokens will make, at the most.

use crate::error::{SqlError, SqlState};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The longest chain of operators between two commas. Chains nest to the left, one level each.
const CHAIN_MAX: usize = 1_000;
/// The deepest parentheses and brackets.
const NESTING_MAX: usize = 50;

pub(super) fn too_complex() -> SqlError {
    SqlError::new(SqlState::TOO_COMPLEX, "stack depth limit exceeded: the statement is nested too deep")
        .hint("split the expression, or use IN (…) or = ANY (…) for long chains of OR")
}

/// Refuses what would overflow the stack. Each open parenthesis counts, and each operator since the last comma at
/// every level that is open.
pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut levels: Vec<usize> = vec![0];
    let mut total = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => levels.push(0),
            Token::RParen | Token::RBracket | Token::RBrace => {
                total -= levels.pop().unwrap_or(0);
                if levels.is_empty() {
                    levels.push(0);
                }
                // What follows a closed group may chain on: a[1][2], f(x)(y).
                count(&mut levels, &mut total);
            }
            Token::Comma | Token::SemiColon => {
                if let Some(level) = levels.last_mut() {
                    total -= std::mem::take(level);
                }
            }
            Token::Word(word) => {
                let chains = matches!(
                    word.keyword,
                    Keyword::AND
                        | Keyword::OR
                        | Keyword::NOT
                        | Keyword::IS
                        | Keyword::IN
                        | Keyword::LIKE
                        | Keyword::ILIKE
                        | Keyword::SIMILAR
                        | Keyword::BETWEEN
                        | Keyword::UNION
                        | Keyword::EXCEPT
                        | Keyword::INTERSECT
                        | Keyword::COLLATE
                        | Keyword::AT
                        | Keyword::CASE
                        | Keyword::EXISTS
                        | Keyword::EXPLAIN
                        | Keyword::PREPARE
                        | Keyword::ARRAY
                        | Keyword::JOIN
                        | Keyword::INTERVAL
                        | Keyword::NOTHING
                );
                if chains {
                    count(&mut levels, &mut total);
                }
            }
            Token::Whitespace(_) | Token::EOF | Token::Number(..) | Token::SingleQuotedString(_) => {}
            _ => count(&mut levels, &mut total),
        }
        if levels.len() > NESTING_MAX || total > CHAIN_MAX {
            return Err(too_complex());
        }
    }
    Ok(())
}

fn count(levels: &mut [usize], total: &mut usize) {
    if let Some(level) = levels.last_mut() {
        *level += 1;
        *total += 1;
    }
}
