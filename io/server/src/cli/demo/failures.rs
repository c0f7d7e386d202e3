//! What fails in the demo: the leader is killed, and every node is restarted, while clients write.

use super::alerts::{self, Alert, Subscriber};
use super::client::Client;
use super::cluster::{Cluster, NODES, leader};
use super::load::{Load, Writes};
use super::story::{self, Story, grouped, millis};
use crate::cli::failure::{Failure, Outcome};
use std::time::Instant;

/// How far ahead the alert is scheduled that is pending when the leader is killed: longer than an election takes.
const AHEAD_SECONDS: u32 = 4;
/// Rows that each writer is to have written before something happens, and after it.
const ROWS: u64 = 30;

/// What the kill came to.
pub struct Kill {
    /// What was written meanwhile.
    pub writes: Writes,
    /// The alert that was pending.
    pub alert: Alert,
}

/// Kills the leader while clients write and an alert is pending, and starts it again.
pub async fn kill(story: &mut Story, cluster: &mut Cluster, subscriber: &mut Subscriber) -> Outcome<Kill> {
    let places = cluster.places().clone();
    let load = Load::start(&places, 1);
    load.progress(ROWS).await?;
    let old = leader(&places).await?;
    let others = (1..NODES).map(|step| places[(old.node + step) % NODES].clone()).collect();
    let mut client = Client::new(others);
    let statement = alerts::schedule("alert-2", "sent before the crash", AHEAD_SECONDS);
    story.code(&statement)?;
    client.query(&statement).await?;
    let pending = alerts::pending(&mut client).await?;
    if pending != 1 {
        return Err(Failure::new(format!(
            "one alert was to be pending, {pending} are: this machine is too slow"
        )));
    }

    let process = cluster.process(old.node);
    cluster.kill(old.node)?;
    let killed = Instant::now();
    story.say(format!(
        "{NODES} clients write to all nodes; process {process}, {}, leads (term {}) and gets SIGKILL, \
         with {} writes acknowledged and 1 alert pending",
        cluster.name(old.node),
        old.term,
        grouped(load.acknowledged())
    ))?;
    let new = leader(&places).await?;
    let elected = killed.elapsed();
    load.progress(ROWS).await?;
    story.say(format!(
        "{} leads now (term {}), {} after the kill; all clients write again",
        cluster.name(new.node),
        new.term,
        millis(elected)
    ))?;

    let alert = subscriber.expect("alert-2").await?;
    alerts::expect_once(&mut client, subscriber, "alert-2").await?;
    story.say(format!(
        "alert-2 came once, {} after it was due; the topic has it once, none is pending",
        story::micros(alert.late())
    ))?;

    let took = cluster.restart(old.node).await?;
    load.progress(ROWS).await?;
    let writes = load.stop().await?;
    story.say(format!(
        "{} is back as process {}: it serves {} after its start",
        cluster.name(old.node),
        cluster.process(old.node),
        millis(took)
    ))?;
    tell(story, cluster, &writes).await?;
    Ok(Kill { writes, alert })
}

/// Stops and starts all nodes, one after the other, while clients write.
pub async fn restart_all(story: &mut Story, cluster: &mut Cluster) -> Outcome<Writes> {
    let places = cluster.places().clone();
    let load = Load::start(&places, NODES + 1);
    load.progress(ROWS).await?;
    for node in 0..NODES {
        let role = if leader(&places).await?.node == node { "the leader" } else { "a follower" };
        let stopping = cluster.stop(node).await?;
        let starting = cluster.restart(node).await?;
        load.progress(ROWS).await?;
        story.say(format!(
            "{}, {role}: stopped in {}, serves {} after its start",
            cluster.name(node),
            millis(stopping),
            millis(starting)
        ))?;
    }
    let writes = load.stop().await?;
    tell(story, cluster, &writes).await?;
    Ok(writes)
}

/// Checks what was written, at every node, and says so.
async fn tell(story: &mut Story, cluster: &Cluster, writes: &Writes) -> Outcome {
    writes.check(cluster.places()).await?;
    let applied = cluster.wait_until_equal().await?;
    story.say(format!(
        "{} writes acknowledged, {} of them at the second attempt or later: every node has every one, once",
        grouped(writes.acknowledged()),
        grouped(writes.again())
    ))?;
    story.say(format!(
        "the three states are the same at entry {}: {}",
        grouped(applied.index),
        applied.digest
    ))?;
    story.say(format!(
        "write gap: {} ms without any acknowledgement; the slowest single write took {} ms",
        writes.gap().as_millis(),
        writes.longest().as_millis()
    ))
}
