//! One line on a terminal that tells how far a long run has come. Where standard error is no terminal it writes nothing.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Between two writings.
const EVERY: Duration = Duration::from_millis(200);
const WIDTH: usize = 24;

/// The line.
#[derive(Debug)]
pub struct Progress {
    shown: bool,
    began: Instant,
    last: Option<Instant>,
}

impl Progress {
    /// A line that is not written yet, and never is if `quiet`.
    pub fn new(quiet: bool) -> Progress {
        Progress { shown: !quiet && std::io::stderr().is_terminal(), began: Instant::now(), last: None }
    }

    /// So many seeds are done. How far that is follows from the seeds wanted or the time given.
    pub fn tell(&mut self, seeds: u64, wanted: u64, time: Option<Duration>, simulated: u64) {
        if !self.shown || self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let took = self.began.elapsed().as_secs_f64();
        let part = match time {
            Some(time) => took / time.as_secs_f64().max(1e-3),
            None => seeds as f64 / wanted.max(1) as f64,
        };
        let words = line(part, seeds, took, simulated);
        // Progress that cannot be written is not worth a failure.
        let _ = write!(std::io::stderr(), "\r{words}\x1b[K");
    }

    /// Takes the line away.
    pub fn end(&mut self) {
        if self.shown && self.last.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(part: f64, seeds: u64, took: f64, simulated: u64) -> String {
    let part = part.clamp(0.0, 1.0);
    let full = (part * WIDTH as f64) as usize;
    let ratio = simulated as f64 / 1e6 / took.max(1e-3);
    format!(
        "[{}{}] {:3.0} %  {seeds} seeds  {took:.0} s  {ratio:.0} simulated seconds a second",
        "=".repeat(full),
        " ".repeat(WIDTH - full),
        part * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn the_line_tells_how_far_it_is() {
        let words = line(0.5, 150, 10.0, 30_000_000_000);
        assert_eq!(
            words,
            "[============            ]  50 %  150 seeds  10 s  3000 simulated seconds a second"
        );
        assert!(line(7.0, 1, 0.0, 0).contains("100 %"));
    }
}
