//! Situations that this stage must reach, or it is not testing them.

/// A situation worth having been in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Another leader was elected.
    LeaderChanged,
    /// A link came up again.
    LinkCameBack,
    /// A datagram was lost.
    DatagramLost,
    /// A datagram arrived twice.
    DatagramDoubled,
    /// A datagram arrived behind later ones.
    DatagramLate,
    /// Two hosts were cut off from each other.
    Cut,
    /// One host could not reach another that reached it.
    CutOneWay,
    /// Datagrams were held back and then arrived all at once.
    Held,
    /// A process was killed.
    Killed,
    /// The power of a host went.
    PowerCut,
    /// A process was stopped and said goodbye.
    Stopped,
    /// A process was started again before anybody noticed.
    Bounced,
    /// A link was refused over an expired certificate.
    ExpiredRefused,
    /// A process did not start, over its expired certificate.
    ExpiredNotStarted,
    /// A running process took a new certificate.
    CertificateRotated,
    /// The authority was renewed under running processes.
    AuthorityRenewed,
    /// A frame came on the lane of snapshots.
    SnapshotLaneUsed,
    /// A follower installed a snapshot.
    SnapshotInstalled,
    /// A client was told that the outcome of its write is not known.
    OutcomeUnknown,
}

impl Mark {
    /// All of them, in order.
    pub const ALL: [Mark; 19] = [
        Mark::LeaderChanged,
        Mark::LinkCameBack,
        Mark::DatagramLost,
        Mark::DatagramDoubled,
        Mark::DatagramLate,
        Mark::Cut,
        Mark::CutOneWay,
        Mark::Held,
        Mark::Killed,
        Mark::PowerCut,
        Mark::Stopped,
        Mark::Bounced,
        Mark::ExpiredRefused,
        Mark::ExpiredNotStarted,
        Mark::CertificateRotated,
        Mark::AuthorityRenewed,
        Mark::SnapshotLaneUsed,
        Mark::SnapshotInstalled,
        Mark::OutcomeUnknown,
    ];

    /// As it is printed.
    pub fn name(self) -> String {
        let mut out = String::new();
        for c in format!("{self:?}").chars() {
            if c.is_uppercase() && !out.is_empty() {
                out.push('-');
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    }
}

/// How often each was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks([u64; Mark::ALL.len()]);

impl Marks {
    /// It was reached.
    pub fn hit(&mut self, mark: Mark) {
        self.count(mark, 1);
    }

    /// It was reached so often.
    pub fn count(&mut self, mark: Mark, times: u64) {
        self.0[mark as usize] += times;
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Marks) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Those that were never reached.
    pub fn cold(&self) -> Vec<Mark> {
        Mark::ALL.into_iter().filter(|mark| self.0[*mark as usize] == 0).collect()
    }
}

impl std::fmt::Display for Marks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hot = Mark::ALL.into_iter().filter(|mark| self.0[*mark as usize] > 0);
        let hot: Vec<String> = hot.map(|mark| format!("{} {}", mark.name(), self.0[mark as usize])).collect();
        f.write_str(if hot.is_empty() { "none" } else { "" })?;
        f.write_str(&hot.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_have_their_places_and_names() {
        for (place, mark) in Mark::ALL.into_iter().enumerate() {
            assert_eq!(mark as usize, place);
        }
        let mut marks = Marks::default();
        marks.count(Mark::CutOneWay, 3);
        assert_eq!(marks.to_string(), "cut-one-way 3");
        assert_eq!(marks.cold().len(), Mark::ALL.len() - 1);
    }
}
