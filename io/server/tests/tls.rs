//! TLS on the listeners: who is let in and may do what, who is turned away and how, and certificates that change.

mod common;

use bytes::BufMut;
use chronos_node::tls::{Authority, Files, Leaf, Role, Validity, client_config, explain_io, write};
use chronos_proto::time::Timestamp;
use chronos_server::api::{self, DESCRIPTORS};
use chronos_server::config::Secret;
use common::World;
use prost::Message;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, NoTls};

/// How long something that must happen may take.
const SOON: Duration = Duration::from_secs(20);

/// An authority and what it issued, each leaf in a directory of its own.
struct Certs {
    authority: Authority,
    dir: TempDir,
}

impl Certs {
    fn new() -> Certs {
        let authority = Authority::generate(Validity::days(30)).unwrap();
        Certs { authority, dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, role: Role, name: &str) -> Files {
        self.issue_for(role, name, Validity::days(7))
    }

    fn issue_for(&self, role: Role, name: &str, validity: Validity) -> Files {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        let files = Files::in_dir(&dir, role);
        let hosts = vec!["127.0.0.1".to_owned()];
        let pair = self.authority.issue(&Leaf { role, name: name.into(), hosts, validity }).unwrap();
        write(&files.ca, self.authority.bundle(), true).unwrap();
        write(&files.key, &pair.key, true).unwrap();
        write(&files.certificate, &pair.certificate, true).unwrap();
        files
    }

    /// What a client trusts, and shows if it has something to show.
    fn client(&self, shows: Option<&Files>) -> Arc<ClientConfig> {
        let ca = self.path("trusted.crt");
        write(&ca, self.authority.bundle(), true).unwrap();
        client_config(&ca, shows.map(|files| (files.certificate.as_path(), files.key.as_path())), &[])
            .unwrap()
    }

    /// A server that shows the certificate of `node1`.
    fn world(&self, tokens: bool) -> World {
        self.issue(Role::Node, "node1");
        World::with(|config| {
            config.certs_dir = Some(self.path("node1"));
            config.max_connections = 100;
            if tokens {
                config.auth_token_admin = Some(Secret::new("admin token"));
                config.auth_token_readonly = Some(Secret::new("reader token"));
            }
        })
    }
}

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

fn encrypt(stream: TcpStream, config: Arc<ClientConfig>) -> Result<Encrypted, String> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let session = ClientConnection::new(config, ServerName::try_from("chronos").unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        let said = |error: std::io::Error| explain_io(&error).unwrap_or_else(|| error.to_string());
        stream.conn.complete_io(&mut stream.sock).map_err(said)?;
    }
    Ok(stream)
}

/// A request over TLS: the head of its answer, in small letters.
fn https(
    world: &World,
    config: Arc<ClientConfig>,
    request: &str,
    headers: &[String],
    body: &[u8],
) -> Result<String, String> {
    let mut stream = encrypt(world.http(), config)?;
    let mut head = format!("{request} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    headers.iter().for_each(|header| head.push_str(&format!("{header}\r\n")));
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let said = |error: std::io::Error| explain_io(&error).unwrap_or_else(|| error.to_string());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).map_err(said)?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).map_err(said)? {
            0 => return Err("the server hung up".into()),
            _ => answer.push(byte[0]),
        }
    }
    Ok(String::from_utf8(answer).unwrap().to_ascii_lowercase())
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Runs a client on a runtime of its own.
fn client<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), work).await.unwrap() })
}

/// A session over TLS, by a driver that others wrote.
async fn postgres(port: u16, config: Arc<ClientConfig>, password: &str) -> Result<Client, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    let connector = tokio_rustls::TlsConnector::from(config);
    let name = ServerName::try_from("chronos").unwrap();
    let said = |error: std::io::Error| explain_io(&error).unwrap_or_else(|| error.to_string());
    let stream = connector.connect(name, stream).await.map_err(said)?;
    let mut config = tokio_postgres::Config::new();
    config.user("somebody").dbname("chronos").password(password).ssl_mode(SslMode::Disable);
    let (client, connection) = config
        .connect_raw(stream, NoTls)
        .await
        .map_err(|error| error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()))?;
    tokio::spawn(connection);
    Ok(client)
}

/// What somebody's request comes to, as far as their rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is not known who they are.
    Unknown,
    /// They may not do this.
    Forbidden,
    /// They may.
    Allowed,
}
use Verdict::{Allowed, Forbidden, Unknown};

fn grpc(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.put_u32(body.len() as u32);
    framed.extend(body);
    framed
}

/// What nobody, a reader and an administrator may do.
const OPEN: [Verdict; 3] = [Allowed, Allowed, Allowed];
const READS: [Verdict; 3] = [Unknown, Allowed, Allowed];
const WRITES: [Verdict; 3] = [Unknown, Forbidden, Allowed];

/// Every verb of HTTP and gRPC, with what it takes and who may use it.
fn verbs() -> Vec<(String, Vec<u8>, [Verdict; 3])> {
    let http = |request: &str, body: &str, rights| (request.to_owned(), body.as_bytes().to_vec(), rights);
    let rpc = |method: &str, body: Vec<u8>, rights| (format!("POST /chronos.v1.{method}"), body, rights);
    let sql = |sql: &str| grpc(&api::ExecuteRequest { sql: sql.into(), ..Default::default() });
    let subscribe = |group: &str| {
        let open = api::subscribe_request::Open {
            topic: "alerts".into(),
            group: group.into(),
            credit: 1,
            ..Default::default()
        };
        let request = Some(api::subscribe_request::Request::Open(open));
        grpc(&api::SubscribeRequest { request })
    };
    let empty = || grpc(&api::PublishRequest::default());
    vec![
        http("GET /health", "", OPEN),
        http("GET /livez", "", OPEN),
        http("GET /readyz", "", OPEN),
        http("GET /status", "", READS),
        http("GET /metrics", "", READS),
        http("GET /config", "", WRITES),
        http("POST /sql", "SELECT * FROM t", READS),
        http("POST /sql", "DELETE FROM t", WRITES),
        http("POST /sql", "CREATE TOPIC again", WRITES),
        http("POST /ingest", "[]", WRITES),
        rpc("Events/Publish", empty(), WRITES),
        rpc("Events/PublishBatch", empty(), WRITES),
        rpc("Events/Subscribe", subscribe(""), READS),
        rpc("Events/Subscribe", subscribe("group"), WRITES),
        rpc("Events/Schedule", empty(), WRITES),
        rpc("Events/Cancel", empty(), WRITES),
        rpc("Events/ListSchedules", empty(), READS),
        rpc("Events/ListDeadLetters", empty(), READS),
        rpc("Events/Redrive", empty(), WRITES),
        rpc("Sql/Execute", sql("SELECT * FROM t"), READS),
        rpc("Sql/Execute", sql("DELETE FROM t"), WRITES),
        rpc("Admin/Status", empty(), READS),
    ]
}

#[test]
fn every_verb_knows_who_may_use_it() {
    let certs = Certs::new();
    let world = certs.world(true);
    world_sql(&world, &certs, "CREATE TABLE t (id INT PRIMARY KEY)");
    world_sql(&world, &certs, "CREATE TOPIC alerts");
    let nobody = certs.client(None);
    let reader = certs.client(Some(&certs.issue(Role::Reader, "reader")));
    let admin = certs.client(Some(&certs.issue(Role::Client, "admin")));
    let token = |token: &str| vec![format!("authorization: Bearer {token}")];
    // Who asks, and which of the three columns holds.
    let callers = [
        ("nobody", &nobody, vec![], 0),
        ("a wrong token", &nobody, token("guess"), 0),
        ("another scheme", &nobody, vec!["authorization: Basic YTpi".to_owned()], 0),
        ("the reader's token", &nobody, token("reader token"), 1),
        ("the administrator's token", &nobody, token("admin token"), 2),
        ("a reader's certificate", &reader, vec![], 1),
        ("a client's certificate", &admin, vec![], 2),
        ("a token, which counts before a certificate", &admin, token("reader token"), 1),
        ("a wrong token with a certificate", &admin, token("guess"), 0),
    ];
    for (request, body, rights) in verbs() {
        for (who, config, headers, column) in &callers {
            let mut headers = headers.clone();
            let kind = if request.contains("chronos.v1") { "application/grpc" } else { "text/plain" };
            headers.push(format!("content-type: {kind}"));
            let head = https(&world, (*config).clone(), &request, &headers, &body).unwrap();
            let code = head.lines().find_map(|line| line.strip_prefix("grpc-status: "));
            let verdict = match (status(&head), code) {
                (401, _) | (_, Some("16")) => Unknown,
                (403, _) | (_, Some("7")) => Forbidden,
                _ => Allowed,
            };
            assert_eq!(verdict, rights[*column], "{who}: {request}: {head}");
        }
    }
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let services =
        set.file.iter().filter(|file| file.package() == "chronos.v1").flat_map(|file| &file.service);
    let all: BTreeSet<String> = services
        .flat_map(|service| service.method.iter().map(move |m| format!("{}/{}", service.name(), m.name())))
        .collect();
    let verbs = verbs();
    let covered = verbs.iter().filter_map(|(request, ..)| request.strip_prefix("POST /chronos.v1."));
    assert_eq!(
        covered.map(str::to_owned).collect::<BTreeSet<_>>(),
        all,
        "a verb without a line in the table"
    );
}

fn world_sql(world: &World, certs: &Certs, sql: &str) {
    let admin = certs.client(Some(&certs.issue(Role::Client, "setup")));
    let head = https(world, admin, "POST /sql", &[], sql.as_bytes()).unwrap();
    assert_eq!(status(&head), 200, "{head}");
}

#[test]
fn sessions_by_password_and_by_certificate() {
    let certs = Certs::new();
    let world = certs.world(true);
    let port = world.pg_port();
    let plain = certs.client(None);
    let of = |role, name| certs.client(Some(&certs.issue(role, name)));
    let (reader, admin, node) =
        (of(Role::Reader, "reader"), of(Role::Client, "admin"), of(Role::Node, "node2"));
    client(async {
        let writes = async |config: &Arc<ClientConfig>, password: &str| {
            let client = postgres(port, config.clone(), password).await?;
            client.query("SELECT 1", &[]).await.unwrap();
            let written = client.batch_execute("CREATE TABLE IF NOT EXISTS t (id INT PRIMARY KEY)").await;
            Ok::<_, String>(written.err().map(|error| error.code().unwrap().code().to_owned()))
        };
        assert_eq!(writes(&plain, "admin token").await, Ok(None));
        assert_eq!(writes(&plain, "reader token").await, Ok(Some("25006".into())));
        assert_eq!(writes(&plain, "guess").await, Err("28P01".into()));
        assert_eq!(writes(&admin, "").await, Ok(None));
        assert_eq!(writes(&reader, "").await, Ok(Some("25006".into())));
        assert!(writes(&node, "").await.is_err(), "a node is no client");
    });
}

#[test]
fn without_tokens_a_certificate_is_the_only_way_in() {
    let certs = Certs::new();
    let world = certs.world(false);
    let admin = certs.client(Some(&certs.issue(Role::Client, "admin")));
    assert_eq!(status(&https(&world, certs.client(None), "GET /status", &[], b"").unwrap()), 401);
    assert_eq!(status(&https(&world, admin.clone(), "GET /status", &[], b"").unwrap()), 200);
    client(async {
        assert_eq!(postgres(world.pg_port(), certs.client(None), "").await.err().as_deref(), Some("28000"));
        postgres(world.pg_port(), admin, "").await.unwrap();
    });
}

#[test]
fn who_does_not_speak_tls_is_told_so() {
    let certs = Certs::new();
    let world = certs.world(true);
    let response = world.request("GET", "/health", "");
    assert_eq!((response.status, response.code().as_str()), (400, "tls_required"));

    let answer = |bytes: &[u8]| {
        let mut stream = world.pg();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A server that hangs up on what it has not read resets the connection.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let session = b"\0\0\0\x11\0\x03\0\0user\0me\0\0";
    let refused = answer(session);
    assert!(refused.contains("28000") && refused.contains("sslmode"), "{refused}");
    let smuggled = answer(&[&[0, 0, 0, 8, 4, 210, 22, 47], &session[..]].concat());
    assert!(smuggled.contains("08P01") && smuggled.contains("unencrypted"), "{smuggled}");
}

#[test]
fn certificates_that_do_not_serve_are_turned_away() {
    let certs = Certs::new();
    let world = certs.world(true);
    let stranger = Certs::new();
    let get = |config| https(&world, config, "GET /health", &[], b"");
    assert!(get(certs.client(None)).is_ok());

    let error = get(stranger.client(None)).unwrap_err();
    assert!(error.contains("another cluster"), "{error}");

    // Trusts the right authority and shows what another has issued.
    let ca = certs.path("trusted.crt");
    let foreign = stranger.issue(Role::Client, "mallory");
    let error = client_config(&ca, Some((&foreign.certificate, &foreign.key)), &[]).unwrap_err();
    assert!(error.to_string().contains("cluster"), "{error}");

    let error = get(certs.client(Some(&certs.issue(Role::Node, "node2")))).unwrap_err();
    assert!(error.contains("role does not serve"), "{error}");

    // One that expires while its owner runs.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    let validity = Validity { not_before: Timestamp(0), not_after: Timestamp(now + 2_000_000) };
    let short = certs.client(Some(&certs.issue_for(Role::Client, "short", validity)));
    let deadline = Instant::now() + SOON;
    let error = loop {
        match get(short.clone()) {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline, "it never expires"),
        }
    };
    assert!(error.contains("expired"), "{error}");
    let metrics = metrics(&world, &certs);
    assert!(!metrics.contains("chronos_tls_handshakes_failed_total{protocol=\"http\"} 0"), "{metrics}");
}

fn metrics(world: &World, certs: &Certs) -> String {
    let mut stream = encrypt(world.http(), certs.client(None)).unwrap();
    let request = "GET /metrics HTTP/1.0\r\nauthorization: Bearer reader token\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end of the stream may come without a goodbye.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn new_certificates_are_taken_under_load_and_broken_ones_are_not() {
    let certs = Certs::new();
    let world = certs.world(true);
    let config = certs.client(None);
    let shown = || {
        let stream = encrypt(world.http(), config.clone()).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone()
    };
    let old = shown();
    assert!(metrics(&world, &certs).contains("chronos_certificate_expiry_seconds{certificate=\"node\""));
    let stop = AtomicBool::new(false);
    let requests = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let head = https(&world, config.clone(), "GET /health", &[], b"").unwrap();
                    assert_eq!(status(&head), 200);
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            client(async {
                let session = postgres(world.pg_port(), config.clone(), "admin token").await.unwrap();
                certs.issue(Role::Node, "node1");
                let deadline = Instant::now() + SOON;
                while shown() == old {
                    assert!(Instant::now() < deadline, "the new certificate is not taken");
                    session.query("SELECT 1", &[]).await.unwrap();
                }
                session.query("SELECT 1", &[]).await.unwrap();
                let new = shown();
                std::fs::write(certs.path("node1/node.key"), "broken").unwrap();
                let failed = "chronos_certificate_reload_failures_total 1";
                while !metrics(&world, &certs).contains(failed) {
                    assert!(Instant::now() < deadline, "the broken key is not noticed");
                    session.query("SELECT 1", &[]).await.unwrap();
                }
                assert_eq!(shown(), new);
                assert!(metrics(&world, &certs).contains("chronos_certificate_reloads_total 1"));
            });
        }));
        stop.store(true, Ordering::Relaxed);
        changed.unwrap();
    });
    assert!(requests.load(Ordering::Relaxed) > 0);
}

#[test]
fn who_is_slow_to_log_in_holds_up_nobody() {
    let certs = Certs::new();
    let world = certs.world(true);
    let config = certs.client(None);
    let silent: Vec<TcpStream> = (0..20).map(|_| world.http()).collect();
    assert!(https(&world, config.clone(), "GET /health", &[], b"").is_ok());
    drop(silent);
    let ask = || {
        let mut stream = world.pg();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
        let mut answer = [0];
        stream.read_exact(&mut answer).unwrap();
        (answer[0], stream)
    };
    let most = world.config.max_connections.max(64);
    let slow: Vec<TcpStream> = (0..most)
        .map(|_| {
            let (answer, stream) = ask();
            assert_eq!(answer, b'S');
            stream
        })
        .collect();
    let (answer, mut refused) = ask();
    let mut rest = String::new();
    refused.read_to_string(&mut rest).unwrap();
    assert!(answer == b'E' && rest.contains("53300"), "{rest}");
    drop(slow);
    let deadline = Instant::now() + SOON;
    while ask().0 != b'S' {
        assert!(Instant::now() < deadline, "their places are not given back");
    }
}
