//! `chronos schedule`: recurring schedules, and single events that are yet to come. All of it is SQL under another name.

use super::connect::{Connect, explain};
use super::failure::{Failure, Outcome};
use super::pg::{Column, Sink};
use super::print::Format;
use super::topics::{print, printer, readable};
use super::{identifier, quote};
use std::io::Write;

/// Makes recurring schedules, and lists and cancels events that are yet to come
#[derive(Debug, clap::Subcommand)]
pub enum ScheduleCommand {
    /// Makes a recurring schedule
    Create(Box<CreateArgs>),
    /// Lists recurring schedules
    Recurring {
        #[command(flatten)]
        connect: Connect,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Shows one recurring schedule
    Show {
        #[command(flatten)]
        connect: Connect,
        /// Its name
        name: String,
    },
    /// Nothing occurs until it is resumed
    Pause(OneArgs),
    /// It goes on; nothing of the pause is made up for
    Resume(OneArgs),
    /// It occurs once more, now
    Trigger(OneArgs),
    /// Ends a recurring schedule and forgets its runs
    Drop(OneArgs),
    /// Lists what became of the last runs
    Runs {
        #[command(flatten)]
        connect: Connect,
        /// Of this recurring schedule only
        name: Option<String>,
        /// How many at the most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// How to show them
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Lists single events that are yet to come, in the order of their times
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
    /// Cancels a single event that is yet to come; fails if it is too late
    Cancel {
        #[command(flatten)]
        connect: Connect,
        /// Its topic
        topic: String,
        /// Its id: the message id, unless it was given another
        id: String,
    },
}

/// A recurring schedule.
#[derive(Debug, clap::Args)]
pub struct OneArgs {
    #[command(flatten)]
    connect: Connect,
    /// Its name
    name: String,
}

/// What a recurring schedule is made of.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("rule").required(true).args(["every", "cron"]))]
#[command(group = clap::ArgGroup::new("action").required(true).args(["topic", "sql"]))]
pub struct CreateArgs {
    #[command(flatten)]
    connect: Connect,
    /// Its name
    name: String,
    /// In steps of elapsed time: '5 minutes', '1 day'
    #[arg(long, value_name = "INTERVAL")]
    every: Option<String>,
    /// By the clock: 'minute hour day month weekday', or six fields with seconds first
    #[arg(long, value_name = "EXPRESSION")]
    cron: Option<String>,
    /// Whose clock: Europe/Berlin; UTC unless it is given
    #[arg(long, value_name = "ZONE", requires = "cron")]
    time_zone: Option<String>,
    /// Publish to this topic
    #[arg(long, value_name = "TOPIC", requires = "payload")]
    topic: Option<String>,
    /// What to publish
    #[arg(long, requires = "topic")]
    payload: Option<String>,
    /// The event's key
    #[arg(long, requires = "topic")]
    key: Option<String>,
    /// Run this statement
    #[arg(long, value_name = "STATEMENT")]
    sql: Option<String>,
    /// Nothing occurs before
    #[arg(long, value_name = "TIME")]
    starting: Option<String>,
    /// Nothing occurs from then on
    #[arg(long, value_name = "TIME")]
    ending: Option<String>,
    /// It ends after so many occurrences
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Each occurrence is up to so much later
    #[arg(long, value_name = "INTERVAL")]
    jitter: Option<String>,
    /// What becomes of occurrences that were not fired in time
    #[arg(long, value_enum)]
    misfire: Option<Misfire>,
    /// With `--misfire fire-all`: only those that were due so recently
    #[arg(long, value_name = "INTERVAL", requires = "misfire")]
    within: Option<String>,
    /// Whether a statement runs while an earlier one still does
    #[arg(long, value_enum)]
    overlap: Option<Overlap>,
    /// Do nothing if it is there already
    #[arg(long)]
    if_not_exists: bool,
}

/// What becomes of occurrences that were not fired in time.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Misfire {
    /// They are passed over.
    Skip,
    /// The last is made up for.
    FireOnce,
    /// All are made up for.
    FireAll,
}

/// Whether a statement runs while an earlier one still does.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Overlap {
    /// It is passed over.
    Skip,
    /// It runs.
    Allow,
}

impl CreateArgs {
    fn statement(&self) -> String {
        let unless = if self.if_not_exists { "IF NOT EXISTS " } else { "" };
        let mut sql = format!("CREATE SCHEDULE {unless}{}", identifier(&self.name));
        let mut clause = |word: &str, text: &Option<String>| {
            if let Some(text) = text {
                sql.push_str(&format!(" {word} {}", quote(text)));
            }
        };
        clause("EVERY", &self.every);
        clause("CRON", &self.cron);
        clause("TIME ZONE", &self.time_zone);
        clause("STARTING", &self.starting);
        clause("ENDING", &self.ending);
        clause("JITTER", &self.jitter);
        if let Some(count) = self.count {
            sql.push_str(&format!(" COUNT {count}"));
        }
        if let Some(misfire) = self.misfire {
            sql.push_str(match misfire {
                Misfire::Skip => " MISFIRE SKIP",
                Misfire::FireOnce => " MISFIRE FIRE ONCE",
                Misfire::FireAll => " MISFIRE FIRE ALL",
            });
        }
        if let Some(within) = &self.within {
            sql.push_str(&format!(" WITHIN {}", quote(within)));
        }
        if let Some(overlap) = self.overlap {
            sql.push_str(match overlap {
                Overlap::Skip => " OVERLAP SKIP",
                Overlap::Allow => " OVERLAP ALLOW",
            });
        }
        if let (Some(topic), Some(payload)) = (&self.topic, &self.payload) {
            let key = self.key.as_ref().map_or_else(String::new, |key| format!(" KEY {}", quote(key)));
            sql.push_str(&format!(" PUBLISH TO {}{key} PAYLOAD {}", identifier(topic), quote(payload)));
        }
        if let Some(statement) = &self.sql {
            sql.push_str(&format!(" DO {statement}"));
        }
        sql
    }
}

const RECURRING: &str = "SELECT schedule, spec, time_zone, state, next_at, last_at, runs, missed, skipped, failed, \
                         action FROM chronos.schedules";

/// Runs `chronos schedule`.
pub fn run(command: ScheduleCommand, quiet: bool) -> Outcome {
    let alter = |args: OneArgs, what: &str| {
        let sql = format!("ALTER SCHEDULE {} {what}", identifier(&args.name));
        print(&args.connect, &sql, Format::Table, quiet)
    };
    match command {
        ScheduleCommand::Create(args) => print(&args.connect, &args.statement(), Format::Table, quiet),
        ScheduleCommand::Recurring { connect, format } => {
            print(&connect, &format!("{RECURRING} ORDER BY schedule"), format, quiet)
        }
        ScheduleCommand::Show { connect, name } => {
            let sql = format!("SELECT * FROM chronos.schedules WHERE schedule = {}", quote(&name));
            let rows = connect.sql()?.query(&sql).map_err(|error| explain(&error))?;
            let Some(row) = rows.rows.first() else {
                return Err(Failure::new(format!(
                    "{name}: no such schedule: `chronos schedule recurring` lists them"
                )));
            };
            let mut printer = printer(Format::Table, quiet);
            printer.columns(&["what", "is"].map(|name| Column { name: name.to_owned(), oid: 25 }))?;
            for (column, value) in rows.columns.iter().zip(row) {
                printer.row(&[Some(column.name.as_str()), value.as_deref()])?;
            }
            Ok(printer.done("")?)
        }
        ScheduleCommand::Pause(args) => alter(args, "PAUSE"),
        ScheduleCommand::Resume(args) => alter(args, "RESUME"),
        ScheduleCommand::Trigger(args) => alter(args, "TRIGGER"),
        ScheduleCommand::Drop(args) => {
            let sql = format!("DROP SCHEDULE {}", identifier(&args.name));
            print(&args.connect, &sql, Format::Table, quiet)
        }
        ScheduleCommand::Runs { connect, name, limit, format } => {
            let only = name.map_or_else(String::new, |name| format!("WHERE schedule = {} ", quote(&name)));
            let sql = format!(
                "SELECT schedule, due_at, fired_at, ended_at, outcome, missed, error_code, error, occurrence_id \
                 FROM chronos.schedule_runs {only}ORDER BY coalesce(due_at, ended_at) DESC LIMIT {limit}"
            );
            print(&connect, &sql, format, quiet)
        }
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
