//! `chronos topic` and `chronos schedule`: SQL under another name.

use super::connect::{Connect, explain};
use super::failure::{Failure, Outcome};
use super::pg::{PgError, Sink};
use super::print::{Format, Printer};
use super::{identifier, quote};
use std::borrow::Cow;
use std::io::{BufWriter, StdoutLock, Write};

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

/// Lists and cancels events that are yet to come
#[derive(Debug, clap::Subcommand)]
pub enum ScheduleCommand {
    /// Lists pending timers in the order of their times
    List {
        #[command(flatten)]
        connect: Connect,
        /// Of this topic only
        topic: Option<String>,
        /// How many at the most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Cancels a pending timer; fails if it is too late
    Cancel {
        #[command(flatten)]
        connect: Connect,
        /// Its topic
        topic: String,
        /// Its id: the message id, unless it was given another
        id: String,
    },
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

/// Runs `chronos schedule`.
pub fn schedule(command: ScheduleCommand, quiet: bool) -> Outcome {
    match command {
        ScheduleCommand::List { connect, topic, limit, format } => {
            let only = topic.map_or_else(String::new, |topic| format!("WHERE topic = {} ", quote(&topic)));
            let sql = format!(
                "SELECT topic, timer_id, key, deliver_at, payload, version FROM chronos.timers \
                 {only}ORDER BY deliver_at LIMIT {limit}"
            );
            let rows = connect.sql()?.query(&sql).map_err(|error| explain(&error))?;
            let mut printer = printer(format, quiet);
            printer.columns(&rows.columns)?;
            for row in &rows.rows {
                let shown: Vec<_> = row.iter().map(|value| value.as_deref().map(readable)).collect();
                printer.row(&shown.iter().map(Option::as_deref).collect::<Vec<_>>())?;
            }
            Ok(printer.done(&rows.tag)?)
        }
        ScheduleCommand::Cancel { connect, topic, id } => {
            let sql = format!(
                "DELETE FROM chronos.timers WHERE topic = {} AND timer_id = {}",
                quote(&topic),
                quote(&id)
            );
            let rows = connect.sql()?.query(&sql).map_err(|error| explain(&error))?;
            match rows.tag.as_str() {
                "DELETE 0" => Err(Failure::new(format!(
                    "{topic}/{id}: no such pending timer: it has fired, was cancelled, or never was"
                ))),
                _ if quiet => Ok(()),
                _ => Ok(writeln!(std::io::stdout(), "cancelled {topic}/{id}")?),
            }
        }
    }
}

fn print(connect: &Connect, sql: &str, format: Format, quiet: bool) -> Outcome {
    connect.sql()?.run(sql, &mut printer(format, quiet)).map_err(|error| match error {
        PgError::Output(error) => error.into(),
        error => explain(&error),
    })
}

fn printer(format: Format, quiet: bool) -> Printer<BufWriter<StdoutLock<'static>>> {
    Printer::new(BufWriter::new(std::io::stdout().lock()), format, quiet)
}

/// Bytes that are text, as text; anything else as it is.
fn readable(value: &str) -> Cow<'_, str> {
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
