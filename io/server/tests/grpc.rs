//! gRPC: events from publish to acknowledgement, schedules, SQL, reflection and health.

mod common;

use chronos_server::api::admin_client::AdminClient;
use chronos_server::api::events_client::EventsClient;
use chronos_server::api::publish_response::Outcome;
use chronos_server::api::sql_client::SqlClient;
use chronos_server::api::subscribe_request::{self, Ack, Nack, Open, Request, open::Start};
use chronos_server::api::subscribe_response::Response;
use chronos_server::api::{self, Delivered, Event};
use common::World;
use std::future::Future;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Runs a client on a runtime of its own.
fn client<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.unwrap() })
}

async fn events(world: &World) -> EventsClient<Channel> {
    EventsClient::connect(world.grpc()).await.unwrap()
}

fn now_micros() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as i64
}

fn event(id: &str, payload: &str) -> Option<Event> {
    let headers = [("from".to_owned(), "test".to_owned())].into();
    Some(Event { message_id: id.into(), key: Some("k".into()), headers, payload: payload.to_owned().into() })
}

fn publish(id: &str, payload: &str, at: Option<i64>) -> api::PublishRequest {
    api::PublishRequest { topic: "alerts".into(), event: event(id, payload), deliver_at_micros: at }
}

fn code(status: &Status) -> &str {
    status.metadata().get("chronos-code").map_or("", |code| code.to_str().unwrap())
}

struct Subscriber {
    requests: mpsc::UnboundedSender<api::SubscribeRequest>,
    responses: Streaming<api::SubscribeResponse>,
}

impl Subscriber {
    async fn open(world: &World, open: Open) -> Subscriber {
        let (requests, receive) = mpsc::unbounded_channel();
        requests.send(api::SubscribeRequest { request: Some(Request::Open(open)) }).unwrap();
        let stream = UnboundedReceiverStream::new(receive);
        let responses = events(world).await.subscribe(stream).await.unwrap().into_inner();
        let mut subscriber = Subscriber { requests, responses };
        let opened = subscriber.responses.message().await.unwrap().unwrap().response.unwrap();
        assert!(matches!(opened, Response::Opened(_)));
        subscriber
    }

    fn say(&self, request: subscribe_request::Request) {
        self.requests.send(api::SubscribeRequest { request: Some(request) }).unwrap();
    }

    async fn next(&mut self) -> Delivered {
        match self.responses.message().await.unwrap().unwrap().response.unwrap() {
            Response::Event(event) => event,
            Response::Opened(_) => panic!("opened twice"),
        }
    }

    async fn next_payload(&mut self) -> String {
        payload(&self.next().await)
    }
}

fn payload(delivered: &Delivered) -> String {
    String::from_utf8(delivered.event.clone().unwrap().payload.to_vec()).unwrap()
}

fn open(group: &str, credit: u32) -> Open {
    let start = Some(Start::Earliest(true));
    Open { topic: "alerts".into(), group: group.into(), start, credit, ..Open::default() }
}

#[test]
fn an_event_goes_from_publisher_to_subscriber() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut subscriber = Subscriber::open(&world, open("", 10)).await;
        let published = events(&world).await.publish(publish("m1", "hot", None)).await.unwrap().into_inner();
        let position = api::Position { partition: 0, offset: 0 };
        assert_eq!(published.message_id, "m1");
        assert_eq!(published.outcome, Some(Outcome::Published(position)));
        let delivered = subscriber.next().await;
        assert_eq!(delivered.position, Some(position));
        assert_eq!(delivered.event, event("m1", "hot"));
        assert_eq!((delivered.deliver_at_micros, delivered.redeliveries), (None, 0));
        // The same id again: the first one's position, and nothing stored.
        let again = events(&world).await.publish(publish("m1", "hotter", None)).await.unwrap().into_inner();
        assert_eq!(again.outcome, Some(Outcome::Duplicate(api::Duplicate { first: Some(position) })));
    });
    assert_eq!(world.sql("SELECT count(*) FROM alerts")["rows"], serde_json::json!([[1]]));
}

#[test]
fn a_scheduled_event_comes_at_its_time_and_not_before() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut subscriber = Subscriber::open(&world, open("", 10)).await;
        let due = now_micros() + 300_000;
        let mut events = events(&world).await;
        let scheduled = events.publish(publish("t1", "later", Some(due))).await.unwrap().into_inner();
        let expected = api::Scheduled { timer_id: "t1".into(), version: 1 };
        assert_eq!(scheduled.outcome, Some(Outcome::Scheduled(expected)));
        events.publish(publish("m1", "sooner", None)).await.unwrap();
        assert_eq!(subscriber.next_payload().await, "sooner");
        let delivered = subscriber.next().await;
        assert_eq!(payload(&delivered), "later");
        assert_eq!(delivered.deliver_at_micros, Some(due));
        assert!(delivered.fired_at_micros.unwrap() >= due);
        assert!(now_micros() >= due);
        // What has fired cannot be cancelled.
        let request = api::CancelRequest { topic: "alerts".into(), timer_id: "t1".into(), if_version: None };
        let answer = events.cancel(request).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), api::cancel_response::Outcome::TooLate);
    });
    let metrics = world.request("GET", "/metrics", "").body;
    assert!(metrics.contains("chronos_fire_lateness_seconds_count{stage=\"handed_out\"} 1"), "{metrics}");
}

#[test]
fn schedules_are_listed_in_order_and_cancelled() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut events = events(&world).await;
        let far = now_micros() + 3_600_000_000;
        for (id, at) in [("b", far + 2), ("a", far + 1), ("c", far + 3)] {
            let event = event("", id);
            let topic = "alerts".to_owned();
            let request = api::ScheduleRequest { topic, timer_id: id.into(), event, deliver_at_micros: at };
            events.schedule(request).await.unwrap();
        }
        let list = |topic: &str, limit| api::ListSchedulesRequest { topic: topic.into(), limit };
        let listed = events.list_schedules(list("", 2)).await.unwrap().into_inner().timers;
        let ids: Vec<&str> = listed.iter().map(|timer| timer.timer_id.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert_eq!((listed[0].deliver_at_micros, listed[0].version), (far + 1, 1));
        let cancel = |version| {
            let if_version = Some(version);
            api::CancelRequest { topic: "alerts".into(), timer_id: "a".into(), if_version }
        };
        use api::cancel_response::Outcome;
        assert_eq!(events.cancel(cancel(2)).await.unwrap().into_inner().outcome(), Outcome::TooLate);
        assert_eq!(events.cancel(cancel(1)).await.unwrap().into_inner().outcome(), Outcome::Done);
        assert_eq!(events.cancel(cancel(1)).await.unwrap().into_inner().outcome(), Outcome::TooLate);
        assert_eq!(events.list_schedules(list("alerts", 0)).await.unwrap().into_inner().timers.len(), 2);
        let unknown = events.list_schedules(list("nothing", 0)).await.unwrap_err();
        assert_eq!((unknown.code(), code(&unknown)), (Code::NotFound, "42P01"));
    });
}

#[test]
fn a_group_shares_events_by_credit_and_remembers_what_is_done() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut publisher = events(&world).await;
        for i in 0..4 {
            publisher.publish(publish(&format!("m{i}"), &i.to_string(), None)).await.unwrap();
        }
        let mut first = Subscriber::open(&world, open("g", 1)).await;
        let zero = first.next().await;
        assert_eq!(payload(&zero), "0");
        // The first has no credit left: the rest goes to the second.
        let mut second = Subscriber::open(&world, open("g", 2)).await;
        assert_eq!(second.next_payload().await, "1");
        let two = second.next().await;
        first.say(Request::Ack(Ack { positions: vec![zero.position.unwrap()] }));
        second.say(Request::Nack(Nack { positions: vec![two.position.unwrap()], ..Nack::default() }));
        second.say(Request::Credit(1));
        first.say(Request::Credit(1));
        let (a, b) = tokio::join!(first.next(), second.next());
        let mut rest = [(payload(&a), a.redeliveries), (payload(&b), b.redeliveries)];
        rest.sort();
        assert_eq!(rest, [("2".to_owned(), 1), ("3".to_owned(), 0)]);
        // What was not acknowledged comes again when its subscriber goes; what was does not.
        drop((first, second));
        let mut third = Subscriber::open(&world, open("g", 10)).await;
        let mut again = Vec::new();
        for _ in 0..3 {
            again.push(third.next_payload().await);
        }
        again.sort();
        assert_eq!(again, ["1", "2", "3"]);
    });
}

#[test]
fn what_is_refused_too_often_is_a_dead_letter_and_can_be_redriven_once() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts WITH (max_deliveries = 2)");
    client(async {
        let mut publisher = events(&world).await;
        for id in ["bad", "good"] {
            publisher.publish(publish(id, id, None)).await.unwrap();
        }
        let mut subscriber = Subscriber::open(&world, open("g", 10)).await;
        let mut refused = 0;
        let mut deliveries = Vec::new();
        for _ in 0..3 {
            let delivered = subscriber.next().await;
            deliveries.push((payload(&delivered), delivered.redeliveries));
            let positions = vec![delivered.position.unwrap()];
            if payload(&delivered) == "bad" {
                refused += 1;
                let nack = Nack { positions, reason: format!("refusal {refused}"), ..Nack::default() };
                subscriber.say(Request::Nack(nack));
            } else {
                subscriber.say(Request::Ack(Ack { positions }));
            }
        }
        deliveries.sort();
        assert_eq!(deliveries, [("bad".to_owned(), 0), ("bad".to_owned(), 1), ("good".to_owned(), 0)]);
        let list = |redriven| api::ListDeadLettersRequest { topic: "alerts".into(), limit: 0, redriven };
        let letter = loop {
            let letters = publisher.list_dead_letters(list(false)).await.unwrap().into_inner().letters;
            if let Some(letter) = letters.into_iter().next() {
                break letter;
            }
        };
        let event = letter.event.unwrap();
        assert_eq!((event.message_id.as_str(), &event.payload[..]), ("bad", &b"bad"[..]));
        let header = |name: &str| event.headers.get(&format!("chronos-dead-{name}")).map(String::as_str);
        assert_eq!(event.headers.get("from").map(String::as_str), Some("test"));
        let origin = ["topic", "partition", "offset", "group", "deliveries", "reason"].map(header);
        assert_eq!(origin, ["alerts", "0", "0", "g", "2", "refusal 2"].map(Some));
        let redrive = || api::RedriveRequest { topic: "alerts".into(), ..Default::default() };
        let redriven = publisher.redrive(redrive()).await.unwrap().into_inner();
        assert_eq!(redriven.published, [api::Position { partition: 0, offset: 2 }]);
        assert_eq!(redriven.kept, []);
        let again = subscriber.next().await;
        assert_eq!((payload(&again), again.redeliveries), ("bad".to_owned(), 0));
        let headers = again.event.unwrap().headers;
        assert_eq!(headers, [("from".to_owned(), "test".to_owned())].into());
        let once_more = publisher.redrive(redrive()).await.unwrap().into_inner();
        assert_eq!((once_more.published, once_more.kept), (vec![], vec![]));
        let named = api::RedriveRequest { positions: letter.position.into_iter().collect(), ..redrive() };
        let kept = publisher.redrive(named).await.unwrap().into_inner();
        assert_eq!((kept.published, kept.kept.len()), (vec![], 1));
        let letters = publisher.list_dead_letters(list(true)).await.unwrap().into_inner().letters;
        assert!(letters.len() == 1 && letters[0].redriven);
    });
    world.sql("CREATE TOPIC plain");
    client(async {
        let request = api::RedriveRequest { topic: "plain".into(), ..Default::default() };
        let unlimited = events(&world).await.redrive(request).await.unwrap_err();
        assert_eq!((unlimited.code(), code(&unlimited)), (Code::NotFound, "42704"));
    });
}

#[test]
fn a_batch_has_a_result_for_each_item() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts WITH (payload = 'json')");
    client(async {
        let item = |id: &str, payload: &str, at| api::publish_batch_request::Item {
            event: event(id, payload),
            deliver_at_micros: at,
        };
        let items = vec![
            item("a", "{\"x\": 1}", None),
            item("b", "not json", None),
            item("a", "{}", None),
            item("c", "{}", Some(-1)),
            item("d", "{}", Some(now_micros() + 3_600_000_000)),
            api::publish_batch_request::Item::default(),
        ];
        let request = api::PublishBatchRequest { topic: "alerts".into(), items };
        let results = events(&world).await.publish_batch(request).await.unwrap().into_inner().results;
        let outcomes: Vec<_> = results.into_iter().map(|result| result.outcome.unwrap()).collect();
        assert!(matches!(&outcomes[0], Outcome::Published(p) if p.offset == 0));
        assert!(matches!(&outcomes[1], Outcome::Refused(p) if p.code == "22P02"), "{:?}", outcomes[1]);
        assert!(matches!(&outcomes[2], Outcome::Duplicate(d) if d.first.is_some()));
        assert!(matches!(&outcomes[3], Outcome::Refused(p) if p.code == "22008"));
        assert!(matches!(&outcomes[4], Outcome::Scheduled(s) if s.timer_id == "d"));
        assert!(matches!(&outcomes[5], Outcome::Refused(p) if p.code == "08P01"));
    });
}

#[test]
fn what_is_too_large_or_not_there_is_an_invalid_argument() {
    let world = World::with(|config| config.max_message_bytes = 3 << 20);
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut events = events(&world).await;
        let mut refused = async |event| {
            let topic = "alerts".to_owned();
            let request = api::PublishRequest { topic, event, deliver_at_micros: None };
            let refused = events.publish(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
            (code(&refused).to_owned(), refused.message().to_owned())
        };
        let of = |bytes: usize| Some(Event { payload: vec![b'x'; bytes].into(), ..Event::default() });
        // Above what a payload may be, above what a message may be, and none at all.
        assert_eq!(refused(of(2 << 20)).await.0, "54000");
        let (code, message) = refused(of(4 << 20)).await;
        assert!(code == "54000" && message.contains("limit of 3145728 bytes"), "{code} {message}");
        let (code, message) = refused(None).await;
        assert!(code == "08P01" && message.contains("no event"), "{code} {message}");
        let request = api::ScheduleRequest { topic: "alerts".into(), ..api::ScheduleRequest::default() };
        assert_eq!(events.schedule(request).await.unwrap_err().code(), Code::InvalidArgument);
    });
    assert_eq!(world.sql("SELECT count(*) FROM alerts")["rows"], serde_json::json!([[0]]));
}

#[test]
fn misuse_of_a_subscription_is_refused() {
    let world = World::start();
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut events = events(&world).await;
        let credit = api::SubscribeRequest { request: Some(Request::Credit(1)) };
        let refused = events.subscribe(tokio_stream::once(credit)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let nowhere = Open { topic: "nothing".into(), ..open("", 1) };
        let request = api::SubscribeRequest { request: Some(Request::Open(nowhere)) };
        let refused = events.subscribe(tokio_stream::once(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let mut groupless = Subscriber::open(&world, open("", 1)).await;
        groupless.say(Request::Ack(Ack { positions: vec![] }));
        assert_eq!(groupless.responses.message().await.unwrap_err().code(), Code::InvalidArgument);
    });
}

#[test]
fn sql_streams_typed_rows() {
    let world = World::start();
    client(async {
        let mut sql = SqlClient::connect(world.grpc()).await.unwrap();
        let execute = |sql: &str, params: Vec<api::Value>| api::ExecuteRequest { sql: sql.into(), params };
        let int = |i| api::Value { kind: Some(api::value::Kind::Int(i)) };
        let create = execute("CREATE TABLE t (id INT PRIMARY KEY, x FLOAT)", vec![]);
        sql.execute(create).await.unwrap();
        for i in 0..3 {
            let insert = execute("INSERT INTO t VALUES ($1, $2)", vec![int(i), int(i * 10)]);
            sql.execute(insert).await.unwrap();
        }
        let mut stream =
            sql.execute(execute("SELECT * FROM t ORDER BY id", vec![])).await.unwrap().into_inner();
        let (mut rows, mut tag) = (Vec::new(), String::new());
        use api::execute_response::Part;
        while let Some(message) = stream.message().await.unwrap() {
            match message.part.unwrap() {
                Part::Columns(columns) => assert_eq!(columns.columns[1].r#type, "double precision"),
                Part::Rows(more) => rows.extend(more.rows),
                Part::Tag(last) => tag = last,
            }
        }
        assert_eq!(tag, "SELECT 3");
        assert_eq!(rows[2].values, [int(2), api::Value { kind: Some(api::value::Kind::Float(20.0)) }]);
        let duplicate = sql.execute(execute("INSERT INTO t VALUES (1, 1)", vec![])).await.unwrap_err();
        assert_eq!((duplicate.code(), code(&duplicate)), (Code::AlreadyExists, "23505"));
    });
}

#[test]
fn status_health_and_reflection_answer() {
    let world = World::start();
    client(async {
        let mut admin = AdminClient::connect(world.grpc()).await.unwrap();
        let status = admin.status(api::StatusRequest {}).await.unwrap().into_inner();
        assert_eq!((status.role.as_str(), status.ready), ("Leader", true));
        let channel = Channel::from_shared(world.grpc()).unwrap().connect().await.unwrap();
        let mut health = tonic_health::pb::health_client::HealthClient::new(channel.clone());
        let check = tonic_health::pb::HealthCheckRequest { service: "chronos.v1.Events".into() };
        use tonic_health::pb::health_check_response::ServingStatus::{NotServing, Serving};
        let mut watched = health.watch(check).await.unwrap().into_inner();
        let mut next = async || watched.message().await.unwrap().unwrap().status();
        let first = next().await;
        assert!(first == Serving || (first == NotServing && next().await == Serving));
        use tonic_reflection::pb::v1 as pb;
        let mut reflection = pb::server_reflection_client::ServerReflectionClient::new(channel);
        let ask = pb::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(pb::server_reflection_request::MessageRequest::ListServices(String::new())),
        };
        let answer = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
        let answer = { answer }.message().await.unwrap().unwrap().message_response.unwrap();
        let pb::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
            panic!("{answer:?}");
        };
        let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
        assert!(names.contains(&"chronos.v1.Events") && names.contains(&"chronos.v1.Sql"), "{names:?}");
    });
}

#[test]
fn tokens_are_asked_for() {
    let world = World::with_tokens();
    world.sql("CREATE TOPIC alerts");
    client(async {
        let mut events = events(&world).await;
        let with = |token: &str| {
            let mut request = tonic::Request::new(publish("", "x", None));
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            request
        };
        let missing = events.publish(publish("", "x", None)).await.unwrap_err();
        assert_eq!(missing.code(), Code::Unauthenticated);
        assert_eq!(events.publish(with("wrong")).await.unwrap_err().code(), Code::Unauthenticated);
        assert_eq!(events.publish(with("reader token")).await.unwrap_err().code(), Code::PermissionDenied);
        let published = events.publish(with("admin token")).await.unwrap().into_inner();
        assert_eq!(published.message_id.len(), 32);
    });
}

#[test]
fn a_stopping_server_ends_its_streams() {
    let mut world = World::start();
    world.sql("CREATE TOPIC alerts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut subscriber = runtime.block_on(Subscriber::open(&world, open("", 1)));
    let began = std::time::Instant::now();
    world.server.take().unwrap().stop();
    assert!(began.elapsed() < Duration::from_secs(4), "stopping took {:?}", began.elapsed());
    let ended = runtime.block_on(subscriber.responses.message());
    assert!(matches!(&ended, Ok(None)) || ended.is_err(), "{ended:?}");
}
