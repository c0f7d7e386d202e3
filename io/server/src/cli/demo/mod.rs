//! `chronos demo`: what the product does, shown on real data in under a minute.
//!
//! Three nodes run as child processes of the same executable, so that they can be killed for real. Everything printed
//! was measured or read back in this run; a step that does not come out as it should ends the demo with what happened.
//!
//! ```text
//! cluster   the processes, their ports and their directory      readings  data goes in, questions are asked
//! client    SQL to whichever node answers                       alerts    what is scheduled, and who receives it
//! load      clients that write all the time                     failures  the kill and the rolling restart
//! patience  how long it waits for what must come
//! ```
//!
//! Not implemented: networks that fail, disks that fail, clocks that jump. The simulator and the chaos command do that.

mod alerts;
mod chart;
mod client;
mod cluster;
mod data;
mod failures;
mod http;
mod load;
mod patience;
mod readings;
mod story;

use super::failure::{Failure, Outcome};
use super::when;
use alerts::{Alert, Subscriber};
use chronos_server::signals;
use client::Client;
use cluster::{Cluster, NODES};
use data::{DEVICE, METRIC};
use std::time::Instant;
use story::{Story, grouped, millis};

/// How far ahead the first alert is scheduled.
const AHEAD_SECONDS: u32 = 2;

/// Shows what ChronosDB does: a cluster, real data, time queries, timers, a killed leader, a rolling restart
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave the cluster running at the end, until Ctrl-C, and print its addresses
    #[arg(long)]
    stay: bool,
}

/// Runs the demo. The nodes and their directory are gone when it returns, however it ends.
pub async fn run(args: DemoArgs) -> Outcome {
    let mut cluster = Cluster::find()?;
    let result = tokio::select! {
        result = show(&mut cluster, args.stay) => result,
        () = signals::stop() => return Err(Failure::new("interrupted; the demo's nodes and their directory are removed")),
    };
    let result = match result {
        Ok(()) if args.stay => wait(&mut cluster).await,
        result => result,
    };
    result.map_err(|failure| match cluster.last_words() {
        words if failure.is_silent() || words.is_empty() => failure,
        words => failure.hint(format!("the nodes' last words:\n{words}")),
    })
}

/// Leaves the cluster running until somebody wants it to stop.
async fn wait(cluster: &mut Cluster) -> Outcome {
    tokio::select! {
        () = signals::stop() => {}
        failure = cluster.ended() => return Err(failure),
    }
    cluster.stop_all().await
}

/// All the steps.
async fn show(cluster: &mut Cluster, stay: bool) -> Outcome {
    let begin = Instant::now();
    let mut story = Story::default();
    story.say("ChronosDB demo: three nodes, real data, timers, a killed leader and a rolling restart.")?;

    story.title("Three nodes on an empty directory")?;
    let took = cluster.start().await?;
    let places = cluster.places().clone();
    let leader = cluster::leader(&places).await?;
    story.say(format!(
        "started `chronos node` three times; all serve after {}, {} leads",
        millis(took),
        cluster.name(leader.node)
    ))?;
    addresses(&mut story, cluster)?;

    story.title("Real sea temperatures, by HTTP and by SQL")?;
    let stored = readings::load(&mut story, &places).await?;
    // A node that does not lead: reads are as fresh there.
    let follower = &places[(leader.node + 1) % NODES];
    let mut client =
        Client::new(places.iter().cycle().skip((leader.node + 1) % NODES).take(NODES).cloned().collect());

    story.title(format!("Questions about time, asked at {}", follower.name))?;
    readings::questions(&mut story, &mut client).await?;

    story.title(format!("A reading and an alert in {AHEAD_SECONDS} seconds, in one transaction"))?;
    alerts::create_topic(&mut client).await?;
    load::create_table(&mut client).await?;
    let mut subscriber = Subscriber::start(places.clone());
    let first = first_alert(&mut story, &mut client, &mut subscriber).await?;

    story.title("kill -9 of the leader, with clients at work and an alert pending")?;
    let kill = failures::kill(&mut story, cluster, &mut subscriber).await?;
    drop(subscriber);

    story.title("A rolling restart, with clients at work")?;
    let rolling = failures::restart_all(&mut story, cluster).await?;

    story.title("Summary")?;
    let kept = client.count("SELECT count(*) FROM readings").await?;
    if kept != stored + 1 {
        return Err(Failure::new(format!("{} readings were stored, {kept} are there", stored + 1)));
    }
    story.say(format!(
        "{} readings and {} acknowledged writes across a kill and three restarts: 0 lost, 0 doubled",
        grouped(kept),
        grouped(kill.writes.acknowledged() + rolling.acknowledged())
    ))?;
    story.say(format!(
        "2 alerts scheduled, 2 came, each once and none early: {} and {} after they were due, the second across the kill",
        story::micros(first.late()),
        story::micros(kill.alert.late()),
    ))?;
    story.say(format!(
        "largest write gap: {} ms when the leader was killed, {} ms in the rolling restart",
        kill.writes.gap().as_millis(),
        rolling.gap().as_millis()
    ))?;
    if stay {
        story.say("The cluster stays, at:")?;
        addresses(&mut story, cluster)?;
        story.say(format!("  chronos client --leader {}", places[0].connect.leader))?;
        return story.say("Ctrl-C ends it and removes its directory.");
    }
    cluster.stop_all().await?;
    story.say(format!(
        "the nodes stopped cleanly; their directory is removed. {:.1} s in all.",
        begin.elapsed().as_secs_f64()
    ))?;
    story
        .say("Next: `chronos dev`, then `chronos client`. `chronos demo --stay` leaves this cluster running.")
}

fn addresses(story: &mut Story, cluster: &Cluster) -> Outcome {
    for (node, place) in cluster.places().iter().enumerate() {
        story.say(format!(
            "  {}: process {}, PostgreSQL {}, HTTP and gRPC {}",
            place.name,
            cluster.process(node),
            place.connect.sql_target()?.address,
            place.connect.http()?
        ))?;
    }
    story.say(format!("  data and logs in {}", cluster.directory().display()))
}

/// A reading and an alert in one transaction; the alert comes.
async fn first_alert(story: &mut Story, client: &mut Client, subscriber: &mut Subscriber) -> Outcome<Alert> {
    let ts = when::now() / 1_000_000;
    let statements = [
        "BEGIN".to_owned(),
        format!(
            "INSERT INTO readings VALUES ('{DEVICE}:0:{METRIC}', '{DEVICE}', {ts}, 0, '{METRIC}', 19.5)\n  \
             ON CONFLICT DO NOTHING"
        ),
        alerts::schedule("alert-1", "19.5 degrees: the sea is warm", AHEAD_SECONDS),
        "COMMIT".to_owned(),
    ];
    statements.iter().try_for_each(|statement| story.code(statement))?;
    client.transaction(&statements).await?;
    let pending = alerts::pending(client).await?;
    story.say(format!("chronos.timers: {pending} pending. Waiting …"))?;
    let alert = subscriber.expect("alert-1").await?;
    alerts::tell(story, &alert)?;
    Ok(alert)
}
