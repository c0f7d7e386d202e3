//! Configuration: one table of settings, four places that a value may come from.
//!
//! A flag wins over a `CHRONOS_*` variable, that over the TOML file, that over the default. Every setting has one
//! key: `data_dir` is the flag `--data-dir`, the variable `CHRONOS_DATA_DIR` and `data_dir = …` in the file.
//! Not implemented: reloading, but for what is in certificate files.

use crate::gateway::ReadMode;
use chronos_node::tls::{Credentials, Files, Role, TlsError};
use chronos_node::{Fsync, MAX_BYTES_LEAST, Options, Profile, RecordOptions};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting: its key and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The key, as in the file.
    pub key: &'static str,
    /// The default, as text; empty where there is none or it follows from others.
    pub default: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Never printed.
    pub secret: bool,
    /// Takes no value as a flag: `--insecure`.
    pub switch: bool,
}

const fn setting(key: &'static str, default: &'static str, help: &'static str) -> Setting {
    Setting { key, default, help, secret: false, switch: false }
}

const fn secret(key: &'static str, help: &'static str) -> Setting {
    Setting { key, default: "", help, secret: true, switch: false }
}

const fn switch(key: &'static str, help: &'static str) -> Setting {
    Setting { key, default: "false", help, secret: false, switch: true }
}

/// The WAL goes by whole segments: with fewer there is nothing to bound.
const SEGMENTS_MIN: u64 = 8;
/// The most groups beside group 0.
pub const PARTITIONS_MAX: u32 = 1_024;

/// Every setting, in the order `config show` prints them.
pub const SETTINGS: &[Setting] = &[
    setting("data_dir", "data", "the data root"),
    setting("address", "127.0.0.1:8000", "HOST:P for peers (UDP); the other listeners follow from P"),
    setting("advertise_address", "", "HOST:P that peers reach this node by, if not by its address"),
    setting("http_address", "", "HTTP and gRPC; the address' host and P+1000 unless given"),
    setting("pg_address", "", "PostgreSQL wire; the address' host and P+2000 unless given"),
    switch("insecure", "listen beyond loopback without certificates"),
    setting("certs_dir", "", "certificates, as `chronos certs` makes them: ca.crt, node.crt, node.key"),
    setting("tls_ca", "", "the authority's certificate; ca.crt in certs_dir unless given"),
    setting("tls_ca_cert", "", "the same as tls_ca"),
    setting("tls_cert", "", "the node's certificate; node.crt in certs_dir unless given"),
    setting("tls_key", "", "its private key; node.key in certs_dir unless given"),
    secret("auth_token_admin", "bearer token, and PostgreSQL password, that may do everything"),
    secret("auth_token_readonly", "bearer token, and PostgreSQL password, that may only read"),
    secret("auth_token", "the same as auth_token_admin"),
    setting(
        "partitions",
        "8",
        "groups beside group 0, for the partitions of topics, on every node alike; may rise later",
    ),
    setting(
        "read_mode",
        "linearizable",
        "how reads are answered: linearizable, lease (trusts clocks' rates) or local (may be old)",
    ),
    setting("fsync", "always", "when a write counts as durable: always, interval=5ms or never"),
    setting("profile", "standard", "standard, or small for a machine with little memory and an SD card"),
    setting("checkpoint_wal_bytes", "", "checkpoint after so much WAL; the profile's unless given"),
    setting("checkpoint_interval", "", "checkpoint at this age of the last one; the profile's unless given"),
    setting(
        "wal_max_bytes",
        "",
        "the WAL is kept below this; at least 8 segments; the profile's unless given",
    ),
    setting("wal_segment_bytes", "", "size of a WAL segment; the profile's unless given"),
    setting(
        "memory_max_bytes",
        "",
        "memory for writes since the last checkpoint; the profile's unless given",
    ),
    setting("store_max_bytes", "", "how large the checkpoint store may grow; the profile's unless given"),
    setting("max_connections", "500", "PostgreSQL connections at once"),
    setting("http_max_connections", "1000", "HTTP and gRPC connections at once; more wait to be accepted"),
    setting("max_message_bytes", "64MB", "the largest PostgreSQL message or HTTP body of /sql"),
    setting("result_max_bytes", "256MB", "the largest result that is held for one client"),
    setting("ingest_max_body_bytes", "8MB", "the largest body of /ingest"),
    setting("ingest_max_inflight", "1024", "requests to /ingest at once"),
    setting("record", "", "record what the node is given into this directory, for `cargo sim --replay`"),
    setting("record_max_bytes", "1GB", "all recordings of the node together; the oldest go"),
    setting("log_file", "", "write the log to this file too, and rotate it"),
    setting("log_max_size_mb", "10", "the largest log file, in MiB, before it is set aside"),
    setting("log_max_files", "3", "log files that are kept beside the newest"),
];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A setting that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value does not parse.
    #[error("{key} = {value:?} ({origin}): {why}")]
    Value {
        /// The setting.
        key: &'static str,
        /// What was given; empty for a secret.
        value: String,
        /// By whom.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
    /// The file does not parse.
    #[error("configuration file {}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A key that means nothing.
    #[error("unknown setting {key:?} in {}: `chronos config show` lists all", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// Without certificates only loopback is safe.
    #[error(
        "{what} {address} is not a loopback address, and there are no certificates to protect it: \
         give --certs-dir (`chronos certs` makes them), use 127.0.0.1, or say --insecure if the network is trusted"
    )]
    NotLoopback {
        /// Which listener.
        what: &'static str,
        /// Its address.
        address: String,
    },
}

/// A configuration file's path and text.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path, for messages.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// HOST:PORT as typed; names are resolved when it is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

impl Address {
    /// Parses `HOST:PORT`, `[V6]:PORT` or `:PORT` (loopback).
    pub fn parse(text: &str) -> Result<Address, String> {
        let wrong = || format!("expected HOST:PORT, for example 127.0.0.1:8000, not {text:?}");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Ok(Address { host: if host.is_empty() { "127.0.0.1".into() } else { host.into() }, port })
    }

    /// The same host, `above` ports up; port 0 stays 0.
    pub fn shifted(&self, above: u16) -> Option<Address> {
        let port = if self.port == 0 { 0 } else { self.port.checked_add(above)? };
        Some(Address { host: self.host.clone(), port })
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<std::net::IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => self.host == "localhost",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A token, kept out of `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a token.
    pub fn new(token: impl Into<String>) -> Secret {
        Secret(token.into())
    }

    /// The token itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data root.
    pub data_dir: PathBuf,
    /// For peers, UDP.
    pub address: Address,
    /// What peers know it by: another address if it listens on all, or stands behind a translation of addresses.
    pub advertise_address: Address,
    /// HTTP and gRPC, TCP.
    pub http_address: Address,
    /// PostgreSQL wire, TCP.
    pub pg_address: Address,
    /// Listening beyond loopback without certificates was asked for.
    pub insecure: bool,
    /// Where certificates are.
    pub certs_dir: Option<PathBuf>,
    /// The authority's certificate, if it is elsewhere.
    pub tls_ca: Option<PathBuf>,
    /// The node's certificate, if it is elsewhere.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, if it is elsewhere.
    pub tls_key: Option<PathBuf>,
    /// The token that may do everything.
    pub auth_token_admin: Option<Secret>,
    /// The token that may only read.
    pub auth_token_readonly: Option<Secret>,
    /// Groups beside group 0.
    pub partitions: u32,
    /// How reads are answered, unless a session says otherwise.
    pub read_mode: ReadMode,
    /// When a write counts as durable.
    pub fsync: Fsync,
    /// The node's budgets.
    pub profile: Profile,
    /// PostgreSQL connections at once.
    pub max_connections: usize,
    /// HTTP and gRPC connections at once.
    pub http_max_connections: usize,
    /// The largest PostgreSQL message, and body of /sql.
    pub max_message_bytes: usize,
    /// The largest result held for one client.
    pub result_max_bytes: usize,
    /// The largest body of /ingest.
    pub ingest_max_body_bytes: usize,
    /// Requests to /ingest at once.
    pub ingest_max_inflight: usize,
    /// Where to record, and how much.
    pub record: Option<RecordOptions>,
    /// Where the log is written too.
    pub log_file: Option<PathBuf>,
    /// The largest log file.
    pub log_max_bytes: u64,
    /// Log files that are kept beside the newest.
    pub log_max_files: u32,
}

impl Config {
    /// What peers and their clients are told of the HTTP listener: the host that peers reach this node by, unless HTTP was
    /// given one of its own.
    pub fn advertised_http(&self, port: u16) -> Address {
        let everywhere = |host: &str| host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_unspecified());
        let own = &self.http_address.host;
        let host =
            if *own == self.address.host || everywhere(own) { &self.advertise_address.host } else { own };
        Address { host: host.clone(), port }
    }

    /// Whether certificates are configured: then every listener wants TLS.
    pub fn has_certificates(&self) -> bool {
        self.certs_dir.is_some() || self.tls_cert.is_some()
    }

    /// Reads the certificates that are configured; none if none are. They must name the node, if a name is given.
    pub fn credentials(&self, name: Option<&str>) -> Result<Option<Credentials>, TlsError> {
        if !self.has_certificates() {
            return Ok(None);
        }
        let dir = self.certs_dir.as_deref().unwrap_or(Path::new(""));
        let edge = Files::in_dir(dir, Role::Edge);
        let node = Files::in_dir(dir, Role::Node);
        let files = if edge.certificate.exists() && !node.certificate.exists() { edge } else { node };
        let files = Files {
            ca: self.tls_ca.clone().unwrap_or(files.ca),
            certificate: self.tls_cert.clone().unwrap_or(files.certificate),
            key: self.tls_key.clone().unwrap_or(files.key),
        };
        Credentials::load(files, &[Role::Node, Role::Edge], name).map(Some)
    }

    /// How to open the node that this configuration speaks of.
    pub fn node_options(&self, name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Options {
        Options {
            name: name.into(),
            fsync: self.fsync,
            profile: self.profile,
            partitions: self.partitions,
            record: self.record.clone(),
            build: format!("chronos {}", env!("CARGO_PKG_VERSION")),
            ..Options::new(data_dir)
        }
    }
}

impl Default for Config {
    /// The defaults of [`SETTINGS`].
    fn default() -> Config {
        match Resolved::new(&BTreeMap::new(), |_| None, None) {
            Ok(resolved) => resolved.config,
            Err(error) => unreachable!("the defaults are valid: {error}"),
        }
    }
}

/// A configuration and where each value came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What holds.
    pub config: Config,
    origins: BTreeMap<&'static str, (String, Origin)>,
}

impl Resolved {
    /// Merges flags (by key) over the environment over a file over the defaults, and checks the result.
    pub fn new(
        flags: &BTreeMap<&'static str, String>,
        env: impl Fn(&str) -> Option<String>,
        file: Option<&File>,
    ) -> Result<Resolved, ConfigError> {
        let from_file = file.map(read_file).transpose()?.unwrap_or_default();
        let mut values = BTreeMap::new();
        for setting in SETTINGS {
            let key = setting.key;
            let variable = format!("CHRONOS_{}", key.to_uppercase());
            let value = if let Some(value) = flags.get(key) {
                (value.clone(), Origin::Flag(format!("--{}", key.replace('_', "-"))))
            } else if let Some(value) = env(&variable).filter(|v| !v.is_empty()) {
                (value, Origin::Environment(variable))
            } else if let (Some(file), Some(value)) = (file, from_file.get(key)) {
                (value.clone(), Origin::File(file.path.clone()))
            } else {
                (setting.default.to_owned(), Origin::Default)
            };
            values.insert(key, value);
        }
        let config = Reader(&values).config()?;
        let profile = &config.profile;
        let follows = [
            ("advertise_address", config.advertise_address.to_string()),
            ("http_address", config.http_address.to_string()),
            ("pg_address", config.pg_address.to_string()),
            ("checkpoint_wal_bytes", profile.checkpoint_wal_bytes.to_string()),
            ("checkpoint_interval", format!("{}s", profile.checkpoint_interval.as_secs())),
            ("wal_max_bytes", profile.wal_max_bytes.to_string()),
            ("wal_segment_bytes", profile.segment_bytes.to_string()),
            ("memory_max_bytes", profile.overlay_max_bytes.to_string()),
            ("store_max_bytes", profile.store_max_bytes.to_string()),
        ];
        for (key, effective) in follows {
            if let Some((value, Origin::Default)) = values.get_mut(key) {
                *value = effective;
            }
        }
        Ok(Resolved { config, origins: values })
    }

    /// Where a setting's value came from.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.origins.get(key).map(|(_, origin)| origin)
    }

    /// Key, value and origin of every setting; secrets are masked.
    pub fn show(&self) -> impl Iterator<Item = (&'static str, String, &Origin)> {
        SETTINGS.iter().filter_map(|setting| {
            let (value, origin) = self.origins.get(setting.key)?;
            let shown = match (setting.secret, value.is_empty()) {
                (true, false) => "(set)".to_owned(),
                _ => value.clone(),
            };
            Some((setting.key, shown, origin))
        })
    }
}

fn read_file(file: &File) -> Result<BTreeMap<String, String>, ConfigError> {
    let table: toml::Table = toml::from_str(&file.text).map_err(|e| ConfigError::File {
        path: file.path.clone(),
        why: e.to_string().trim_end().to_owned(),
    })?;
    let mut out = BTreeMap::new();
    for (key, value) in table {
        if !SETTINGS.iter().any(|setting| setting.key == key) {
            return Err(ConfigError::Unknown { path: file.path.clone(), key });
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => {
                let why =
                    format!("{key}: expected a text, a number or a boolean, not a {}", other.type_str());
                return Err(ConfigError::File { path: file.path.clone(), why });
            }
        };
        out.insert(key, text);
    }
    Ok(out)
}

struct Reader<'a>(&'a BTreeMap<&'static str, (String, Origin)>);

impl Reader<'_> {
    fn config(&self) -> Result<Config, ConfigError> {
        let address = self.read("address", Address::parse)?;
        let follow = |key, above| {
            self.read(key, |text| match text {
                "" => address.shifted(above).ok_or_else(|| {
                    format!("port {} + {above} is above 65535: give this address", address.port)
                }),
                text => Address::parse(text),
            })
        };
        let config = Config {
            data_dir: self.read("data_dir", |text| Ok(PathBuf::from(text)))?,
            advertise_address: follow("advertise_address", 0)?,
            http_address: follow("http_address", 1000)?,
            pg_address: follow("pg_address", 2000)?,
            insecure: self.read("insecure", parse_bool)?,
            certs_dir: self.path("certs_dir")?,
            tls_ca: match self.path("tls_ca")? {
                None => self.path("tls_ca_cert")?,
                some => some,
            },
            tls_cert: self.path("tls_cert")?,
            tls_key: self.path("tls_key")?,
            auth_token_admin: match self.token("auth_token_admin")? {
                None => self.token("auth_token")?,
                some => some,
            },
            auth_token_readonly: self.token("auth_token_readonly")?,
            partitions: self.read("partitions", |text| match text.parse() {
                Ok(count) if count <= PARTITIONS_MAX => Ok(count),
                _ => Err(format!("expected a number up to {PARTITIONS_MAX}")),
            })?,
            read_mode: self.read("read_mode", |text| {
                ReadMode::parse(text).ok_or_else(|| "expected linearizable, lease or local".into())
            })?,
            fsync: self.read("fsync", parse_fsync)?,
            profile: self.profile()?,
            max_connections: self.read("max_connections", parse_count)?,
            http_max_connections: self.read("http_max_connections", parse_count)?,
            max_message_bytes: self.size("max_message_bytes")?,
            result_max_bytes: self.size("result_max_bytes")?,
            ingest_max_body_bytes: self.size("ingest_max_body_bytes")?,
            ingest_max_inflight: self.read("ingest_max_inflight", parse_count)?,
            record: self.record()?,
            log_file: self.path("log_file")?,
            log_max_bytes: self.read("log_max_size_mb", |text| match parse_count(text) {
                Ok(megabytes) if megabytes <= 1 << 20 => Ok((megabytes as u64) << 20),
                _ => Err("expected a number of MiB, up to a million".into()),
            })?,
            log_max_files: self.read("log_max_files", |text| match text.parse() {
                Ok(files) if files <= 1_000 => Ok(files),
                _ => Err("expected a number up to 1000".into()),
            })?,
            address,
        };
        let given =
            [("tls_ca", &config.tls_ca), ("tls_cert", &config.tls_cert), ("tls_key", &config.tls_key)];
        let is_alone = config.certs_dir.is_none() && given.iter().any(|(_, path)| path.is_some());
        if let Some((key, _)) = given.into_iter().find(|(_, path)| is_alone && path.is_none()) {
            let (_, origin) = &self.0[key];
            return Err(ConfigError::Value {
                key,
                value: String::new(),
                origin: origin.clone(),
                why: "tls_ca, tls_cert and tls_key are given together, or with certs_dir".into(),
            });
        }
        let listeners = [("http_address", &config.http_address), ("pg_address", &config.pg_address)];
        for (what, address) in listeners {
            if !config.insecure && !config.has_certificates() && !address.is_loopback() {
                return Err(ConfigError::NotLoopback { what, address: address.to_string() });
            }
        }
        Ok(config)
    }

    fn read<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (value, origin) = &self.0[key];
        let hidden = SETTINGS.iter().any(|s| s.key == key && s.secret);
        parse(value).map_err(|why| ConfigError::Value {
            key,
            value: if hidden { String::new() } else { value.clone() },
            origin: origin.clone(),
            why,
        })
    }

    fn profile(&self) -> Result<Profile, ConfigError> {
        let base = self.read("profile", |text| match text {
            "standard" => Ok(Profile::STANDARD),
            "small" => Ok(Profile::SMALL),
            _ => Err("expected standard or small".into()),
        })?;
        let bytes =
            |key, preset| self.read(key, |text| if text.is_empty() { Ok(preset) } else { parse_bytes(text) });
        let interval = self.read("checkpoint_interval", |text| match text {
            "" => Ok(base.checkpoint_interval),
            text => parse_duration(text),
        })?;
        let memory = bytes("memory_max_bytes", base.overlay_max_bytes as u64)?;
        let segment_bytes = bytes("wal_segment_bytes", base.segment_bytes)?;
        let wal_max_bytes = self.read("wal_max_bytes", |text| match text {
            "" => Ok(base.wal_max_bytes.max(segment_bytes.saturating_mul(SEGMENTS_MIN))),
            text => parse_bytes(text).and_then(|bytes| match bytes / SEGMENTS_MIN >= segment_bytes {
                true => Ok(bytes),
                false => Err(format!(
                    "expected {SEGMENTS_MIN} segments (wal_segment_bytes = {segment_bytes}) at least"
                )),
            }),
        })?;
        Ok(Profile {
            wal_max_bytes,
            checkpoint_wal_bytes: bytes("checkpoint_wal_bytes", base.checkpoint_wal_bytes)?,
            checkpoint_interval: interval,
            segment_bytes,
            overlay_max_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            store_max_bytes: bytes("store_max_bytes", base.store_max_bytes)?,
            ..base
        })
    }

    fn record(&self) -> Result<Option<RecordOptions>, ConfigError> {
        let max_bytes = self.read("record_max_bytes", |text| match parse_bytes(text)? {
            bytes if bytes < MAX_BYTES_LEAST => Err(format!("expected {MAX_BYTES_LEAST} bytes at least")),
            bytes => Ok(bytes),
        })?;
        Ok(self.path("record")?.map(|dir| RecordOptions { dir, max_bytes }))
    }

    fn token(&self, key: &'static str) -> Result<Option<Secret>, ConfigError> {
        self.read(key, |text| match text.trim() {
            "" => Ok(None),
            token => Ok(Some(Secret::new(token))),
        })
    }

    fn path(&self, key: &'static str) -> Result<Option<PathBuf>, ConfigError> {
        self.read(key, |text| Ok((!text.is_empty()).then(|| PathBuf::from(text))))
    }

    fn size(&self, key: &'static str) -> Result<usize, ConfigError> {
        self.read(key, |text| usize::try_from(parse_bytes(text)?).map_err(|e| e.to_string()))
    }
}

/// A node's name.
pub fn node_name(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_name)
        && text.len() <= 64
    {
        true => Ok(text.to_owned()),
        false => {
            Err("a name has up to 64 letters, digits, -, _ and ., and begins with a letter or digit".into())
        }
    }
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a number above 0".into()),
        Ok(count) => Ok(count),
    }
}

/// Bytes, with an optional unit of 1024s: `512`, `64KB`, `256MB`, `1GB`.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected bytes such as 65536, 64KB, 256MB or 1GB, not {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.trim().parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|&bytes| bytes > 0).ok_or_else(wrong)
}

/// A duration with a unit: `5ms`, `30s`, `10m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a duration such as 5ms, 30s, 10m or 1h, not {text:?}");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.trim().parse().map_err(|_| wrong())?;
    count.checked_mul(unit).filter(|&us| us > 0).map(Duration::from_micros).ok_or_else(wrong)
}

/// `always`, `never` or `interval=5ms`.
pub fn parse_fsync(text: &str) -> Result<Fsync, String> {
    match text.split_once('=') {
        None if text == "always" => Ok(Fsync::Always),
        None if text == "never" => Ok(Fsync::Never),
        Some(("interval", every)) => parse_duration(every).map(Fsync::Interval),
        _ => Err("expected always, never, or interval=5ms".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(
        flags: &[(&'static str, &str)],
        env: &[(&str, &str)],
        file: &str,
    ) -> Result<Resolved, ConfigError> {
        let flags = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let env = |name: &str| env.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
        let file = File { path: "chronos.toml".into(), text: file.into() };
        Resolved::new(&flags, env, Some(&file))
    }

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = "fsync = \"never\"\nmax_connections = 7\naddress = \"127.0.0.1:9100\"\n";
        let env = [("CHRONOS_FSYNC", "interval=5ms"), ("CHRONOS_MAX_CONNECTIONS", "8")];
        let resolved = resolve(&[("fsync", "always")], &env, file).unwrap();
        assert_eq!(resolved.config.fsync, Fsync::Always);
        assert_eq!(resolved.config.max_connections, 8);
        assert_eq!(resolved.config.http_address.to_string(), "127.0.0.1:10100");
        assert_eq!(resolved.config.pg_address.to_string(), "127.0.0.1:11100");
        assert_eq!(resolved.origin("fsync"), Some(&Origin::Flag("--fsync".into())));
        assert_eq!(
            resolved.origin("max_connections"),
            Some(&Origin::Environment("CHRONOS_MAX_CONNECTIONS".into()))
        );
        assert_eq!(resolved.origin("address"), Some(&Origin::File("chronos.toml".into())));
        assert_eq!(resolved.origin("data_dir"), Some(&Origin::Default));
    }

    #[test]
    fn secrets_are_masked() {
        let resolved = resolve(&[], &[("CHRONOS_AUTH_TOKEN", "open sesame")], "").unwrap();
        assert_eq!(resolved.config.auth_token_admin, Some(Secret::new("open sesame")));
        let shown: Vec<_> = resolved.show().collect();
        assert!(shown.iter().all(|(_, value, _)| !value.contains("sesame")));
        assert!(!format!("{:?}", resolved.config).contains("sesame"));
    }

    #[test]
    fn bad_values_name_their_setting_and_origin() {
        let wrong = resolve(&[("fsync", "sometimes")], &[], "").unwrap_err().to_string();
        assert!(wrong.contains("fsync") && wrong.contains("--fsync"), "{wrong}");
        assert!(matches!(resolve(&[], &[], "colour = 3"), Err(ConfigError::Unknown { .. })));
        assert!(matches!(resolve(&[], &[], "colour"), Err(ConfigError::File { .. })));
        assert!(resolve(&[("address", "127.0.0.1:65000")], &[], "").is_err());
    }

    #[test]
    fn beyond_loopback_insecure_must_be_said() {
        let open = resolve(&[("address", "0.0.0.0:8000")], &[], "");
        assert!(matches!(open, Err(ConfigError::NotLoopback { .. })));
        assert!(resolve(&[("address", "0.0.0.0:8000"), ("insecure", "true")], &[], "").is_ok());
        assert!(resolve(&[("address", "[::1]:8000")], &[], "").is_ok());
        assert!(resolve(&[("address", "0.0.0.0:8000"), ("certs_dir", "certs")], &[], "").is_ok());
    }

    #[test]
    fn certificates_are_given_as_a_directory_or_as_three_files() {
        let three = [("tls_ca", "a"), ("tls_cert", "b"), ("tls_key", "c")];
        assert!(resolve(&three, &[], "").unwrap().config.has_certificates());
        let wrong = resolve(&three[..2], &[], "").unwrap_err().to_string();
        assert!(wrong.contains("tls_key") && wrong.contains("together"), "{wrong}");
        let missing = resolve(&[("certs_dir", "/nowhere")], &[], "").unwrap().config;
        assert!(missing.credentials(None).unwrap_err().to_string().contains("chronos certs"));
    }

    #[test]
    fn units() {
        assert_eq!(parse_bytes("64KB"), Ok(65_536));
        assert_eq!(parse_duration("5ms"), Ok(Duration::from_millis(5)));
        assert_eq!(parse_fsync("interval=5ms"), Ok(Fsync::Interval(Duration::from_millis(5))));
        assert!(parse_bytes("many").is_err() && parse_duration("5").is_err());
    }
}
