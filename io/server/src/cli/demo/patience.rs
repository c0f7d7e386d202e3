//! How long the demo waits for what must come.

use std::time::{Duration, Instant};

/// The most that passes between two looks: a machine that slept or stood still for longer has not waited longer.
const LOOK: Duration = Duration::from_secs(1);

/// What is left of a time to wait.
pub struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    /// For so long from now on.
    pub fn new(time: Duration) -> Patience {
        Patience { left: time, looked: Instant::now() }
    }

    /// Whether it is over. To be asked several times a second.
    pub fn is_over(&mut self) -> bool {
        self.pass(Instant::now())
    }

    fn pass(&mut self, now: Instant) -> bool {
        self.left = self.left.saturating_sub((now - self.looked).min(LOOK));
        self.looked = now;
        self.left.is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_stood_still_has_not_waited() {
        let begin = Instant::now();
        let mut patience = Patience { left: Duration::from_secs(3), looked: begin };
        assert!(!patience.pass(begin + Duration::from_secs(60)));
        assert!(!patience.pass(begin + Duration::from_secs(61)));
        assert!(patience.pass(begin + Duration::from_secs(62)));
    }
}
