//! How long nothing could be written: after each loss of the leader, from the fault to the completion of the first
//! write that was begun after it; and the longest time without any write.

use crate::history::{Act, Call, Fault, Kind, Line};
use std::fmt;
use std::time::Duration;

/// The figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// After each loss of the leader, and by what it was lost; sorted.
    after_loss: Vec<(Duration, String)>,
    /// Losses after which the next fault came before a write.
    overtaken: usize,
    /// The longest time between two acknowledged writes.
    longest: Duration,
}

/// Measures a history.
pub fn measure(lines: &[Line], calls: &[Call<'_>]) -> Gaps {
    // (invoked, completed) of each acknowledged write, by completion.
    let mut writes: Vec<(u64, u64)> = calls
        .iter()
        .filter(|call| call.outcome() == Kind::Ok && is_write(&call.asked.act))
        .filter_map(|call| Some((call.asked.time, call.told?.time)))
        .collect();
    writes.sort_by_key(|(_, completed)| *completed);
    let mut gaps = Gaps::default();
    let longest = writes.windows(2).map(|pair| pair[1].1 - pair[0].1).max();
    gaps.longest = Duration::from_nanos(longest.unwrap_or(0));
    let faults: Vec<(u64, &Fault)> = lines
        .iter()
        .filter_map(|line| if let Act::Fault(fault) = &line.act { Some((line.time, fault)) } else { None })
        .collect();
    for (nth, (at, fault)) in faults.iter().enumerate().filter(|(_, (_, fault))| fault.leader_lost) {
        let next_fault = faults.get(nth + 1).map_or(u64::MAX, |(at, _)| *at);
        let from = writes.partition_point(|(_, completed)| completed < at);
        let first = writes[from..].iter().find(|(invoked, _)| invoked > at).map(|(_, completed)| *completed);
        match first.filter(|completed| *completed < next_fault) {
            Some(completed) => {
                gaps.after_loss.push((Duration::from_nanos(completed - at), fault.what.clone()))
            }
            None => gaps.overtaken += 1,
        }
    }
    gaps.after_loss.sort_unstable();
    gaps
}

fn is_write(act: &Act) -> bool {
    matches!(act, Act::Add(_) | Act::Write(..) | Act::Schedule(_))
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: &Duration| d.as_millis();
        let losses = self.after_loss.len();
        if let (Some((p50, _)), Some((max, by))) = (self.after_loss.get(losses / 2), self.after_loss.last()) {
            let (p50, max) = (ms(p50), ms(max));
            write!(
                f,
                "after {losses} losses of the leader: p50 {p50} ms, max {max} ms ({by}) without a write"
            )?;
            if self.overtaken > 0 {
                write!(f, " ({} more were overtaken by the next fault)", self.overtaken)?;
            }
            write!(f, "; ")?;
        }
        write!(f, "longest time without a write: {} ms", ms(&self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{NEMESIS, calls};

    #[test]
    fn a_gap_lasts_until_a_write_that_began_after_the_fault_is_done() {
        let mut lines = Vec::new();
        let mut line = |ms: u64, process, kind, act| {
            let time = ms * 1_000_000;
            lines.push(Line { time, process, node: String::new(), kind, act, error: None });
        };
        line(0, 1, Kind::Invoke, Act::Add(1));
        line(10, 1, Kind::Ok, Act::Add(1));
        line(20, 2, Kind::Invoke, Act::Add(2));
        let fault =
            |leader_lost| Act::Fault(Fault { what: "kill n1".into(), leader_lost, ..Fault::default() });
        line(25, NEMESIS, Kind::Info, fault(true));
        line(30, 2, Kind::Ok, Act::Add(2));
        line(40, 3, Kind::Invoke, Act::Add(3));
        line(525, 3, Kind::Ok, Act::Add(3));
        line(600, NEMESIS, Kind::Info, fault(true));
        line(700, NEMESIS, Kind::Info, fault(false));
        line(800, 4, Kind::Invoke, Act::Add(4));
        line(820, 4, Kind::Ok, Act::Add(4));
        let gaps = measure(&lines, &calls(&lines));
        let ms = Duration::from_millis;
        assert_eq!(
            gaps,
            Gaps { after_loss: vec![(ms(500), "kill n1".to_owned())], overtaken: 1, longest: ms(495) }
        );
    }
}
