//! Where clients find a node, and whom they trust to be one.

use super::failure::{Failure, Outcome};
use super::pg::{Pg, PgError, Target};
use chronos_node::tls::{self, Files, Role};
use rustls::ClientConfig;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How long to wait for a node that is starting up.
const PATIENCE: Duration = Duration::from_secs(10);

/// `host:port`; the host is a name or an IP address, an IPv6 one in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The host, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// The same host, some ports higher.
    pub fn above(&self, ports: u16) -> Outcome<HostPort> {
        match self.port.checked_add(ports) {
            Some(port) => Ok(HostPort { host: self.host.clone(), port }),
            None => Err(Failure::usage(format!("{self}: port {} + {ports} is above 65535", self.port))),
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let bare = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
        let bare = bare.trim_end_matches('/');
        let (host, port) = bare.rsplit_once(':').ok_or("expected HOST:PORT, for example 127.0.0.1:8000")?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address,
            None if host.contains(':') => return Err("an IPv6 address stands in brackets: [::1]:8000".into()),
            None => host,
        };
        if host.is_empty() {
            return Err("the host is missing".into());
        }
        let port = port.parse().map_err(|_| format!("{port:?} is not a port (1 to 65535)"))?;
        Ok(HostPort { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Which node to talk to, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Connect {
    /// The node's address: any member will do
    #[arg(
        long,
        aliases = ["address", "addr"],
        value_name = "HOST:PORT",
        env = "CHRONOS_LEADER",
        hide_env_values = true,
        default_value = "127.0.0.1:8000"
    )]
    pub leader: HostPort,
    /// Its PostgreSQL listener [default: 2000 ports above the node's]
    #[arg(long, value_name = "HOST:PORT")]
    pub pg_address: Option<HostPort>,
    /// Its HTTP and gRPC listener [default: 1000 ports above the node's]
    #[arg(long, value_name = "HOST:PORT")]
    pub http_address: Option<HostPort>,
    /// The bearer token, if the node asks for one
    #[arg(long, value_name = "TOKEN", env = "CHRONOS_AUTH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The user name over the PostgreSQL wire
    #[arg(long, short = 'U', value_name = "NAME", default_value = "chronos")]
    pub user: String,
    /// Encryption, if the node has certificates.
    #[command(flatten)]
    pub tls: TlsArgs,
}

/// What a client needs for TLS: whom to trust, and maybe a certificate of its own.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TlsArgs {
    /// Speak TLS, with the files that `chronos certs client` made: ca.crt, and client.crt with client.key if they are there
    #[arg(long, value_name = "DIR", env = "CHRONOS_CERTS_DIR", hide_env_values = true)]
    pub certs_dir: Option<PathBuf>,
    /// Speak TLS, and trust the nodes of this authority's cluster
    #[arg(long, value_name = "FILE", env = "CHRONOS_TLS_CA", hide_env_values = true)]
    pub tls_ca: Option<PathBuf>,
    /// Log in with this certificate
    #[arg(long, value_name = "FILE", env = "CHRONOS_TLS_CERT", hide_env_values = true)]
    pub tls_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", env = "CHRONOS_TLS_KEY", hide_env_values = true)]
    pub tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// The configuration for a protocol; none if TLS is not asked for.
    pub fn config(&self, protocols: &[&[u8]]) -> Outcome<Option<Arc<ClientConfig>>> {
        let in_dir = self.certs_dir.as_deref().map(|dir| Files::in_dir(dir, Role::Client));
        let given = self.tls_ca.clone().or_else(|| Some(in_dir.as_ref()?.ca.clone()));
        let Some(ca) = given else {
            return match (&self.tls_cert, &self.tls_key) {
                (None, None) => Ok(None),
                _ => Err(Failure::usage("a certificate is of use with TLS alone: give --tls-ca as well")),
            };
        };
        let pair = match (&self.tls_cert, &self.tls_key) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => {
                // A directory of a node has an authority to trust, and no certificate for a client.
                in_dir.filter(|files| files.certificate.exists()).map(|files| (files.certificate, files.key))
            }
            _ => return Err(Failure::usage("--tls-cert and --tls-key are given together")),
        };
        let pair = pair.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let config = tls::client_config(&ca, pair, protocols);
        config.map(Some).map_err(|error| Failure::new(error.to_string()))
    }
}

impl Connect {
    /// Where SQL goes.
    pub fn sql_target(&self) -> Outcome<Target> {
        let address = match &self.pg_address {
            Some(address) => address.clone(),
            None => self.leader.above(2000)?,
        };
        Ok(Target {
            address: address.to_string(),
            user: self.user.clone(),
            password: self.token.clone(),
            tls: self.tls.config(&[b"postgresql"])?,
        })
    }

    /// Where gRPC goes.
    pub fn http(&self) -> Outcome<HostPort> {
        match &self.http_address {
            Some(address) => Ok(address.clone()),
            None => self.leader.above(1000),
        }
    }

    /// A connection for SQL.
    pub fn sql(&self) -> Outcome<Pg> {
        Pg::connect(&self.sql_target()?, PATIENCE).map_err(|error| explain(&error))
    }
}

/// The failure that a lost or refused connection is.
pub fn explain(error: &PgError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        PgError::Unreachable { .. } => {
            failure.hint("is the node running? `chronos dev` starts one; --leader HOST:PORT names another")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, shown) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("gateway.local:1", "gateway.local:1"),
            ("[::1]:8000", "[::1]:8000"),
            ("http://10.0.0.10:8000/", "10.0.0.10:8000"),
            ("https://10.0.0.10:8000", "10.0.0.10:8000"),
        ] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), shown);
        }
        for text in ["", "8000", ":8000", "host:", "host:65536", "::1:8000", "host:-1"] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }

    #[test]
    fn ports_end() {
        let high: HostPort = "h:65000".parse().unwrap();
        assert_eq!(high.above(535).unwrap().port, 65535);
        assert_eq!(high.above(2000).unwrap_err().code(), 2);
    }
}
