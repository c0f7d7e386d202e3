//! CREATE, ALTER and DROP SCHEDULE: what their clauses say is read and checked, except for what depends on the schedule as
//! it is when the statement runs.

use super::Binder;
use super::names::user_name;
use crate::action::{Action, Dropped, RuleSays, ScheduleChange, ScheduleSays, SchemaChange};
use crate::error::{SqlError, SqlState};
use crate::exec::write::event;
use crate::parse::schedule::{self as parsed, Change, Clauses, ScheduleStatement};
use crate::parse::{self, Ast};
use crate::time;
use chronos_engine::schedule::{Cron, zone};
use chronos_proto::limits::SCHEDULE_TEXT_MAX_BYTES;
use chronos_proto::schedule::{Misfire, ScheduleAction};
use chronos_proto::time::Timestamp;
use chronos_proto::{Type, Value};
use sqlparser::ast;

/// The shortest interval between two occurrences, in microseconds.
const EVERY_MIN: i64 = 100_000;

impl Binder<'_> {
    pub(super) fn bind_schedule(&mut self, statement: &ScheduleStatement) -> Result<Action, SqlError> {
        Ok(Action::Schema(match statement {
            ScheduleStatement::Create { name, if_not_exists, clauses } => {
                let says = self.schedule_says(clauses)?;
                if says.rule.is_none() || says.action.is_none() {
                    let missing = if says.rule.is_none() { "EVERY or CRON" } else { "PUBLISH TO or DO" };
                    let message = format!("a schedule needs {missing}");
                    return Err(SqlError::new(SqlState::SYNTAX_ERROR, message));
                }
                SchemaChange::CreateSchedule {
                    name: user_name(name)?,
                    if_not_exists: *if_not_exists,
                    says: Box::new(says),
                }
            }
            ScheduleStatement::Alter { name, if_exists, change } => SchemaChange::AlterSchedule {
                name: user_name(name)?,
                if_exists: *if_exists,
                change: match change {
                    Change::Pause => ScheduleChange::Pause,
                    Change::Resume => ScheduleChange::Resume,
                    Change::Trigger => ScheduleChange::Trigger,
                    Change::Set(clauses) => ScheduleChange::Set(Box::new(self.schedule_says(clauses)?)),
                },
            },
            ScheduleStatement::Drop { names, if_exists } => SchemaChange::Drop {
                names: names.iter().map(user_name).collect::<Result<_, _>>()?,
                if_exists: *if_exists,
                what: Dropped::Schedule,
                cascade: false,
            },
        }))
    }

    fn schedule_says(&mut self, clauses: &Clauses) -> Result<ScheduleSays, SqlError> {
        let rule = match &clauses.rule {
            Some(parsed::Rule::Every(text)) => Some(RuleSays::Every(every(text)?)),
            Some(parsed::Rule::Cron(text)) => {
                let _readable: Cron =
                    text.parse().map_err(|error: chronos_engine::schedule::CronError| {
                        SqlError::new(SqlState::INVALID_PARAMETER, error.to_string())
                            .hint("the fields are minute, hour, day of the month, month and day of the week")
                    })?;
                Some(RuleSays::Cron(short("cron expression", text)?))
            }
            None => None,
        };
        if let (Some(RuleSays::Every(_)), Some(_)) = (&rule, &clauses.zone) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER,
                "EVERY counts elapsed time and has no time zone",
            )
            .hint("CRON goes by the clock of a time zone"));
        }
        if let Some(name) = clauses.zone.as_deref().filter(|name| zone(name).is_none()) {
            let message = format!("time zone \"{name}\" not recognized");
            return Err(SqlError::new(SqlState::INVALID_PARAMETER, message)
                .hint("name a zone of the tz database, as Europe/Berlin"));
        }
        if clauses.count == Some(0) {
            return Err(SqlError::new(SqlState::INVALID_PARAMETER, "COUNT must be at least 1"));
        }
        let misfire = match &clauses.misfire {
            Some(parsed::Policy { misfire: Misfire::FireAll(_), within: Some(text) }) => {
                Some(Misfire::FireAll(Some(interval("WITHIN", text)?)))
            }
            policy => policy.as_ref().map(|policy| policy.misfire),
        };
        Ok(ScheduleSays {
            rule,
            zone: clauses.zone.clone(),
            starting: clauses.starting.as_deref().map(|text| self.moment("STARTING", text)).transpose()?,
            ending: clauses.ending.as_deref().map(|text| self.moment("ENDING", text)).transpose()?,
            count: clauses.count,
            jitter_micros: clauses.jitter.as_deref().map(|text| interval("JITTER", text)).transpose()?,
            misfire,
            overlap: clauses.overlap,
            action: clauses.action.as_ref().map(|action| self.schedule_action(action)).transpose()?,
        })
    }

    fn moment(&self, what: &str, text: &str) -> Result<Timestamp, SqlError> {
        let at = Timestamp(time::parse_timestamp(text, self.session.settings.zone())?);
        if (Timestamp::EPOCH..=Timestamp::MAX).contains(&at) {
            return Ok(at);
        }
        let message = format!("{what} is out of range: it may lie between 1970 and 9999");
        Err(SqlError::new(SqlState::DATETIME_OVERFLOW, message))
    }

    fn schedule_action(&mut self, action: &parsed::Action) -> Result<ScheduleAction, SqlError> {
        match action {
            parsed::Action::Publish { topic, key, headers, payload } => {
                let name = user_name(topic)?;
                let found = self.catalog.by_name(&name).and_then(|r| Some((r.id, r.topic()?.payload)));
                let (topic, ty) = found.ok_or_else(|| {
                    SqlError::new(SqlState::UNDEFINED_TABLE, format!("topic \"{name}\" does not exist"))
                })?;
                self.relations.insert(topic);
                let json = |text: &str| crate::json::canonical(text).map(Value::Json);
                let payload = match ty {
                    Type::Json => json(payload)?,
                    _ => Value::Text(payload.clone()),
                };
                let key = key.clone().map_or(Value::Null, Value::Text);
                let headers = headers.as_deref().map_or(Ok(Value::Null), json)?;
                let event = event("occurrence".to_owned(), &key, &headers, &payload)?;
                let (key, headers, payload) = (event.key, event.headers, event.payload);
                Ok(ScheduleAction::Publish { topic, key, headers, payload })
            }
            parsed::Action::Do(text) => {
                let statements = parse::parse(text)?;
                let runs = statements.first().is_some_and(|statement| match statement.ast() {
                    Ast::Sql(ast) => matches!(
                        **ast,
                        ast::Statement::Query(_)
                            | ast::Statement::Insert(_)
                            | ast::Statement::Update(_)
                            | ast::Statement::Delete(_)
                    ),
                    _ => false,
                });
                if !runs {
                    return Err(SqlError::unsupported(
                        "a schedule that does anything but read and write rows",
                    )
                    .hint("DO takes INSERT, UPDATE, DELETE or SELECT"));
                }
                Ok(ScheduleAction::Statement(short("statement", text)?))
            }
        }
    }
}

fn short(what: &str, text: &str) -> Result<String, SqlError> {
    if text.len() <= SCHEDULE_TEXT_MAX_BYTES {
        return Ok(text.to_owned());
    }
    let message = format!("the {what} of a schedule may have {SCHEDULE_TEXT_MAX_BYTES} bytes at the most");
    Err(SqlError::new(SqlState::LIMIT_EXCEEDED, message))
}

/// An interval in microseconds, not negative.
fn interval(what: &str, text: &str) -> Result<u64, SqlError> {
    let micros = time::parse_interval(text)?.estimate();
    u64::try_from(micros).map_err(|_| {
        SqlError::new(SqlState::INVALID_PARAMETER, format!("{what} must not be negative: '{text}'"))
    })
}

fn every(text: &str) -> Result<u64, SqlError> {
    let interval = time::parse_interval(text)?;
    if interval.months != 0 {
        let message = format!("EVERY '{text}': months differ in length");
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, message)
            .hint("CRON '0 0 1 * *' occurs at the beginning of each month"));
    }
    let micros = interval.estimate();
    if micros < EVERY_MIN.into() {
        let message = format!("EVERY '{text}': the shortest is 100 milliseconds");
        return Err(SqlError::new(SqlState::INVALID_PARAMETER, message));
    }
    u64::try_from(micros)
        .map_err(|_| SqlError::new(SqlState::INVALID_PARAMETER, format!("EVERY '{text}' is too long")))
}
