//! Certificates from making to handshake, without sockets but for QUIC's.

use super::*;
use chronos_engine::proto::time::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use tempfile::TempDir;

const NODE: &[Role] = &[Role::Node];

fn leaf(role: Role, name: &str) -> Leaf {
    Leaf { role, name: name.into(), hosts: vec!["node1.example".into()], validity: Validity::days(30) }
}

/// An authority, and a directory for the pairs it issues.
struct World {
    authority: Authority,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        World {
            authority: Authority::generate(Validity::days(3650)).unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Files of a leaf, in a directory of its own.
    fn issue(&self, leaf: &Leaf) -> Files {
        self.issue_to(&self.dir.path().join(&leaf.name), leaf)
    }

    fn issue_to(&self, dir: &Path, leaf: &Leaf) -> Files {
        fs::create_dir_all(dir).unwrap();
        let files = Files::in_dir(dir, leaf.role);
        let pair = self.authority.issue(leaf).unwrap();
        write(&files.ca, self.authority.bundle(), true).unwrap();
        write(&files.certificate, &pair.certificate, true).unwrap();
        write(&files.key, &pair.key, true).unwrap();
        files
    }

    fn node(&self, name: &str) -> Credentials {
        Credentials::load(self.issue(&leaf(Role::Node, name)), NODE, Some(name)).unwrap()
    }

    fn client(&self, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
        let ca = self.dir.path().join("trusted.crt");
        write(&ca, self.authority.bundle(), true).unwrap();
        let files = leaf.map(|leaf| self.issue(leaf));
        let pair = files.as_ref().map(|files| (files.certificate.as_path(), files.key.as_path()));
        client_config(&ca, pair, &[b"h2"]).unwrap()
    }
}

/// Runs a handshake in memory. Who the client was, or the first error of either side.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Option<Identity>, String> {
    let mut client = ClientConnection::new(client, ServerName::try_from("any.name").unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().map_err(|error| format!("server: {error}"))?;
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().map_err(|error| format!("client: {error}"))?;
    }
    Ok(server.peer_certificates().map(|shown| peer_of(shown).unwrap()))
}

#[test]
fn what_is_made_reads_back() {
    let world = World::new();
    let dir = world.dir.path().join("ca");
    world.authority.save(&dir, false).unwrap();
    let loaded = Authority::load(&dir).unwrap();
    assert_eq!(loaded.certificate(), world.authority.certificate());
    for file in ["ca.crt", "ca.key"] {
        assert_eq!(fs::metadata(dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let error = world.authority.save(&dir, false).unwrap_err();
    assert!(matches!(error, TlsError::Exists { .. }), "{error}");
    world.authority.save(&dir, true).unwrap();

    let hosts = ["db.example", "10.0.0.1", "::1"].map(str::to_owned).to_vec();
    let made = Leaf { hosts: hosts.clone(), ..leaf(Role::Node, "node1") };
    let pair = loaded.issue(&made).unwrap();
    let der = files::certificates(pair.certificate.as_bytes(), "test").unwrap().remove(0);
    let read = Certificate::read(der, "test").unwrap();
    assert_eq!(read.identity, Identity { cluster: loaded.cluster(), role: Role::Node, name: "node1".into() });
    assert_eq!(read.hosts, hosts);
    assert_eq!(read.not_after.0 / 1_000_000, made.validity.not_after.0 / 1_000_000);
    assert!(loaded.issue(&Leaf { hosts: vec!["no host".into()], ..leaf(Role::Node, "a") }).is_err());
    assert!(loaded.issue(&leaf(Role::Node, "a/b")).is_err());
    assert!(loaded.issue(&leaf(Role::Authority, "a")).is_err());
}

#[test]
fn no_leaf_outlives_its_authority() {
    let authority = Authority::generate(Validity::days(10)).unwrap();
    let pair = authority.issue(&leaf(Role::Client, "a")).unwrap();
    let der = files::certificates(pair.certificate.as_bytes(), "test").unwrap().remove(0);
    assert_eq!(Certificate::read(der, "test").unwrap().not_after, authority.certificate().not_after);
}

#[test]
fn files_that_do_not_serve_are_named_with_what_is_wrong() {
    let world = World::new();
    let other = World::new();
    let load = |files: &Files| Credentials::load(files.clone(), NODE, Some("node1")).map(|_| ());
    let fresh = || world.issue(&leaf(Role::Node, "node1"));
    let failure = |files: &Files| {
        let error = load(files).unwrap_err();
        (error.to_string(), error)
    };
    load(&fresh()).unwrap();

    let files = fresh();
    fs::remove_file(&files.key).unwrap();
    assert!(
        matches!(failure(&files), (text, TlsError::Missing { .. }) if text.contains("node.key is missing"))
    );

    let files = fresh();
    fs::write(&files.key, world.authority.issue(&leaf(Role::Node, "node1")).unwrap().key).unwrap();
    assert!(matches!(failure(&files), (_, TlsError::KeyMismatch { .. })));

    for (file, text) in [(&files.key, "nothing"), (&files.certificate, "nothing"), (&files.ca, "")] {
        fresh();
        fs::write(file, text).unwrap();
        let (text, error) = failure(&files);
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(matches!(error, TlsError::Malformed { .. }) && text.contains(name), "{text}");
    }

    let past = Validity { not_before: Timestamp(0), not_after: Timestamp(1_000_000_000_000_000) };
    let files = world.issue(&Leaf { validity: past, ..leaf(Role::Node, "node1") });
    assert!(matches!(failure(&files), (text, TlsError::Expired { .. }) if text.contains("2001-09-09")));

    let future = Validity { not_before: Timestamp(3_000_000_000_000_000), ..Validity::WIDE };
    let files = world.issue(&Leaf { validity: future, ..leaf(Role::Node, "node1") });
    assert!(matches!(failure(&files), (_, TlsError::NotYetValid { .. })));

    let files = fresh();
    fs::write(&files.ca, other.authority.bundle()).unwrap();
    assert!(matches!(failure(&files), (_, TlsError::OtherCluster { .. })));

    // The right cluster's number, but a key that nobody trusts.
    let forged = Authority::renew(&world.authority, Validity::days(9)).unwrap();
    let files = fresh();
    fs::write(&files.certificate, forged.issue(&leaf(Role::Node, "node1")).unwrap().certificate).unwrap();
    assert!(matches!(failure(&files), (_, TlsError::OtherAuthority { .. })));

    let files = world.issue(&leaf(Role::Node, "node2"));
    assert!(matches!(failure(&files), (_, TlsError::OtherName { .. })));

    let files = world.issue(&leaf(Role::Client, "node1"));
    assert!(matches!(failure(&files), (_, TlsError::WrongRole { found: Role::Client, .. })));

    let files = fresh();
    fs::copy(&files.certificate, &files.ca).unwrap();
    assert!(matches!(failure(&files), (_, TlsError::WrongRole { found: Role::Node, .. })));
}

#[test]
fn a_key_that_others_can_read_is_warned_about() {
    let world = World::new();
    let files = world.issue(&leaf(Role::Node, "node1"));
    let warnings = |files: &Files| {
        let credentials = Credentials::load(files.clone(), NODE, None).unwrap();
        credentials.current().warnings_at(authority::now())
    };
    assert_eq!(warnings(&files), Vec::<String>::new());
    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(warnings(&files)[0].contains("chmod 600"), "{:?}", warnings(&files));
    let soon = Leaf { validity: Validity::days(3), ..leaf(Role::Node, "node1") };
    assert!(warnings(&world.issue(&soon))[0].contains("expires at"));
}

#[test]
fn listeners_know_their_clients() {
    let world = World::new();
    let server = world.node("node1").current().http();
    assert_eq!(handshake(world.client(None), server.clone()), Ok(None));
    for role in [Role::Client, Role::Reader] {
        let shown = handshake(world.client(Some(&leaf(role, "alice"))), server.clone()).unwrap().unwrap();
        assert_eq!((shown.role, shown.name.as_str()), (role, "alice"));
    }
    for role in [Role::Node, Role::Edge] {
        let error = handshake(world.client(Some(&leaf(role, "bob"))), server.clone()).unwrap_err();
        assert!(error.starts_with("server") && error.contains("WrongRole"), "{error}");
    }
    let stranger = World::new();
    let error = handshake(stranger.client(None), server.clone()).unwrap_err();
    assert!(error.starts_with("client") && error.contains("UnknownIssuer"), "{error}");
}

#[test]
fn a_client_is_no_server() {
    let world = World::new();
    for role in [Role::Client, Role::Reader] {
        let files = world.issue(&leaf(role, "mallory"));
        let credentials = Credentials::load(files, Role::LEAVES, None).unwrap();
        let error = handshake(world.client(None), credentials.current().http()).unwrap_err();
        assert!(error.starts_with("client") && error.contains("server authentication"), "{error}");
    }
}

#[derive(Debug)]
struct Later;

impl rustls::time_provider::TimeProvider for Later {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let days = Duration::from_secs(60 * 86_400);
        Some(rustls::pki_types::UnixTime::since_unix_epoch(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + days,
        ))
    }
}

#[test]
fn what_expires_while_it_is_in_use_is_not_accepted_any_more() {
    let world = World::new();
    let server = world.node("node1").current().http();
    let client = world.client(Some(&leaf(Role::Client, "alice")));
    let mut late_client = (*client).clone();
    late_client.time_provider = Arc::new(Later);
    let error = handshake(Arc::new(late_client), server.clone()).unwrap_err();
    assert!(error.starts_with("client") && error.contains("expired"), "{error}");
    let mut late_server = (*server).clone();
    late_server.time_provider = Arc::new(Later);
    let error = handshake(client, Arc::new(late_server)).unwrap_err();
    assert!(error.starts_with("server") && error.contains("expired"), "{error}");
}

#[test]
fn changed_files_are_taken_and_broken_ones_are_not() {
    let world = World::new();
    let dir = world.dir.path().join("node1");
    let files = world.issue_to(&dir, &leaf(Role::Node, "node1"));
    let credentials = Credentials::load(files.clone(), NODE, None).unwrap();
    let old = credentials.current();
    assert!(matches!(credentials.check(), Reload::Unchanged));

    let next = world.authority.issue(&leaf(Role::Node, "node1")).unwrap();
    write(&files.certificate, &next.certificate, true).unwrap();
    let Reload::Kept(TlsError::KeyMismatch { .. }) = credentials.check() else { panic!("half a pair") };
    assert!(credentials.problem().is_some());
    assert!(matches!(credentials.check(), Reload::Unchanged), "said once");
    assert!(Arc::ptr_eq(&credentials.current(), &old));

    write(&files.key, &next.key, true).unwrap();
    let Reload::Replaced(new) = credentials.check() else { panic!("not replaced") };
    assert_ne!(new.certificate.fingerprint, old.certificate.fingerprint);
    assert_eq!((new.generation, credentials.problem()), (1, None));
    assert!(Arc::ptr_eq(&credentials.current(), &new));
    assert!(matches!(credentials.check(), Reload::Unchanged));

    let stranger = World::new();
    stranger.issue_to(&dir, &leaf(Role::Node, "node1"));
    assert!(matches!(credentials.check(), Reload::Kept(TlsError::OtherCluster { .. })));
    world.issue_to(&dir, &leaf(Role::Node, "node2"));
    assert!(matches!(credentials.check(), Reload::Kept(TlsError::OtherName { .. })));
    assert!(Arc::ptr_eq(&credentials.current(), &new));
    assert_eq!(credentials.reloads(), (1, 3));
}

#[test]
fn an_authority_is_renewed_one_node_after_the_other() {
    let mut world = World::new();
    let old = world.node("old");
    let old_client = world.client(Some(&leaf(Role::Client, "alice")));
    world.authority = world.authority.renew(Validity::days(3650)).unwrap();
    let new = world.node("new");
    let new_client = world.client(Some(&leaf(Role::Client, "alice")));
    assert_eq!(old.cluster(), new.cluster());
    let authorities = new.current().authorities.len();
    assert_eq!(authorities, 2);
    assert!(handshake(new_client.clone(), new.current().http()).is_ok());
    assert!(handshake(new_client.clone(), old.current().http()).is_err(), "has not heard of the new one yet");
    assert!(handshake(old_client, new.current().http()).is_err());
    // The bundle first, everywhere; then the leaves.
    write(&world.dir.path().join("old/ca.crt"), world.authority.bundle(), true).unwrap();
    assert!(matches!(old.check(), Reload::Replaced(_)));
    assert!(handshake(new_client, old.current().http()).is_ok());
}

#[test]
fn many_may_make_the_development_authority_at_once() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let start = Barrier::new(12);
    let seen: Vec<(Identity, [u8; 32])> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..12)
            .map(|i| {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    start.wait();
                    let authority = Development::open(path).unwrap();
                    let node = authority.credentials(Role::Node, &format!("node{}", i % 3)).unwrap();
                    (node.identity().clone(), node.current().certificate.fingerprint)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|(identity, _)| identity.cluster == seen[0].0.cluster));
    for (i, one) in seen.iter().enumerate() {
        assert_eq!(one, &seen[i % 3], "one certificate a name");
    }
    let left: Vec<PathBuf> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [path.join("dev-ca")], "nothing is left over");
    assert_eq!(fs::read_dir(path.join("dev-ca")).unwrap().count(), 2 + 3);
}

/// The same by processes: this test runs itself, and is told by a variable that it is a child.
#[test]
fn so_may_many_processes() {
    const ROOT: &str = "CHRONOS_TEST_DEVELOPMENT_ROOT";
    if let Some(root) = std::env::var_os(ROOT) {
        let node = Development::open(Path::new(&root)).unwrap().credentials(Role::Node, "node1").unwrap();
        println!("saw {}", node.current().certificate.fingerprint_text());
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let arguments = ["--exact", "tls::tests::so_may_many_processes", "--nocapture"];
    let children: Vec<_> = (0..8)
        .map(|_| {
            let mut command = std::process::Command::new(&own);
            command.args(arguments).env(ROOT, root.path()).stdout(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let saw: Vec<String> = children
        .into_iter()
        .map(|child| {
            let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
            let line = said.lines().find_map(|line| line.split_once("saw ").map(|(_, seen)| seen.to_owned()));
            line.unwrap_or_else(|| panic!("{said}"))
        })
        .collect();
    assert!(saw.iter().all(|seen| *seen == saw[0]), "{saw:?}");
}

/// Both sides of one QUIC connection: whom each saw, or what it said.
async fn quic(
    server: &Credentials,
    client: &Credentials,
) -> (Result<Identity, String>, Result<Identity, String>) {
    let local = "127.0.0.1:0".parse().unwrap();
    let accepts = quinn::ServerConfig::with_crypto(server.current().quic_server());
    let listening = quinn::Endpoint::server(accepts, local).unwrap();
    let connecting = quinn::Endpoint::client(local).unwrap();
    let config = quinn::ClientConfig::new(client.current().quic_client());
    let address = listening.local_addr().unwrap();
    let seen = |connection: &quinn::Connection| {
        let shown = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
        peer_of(&shown).unwrap()
    };
    let accept = async {
        let connection = listening.accept().await.unwrap().await.map_err(|error| error.to_string())?;
        let shown = seen(&connection);
        // Open until the other side has seen what it came for.
        connection.closed().await;
        Ok(shown)
    };
    let connect = async {
        let connection = connecting.connect_with(config, address, SERVER_NAME).unwrap().await;
        let connection = connection.map_err(|error| error.to_string())?;
        let shown = seen(&connection);
        // A server that does not want us says so after our side of the handshake is done.
        let refused = tokio::time::timeout(Duration::from_millis(200), connection.closed()).await;
        connection.close(0u8.into(), b"");
        refused.map_or(Ok(shown), |error| Err(error.to_string()))
    };
    tokio::join!(accept, connect)
}

#[test]
fn links_are_of_one_cluster_and_between_nodes_and_edges() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let world = World::new();
    let node1 = world.node("node1");
    let of = |leaf: &Leaf| Credentials::load(world.issue(leaf), Role::LEAVES, None).unwrap();
    for (role, name) in [(Role::Node, "node2"), (Role::Edge, "edge1")] {
        let other = of(&leaf(role, name));
        let (server, client) = runtime.block_on(quic(&node1, &other));
        assert_eq!(server.as_ref(), Ok(other.identity()));
        assert_eq!(client.as_ref(), Ok(node1.identity()));
    }
    let (server, client) = runtime.block_on(quic(&node1, &of(&leaf(Role::Client, "alice"))));
    assert!(server.unwrap_err().contains("WrongRole") && client.is_err());
    let (_, client) = runtime.block_on(quic(&of(&leaf(Role::Edge, "edge1")), &node1));
    assert!(client.unwrap_err().contains("WrongRole"), "an edge is not connected to");
    let (server, client) = runtime.block_on(quic(&node1, &World::new().node("node2")));
    assert!(server.is_err() && client.unwrap_err().contains("UnknownIssuer"));
}
