//! `chronos topic`: SQL under another name, and dead letters.

use super::connect::{Connect, explain};
use super::events::Events;
use super::failure::{Failure, Outcome};
use super::pg::{Column, PgError, Sink};
use super::print::{Format, Printer};
use super::{identifier, quote};
use chronos_server::api::{ListDeadLettersRequest, Position, RedriveRequest, RedriveResponse};
use std::borrow::Cow;
use std::io::{BufWriter, StdoutLock, Write};

/// TEXT in PostgreSQL's catalogue.
const TEXT_OID: u32 = 25;

/// Makes, changes and lists topics, and their dead letters
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
        /// How often a group is handed an event before it becomes a dead letter
        #[arg(long, value_name = "N")]
        max_deliveries: Option<u32>,
        /// The topic that dead letters go to; its own name with .dead behind unless given
        #[arg(long, value_name = "TOPIC")]
        dead_letter: Option<String>,
        /// Do nothing if it is there already
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Changes what is set of a topic
    Alter {
        #[command(flatten)]
        connect: Connect,
        /// Its name
        topic: String,
        /// How long a message id is remembered: 7d, 1h
        #[arg(long, value_name = "LENGTH", value_parser = super::when::length)]
        dedup: Option<std::time::Duration>,
        /// How often a group is handed an event before it becomes a dead letter
        #[arg(long, value_name = "N")]
        max_deliveries: Option<u32>,
        /// The topic that dead letters go to
        #[arg(long, value_name = "TOPIC")]
        dead_letter: Option<String>,
        /// Set these back: dedup, max_deliveries, dead_letter
        #[arg(long, value_name = "OPTION", value_delimiter = ',')]
        reset: Vec<String>,
    },
    /// Shows one topic
    Show {
        #[command(flatten)]
        connect: Connect,
        /// Its name
        topic: String,
        /// How to show it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Lists dead letters, and publishes them again
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Lists topics
    List {
        #[command(flatten)]
        connect: Connect,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// Lists dead letters, and publishes them again
#[derive(Debug, clap::Subcommand)]
pub enum DeadCommand {
    /// Lists those that were not redriven
    List {
        #[command(flatten)]
        connect: Connect,
        /// The topic whose dead letters they are
        topic: String,
        /// How many at the most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// Those that were redriven too
        #[arg(long)]
        all: bool,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Publishes them to the topic that they came from again, each once
    Redrive {
        #[command(flatten)]
        connect: Connect,
        /// The topic whose dead letters they are
        topic: String,
        /// How many at the most
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: u32,
        /// Only these, as partition:offset
        #[arg(value_name = "PLACE", value_parser = place)]
        places: Vec<(u32, u64)>,
    },
}

fn place(text: &str) -> Result<(u32, u64), String> {
    let parts = text.split_once(':').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
    parts.ok_or_else(|| format!("{text:?} is no place; expected partition:offset, as in 0:17"))
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
        TopicCommand::Create {
            connect,
            topic,
            partitions,
            dedup,
            payload,
            max_deliveries,
            dead_letter,
            if_not_exists,
        } => {
            let payload =
                payload.map(|payload| format!("payload = '{}'", format!("{payload:?}").to_lowercase()));
            let partitions = partitions.map(|partitions| format!("partitions = {partitions}"));
            let mut options: Vec<String> = partitions.into_iter().chain(payload).collect();
            options.extend(changeable(dedup, max_deliveries, dead_letter));
            let options =
                if options.is_empty() { String::new() } else { format!(" WITH ({})", options.join(", ")) };
            let unless = if if_not_exists { "IF NOT EXISTS " } else { "" };
            let sql = format!("CREATE TOPIC {unless}{}{options}", identifier(&topic));
            print(&connect, &sql, Format::Table, quiet)
        }
        TopicCommand::Alter { connect, topic, dedup, max_deliveries, dead_letter, reset } => {
            let options = changeable(dedup, max_deliveries, dead_letter);
            if options.is_empty() && reset.is_empty() {
                return Err(Failure::usage(
                    "nothing is to be changed: give --max-deliveries or another option",
                ));
            }
            let names: Vec<String> = reset.iter().map(|name| identifier(&name.replace('-', "_"))).collect();
            let topic = identifier(&topic);
            let mut statements = Vec::new();
            if !names.is_empty() {
                statements.push(format!("ALTER TOPIC {topic} RESET ({})", names.join(", ")));
            }
            if !options.is_empty() {
                statements.push(format!("ALTER TOPIC {topic} SET ({})", options.join(", ")));
            }
            print(&connect, &statements.join("; "), Format::Table, quiet)
        }
        TopicCommand::Show { connect, topic, format } => {
            let sql = format!("SELECT * FROM chronos.topics WHERE topic = {}", quote(&topic));
            let rows = connect.sql()?.query(&sql).map_err(|error| explain(&error))?;
            if rows.rows.is_empty() {
                return Err(Failure::new(format!("42P01: topic {topic:?} does not exist")));
            }
            print(&connect, &sql, format, quiet)
        }
        TopicCommand::Dead(command) => super::block_on(dead(command, quiet)),
        TopicCommand::List { connect, format } => print(&connect, super::shell::LIST_TOPICS, format, quiet),
    }
}

/// Options of a topic that may be changed later, as SQL has them.
fn changeable(
    dedup: Option<std::time::Duration>,
    max_deliveries: Option<u32>,
    dead_letter: Option<String>,
) -> Vec<String> {
    let dedup = dedup.map(|dedup| format!("dedup = '{} seconds'", dedup.as_secs_f64()));
    let most = max_deliveries.map(|most| format!("max_deliveries = {most}"));
    let dead = dead_letter.map(|dead| format!("dead_letter = {}", quote(&dead)));
    dedup.into_iter().chain(most).chain(dead).collect()
}

async fn dead(command: DeadCommand, quiet: bool) -> Outcome {
    match command {
        DeadCommand::List { connect, topic, limit, all, format } => {
            let request = ListDeadLettersRequest { topic, limit, redriven: all };
            let letters = Events::connect(&connect).await?.dead_letters(request).await?;
            let mut printer = printer(format, quiet);
            let columns = ["place", "message_id", "group", "deliveries", "reason", "died_at", "redriven"];
            printer.columns(&columns.map(|name| Column { name: name.into(), oid: TEXT_OID }))?;
            for letter in &letters {
                let event = letter.event.clone().unwrap_or_default();
                let header = |name: &str| event.headers.get(&format!("chronos-dead-{name}")).cloned();
                let place = letter.position.map(|p| format!("{}:{}", p.partition, p.offset));
                let row = [
                    place,
                    Some(event.message_id.clone()),
                    header("group"),
                    header("deliveries"),
                    header("reason"),
                    Some(super::when::show(letter.died_at_micros)),
                    Some(if letter.redriven { "t" } else { "f" }.into()),
                ];
                printer.row(&row.each_ref().map(Option::as_deref))?;
            }
            Ok(printer.done(&format!("SELECT {}", letters.len()))?)
        }
        DeadCommand::Redrive { connect, topic, limit, places } => {
            let position = |(partition, offset)| Position { partition, offset };
            let positions = places.into_iter().map(position).collect();
            let request = RedriveRequest { topic: topic.clone(), positions, limit };
            let RedriveResponse { published, kept } =
                Events::connect(&connect).await?.redrive(request).await?;
            if !quiet {
                let mut out = std::io::stdout();
                for Position { partition, offset } in &published {
                    writeln!(out, "redriven: partition {partition}, offset {offset}")?;
                }
            }
            if kept.is_empty() {
                return Ok(());
            }
            let places: Vec<String> = kept.iter().map(|p| format!("{}:{}", p.partition, p.offset)).collect();
            Err(Failure::new(format!(
                "{} of topic {topic} are not redriven: {}",
                kept.len(),
                places.join(", ")
            ))
            .hint("they were redriven before, or the topic that they came from is gone"))
        }
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
