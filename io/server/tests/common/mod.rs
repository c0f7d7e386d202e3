//! A node and its server in this process, on free ports, in a directory that goes with them.
#![allow(dead_code, reason = "each test program uses its part")]

use chronos_node::NodeHandle;
use chronos_server::config::{Address, Secret};
use chronos_server::{Config, Server};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A running server.
pub struct World {
    pub server: Option<Server>,
    pub node: NodeHandle,
    pub config: Config,
    _dir: tempfile::TempDir,
}

impl World {
    /// One with the defaults.
    pub fn start() -> World {
        World::with(|_| {})
    }

    /// One that needs tokens.
    pub fn with_tokens() -> World {
        World::with(|config| {
            config.auth_token_admin = Some(Secret::new("admin token"));
            config.auth_token_readonly = Some(Secret::new("reader token"));
        })
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> World {
        let dir = tempfile::tempdir().unwrap();
        let any = Address { host: "127.0.0.1".into(), port: 0 };
        let profile = chronos_node::Profile::SMALL;
        let mut config = Config { http_address: any.clone(), pg_address: any, profile, ..Config::default() };
        change(&mut config);
        let node = chronos_node::open(config.node_options("test", dir.path())).unwrap();
        let server = Server::start(config.clone(), node.clone()).unwrap();
        assert!(server.wait_ready());
        World { server: Some(server), node, config, _dir: dir }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// A raw connection to the HTTP port.
    pub fn http(&self) -> TcpStream {
        TcpStream::connect(self.server().http_address()).unwrap()
    }

    /// A raw connection to the PostgreSQL port.
    pub fn pg(&self) -> TcpStream {
        TcpStream::connect(self.server().pg_address()).unwrap()
    }

    pub fn pg_port(&self) -> u16 {
        self.server().pg_address().port()
    }

    pub fn grpc(&self) -> String {
        format!("http://{}", self.server().http_address())
    }

    /// One request, without a token.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Response {
        self.request_with(method, path, &[], body)
    }

    /// One request.
    pub fn request_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut stream = self.http();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        // A server that has answered already may have closed its side.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// Runs a statement over HTTP, which must go well.
    pub fn sql(&self, sql: &str) -> serde_json::Value {
        let response = self.request_with("POST", "/sql", &self.admin(), sql);
        assert_eq!(response.status, 200, "{sql}: {}", response.body);
        response.json()
    }

    /// The administrator's header, if tokens are needed.
    pub fn admin(&self) -> Vec<(&'static str, &'static str)> {
        match self.config.auth_token_admin {
            Some(_) => vec![("authorization", "Bearer admin token")],
            None => vec![],
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
        self.node.stop();
    }
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The stable code of a problem.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
