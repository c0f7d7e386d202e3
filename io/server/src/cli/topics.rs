//! `chronos topic`: SQL under another name.

use super::connect::{Connect, explain};
use super::failure::Outcome;
use super::identifier;
use super::pg::PgError;
use super::print::{Format, Printer};
use std::borrow::Cow;
use std::io::{BufWriter, StdoutLock};

/// Makes and lists topics
#[derive(Debug, clap::Subcommand)]
pub enum TopicCommand {
    /// Makes a topic
    Create {
        #[command(flatten)]
        connect: Connect,
        /// Its name
        topic: String,
        /// How many partitions; more than one are spread over the cluster's groups
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// How long a message id is remembered: 7d, 1h
        #[arg(long, value_name = "LENGTH", value_parser = super::when::length)]
        dedup: Option<std::time::Duration>,
        /// What payloads are: their column's type in SQL
        #[arg(long, value_enum)]
        payload: Option<Payload>,
        /// Do nothing if it is there already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Lists topics
    List {
        #[command(flatten)]
        connect: Connect,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// What a topic's payloads are.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Payload {
    /// BYTEA.
    Bytes,
    /// TEXT.
    Text,
    /// JSONB.
    Json,
}

/// Runs `chronos topic`.
pub fn topic(command: TopicCommand, quiet: bool) -> Outcome {
    match command {
        TopicCommand::Create { connect, topic, partitions, dedup, payload, if_not_exists } => {
            let dedup = dedup.map(|dedup| format!("dedup = '{} seconds'", dedup.as_secs_f64()));
            let payload =
                payload.map(|payload| format!("payload = '{}'", format!("{payload:?}").to_lowercase()));
            let partitions = partitions.map(|partitions| format!("partitions = {partitions}"));
            let options: Vec<String> = partitions.into_iter().chain(dedup).chain(payload).collect();
            let options =
                if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
            let unless = if if_not_exists { "IF NOT EXISTS " } else { "" };
            let sql = format!("CREATE TOPIC {unless}{}{options}", identifier(&topic));
            print(&connect, &sql, Format::Table, quiet)
        }
        TopicCommand::List { connect, format } => print(&connect, super::shell::LIST_TOPICS, format, quiet),
    }
}

pub(super) fn print(connect: &Connect, sql: &str, format: Format, quiet: bool) -> Outcome {
    connect.sql()?.run(sql, &mut printer(format, quiet)).map_err(|error| match error {
        PgError::Output(error) => error.into(),
        error => explain(&error),
    })
}

pub(super) fn printer(format: Format, quiet: bool) -> Printer<BufWriter<StdoutLock<'static>>> {
    Printer::new(BufWriter::new(std::io::stdout().lock()), format, quiet)
}

/// Bytes that are text, as text; anything else as it is.
pub(super) fn readable(value: &str) -> Cow<'_, str> {
    let bytes = value.strip_prefix("\\x").and_then(|digits| {
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect::<Option<Vec<u8>>>()
    });
    match bytes.map(String::from_utf8) {
        Some(Ok(text)) => Cow::Owned(text),
        _ => Cow::Borrowed(value),
    }
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn payloads_that_are_text_are_shown_as_text() {
        assert_eq!(readable("\\x6869"), "hi");
        assert_eq!(readable("\\xff00"), "\\xff00");
        assert_eq!(readable("alerts"), "alerts");
        assert_eq!(readable("\\xyz"), "\\xyz");
    }
}
