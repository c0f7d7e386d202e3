//! Planted bugs, each hunted in the profile where it is at home: how many seeds it takes, and who objects first.

use crate::checker::append;
use crate::knobs::Profile;
use crate::run::{self, Bug, Options};
use crate::violation::Violation;
use std::time::{Duration, Instant};

/// What became of one hunt.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// What was planted.
    pub bug: Bug,
    /// Where.
    pub profile: Profile,
    /// The seed that caught it, and how.
    pub caught: Option<(u64, Violation)>,
    /// Seeds that were run.
    pub seeds: u64,
    /// Wall time.
    pub took: Duration,
}

impl Hunt {
    /// Whether one of the checkers objected that must.
    pub fn is_right(&self) -> bool {
        self.caught.as_ref().is_some_and(|(_, violation)| self.bug.checkers().contains(&violation.checker))
    }
}

/// Where a bug is looked for, unless a profile is given.
pub fn profile_for(bug: Bug) -> Profile {
    match bug {
        Bug::LeaseWithoutDrift | Bug::LeaseAfterTransfer => Profile::Lease,
        Bug::ReadWithoutQuorum | Bug::StaleAck | Bug::VoteForShorterLog => Profile::Network,
        Bug::SingleStepChange | Bug::CountLearners => Profile::Membership,
        Bug::FireEarlyOnJump | Bug::ForgetStoredTime => Profile::Clock,
        Bug::LoseTimerAtBoundary | Bug::FireOnCascade | Bug::MoveLeavesOldDue => Profile::Timers,
        Bug::ForgetAckedAhead | Bug::AckJumpsGap => Profile::Single,
        Bug::IndexRangeUnread | Bug::UniqueUnread | Bug::UpdateMissesIndex => Profile::Transactions,
        Bug::SavepointForgetsReads | Bug::ReadExpired => Profile::Transactions,
        _ => Profile::Swarm,
    }
}

/// Runs seeds from `first` on with a bug planted, until it is caught or there were `most`.
pub fn hunt(bug: Bug, first: u64, most: u64, options: &Options) -> Hunt {
    let profile = match options.profile {
        Profile::Swarm => profile_for(bug),
        chosen => chosen,
    };
    let options = Options { bug: Some(bug), trace: false, profile, ..options.clone() };
    let began = Instant::now();
    let (mut caught, mut seeds) = (None, 0);
    run::many(first, most, &options, |seed, outcome| {
        seeds += 1;
        // By histories alone: a run that another checker ends first says nothing.
        let counts = |v: &Violation| !options.histories || v.checker == append::NAME;
        caught = outcome.violation.filter(counts).map(|violation| (seed, violation));
        caught.is_none()
    });
    Hunt { bug, profile, caught, seeds, took: began.elapsed() }
}
