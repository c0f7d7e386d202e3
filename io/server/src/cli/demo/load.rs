//! Clients that write without a pause, to all nodes, whatever happens to them.
//!
//! Each writes rows with numbers of its own, one after the other. A row is written again, at the next node, until it is
//! acknowledged; its key says whether it is there already, so it counts once.

use super::client::{Client, PATIENCE, PAUSE, Session};
use super::cluster::{NODES, Place, Places};
use super::patience::Patience;
use crate::cli::failure::{Failure, Outcome};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the writers may take for what must go on.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at how far they are.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Writers at work; they end when this goes.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<Writer>,
}

struct Writer {
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Outcome<Written>>,
}

/// What one writer did.
struct Written {
    number: usize,
    /// When each of its rows was acknowledged, in the order of their numbers, from 0.
    at: Vec<Instant>,
    /// The longest time from the first attempt to the acknowledgement.
    longest: Duration,
    /// Attempts whose outcome it did not get to know.
    again: u64,
}

/// What all writers did.
pub struct Writes {
    writers: Vec<Written>,
}

/// Makes the table that is written to.
pub async fn create_table(client: &mut Client) -> Outcome {
    client
        .query("CREATE TABLE IF NOT EXISTS writes (writer INT, seq INT, PRIMARY KEY (writer, seq))")
        .await?;
    Ok(())
}

impl Load {
    /// One writer for each node, which it begins with; their numbers begin with `first`.
    pub fn start(places: &Places, first: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let writers = (0..NODES).map(|at| {
            let mut nodes: Vec<Place> = places.to_vec();
            nodes.rotate_left(at);
            let acknowledged = Arc::new(AtomicU64::new(0));
            let (stop, counter) = (stop.clone(), acknowledged.clone());
            let thread = std::thread::spawn(move || write(first + at, nodes, &stop, &counter));
            Writer { acknowledged, thread }
        });
        let writers = writers.collect();
        Load { stop, writers }
    }

    /// How many rows are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.writers.iter().map(|writer| writer.acknowledged.load(Ordering::Relaxed)).sum()
    }

    /// Waits until each writer got through with so many rows from now on.
    pub async fn progress(&self, rows: u64) -> Outcome {
        let count = |writer: &Writer| writer.acknowledged.load(Ordering::Relaxed);
        let wanted: Vec<u64> = self.writers.iter().map(|writer| count(writer) + rows).collect();
        let mut patience = Patience::new(PROGRESS_TIMEOUT);
        while self.writers.iter().zip(&wanted).any(|(writer, wanted)| count(writer) < *wanted) {
            if let Some(writer) = self.writers.iter().position(|writer| writer.thread.is_finished()) {
                return Err(Failure::new(format!("writer {} gave up", writer + 1)));
            }
            if patience.is_over() {
                let seconds = PROGRESS_TIMEOUT.as_secs();
                return Err(Failure::new(format!(
                    "the writers did not get {rows} rows written in {seconds} s"
                )));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Lets each writer finish the row it is at.
    pub async fn stop(mut self) -> Outcome<Writes> {
        self.stop.store(true, Ordering::Relaxed);
        let threads: Vec<_> = self.writers.drain(..).map(|writer| writer.thread).collect();
        let mut patience = Patience::new(PROGRESS_TIMEOUT);
        while threads.iter().any(|thread| !thread.is_finished()) && !patience.is_over() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let mut writers = Vec::new();
        for thread in threads {
            if !thread.is_finished() {
                return Err(Failure::new("a writer does not get its last row acknowledged"));
            }
            writers.push(thread.join().map_err(|_| Failure::new("a writer panicked"))??);
        }
        Ok(Writes { writers })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(number: usize, nodes: Vec<Place>, stop: &AtomicBool, counter: &AtomicU64) -> Outcome<Written> {
    let mut session = Session::new(nodes);
    let mut written = Written { number, at: Vec::new(), longest: Duration::ZERO, again: 0 };
    while !stop.load(Ordering::Relaxed) {
        let (begin, mut patience) = (Instant::now(), Patience::new(PATIENCE));
        let seq = written.at.len();
        let insert = [format!("INSERT INTO writes VALUES ({number}, {seq}) ON CONFLICT DO NOTHING")];
        while let Err(refusal) = session.attempt(&insert) {
            if !refusal.again || patience.is_over() {
                return Err(refusal.failure);
            }
            written.again += 1;
            std::thread::sleep(PAUSE);
        }
        let end = Instant::now();
        written.at.push(end);
        written.longest = written.longest.max(end - begin);
        counter.store(written.at.len() as u64, Ordering::Relaxed);
    }
    Ok(written)
}

impl Writes {
    /// How many rows are acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.writers.iter().map(|writer| writer.at.len() as u64).sum()
    }

    /// Attempts that were made again.
    pub fn again(&self) -> u64 {
        self.writers.iter().map(|writer| writer.again).sum()
    }

    /// The longest that one row took.
    pub fn longest(&self) -> Duration {
        self.writers.iter().map(|writer| writer.longest).max().unwrap_or_default()
    }

    /// The longest time in which no row at all was acknowledged.
    pub fn gap(&self) -> Duration {
        let mut at: Vec<Instant> = self.writers.iter().flat_map(|writer| &writer.at).copied().collect();
        at.sort_unstable();
        at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Reads at each node that every acknowledged row is there, and no other.
    pub async fn check(&self, places: &Places) -> Outcome {
        for place in places.iter() {
            let mut client = Client::to(place);
            for Written { number, at, .. } in &self.writers {
                let acknowledged = at.len() as u64;
                let which = format!("SELECT count(*) FROM writes WHERE writer = {number}");
                let found = client.count(&which).await?;
                let known = client.count(&format!("{which} AND seq < {acknowledged}")).await?;
                if (found, known) != (acknowledged, acknowledged) {
                    return Err(Failure::new(format!(
                        "{}: writer {number} has {acknowledged} rows acknowledged; {} of them are lost, {} others are there",
                        place.name,
                        acknowledged.saturating_sub(known),
                        found.saturating_sub(known)
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_one_of_all_writers() {
        let begin = Instant::now();
        let after = |millis: &[u64]| millis.iter().map(|&ms| begin + Duration::from_millis(ms)).collect();
        let writer = |number, at| Written { number, at, longest: Duration::from_millis(9), again: 2 };
        let writes =
            Writes { writers: vec![writer(1, after(&[0, 10, 500])), writer(2, after(&[5, 200, 501]))] };
        assert_eq!(writes.gap(), Duration::from_millis(300));
        assert_eq!((writes.acknowledged(), writes.again()), (6, 4));
        assert_eq!(Writes { writers: Vec::new() }.gap(), Duration::ZERO);
    }
}
