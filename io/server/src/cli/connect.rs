//! Where clients find a node.

use super::failure::{Failure, Outcome};
use super::pg::{Pg, PgError, Target};
use std::fmt;
use std::str::FromStr;
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
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
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
        alias = "address",
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
}

impl Connect {
    /// Where SQL goes.
    pub fn sql_target(&self) -> Outcome<Target> {
        let address = match &self.pg_address {
            Some(address) => address.clone(),
            None => self.leader.above(2000)?,
        };
        Ok(Target { address: address.to_string(), user: self.user.clone(), password: self.token.clone() })
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
