//! `docs/INVARIANTS.md` names assertions and checkers by file and words. This keeps the names alive.

// Tests may read files; the crate may not.
#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;

/// The two code spans of an item like "- checker: `file`: `words`".
fn citation(item: &str) -> Option<(&str, &str)> {
    let (file, rest) = item.strip_prefix('`')?.split_once("`: `")?;
    Some((file, rest.strip_suffix('`')?))
}

#[test]
fn what_the_document_cites_exists() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("docs/INVARIANTS.md")).expect("the document is there");
    let mut wrong = Vec::new();
    let mut sections = document.split("\n### ");
    let preface = sections.next().unwrap_or_default();
    assert!(preface.starts_with("# Invariants"));
    let mut count = 0;
    for section in sections {
        count += 1;
        let title = section.lines().next().unwrap_or_default();
        if !title.starts_with(&format!("{count}. ")) {
            wrong.push(format!("{title:?} should be number {count}"));
        }
        let items = |kind: &str| -> Vec<&str> {
            section
                .lines()
                .filter_map(|line| line.strip_prefix("- ")?.strip_prefix(kind)?.strip_prefix(": "))
                .collect()
        };
        let cited = [items("assertion"), items("checker")].concat();
        if items("source").len() != 1 || cited.is_empty() {
            wrong.push(format!("{title:?} needs one source and an assertion or a checker"));
        }
        for item in cited {
            match citation(item) {
                None => wrong.push(format!("{title:?} cites {item:?}, not `file`: `words`")),
                Some((file, words)) => match std::fs::read_to_string(root.join(file)) {
                    Err(error) => wrong.push(format!("{title:?} cites {file}: {error}")),
                    Ok(text) if !text.contains(words) => wrong.push(format!("{file} does not say {words:?}")),
                    Ok(_) => {}
                },
            }
        }
    }
    assert!(count >= 30, "{count} invariants were found");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
