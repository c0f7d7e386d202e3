//! Tab in the shell: keywords, and the names of relations and columns.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

const KEYWORDS: &str = "ALTER AND AS ASC BEGIN BETWEEN BIGINT BOOLEAN BY BYTEA CASE CAST COMMIT CONFLICT CREATE DATE \
    DEFAULT DELETE DESC DISTINCT DO DOUBLE DROP ELSE END EXISTS EXTRACT FALSE FLOAT FROM GROUP HAVING IF IN INDEX \
    INNER INSERT INT INTEGER INTERVAL INTO IS JOIN JSONB KEY LIKE LIMIT NOT NOTHING NOW NULL OFFSET ON OR ORDER \
    PRIMARY ROLLBACK SELECT SET STRING TABLE TEXT THEN TIMESTAMPTZ TOPIC TRUE UPDATE USING UUID VALUES WHEN WHERE WITH";

/// Completes the word before the cursor.
#[derive(Default)]
pub struct Words {
    names: Vec<String>,
}

impl Words {
    /// Takes these names in place of those before.
    pub fn set_names(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// Where the last word of `line` begins, and what it may become: in the case it was begun in.
    fn complete_word(&self, line: &str) -> (usize, Vec<String>) {
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '$');
        let begin = line
            .rfind(|c: char| !is_word(c))
            .map_or(0, |at| at + line[at..].chars().next().map_or(1, char::len_utf8));
        let word = &line[begin..];
        if word.is_empty() {
            return (begin, Vec::new());
        }
        let starts = |candidate: &str| {
            candidate.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        let is_lower = word.starts_with(|c: char| c.is_lowercase());
        let keywords = KEYWORDS.split_whitespace().filter(|keyword| starts(keyword));
        let keywords =
            keywords.map(|keyword| if is_lower { keyword.to_lowercase() } else { keyword.to_owned() });
        let names = self.names.iter().filter(|name| starts(name)).cloned();
        let mut all: Vec<String> = names.chain(keywords).collect();
        all.sort();
        all.dedup();
        (begin, all)
    }
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.complete_word(&line[..at]))
    }
}

impl Helper for Words {}
impl Highlighter for Words {}
impl Validator for Words {}
impl Hinter for Words {
    type Hint = String;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_completed_in_their_case() {
        let mut words = Words::default();
        words.set_names(vec!["readings".into(), "reading_id".into(), "chronos.timers".into()]);
        assert_eq!(words.complete_word("SELECT * FR"), (9, vec!["FROM".to_owned()]));
        assert_eq!(words.complete_word("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(words.complete_word("(READ"), (1, vec!["reading_id".to_owned(), "readings".to_owned()]));
        assert_eq!(words.complete_word("from chronos.t"), (5, vec!["chronos.timers".to_owned()]));
        assert_eq!(words.complete_word("é"), (0, vec![]));
        assert_eq!(words.complete_word("from "), (5, vec![]));
    }
}
