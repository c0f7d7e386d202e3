//! SQL to whichever node answers.
//!
//! A statement whose outcome is not known is sent again, to the next node. So everything that is sent this way has one
//! effect however often it comes: reads, `IF NOT EXISTS`, `ON CONFLICT DO NOTHING`, events with a message id.

use super::cluster::Place;
use super::patience::Patience;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::pg::{Pg, PgError, Rows, Target};
use std::time::Duration;

/// For how long a statement is tried.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Before it is tried again.
pub const PAUSE: Duration = Duration::from_millis(2);

/// A connection to one of several nodes; it waits on the calling thread.
pub struct Session {
    places: Vec<Place>,
    at: usize,
    pg: Option<Pg>,
}

impl Session {
    /// To the first of these nodes; to the next when that one fails.
    pub fn new(places: Vec<Place>) -> Session {
        Session { places, at: 0, pg: None }
    }

    /// Runs statements one after the other on one connection; returns what the last one did.
    pub fn attempt(&mut self, statements: &[String]) -> Result<Rows, Refusal> {
        let result = self.run(statements);
        result.map_err(|error| {
            let what: String = statements.join("; ").chars().take(100).collect();
            let why = format!("{}: {what}: {error}", self.places[self.at].name);
            self.at = (self.at + 1) % self.places.len();
            Refusal { again: may_try_again(&error), failure: Failure::new(why) }
        })
    }

    fn run(&mut self, statements: &[String]) -> Result<Rows, PgError> {
        // Taken, and put back only if all went well: what failed may have left a transaction open.
        let mut pg = match self.pg.take() {
            Some(pg) => pg,
            None => Pg::connect_once(&self.target()?)?,
        };
        let mut rows = Rows::default();
        for statement in statements {
            rows = pg.query(statement)?;
        }
        self.pg = Some(pg);
        Ok(rows)
    }

    fn target(&self) -> Result<Target, PgError> {
        let target = self.places[self.at].connect.sql_target();
        target.map_err(|failure| PgError::Lost(std::io::Error::other(failure.to_string())))
    }
}

/// What did not work.
pub struct Refusal {
    /// Whether it may work elsewhere, or later.
    pub again: bool,
    /// Where and why.
    pub failure: Failure,
}

/// Whether an error may be that of a node which stops, starts or has lost its leader.
fn may_try_again(error: &PgError) -> bool {
    match error {
        PgError::Unreachable { .. } | PgError::Lost(_) => true,
        PgError::Refused(report) => {
            matches!(report.code.as_str(), "08007" | "40001" | "57P01" | "57P02" | "57P03")
        }
        PgError::NoPassword | PgError::NoTls | PgError::Handshake(_) | PgError::Output(_) => false,
    }
}

/// The same for tasks: statements run beside them, so the demo can be stopped while it waits for one.
pub struct Client {
    session: Option<Session>,
    places: Vec<Place>,
}

impl Client {
    /// To the first of these nodes; to the next when that one fails.
    pub fn new(places: Vec<Place>) -> Client {
        Client { session: None, places }
    }

    /// To this node alone.
    pub fn to(place: &Place) -> Client {
        Client::new(vec![place.clone()])
    }

    /// Runs a statement, again if need be.
    pub async fn query(&mut self, sql: &str) -> Outcome<Rows> {
        self.transaction(&[sql.to_owned()]).await
    }

    /// Runs statements on one connection, all of them again if need be.
    pub async fn transaction(&mut self, statements: &[String]) -> Outcome<Rows> {
        let mut patience = Patience::new(PATIENCE);
        loop {
            match self.attempt(statements).await? {
                Ok(rows) => return Ok(rows),
                Err(refusal) if refusal.again && !patience.is_over() => tokio::time::sleep(PAUSE).await,
                Err(refusal) => return Err(refusal.failure),
            }
        }
    }

    /// Runs statements once. The outer failure is that of this machine.
    pub async fn attempt(&mut self, statements: &[String]) -> Outcome<Result<Rows, Refusal>> {
        let mut session = self.session.take().unwrap_or_else(|| Session::new(self.places.clone()));
        let statements = statements.to_vec();
        let (session, result) = beside(move || {
            let result = session.attempt(&statements);
            (session, result)
        })
        .await?;
        self.session = Some(session);
        Ok(result)
    }

    /// A count that is the answer.
    pub async fn count(&mut self, sql: &str) -> Outcome<u64> {
        let rows = self.query(sql).await?;
        let number = rows.first().and_then(|text| text.parse().ok());
        number.ok_or_else(|| Failure::new(format!("{sql}: the answer is no number: {:?}", rows.rows)))
    }
}

/// Does something that waits on a thread of its own.
pub async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::new(format!("a thread died: {error}")))
}
