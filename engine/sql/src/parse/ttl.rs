//! `WITH TTL=7d`, which is `WITH (ttl = '7d')`.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Puts parentheses and quotes where the parser wants them.
pub(super) fn spell_out(tokens: &mut Vec<TokenWithSpan>) {
    let mut at = 0;
    while at < tokens.len() {
        if let Some((value, end)) = short_form(tokens, at) {
            let span = tokens[at + 1].span;
            let ttl = Token::make_word("ttl", None);
            let spelled = [Token::LParen, ttl, Token::Eq, Token::SingleQuotedString(value), Token::RParen];
            let spelled = spelled.map(|token| TokenWithSpan { token, span });
            tokens.splice(at + 1..end, spelled);
        }
        at += 1;
    }
}

/// The value behind the `WITH` at a place, and where it ends.
fn short_form(tokens: &[TokenWithSpan], at: usize) -> Option<(String, usize)> {
    let keyword = |token: &Token| matches!(token, Token::Word(word) if word.keyword == Keyword::WITH);
    if !keyword(&tokens[at].token) {
        return None;
    }
    let skip = |from: usize| {
        let space = |t: &TokenWithSpan| matches!(t.token, Token::Whitespace(_));
        from + tokens[from..].iter().take_while(|t| space(t)).count()
    };
    let name = skip(at + 1);
    match &tokens.get(name)?.token {
        Token::Word(word) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case("ttl") => {}
        _ => return None,
    }
    let equal = skip(name + 1);
    if !matches!(tokens.get(equal)?.token, Token::Eq) {
        return None;
    }
    let number = skip(equal + 1);
    match &tokens.get(number)?.token {
        Token::SingleQuotedString(text) => Some((text.clone(), number + 1)),
        Token::Number(digits, _) => match tokens.get(number + 1).map(|t| &t.token) {
            Some(Token::Word(unit)) if unit.quote_style.is_none() => {
                Some((format!("{digits}{}", unit.value), number + 2))
            }
            _ => Some((digits.clone(), number + 1)),
        },
        _ => None,
    }
}
