//! The PostgreSQL port, by a client that others wrote and by hand where only raw messages will do.

mod common;

use common::World;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Runs a client on a runtime of its own.
fn client<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), work).await.unwrap() })
}

async fn connect_as(world: &World, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(world.pg_port()).user(user).dbname("chronos").password(password);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect(world: &World) -> Client {
    connect_as(world, "anybody", "").await.unwrap()
}

fn code(error: &tokio_postgres::Error) -> &str {
    error.code().map_or("", SqlState::code)
}

#[test]
fn prepared_statements_know_their_types() {
    let world = World::start();
    client(async {
        let client = connect(&world).await;
        client.batch_execute("CREATE TABLE t (id INT PRIMARY KEY, name TEXT, x FLOAT)").await.unwrap();
        let insert = client.prepare("INSERT INTO t (id, name, x) VALUES ($1, $2, $3)").await.unwrap();
        assert_eq!(insert.params(), [Type::INT4, Type::TEXT, Type::FLOAT8]);
        assert!(insert.columns().is_empty());
        for i in 0..10i32 {
            let changed =
                client.execute(&insert, &[&i, &format!("n{i}"), &(f64::from(i) / 2.0)]).await.unwrap();
            assert_eq!(changed, 1);
        }
        let select = client.prepare("SELECT name, x, id FROM t WHERE id = $1").await.unwrap();
        let columns: Vec<(&str, &Type)> = select.columns().iter().map(|c| (c.name(), c.type_())).collect();
        assert_eq!(columns, [("name", &Type::TEXT), ("x", &Type::FLOAT8), ("id", &Type::INT4)]);
        let row = client.query_one(&select, &[&7i32]).await.unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, f64>(1), row.get::<_, i32>(2)), ("n7", 3.5, 7));
        assert!(client.query_opt(&select, &[&77i32]).await.unwrap().is_none());
    });
}

/// Bytes of any type, as they are on the wire.
#[derive(Debug, PartialEq)]
struct Raw(Vec<u8>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Raw, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Raw(raw.to_vec()))
    }
    fn accepts(_: &Type) -> bool {
        true
    }
}

impl ToSql for Raw {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<tokio_postgres::types::IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(tokio_postgres::types::IsNull::No)
    }
    fn accepts(_: &Type) -> bool {
        true
    }
    tokio_postgres::types::to_sql_checked!();
}

#[test]
fn every_type_goes_in_and_out_in_binary() {
    let world = World::start();
    client(async {
        let client = connect(&world).await;
        let create = "CREATE TABLE t (id BIGINT PRIMARY KEY, b BOOLEAN, i BIGINT, f FLOAT, t TEXT, y BYTEA, \
                      z TIMESTAMPTZ, d DATE, j JSONB, u UUID)";
        client.batch_execute(create).await.unwrap();
        let noon = 86_400_000_000i64 / 2;
        let values: Vec<Raw> = vec![
            Raw(vec![1]),
            Raw((-5i64).to_be_bytes().to_vec()),
            Raw(2.5f64.to_be_bytes().to_vec()),
            Raw("näh".as_bytes().to_vec()),
            Raw(vec![0, 255]),
            Raw(noon.to_be_bytes().to_vec()),
            Raw(366i32.to_be_bytes().to_vec()),
            Raw(b"\x01{\"a\": [1, null]}".to_vec()),
            Raw((0..16).collect()),
        ];
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![&1i64];
        params.extend(values.iter().map(|value| value as &(dyn ToSql + Sync)));
        let insert = "INSERT INTO t VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
        client.execute(insert, &params).await.unwrap();
        let row = client.query_one("SELECT b, i, f, t, y, z, d, j, u FROM t", &[]).await.unwrap();
        for (i, value) in values.iter().enumerate() {
            assert_eq!(&row.get::<_, Raw>(i), value, "column {i}");
        }
        let text = client.simple_query("SELECT b, i, f, t, y, z, d, j, u FROM t").await.unwrap();
        let Some(SimpleQueryMessage::Row(row)) =
            text.iter().find(|m| matches!(m, SimpleQueryMessage::Row(_)))
        else {
            panic!("no row in {text:?}");
        };
        let texts: Vec<&str> = (0..9).map(|i| row.get(i).unwrap()).collect();
        let expected = [
            "t",
            "-5",
            "2.5",
            "näh",
            "\\x00ff",
            "2000-01-01 12:00:00+00",
            "2001-01-01",
            "{\"a\": [1, null]}",
            "00010203-0405-0607-0809-0a0b0c0d0e0f",
        ];
        assert_eq!(texts, expected);
        let nulls = "INSERT INTO t (id, t) VALUES (2, $1)";
        client.execute(nulls, &[&None::<&str>]).await.unwrap();
        let row = client.query_one("SELECT t, i FROM t WHERE id = 2", &[]).await.unwrap();
        assert_eq!((row.get::<_, Option<&str>>(0), row.get::<_, Option<i64>>(1)), (None, None));
    });
}

#[test]
fn parameters_are_taken_as_the_client_declares_them() {
    let world = World::start();
    client(async {
        let client = connect(&world).await;
        client.batch_execute("CREATE TABLE t (id INT PRIMARY KEY, f FLOAT)").await.unwrap();
        let types = [Type::INT2, Type::FLOAT4];
        let insert = client.prepare_typed("INSERT INTO t VALUES ($1, $2)", &types).await.unwrap();
        assert_eq!(insert.params(), types);
        client.execute(&insert, &[&-3i16, &1.5f32]).await.unwrap();
        let select = client.prepare_typed("SELECT f FROM t WHERE id = $1", &[Type::INT4]).await.unwrap();
        assert_eq!(client.query_one(&select, &[&-3i32]).await.unwrap().get::<_, f64>(0), 1.5);
    });
}

#[test]
fn transactions_roll_back_fail_and_conflict() {
    let world = World::start();
    client(async {
        let (mut a, mut b) = (connect(&world).await, connect(&world).await);
        a.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (1, 0)")
            .await
            .unwrap();
        let count = "SELECT count(*) FROM t";
        let tx = a.transaction().await.unwrap();
        tx.execute("INSERT INTO t VALUES (2, 0)", &[]).await.unwrap();
        assert_eq!(tx.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 2);
        assert_eq!(b.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1);
        tx.rollback().await.unwrap();
        assert_eq!(a.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1);
        // Both read and change the row: the second to commit is told to retry.
        let update = "UPDATE t SET n = n + 1 WHERE id = 1";
        let (first, second) = (a.transaction().await.unwrap(), b.transaction().await.unwrap());
        first.execute(update, &[]).await.unwrap();
        second.execute(update, &[]).await.unwrap();
        first.commit().await.unwrap();
        let conflict = second.commit().await.unwrap_err();
        assert_eq!(code(&conflict), "40001");
        // An error inside fails the transaction, not the connection.
        let tx = b.transaction().await.unwrap();
        let wrong = tx.execute("INSERT INTO t VALUES (1, 1)", &[]).await.unwrap_err();
        assert_eq!(code(&wrong), "23505");
        assert_eq!(code(&tx.execute(update, &[]).await.unwrap_err()), "25P02");
        tx.rollback().await.unwrap();
        assert_eq!(b.query_one("SELECT n FROM t", &[]).await.unwrap().get::<_, i64>(0), 1);
    });
}

#[test]
fn concurrent_counters_lose_nothing() {
    let world = World::start();
    client(async {
        connect(&world)
            .await
            .batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (1, 0)")
            .await
            .unwrap();
        let clients: Vec<Client> = vec![connect(&world).await, connect(&world).await, connect(&world).await];
        let work = clients.iter().map(|client| async {
            for _ in 0..20 {
                // A statement of its own is retried by the server.
                client.execute("UPDATE t SET n = n + 1 WHERE id = $1", &[&1i64]).await.unwrap();
            }
        });
        futures_util::future::join_all(work).await;
        assert_eq!(clients[0].query_one("SELECT n FROM t", &[]).await.unwrap().get::<_, i64>(0), 60);
    });
}

#[test]
fn a_statement_that_runs_for_too_long_is_canceled() {
    let world = World::start();
    client(async {
        let client = connect(&world).await;
        client.batch_execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let values: Vec<String> = (0..2000).map(|i| format!("({i})")).collect();
        client.batch_execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        client.batch_execute("SET statement_timeout = '50ms'").await.unwrap();
        // Eight billion rows: it ends only by being canceled.
        let endless = "SELECT count(*) FROM t a, t b, t c WHERE a.id + b.id + c.id < 0";
        let prepared = client.query(endless, &[]).await.unwrap_err();
        let simple = client.batch_execute(endless).await.unwrap_err();
        for error in [prepared, simple] {
            let message = error.as_db_error().map(|e| e.message());
            assert_eq!(
                (code(&error), message),
                ("57014", Some("canceling statement due to statement timeout"))
            );
        }
        client.query_one("SELECT 1", &[]).await.unwrap();
        client.batch_execute("SET statement_timeout = 0").await.unwrap();
        let wrong = client.batch_execute("SET statement_timeout = 'soon'").await.unwrap_err();
        assert_eq!(code(&wrong), "22023");
    });
}

#[test]
fn portals_give_rows_in_parts() {
    let world = World::start();
    client(async {
        let mut client = connect(&world).await;
        client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
        let tx = client.transaction().await.unwrap();
        for i in 0..5i64 {
            tx.execute("INSERT INTO t VALUES ($1)", &[&i]).await.unwrap();
        }
        let portal = tx.bind("SELECT id FROM t ORDER BY id", &[]).await.unwrap();
        let mut parts = Vec::new();
        for limit in [2, 2, 2] {
            let rows = tx.query_portal(&portal, limit).await.unwrap();
            parts.push(rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>());
        }
        assert_eq!(parts, [vec![0, 1], vec![2, 3], vec![4]]);
        tx.commit().await.unwrap();
    });
}

#[test]
fn tokens_are_passwords() {
    let world = World::with_tokens();
    client(async {
        let wrong = connect_as(&world, "me", "guess").await.err().unwrap();
        assert_eq!(code(&wrong), "28P01");
        let admin = connect_as(&world, "me", "admin token").await.unwrap();
        admin.batch_execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let reader = connect_as(&world, "me", "reader token").await.unwrap();
        reader.query("SELECT * FROM t", &[]).await.unwrap();
        assert_eq!(code(&reader.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap_err()), "25006");
        assert_eq!(code(&reader.batch_execute("DROP TABLE t").await.unwrap_err()), "25006");
    });
}

#[test]
fn connections_are_counted_and_databases_named() {
    let world = World::with(|config| config.max_connections = 1);
    client(async {
        let first = connect(&world).await;
        let second = connect_as(&world, "me", "").await.err().unwrap();
        assert_eq!(code(&second), "53300");
        first.query_one("SELECT 1", &[]).await.unwrap();
    });
    let mut raw = Raw3::new(&world);
    raw.startup(&[("user", "me"), ("database", "elsewhere")]);
    assert_eq!(raw.error().0, "3D000");
}

#[test]
fn a_statement_is_cancelled_from_another_connection() {
    let world = World::start();
    client(async {
        let client = connect(&world).await;
        client.batch_execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let values: Vec<String> = (0..2000).map(|i| format!("({i})")).collect();
        client.batch_execute(&format!("INSERT INTO t VALUES {}", values.join(","))).await.unwrap();
        let token = client.cancel_token();
        // Eight billion rows: it ends only by being cancelled, however late the request comes.
        let endless = client.query("SELECT count(*) FROM t a, t b, t c WHERE a.id + b.id + c.id < 0", &[]);
        let cancel = async {
            loop {
                token.cancel_query(NoTls).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let cancelled = tokio::select! {
            ended = endless => ended.unwrap_err(),
            () = cancel => unreachable!(),
        };
        assert_eq!(code(&cancelled), "57014");
        client.query_one("SELECT 1", &[]).await.unwrap();
    });
}

#[test]
fn a_stopping_server_says_goodbye() {
    let mut world = World::start();
    let mut raw = Raw3::session(&world);
    world.server.take().unwrap().stop();
    assert_eq!(raw.error().0, "57P01");
    assert_eq!(raw.stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_client_that_never_pauses_does_not_hold_up_the_stop() {
    let mut world = World::start();
    let mut raw = Raw3::session(&world);
    let mut writing = Raw3 { stream: raw.stream.try_clone().unwrap() };
    let statements = b"Q\0\0\0\x0dSELECT 1\0".repeat(500);
    let writer = std::thread::spawn(move || while writing.stream.write_all(&statements).is_ok() {});
    raw.until_ready();
    let server = world.server.take().unwrap();
    let stopping = std::thread::spawn(move || server.stop());
    // One that is cut off after a while hears no goodbye. The statement that the stop met may end with an error first.
    let goodbye = loop {
        let (kind, body) = raw.message();
        let body = String::from_utf8_lossy(&body).into_owned();
        if kind == b'E' && body.contains("FATAL") {
            break body;
        }
        assert!(kind != b'E' || body.contains("57014"), "{body}");
    };
    assert!(goodbye.contains("57P01"), "{goodbye}");
    drop(raw);
    stopping.join().unwrap();
    writer.join().unwrap();
}

#[test]
fn an_idle_transaction_ends_its_connection_if_asked_to() {
    let world = World::start();
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)");
    // A transaction that has failed waits for its ROLLBACK just so.
    for statement in ["INSERT INTO t VALUES (1)", "SELEC"] {
        let mut raw = Raw3::session(&world);
        raw.send(&[(b'Q', b"SET idle_in_transaction_timeout = '50ms'\0")]);
        assert_eq!(raw.kinds(), "CZI");
        raw.send(&[(b'Q', b"BEGIN\0"), (b'Q', format!("{statement}\0").as_bytes())]);
        raw.until_ready();
        raw.until_ready();
        assert_eq!(raw.error().0, "25P03");
        assert_eq!(raw.stream.read(&mut [0; 1]).unwrap(), 0);
    }
    assert_eq!(world.sql("SELECT count(*) FROM t")["rows"], serde_json::json!([[0]]));
    // Outside a transaction nothing is limited: the other's limit passes first, and this one is still there.
    let (mut quiet, mut open) = (Raw3::session(&world), Raw3::session(&world));
    quiet.send(&[(b'Q', b"SET idle_in_transaction_session_timeout = 10\0")]);
    assert_eq!(quiet.kinds(), "CZI");
    open.send(&[(b'Q', b"SET idle_in_transaction_session_timeout = 100\0"), (b'Q', b"BEGIN\0")]);
    assert_eq!((open.kinds().as_str(), open.kinds().as_str()), ("CZI", "CZT"));
    assert_eq!(open.error().0, "25P03");
    quiet.send(&[(b'Q', b"SELECT 1\0")]);
    assert_eq!(quiet.kinds(), "TDCZI");
}

#[test]
fn before_there_is_a_leader_connections_are_refused() {
    // A node that has stopped has no leader ever.
    let dir = tempfile::tempdir().unwrap();
    let any = chronos_server::config::Address { host: "127.0.0.1".into(), port: 0 };
    let config = chronos_server::Config {
        http_address: any.clone(),
        pg_address: any,
        ..chronos_server::Config::default()
    };
    let node = chronos_node::open(config.node_options("test", dir.path())).unwrap();
    node.stop();
    let server = chronos_server::Server::start(config, node).unwrap();
    let mut raw = Raw3 { stream: TcpStream::connect(server.pg_address()).unwrap() };
    raw.startup(&[("user", "me")]);
    assert_eq!(raw.error().0, "57P03");
    server.stop();
}

/// A connection by hand.
struct Raw3 {
    stream: TcpStream,
}

impl Raw3 {
    fn new(world: &World) -> Raw3 {
        let stream = world.pg();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Raw3 { stream }
    }

    /// One that is logged in.
    fn session(world: &World) -> Raw3 {
        let mut raw = Raw3::new(world);
        raw.startup(&[("user", "me"), ("database", "chronos")]);
        assert_eq!(raw.until_ready().last(), Some(&(b'Z', b"I".to_vec())));
        raw
    }

    fn startup(&mut self, parameters: &[(&str, &str)]) {
        let mut body = 196_608i32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let mut packet = (body.len() as i32 + 4).to_be_bytes().to_vec();
        packet.extend_from_slice(&body);
        self.stream.write_all(&packet).unwrap();
    }

    fn send(&mut self, messages: &[(u8, &[u8])]) {
        let mut out = Vec::new();
        for (kind, body) in messages {
            out.push(*kind);
            out.extend_from_slice(&(body.len() as i32 + 4).to_be_bytes());
            out.extend_from_slice(body);
        }
        self.stream.write_all(&out).unwrap();
    }

    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).unwrap();
        let length = i32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn until_ready(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut out = vec![self.message()];
        while out.last().unwrap().0 != b'Z' {
            out.push(self.message());
        }
        out
    }

    /// The kinds of the messages up to ReadyForQuery, and its status.
    fn kinds(&mut self) -> String {
        let messages = self.until_ready();
        let status = messages.last().unwrap().1[0];
        messages.iter().map(|(kind, _)| *kind as char).chain([status as char]).collect()
    }

    /// Code and words of the error that comes next.
    fn error(&mut self) -> (String, String) {
        let (kind, body) = self.message();
        assert_eq!(kind, b'E', "{body:?}");
        let field = |wanted: u8| {
            let fields = body.split(|b| *b == 0).find(|field| field.first() == Some(&wanted));
            String::from_utf8(fields.unwrap()[1..].to_vec()).unwrap()
        };
        (field(b'C'), field(b'M'))
    }
}

const PARSE_INSERT: (u8, &[u8]) = (b'P', b"i\0INSERT INTO t VALUES ($1)\0\0\0");

fn bind_insert(number: &'static str) -> Vec<u8> {
    let mut out = b"\0i\0\0\0\0\x01".to_vec();
    out.extend_from_slice(&(number.len() as i32).to_be_bytes());
    out.extend_from_slice(number.as_bytes());
    out.extend_from_slice(b"\0\0");
    out
}

const EXECUTE: (u8, &[u8]) = (b'E', b"\0\0\0\0\0");
const SYNC: (u8, &[u8]) = (b'S', b"");

#[test]
fn a_pipeline_is_one_transaction_and_an_error_skips_to_its_end() {
    let world = World::start();
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)");
    let mut raw = Raw3::session(&world);
    let (one, two, bad) = (bind_insert("1"), bind_insert("2"), bind_insert("x"));
    raw.send(&[PARSE_INSERT, (b'B', &one), EXECUTE, (b'B', &two), EXECUTE, SYNC]);
    assert_eq!(raw.kinds(), "12C2CZI");
    let three = bind_insert("3");
    raw.send(&[
        (b'B', &three),
        EXECUTE,
        (b'B', &bad),
        EXECUTE,
        (b'B', &three),
        EXECUTE,
        SYNC,
        (b'Q', b"SELECT count(*) FROM t\0"),
    ]);
    assert_eq!(raw.kinds(), "2CEZI");
    let counted = raw.until_ready();
    assert_eq!(counted[1].1, b"\0\x01\0\0\0\x012");
    // The key is there already: that shows at the Sync at the latest, and the pipeline has no effect.
    let four = bind_insert("4");
    raw.send(&[(b'B', &four), EXECUTE, (b'B', &one), EXECUTE, SYNC]);
    assert!(raw.kinds().contains('E'));
    assert_eq!(world.sql("SELECT count(*) FROM t")["rows"], serde_json::json!([[2]]));
}

#[test]
fn flush_sends_what_there_is_and_transactions_show_in_the_status() {
    let world = World::start();
    world.sql("CREATE TABLE t (id INT PRIMARY KEY)");
    let mut raw = Raw3::session(&world);
    raw.send(&[PARSE_INSERT, (b'D', b"Si\0"), (b'H', b"")]);
    assert_eq!(raw.message().0, b'1');
    assert_eq!(raw.message(), (b't', b"\0\x01\0\0\0\x17".to_vec()));
    assert_eq!(raw.message().0, b'n');
    raw.send(&[SYNC, (b'Q', b"BEGIN\0")]);
    assert_eq!(raw.kinds(), "ZI");
    assert_eq!(raw.kinds(), "CZT");
    raw.send(&[(b'Q', b"SELEC\0"), (b'Q', b"ROLLBACK\0"), (b'Q', b" ; \0"), (b'Q', b"SELECT 1; SELECT 2\0")]);
    assert_eq!(raw.kinds(), "EZE");
    assert_eq!(raw.kinds(), "CZI");
    assert_eq!(raw.kinds(), "IZI");
    assert_eq!(raw.kinds(), "TDCTDCZI");
}

#[test]
fn a_copy_takes_its_data_and_leaves_the_connection_usable() {
    let world = World::start();
    world.sql("CREATE TABLE t (id INT PRIMARY KEY, name TEXT)");
    let mut raw = Raw3::session(&world);
    let counted = |world: &World| world.sql("SELECT count(*) FROM t")["rows"][0][0].clone();
    // Within a simple query, with a statement behind it.
    raw.send(&[(b'Q', b"COPY t FROM STDIN; SELECT count(*) FROM t\0")]);
    assert_eq!(raw.message(), (b'G', b"\0\0\x02\0\0\0\0".to_vec()));
    raw.send(&[(b'd', b"1\to"), (b'H', b""), (b'd', b"ne\n2\t\\N\n"), (b'c', b"")]);
    assert_eq!(raw.kinds(), "CTDCZI");
    assert_eq!(counted(&world), 2);
    // An error ends it before its data does, and nothing of the query is there.
    raw.send(&[(b'Q', b"INSERT INTO t VALUES (3); COPY t FROM STDIN; INSERT INTO t VALUES (4)\0")]);
    assert_eq!(raw.message().0, b'C');
    assert_eq!(raw.message().0, b'G');
    raw.send(&[(b'd', b"x\ty\n"), (b'd', b"5\ty\n"), (b'c', b""), (b'Q', b"SELECT 1\0")]);
    assert_eq!(raw.kinds(), "EZI");
    assert_eq!(raw.kinds(), "TDCZI");
    assert_eq!(counted(&world), 2);
    // The client gives up; a message that has no place there; a key that is there.
    for (message, wrong) in [((b'f', &b"no more\0"[..]), "57014"), ((b'Q', b"SELECT 1\0"), "08P01")] {
        raw.send(&[(b'Q', b"COPY t FROM STDIN\0"), (b'd', b"6\tsix\n"), message]);
        assert_eq!(raw.message().0, b'G');
        assert_eq!(raw.error().0, wrong);
        assert_eq!(raw.kinds(), "ZI");
    }
    raw.send(&[(b'Q', b"COPY t FROM STDIN\0"), (b'd', b"1\tagain\n"), (b'c', b"")]);
    assert_eq!(raw.message().0, b'G');
    assert_eq!(raw.error().0, "23505");
    assert_eq!(raw.kinds(), "ZI");
    // By the extended protocol: a Sync sent ahead is not looked at, an error skips to the next one.
    let parse = (b'P', &b"\0COPY t (id) FROM STDIN\0\0\0"[..]);
    let bind = (b'B', &b"\0\0\0\0\0\0\0\0"[..]);
    for (data, kinds, rows) in [(&b"7\n"[..], "CZI", 3), (b"seven\n", "EZI", 3)] {
        raw.send(&[parse, bind, (b'D', b"P\0"), EXECUTE, SYNC]);
        let begun: Vec<u8> = (0..4).map(|_| raw.message().0).collect();
        assert_eq!(begun, b"12nG");
        raw.send(&[(b'd', data), (b'c', b""), SYNC]);
        assert_eq!(raw.kinds(), kinds);
        assert_eq!(counted(&world), rows);
    }
    // Out again, and refused where there is nobody to send it.
    raw.send(&[(b'Q', b"COPY t TO STDOUT\0"), (b'Q', b"COPY (SELECT 1) TO STDOUT (FORMAT binary)\0")]);
    assert_eq!(raw.kinds(), "HdddcCZI");
    assert_eq!(raw.kinds(), "HddcCZI");
    assert_eq!(world.request("POST", "/sql", "COPY t FROM STDIN").code(), "0A000");
}

#[test]
fn what_does_not_exist_is_an_error_of_that_message_alone() {
    let world = World::start();
    let mut raw = Raw3::session(&world);
    raw.send(&[(b'D', b"Snone\0"), SYNC, (b'E', b"none\0\0\0\0\0"), SYNC, (b'C', b"Snone\0"), SYNC]);
    assert_eq!(raw.kinds(), "EZI");
    assert_eq!(raw.kinds(), "EZI");
    assert_eq!(raw.kinds(), "3ZI");
    raw.send(&[
        (b'P', b"\0SELECT 1; SELECT 2\0\0\0"),
        SYNC,
        (b'P', b"\0\0\0\0"),
        (b'B', b"\0\0\0\0\0\0\0\0"),
        EXECUTE,
        SYNC,
    ]);
    assert_eq!(raw.kinds(), "EZI");
    assert_eq!(raw.kinds(), "12IZI");
}

#[test]
fn a_malformed_message_ends_the_connection_with_a_reason() {
    let world = World::with(|config| config.max_message_bytes = 10_000);
    for bytes in [
        &b"?\0\0\0\x04"[..],
        b"Q\0\0\0\x03",
        b"Q\0\0\0\x06ab",
        b"Q\x7f\0\0\0",
        b"B\0\0\0\x06\0\0",
        b"P\0\0\0\x0a\0\xff\xfe\0\0\0",
    ] {
        let mut raw = Raw3::session(&world);
        raw.stream.write_all(bytes).unwrap();
        assert_eq!(raw.error().0, "08P01", "{bytes:?}");
        assert_eq!(raw.stream.read(&mut [0; 1]).unwrap(), 0);
    }
    let mut raw = Raw3::new(&world);
    raw.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(raw.error().0, "08P01");
}

#[test]
fn encryption_is_declined_and_the_session_goes_on() {
    let world = World::start();
    let mut raw = Raw3::new(&world);
    raw.stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").unwrap();
    let mut answer = [0];
    raw.stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"N");
    raw.startup(&[("user", "me")]);
    let messages = raw.until_ready();
    let version = messages.iter().find(|(kind, body)| *kind == b'S' && body.starts_with(b"server_version\0"));
    let version = String::from_utf8(version.unwrap().1.clone()).unwrap();
    assert!(version.split('\0').nth(1).unwrap().starts_with("15."), "{version}");
}
