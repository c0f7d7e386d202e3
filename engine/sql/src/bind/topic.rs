//! CREATE TOPIC, ALTER TOPIC and DROP TOPIC.

use super::Binder;
use super::ddl::new_relation;
use super::names::user_name;
use crate::action::{Action, Dropped, SchemaChange, TopicOption};
use crate::error::{SqlError, SqlState};
use crate::parse::{AlterTopic, CreateTopic, DropTopic};
use chronos_proto::Type;
use chronos_proto::limits::TOPIC_PARTITIONS_MAX;
use chronos_proto::schema::{RelationKind, Topic};

/// How long a topic remembers message ids unless told otherwise.
const DEDUP_DEFAULT_MICROS: u64 = 24 * 3600 * 1_000_000;

impl Binder<'_> {
    pub(super) fn bind_create_topic(&mut self, create: &CreateTopic) -> Result<Action, SqlError> {
        let name = user_name(&create.name)?;
        let (partitions, payload, settings) = (1, Type::Bytes, Vec::new());
        let mut topic = Topic { partitions, dedup_micros: DEDUP_DEFAULT_MICROS, payload, settings };
        let mut options = Vec::new();
        for (option, value) in &create.options {
            match option.as_str() {
                "partitions" => {
                    let partitions =
                        value.parse::<u32>().ok().filter(|n| (1..=TOPIC_PARTITIONS_MAX).contains(n));
                    topic.partitions = partitions.ok_or_else(|| invalid(option, value))?;
                }
                "payload" => {
                    topic.payload = match value.as_str() {
                        "text" => Type::Text,
                        "json" | "jsonb" => Type::Json,
                        "bytes" | "bytea" => Type::Bytes,
                        _ => return Err(invalid(option, value)),
                    }
                }
                _ => options.push(changeable(option, Some(value))?),
            }
        }
        let relation = new_relation(name, RelationKind::Topic(topic));
        let if_not_exists = create.if_not_exists;
        Ok(Action::Schema(SchemaChange::CreateTopic { relation, if_not_exists, options }))
    }

    pub(super) fn bind_alter_topic(&mut self, alter: &AlterTopic) -> Result<Action, SqlError> {
        let name = user_name(&alter.name)?;
        let changed = alter.options.iter().map(|(option, value)| match option.as_str() {
            "partitions" | "payload" => {
                let message = format!("topic option \"{option}\" is fixed when the topic is made");
                Err(SqlError::new(SqlState::INVALID_PARAMETER, message)
                    .hint("make another topic, and have it take what is published from now on"))
            }
            _ => changeable(option, value.as_deref()),
        });
        let options = changed.collect::<Result<_, _>>()?;
        Ok(Action::Schema(SchemaChange::AlterTopic { name, if_exists: alter.if_exists, options }))
    }

    pub(super) fn bind_drop_topic(&mut self, drop: &DropTopic) -> Result<Action, SqlError> {
        let names = drop.names.iter().map(user_name).collect::<Result<_, _>>()?;
        Ok(Action::Schema(SchemaChange::Drop {
            names,
            if_exists: drop.if_exists,
            what: Dropped::Topic,
            cascade: false,
        }))
    }
}

/// An option that may be changed later; without a value it is set back.
fn changeable(option: &str, value: Option<&str>) -> Result<TopicOption, SqlError> {
    Ok(match (option, value) {
        ("dedup", None) => TopicOption::Dedup(DEDUP_DEFAULT_MICROS),
        ("dedup", Some(value)) => {
            let interval = crate::time::parse_interval(value)?;
            let micros = u64::try_from(interval.estimate()).ok().filter(|m| *m > 0);
            TopicOption::Dedup(micros.ok_or_else(|| invalid(option, value))?)
        }
        ("max_deliveries", None) => TopicOption::MaxDeliveries(None),
        ("max_deliveries", Some(value)) => {
            let most = value.parse::<u32>().ok().filter(|most| *most > 0);
            TopicOption::MaxDeliveries(Some(most.ok_or_else(|| invalid(option, value))?))
        }
        ("dead_letter", value) => TopicOption::DeadLetter(value.map(str::to_owned)),
        _ => {
            return Err(SqlError::unsupported(format!("topic option \"{option}\""))
                .hint("partitions, payload, dedup, max_deliveries and dead_letter are"));
        }
    })
}

fn invalid(option: &str, value: &str) -> SqlError {
    let message = format!("invalid value for topic option \"{option}\": \"{value}\"");
    SqlError::new(SqlState::INVALID_PARAMETER, message)
}
