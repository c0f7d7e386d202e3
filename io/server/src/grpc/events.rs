//! Publishing, scheduling, cancelling.

use super::api::{self, publish_response::Outcome};
use super::{Services, problem, status, subscribe};
use bytes::Bytes;
use chronos_engine::Snapshot;
use chronos_engine::keys;
use chronos_engine::keys::KeyRange;
use chronos_engine::txn::Transaction;
use chronos_proto::id::GroupId;
use chronos_proto::limits::{MESSAGE_ID_MAX_BYTES, PAYLOAD_MAX_BYTES};
use chronos_proto::schema::{Relation, Topic};
use chronos_proto::{Event, Op, OpOutcome, RelationId, Timestamp, Type, Value, codec};
use chronos_sql::{SqlError, SqlState, text};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// How many timers are listed unless asked otherwise.
const LIST_LIMIT: u32 = 1_000;
/// The most items of a batch.
const BATCH_MAX: usize = 10_000;

#[tonic::async_trait]
impl api::events_server::Events for Services {
    async fn publish(
        &self,
        request: Request<api::PublishRequest>,
    ) -> Result<Response<api::PublishResponse>, Status> {
        self.admin(&request)?;
        let api::PublishRequest { topic, event, deliver_at_micros } = request.into_inner();
        let item = api::publish_batch_request::Item { event, deliver_at_micros };
        let mut results = self.publish_all(&topic, vec![item]).await.map_err(status)?;
        match results.pop() {
            Some(Ok(response)) => Ok(Response::new(response)),
            Some(Err(error)) => Err(status(error)),
            None => Err(status(no_result())),
        }
    }

    async fn publish_batch(
        &self,
        request: Request<api::PublishBatchRequest>,
    ) -> Result<Response<api::PublishBatchResponse>, Status> {
        self.admin(&request)?;
        let api::PublishBatchRequest { topic, items } = request.into_inner();
        if items.len() > BATCH_MAX {
            let message = format!("{} items are more than {BATCH_MAX}: send them in parts", items.len());
            return Err(status(SqlError::new(SqlState::LIMIT_EXCEEDED, message)));
        }
        let results = self.publish_all(&topic, items).await.map_err(status)?;
        let refused = |error: SqlError| api::PublishResponse {
            message_id: String::new(),
            outcome: Some(Outcome::Refused(problem(&error))),
        };
        let results = results.into_iter().map(|result| result.unwrap_or_else(refused)).collect();
        Ok(Response::new(api::PublishBatchResponse { results }))
    }

    type SubscribeStream = subscribe::Events;

    async fn subscribe(
        &self,
        request: Request<Streaming<api::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let role = self.role(&request)?;
        subscribe::open(self, role, request.into_inner()).await.map(Response::new)
    }

    async fn schedule(
        &self,
        request: Request<api::ScheduleRequest>,
    ) -> Result<Response<api::ScheduleResponse>, Status> {
        self.admin(&request)?;
        let api::ScheduleRequest { topic, timer_id, event, deliver_at_micros } = request.into_inner();
        let ask = Ask { event, deliver_at: Some(deliver_at_micros), timer_id };
        let mut results = self.submit(&topic, vec![ask]).await.map_err(status)?;
        use api::schedule_response::Outcome as Scheduled;
        let response = results.pop().unwrap_or_else(|| Err(no_result()));
        let response = response.map_err(status)?;
        let outcome = response.outcome.and_then(|outcome| match outcome {
            Outcome::Scheduled(scheduled) => Some(Scheduled::Scheduled(scheduled)),
            Outcome::Published(position) => Some(Scheduled::Published(position)),
            Outcome::Duplicate(duplicate) => Some(Scheduled::Duplicate(duplicate)),
            Outcome::Refused(_) => None,
        });
        Ok(Response::new(api::ScheduleResponse { message_id: response.message_id, outcome }))
    }

    async fn cancel(
        &self,
        request: Request<api::CancelRequest>,
    ) -> Result<Response<api::CancelResponse>, Status> {
        self.admin(&request)?;
        let api::CancelRequest { topic, timer_id, if_version } = request.into_inner();
        let done = self.cancel_timer(&topic, timer_id, if_version).await.map_err(status)?;
        use api::cancel_response::Outcome;
        let outcome = if done { Outcome::Done } else { Outcome::TooLate };
        Ok(Response::new(api::CancelResponse { outcome: outcome.into() }))
    }

    async fn list_dead_letters(
        &self,
        request: Request<api::ListDeadLettersRequest>,
    ) -> Result<Response<api::ListDeadLettersResponse>, Status> {
        self.role(&request)?;
        self.dead_letters(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn redrive(
        &self,
        request: Request<api::RedriveRequest>,
    ) -> Result<Response<api::RedriveResponse>, Status> {
        self.admin(&request)?;
        self.redrive_letters(request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list_schedules(
        &self,
        request: Request<api::ListSchedulesRequest>,
    ) -> Result<Response<api::ListSchedulesResponse>, Status> {
        self.role(&request)?;
        let api::ListSchedulesRequest { topic, limit } = request.into_inner();
        let limit = if limit == 0 { LIST_LIMIT } else { limit } as usize;
        self.gateway.wait_until_ready().await.map_err(status)?;
        let mode = self.gateway.default_read_mode();
        let (snapshot, _) = self.gateway.read_newest(mode).await.map_err(status)?;
        let homes = match topic.as_str() {
            "" => snapshot.catalog.homes(),
            topic => topic_of(&snapshot, topic).map_err(status)?.homes(),
        };
        let mut snapshots = vec![snapshot];
        for home in homes.into_iter().filter(|home| *home != GroupId(0)) {
            snapshots.push(self.gateway.read_newest_of(home, mode).await.map_err(status)?.0);
        }
        let listed = tokio::task::block_in_place(|| {
            let mut timers = Vec::new();
            for snapshot in &snapshots {
                timers.extend(list(snapshot, &topic, limit)?);
            }
            timers.sort_by_key(|timer| timer.deliver_at_micros);
            timers.truncate(limit);
            Ok(timers)
        });
        let listed = listed.map_err(status)?;
        Ok(Response::new(api::ListSchedulesResponse { timers: listed }))
    }
}

/// One event to publish or schedule.
struct Ask {
    event: Option<api::Event>,
    deliver_at: Option<i64>,
    /// Empty: the message id.
    timer_id: String,
}

fn no_result() -> SqlError {
    SqlError::new(SqlState::INTERNAL, "no result")
}

/// What the operations in one group came to.
type Outcomes = Result<std::vec::IntoIter<OpOutcome>, SqlError>;

/// What an event and its timer are called.
struct Names {
    message_id: String,
    timer_id: String,
}

impl Services {
    async fn publish_all(
        &self,
        topic: &str,
        items: Vec<api::publish_batch_request::Item>,
    ) -> Result<Vec<Result<api::PublishResponse, SqlError>>, SqlError> {
        let asks = items.into_iter().map(|item| Ask {
            event: item.event,
            deliver_at: item.deliver_at_micros,
            timer_id: String::new(),
        });
        self.submit(topic, asks.collect()).await
    }

    /// Publishes what is valid in one transaction; each item has its own result.
    async fn submit(
        &self,
        topic: &str,
        asks: Vec<Ask>,
    ) -> Result<Vec<Result<api::PublishResponse, SqlError>>, SqlError> {
        self.gateway.wait_until_ready().await?;
        let relation = self.gateway.find(|snapshot| topic_of(snapshot, topic)).await?;
        let mut names = Vec::with_capacity(asks.len());
        let mut ops: BTreeMap<GroupId, Vec<Op>> = BTreeMap::new();
        for ask in asks {
            names.push(self.op(&relation, ask).map(|(home, op, names)| {
                ops.entry(home).or_default().push(op);
                (home, names)
            }));
        }
        let mut outcomes = self.write_each(&relation, ops).await?;
        let results = names.into_iter().map(|names| {
            let (home, Names { message_id, timer_id }) = names?;
            let outcome = match outcomes.get_mut(&home) {
                Some(Ok(outcomes)) => outcomes.next().unwrap_or(OpOutcome::Done),
                Some(Err(error)) => return Err(error.clone()),
                None => OpOutcome::Done,
            };
            Ok(api::PublishResponse { message_id, outcome: Some(published(outcome, timer_id)?) })
        });
        let results: Vec<_> = results.collect();
        self.gateway.metrics().published(results.iter().filter(|result| result.is_ok()).count() as u64);
        Ok(results)
    }

    /// Commits in every group what is for it, at the same time. What one group refuses hinders no other.
    pub(super) async fn write_each(
        &self,
        relation: &Arc<Relation>,
        ops: BTreeMap<GroupId, Vec<Op>>,
    ) -> Result<BTreeMap<GroupId, Outcomes>, SqlError> {
        if relation.is_partitioned() {
            self.gateway.wait_for_homes(relation).await?;
        }
        let writes = ops.into_iter().map(|(home, ops)| async move {
            let build = |snapshot: &Snapshot, _| Ok((transaction(snapshot, relation, ops.clone())?, ()));
            let committed = self.gateway.write(home, build).await;
            let outcomes = committed.map(|(c, ())| c.map(|c| c.outcomes).unwrap_or_default().into_iter());
            (home, outcomes)
        });
        let mut results: BTreeMap<_, _> = futures_util::future::join_all(writes).await.into_iter().collect();
        match results.pop_first() {
            Some((_, Err(error))) if results.is_empty() => Err(error),
            first => {
                results.extend(first);
                Ok(results)
            }
        }
    }

    fn op(&self, relation: &Relation, ask: Ask) -> Result<(GroupId, Op, Names), SqlError> {
        let topic = topic_settings(relation)?;
        let asked = ask.event.ok_or_else(|| {
            let message = "the request has no event: set its field `event`, whose payload may be empty";
            SqlError::new(SqlState(*b"08P01"), message)
        })?;
        let claim = !asked.message_id.is_empty();
        let message_id = match claim {
            true => asked.message_id,
            false => format!("{:016x}{:016x}", self.gateway.random(), self.gateway.random()),
        };
        let timer_id = if ask.timer_id.is_empty() { message_id.clone() } else { ask.timer_id };
        let key = asked.key;
        for (what, id) in
            [("message id", Some(&message_id)), ("timer id", Some(&timer_id)), ("key", key.as_ref())]
        {
            match id {
                Some(id) if id.len() > MESSAGE_ID_MAX_BYTES => {
                    let message =
                        format!("the {what} is {} bytes, more than {MESSAGE_ID_MAX_BYTES}", id.len());
                    return Err(SqlError::new(SqlState::LIMIT_EXCEEDED, message));
                }
                Some(id) if id.contains('\0') => {
                    let message = format!("the {what} holds a zero byte");
                    return Err(SqlError::new(SqlState::CHARACTER_NOT_IN_REPERTOIRE, message));
                }
                _ => {}
            }
        }
        let event = Event {
            message_id: message_id.clone(),
            key,
            headers: headers(asked.headers),
            payload: payload(asked.payload, topic.payload)?,
        };
        let partition = topic.partition_of(&event);
        let op = match ask.deliver_at {
            None => Op::Publish { topic: relation.id, partition, event, claim },
            Some(at) if !(Timestamp::EPOCH.0..=Timestamp::MAX.0).contains(&at) => {
                let message = format!("deliver_at {at} is not a time from 1970 to 9999, in microseconds");
                return Err(SqlError::new(SqlState::DATETIME_OVERFLOW, message));
            }
            Some(at) => Op::Schedule {
                topic: relation.id,
                partition,
                timer_id: timer_id.clone(),
                event,
                deliver_at: Timestamp(at),
                claim,
            },
        };
        Ok((relation.home(partition), op, Names { message_id, timer_id }))
    }

    async fn cancel_timer(
        &self,
        topic: &str,
        timer_id: String,
        if_version: Option<u64>,
    ) -> Result<bool, SqlError> {
        self.gateway.wait_until_ready().await?;
        let relation = self.gateway.find(|snapshot| topic_of(snapshot, topic)).await?;
        let cancel = || vec![Op::Cancel { topic: relation.id, timer_id: timer_id.clone(), if_version }];
        // The key, and with it the partition, is not given: every group is asked.
        let ops = relation.homes().into_iter().map(|home| (home, cancel())).collect();
        let mut done = false;
        for outcomes in self.write_each(&relation, ops).await?.into_values() {
            done |= outcomes?.any(|outcome| outcome == OpOutcome::Changed);
        }
        Ok(done)
    }
}

/// The operations, if the topic is still what it was.
fn transaction(snapshot: &Snapshot, relation: &Relation, ops: Vec<Op>) -> Result<Transaction, SqlError> {
    let same = snapshot.catalog.get(relation.id).is_some_and(|now| now.version == relation.version);
    if !same {
        let message = format!("topic {} was changed or dropped meanwhile: try again", relation.name);
        return Err(SqlError::new(SqlState::SERIALIZATION_FAILURE, message));
    }
    let reads = vec![KeyRange::point(keys::catalog(relation.id))];
    Ok(Transaction { read_index: snapshot.applied, reads, ops, ..Transaction::default() })
}

/// The topic of this name.
pub(super) fn topic_of(snapshot: &Snapshot, name: &str) -> Result<Arc<Relation>, SqlError> {
    let missing = || {
        SqlError::new(SqlState::UNDEFINED_TABLE, format!("topic {name:?} does not exist"))
            .hint("make it with CREATE TOPIC")
    };
    let relation = snapshot.catalog.by_name(name).ok_or_else(missing)?;
    topic_settings(relation)?;
    Ok(relation.clone())
}

fn topic_settings(relation: &Relation) -> Result<&Topic, SqlError> {
    relation.topic().ok_or_else(|| {
        SqlError::new(SqlState::WRONG_OBJECT_TYPE, format!("{:?} is a table, not a topic", relation.name))
    })
}

fn published(outcome: OpOutcome, timer_id: String) -> Result<Outcome, SqlError> {
    let position = |(partition, offset)| api::Position { partition, offset };
    Ok(match outcome {
        OpOutcome::Published { partition, offset } => Outcome::Published(position((partition, offset))),
        OpOutcome::Scheduled { version } => Outcome::Scheduled(api::Scheduled { timer_id, version }),
        OpOutcome::Duplicate { position: first } => {
            Outcome::Duplicate(api::Duplicate { first: first.map(position) })
        }
        other => return Err(SqlError::new(SqlState::INTERNAL, format!("unexpected outcome {other:?}"))),
    })
}

/// Headers as the JSON object that is stored, names in order.
fn headers(headers: HashMap<String, String>) -> Option<String> {
    if headers.is_empty() {
        return None;
    }
    let sorted: std::collections::BTreeMap<_, _> = headers.into_iter().collect();
    serde_json::to_string(&sorted).ok()
}

fn payload(payload: Bytes, ty: Type) -> Result<Bytes, SqlError> {
    if payload.len() > PAYLOAD_MAX_BYTES {
        let message = format!("the payload is {} bytes, more than {PAYLOAD_MAX_BYTES}", payload.len());
        return Err(SqlError::new(SqlState::LIMIT_EXCEEDED, message));
    }
    let words = || {
        std::str::from_utf8(&payload).map_err(|_| {
            SqlError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                "the topic's payload is text; this is not UTF-8",
            )
        })
    };
    match ty {
        Type::Json => match text::parse(words()?, Type::Json)? {
            Value::Json(json) => Ok(Bytes::from(json)),
            _ => Ok(payload),
        },
        Type::Text => words().map(|_| payload.clone()),
        _ => Ok(payload),
    }
}

/// An event as it is sent.
pub(super) fn event(event: &Event) -> api::Event {
    let headers =
        event.headers.as_deref().and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    let headers = headers.as_ref().and_then(|json| json.as_object()).map(|object| {
        let text =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        object.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    });
    api::Event {
        message_id: event.message_id.clone(),
        key: event.key.clone(),
        headers: headers.unwrap_or_default(),
        payload: event.payload.clone(),
    }
}

/// Pending timers in the order of their due times.
fn list(
    snapshot: &Snapshot,
    topic: &str,
    limit: usize,
) -> Result<Vec<api::list_schedules_response::Timer>, SqlError> {
    let damaged = |e: &dyn std::fmt::Display| {
        SqlError::new(SqlState::IO_ERROR, format!("timers could not be read: {e}"))
    };
    // A group that keeps none of its partitions does not know it.
    let only = match topic {
        "" => None,
        topic => match snapshot.catalog.by_name(topic) {
            Some(relation) => Some(relation.id),
            None => return Ok(Vec::new()),
        },
    };
    let mut out = Vec::new();
    for entry in snapshot.scan(&keys::due_all(), false) {
        let (_, value) = entry.map_err(|e| damaged(&e))?;
        let (topic, _partition, timer_id): (RelationId, u32, String) =
            codec::decode("due timer", &value).map_err(|e| damaged(&e))?;
        if only.is_some_and(|only| only != topic) {
            continue;
        }
        let timer = snapshot.timer(topic, &timer_id).map_err(|e| damaged(&e))?;
        let (Some(timer), Some(relation)) = (timer, snapshot.catalog.get(topic)) else { continue };
        out.push(api::list_schedules_response::Timer {
            topic: relation.name.clone(),
            timer_id,
            event: Some(event(&timer.event)),
            deliver_at_micros: timer.deliver_at.0,
            version: timer.version,
        });
        if out.len() == limit {
            break;
        }
    }
    Ok(out)
}
