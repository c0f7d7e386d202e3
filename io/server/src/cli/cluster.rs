//! `chronos cluster`: who is in the cluster, who leads, and changes of both.
//!
//! A command may be given any member. It finds the leader, asks there, and then looks at the cluster until what was
//! asked for is so, whoever leads meanwhile.

use super::admin::{Answer, ask};
use super::connect::{Connect, HostPort};
use super::failure::{Failure, Outcome};
use super::{print, when};
use axum::http::Method;
use chronos_proto::id::NodeId;
use chronos_server::config::{Address, node_name};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// For how long a leader is looked for.
const LEADER_WAIT: Duration = Duration::from_secs(20);
/// Between looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// Groups whose move is told of in one line.
const MOVING_SHOWN: usize = 4;
/// How long a transfer may take: the leader gives it up after an election timeout.
const TRANSFER_WAIT: Duration = Duration::from_secs(5);

/// Shows and changes the nodes of a cluster
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Shows nodes and groups; fails if there is no leader
    Status {
        #[command(flatten)]
        connect: Connect,
        /// The leader's view as JSON
        #[arg(long)]
        json: bool,
    },
    /// Takes a node in: it follows, catches up and gets a vote
    Add {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        wait: Wait,
        /// The node and its peer address; start it with `chronos node --join`
        #[arg(value_name = "NAME=HOST:PORT", value_parser = new_member)]
        member: (String, Address),
    },
    /// Takes a node out; it may be dead
    Remove {
        #[command(flatten)]
        connect: Connect,
        #[command(flatten)]
        wait: Wait,
        /// The node
        name: String,
    },
    /// Hands a group's leadership to a node
    Transfer {
        #[command(flatten)]
        connect: Connect,
        /// The group
        #[arg(long, value_name = "N", default_value_t = 0)]
        group: u32,
        /// The node
        to: String,
    },
    /// Spreads leadership of groups evenly over the nodes
    Rebalance {
        #[command(flatten)]
        connect: Connect,
    },
}

/// How long to wait for a change.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Wait {
    /// Return as soon as the change is logged
    #[arg(long)]
    no_wait: bool,
    /// Wait at the most so long
    #[arg(long, value_name = "LENGTH", value_parser = when::length, default_value = "10m")]
    timeout: Duration,
}

fn new_member(text: &str) -> Result<(String, Address), String> {
    let (name, address) = text.split_once('=').ok_or("expected NAME=HOST:PORT")?;
    Ok((node_name(name.trim())?, Address::parse(address.trim())?))
}

/// One node's view of the cluster.
#[derive(Clone, Debug, Deserialize)]
struct View {
    cluster: String,
    node: String,
    leader: Option<String>,
    members: Vec<Member>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug, Deserialize)]
struct Member {
    name: String,
    address: String,
    http_address: String,
    vote: Option<String>,
    link: String,
    link_problem: Option<String>,
    rtt_us: Option<u64>,
    matched_index: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Group {
    group: u32,
    term: u64,
    serves: bool,
    leader: Option<String>,
    voters: Vec<String>,
    outgoing: Vec<String>,
    learners: Vec<String>,
    /// Who is to vote, by the list of nodes.
    wanted: Vec<String>,
    last_index: u64,
    committed_index: u64,
}

impl Group {
    fn has(&self, name: &str) -> bool {
        [&self.voters, &self.outgoing, &self.learners]
            .into_iter()
            .any(|names| names.iter().any(|n| n == name))
    }

    /// What is still to be done for its voters to be those that the list of nodes asks for.
    fn moving(&self) -> Option<String> {
        let number = self.group;
        let missing = self.wanted.iter().find(|name| !self.voters.contains(name));
        let surplus = self.voters.iter().find(|name| !self.wanted.contains(name));
        let learns = missing.is_some_and(|name| self.learners.contains(name));
        Some(match (&self.leader, missing, surplus) {
            (Some(leader), ..) if !self.serves => {
                format!("group {number} waits for {leader}, which leads it, to answer")
            }
            (None, ..) => format!("group {number} has no leader"),
            (_, Some(name), _) if learns => format!("group {number}: {name} is catching up"),
            (_, Some(name), _) => format!("group {number} is to take {name} in"),
            (_, None, Some(name)) => format!("group {number} is to let {name} go"),
            _ if !self.outgoing.is_empty() => format!("group {number} is changing its voters"),
            _ => return None,
        })
    }
}

/// What is still to be done for every group to be where the list of nodes asks for.
fn moving(groups: &BTreeMap<u32, Group>) -> Option<String> {
    let moving: Vec<String> = groups.values().filter_map(Group::moving).collect();
    let more = moving.len().saturating_sub(MOVING_SHOWN);
    let shown = moving.iter().take(MOVING_SHOWN).cloned().collect::<Vec<_>>().join("; ");
    match (moving.len(), more) {
        (0, _) => None,
        (count, 0) => {
            Some(format!("{} of {} groups are in place: {shown}", groups.len() - count, groups.len()))
        }
        (count, more) => Some(format!(
            "{} of {} groups are in place: {shown}; and {more} more",
            groups.len() - count,
            groups.len()
        )),
    }
}

impl View {
    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Group 0, if this node leads it.
    fn led(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.group == 0 && group.serves)
    }
}

/// Where a command has found nodes so far.
struct Cluster {
    connect: Connect,
    first: HostPort,
    known: BTreeMap<String, HostPort>,
    quiet: bool,
    said: String,
}

impl Cluster {
    fn new(connect: Connect, quiet: bool) -> Outcome<Cluster> {
        let first = connect.http()?;
        Ok(Cluster { connect, first, known: BTreeMap::new(), quiet, said: String::new() })
    }

    async fn ask(&self, at: &HostPort, method: Method, path: &str, body: Option<Value>) -> Outcome<Answer> {
        let connect = Connect { http_address: Some(at.clone()), ..self.connect.clone() };
        ask(&connect, method, path, body).await
    }

    /// All addresses to try, the one that was given first.
    fn addresses(&self) -> Vec<HostPort> {
        let mut all = vec![self.first.clone()];
        all.extend(self.known.values().filter(|address| **address != self.first).cloned());
        all
    }

    async fn view_at(&mut self, at: &HostPort) -> Outcome<(View, Value)> {
        let json = self.ask(at, Method::GET, "/cluster", None).await?.good()?.json()?;
        let view = View::deserialize(&json)
            .map_err(|error| Failure::new(format!("{at}: the answer is of another version ({error})")))?;
        self.known.clear();
        for member in &view.members {
            if let Ok(address) = member.http_address.parse() {
                self.known.insert(member.name.clone(), address);
            }
        }
        Ok((view, json))
    }

    /// The leader's view if it can be had, else that of any node that answers.
    async fn view(&mut self) -> Outcome<(View, Value)> {
        let mut failure = None;
        let mut best = None;
        for address in self.addresses() {
            match self.view_at(&address).await {
                Ok((view, json)) => {
                    let leader = view.leader.clone().and_then(|leader| self.known.get(&leader).cloned());
                    let is_best = view.led().is_some();
                    best = Some((view, json));
                    if is_best {
                        break;
                    }
                    if let Some(leader) = leader.filter(|leader| *leader != address)
                        && let Ok((view, json)) = self.view_at(&leader).await
                        && view.led().is_some()
                    {
                        best = Some((view, json));
                        break;
                    }
                }
                // What the node that was given says counts most.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match (best, failure) {
            (Some(best), _) => Ok(best),
            (None, Some(failure)) => Err(failure),
            (None, None) => Err(Failure::new("there is no node to ask")),
        }
    }

    /// Every group as its leader sees it, from all nodes that answer.
    async fn groups(&mut self) -> Outcome<BTreeMap<u32, Group>> {
        let (view, _) = self.view().await?;
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        for name in view.members.iter().map(|member| &member.name) {
            let Some(address) = self.known.get(name).cloned() else { continue };
            let Ok((view, _)) = self.view_at(&address).await else { continue };
            for group in view.groups {
                let newer = |before: &Group| (group.serves, group.term) > (before.serves, before.term);
                if groups.get(&group.group).is_none_or(newer) {
                    groups.insert(group.group, group);
                }
            }
        }
        Ok(groups)
    }

    /// Has the leader do something. With the answer comes whether an earlier one was lost on its way.
    async fn act(
        &mut self,
        at: Option<HostPort>,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Outcome<(Answer, bool)> {
        let deadline = Instant::now() + LEADER_WAIT;
        let mut target = at.unwrap_or_else(|| self.first.clone());
        let mut lost = false;
        let mut next = 0;
        loop {
            let failure = match self.ask(&target, method.clone(), path, body.clone()).await {
                Ok(answer) if answer.status == 421 && Instant::now() < deadline => {
                    let leader = answer.json()?["leader"]["http_address"].as_str().map(str::parse);
                    match leader {
                        Some(Ok(leader)) if leader != target => {
                            target = leader;
                            continue;
                        }
                        _ => answer.good().err(),
                    }
                }
                Ok(answer) if answer.status == 503 => answer.good().err(),
                Ok(answer) => return Ok((answer, lost)),
                Err(failure) => {
                    lost = true;
                    Some(failure)
                }
            };
            if Instant::now() >= deadline {
                return Err(failure.unwrap_or_else(|| Failure::new("there is no leader")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            if self.known.is_empty() {
                // Addresses to turn to; without any the first is tried again.
                let _ = self.view().await;
            }
            let addresses = self.addresses();
            next += 1;
            target = addresses[next % addresses.len()].clone();
        }
    }

    fn say(&mut self, line: String) {
        if !self.quiet && line != self.said {
            eprintln!("{line}");
            self.said = line;
        }
    }

    /// Looks until `done` says nothing any more; what it says meanwhile is what is being waited for.
    async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        done: impl Fn(&View, &BTreeMap<u32, Group>) -> Option<String>,
    ) -> Outcome {
        let deadline = Instant::now() + limit;
        loop {
            let looked = match self.view().await {
                Ok((view, _)) => self.groups().await.map(|groups| (view, groups)),
                Err(failure) => Err(failure),
            };
            let state = match looked {
                Ok((view, _)) if view.led().is_none() => "waiting for a leader".to_owned(),
                Ok((view, groups)) => match done(&view, &groups) {
                    None => return Ok(()),
                    Some(state) => state,
                },
                Err(failure) => failure.to_string(),
            };
            if Instant::now() >= deadline {
                let shown = format!("{what}: not done after {} s: {state}", limit.as_secs());
                return Err(Failure::new(shown)
                    .hint("the change is logged and goes on; `chronos cluster status` shows how far it is"));
            }
            self.say(state);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// Runs `chronos cluster`.
pub async fn run(command: ClusterCommand, quiet: bool) -> Outcome {
    match command {
        ClusterCommand::Status { connect, json } => status(Cluster::new(connect, quiet)?, json).await,
        ClusterCommand::Add { connect, wait, member } => {
            add(Cluster::new(connect, quiet)?, wait, member).await
        }
        ClusterCommand::Remove { connect, wait, name } => {
            remove(Cluster::new(connect, quiet)?, wait, name).await
        }
        ClusterCommand::Transfer { connect, group, to } => {
            let mut cluster = Cluster::new(connect, quiet)?;
            transfer(&mut cluster, group, &to).await
        }
        ClusterCommand::Rebalance { connect } => rebalance(Cluster::new(connect, quiet)?).await,
    }
}

async fn status(mut cluster: Cluster, json: bool) -> Outcome {
    let (view, raw) = cluster.view().await?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{raw:#}")?;
    } else {
        show(&mut out, &view)?;
    }
    out.flush()?;
    match (view.leader, view.members.is_empty()) {
        (Some(_), _) | (_, true) => Ok(()),
        (None, false) => Err(Failure::new(format!("node {} knows of no leader", view.node))),
    }
}

fn show(out: &mut impl Write, view: &View) -> std::io::Result<()> {
    if view.members.is_empty() {
        return writeln!(out, "node {} is alone: it is no part of a cluster", view.node);
    }
    let led = view.led();
    let up = |name: &String| view.member(name).is_some_and(|m| m.link == "up" || m.link == "this");
    let voters = view.groups.first().map_or(&[][..], |group| &group.voters);
    let leader = view.leader.as_deref().unwrap_or("none");
    writeln!(out, "cluster {}: leader {leader}, as node {} sees it", view.cluster, view.node)?;
    writeln!(out, "{} of {} voters reachable", voters.iter().filter(|name| up(name)).count(), voters.len())?;
    let mut table = print::table(&[]);
    table.set_header(["node", "address", "http", "role", "link", "rtt", "entries behind"]);
    for member in &view.members {
        let role = match member.vote.as_deref() {
            _ if view.leader.as_ref() == Some(&member.name) => "leader",
            Some("voter") => "follower",
            Some(other) => other,
            None => "",
        };
        let rtt = member.rtt_us.map(|us| format!("{:.1} ms", us as f64 / 1e3)).unwrap_or_default();
        let behind = led.zip(member.matched_index).map(|(group, at)| group.last_index.saturating_sub(at));
        let behind = behind.map(|entries| entries.to_string()).unwrap_or_default();
        table.add_row([
            print::plain(&member.name),
            member.address.clone(),
            print::plain(&member.http_address),
            role.into(),
            member.link.clone(),
            rtt,
            behind,
        ]);
    }
    print::print_table(out, &table)?;
    let mut table = print::table(&[]);
    table.set_header(["group", "leader", "term", "voters", "committed", "change"]);
    for group in &view.groups {
        // The others follow for good: groups of partitions have fewer voters than the cluster has nodes.
        let learners = group.learners.iter().filter(|name| group.wanted.contains(name));
        let joining: Vec<&str> = learners.map(String::as_str).collect();
        let change = match (group.outgoing.as_slice(), joining.as_slice()) {
            ([], []) => String::new(),
            ([], joining) => format!("{} catching up", joining.join(", ")),
            (outgoing, _) => format!("from {}", outgoing.join(", ")),
        };
        let leader = group.leader.clone().unwrap_or_else(|| "none".into());
        let (term, committed) = (group.term.to_string(), group.committed_index.to_string());
        table.add_row([group.group.to_string(), leader, term, group.voters.join(", "), committed, change]);
    }
    print::print_table(out, &table)?;
    for member in &view.members {
        if let Some(why) = &member.link_problem {
            writeln!(out, "no link with {}: {}", print::plain(&member.name), print::plain(why))?;
        }
    }
    Ok(())
}

async fn add(mut cluster: Cluster, wait: Wait, (name, address): (String, Address)) -> Outcome {
    let body = json!({"name": name, "address": address.to_string()});
    let (answer, _) = cluster.act(None, Method::POST, "/cluster/members", Some(body)).await?;
    answer.good()?;
    if wait.no_wait {
        cluster.say(format!("node {name} at {address} is being added"));
        return Ok(());
    }
    let joining = name.clone();
    let voting = move |view: &View, groups: &BTreeMap<u32, Group>| {
        let Some(member) = view.member(&joining) else {
            return Some(format!("node {joining} was removed meanwhile"));
        };
        match member.vote.as_deref() {
            Some("voter") => Some(format!("node {joining} votes; {}", moving(groups)?)),
            _ if member.link == "refused" => {
                let why = member.link_problem.as_deref().unwrap_or("no reason given");
                Some(format!("node {joining} does not link with node {}: {why}", view.node))
            }
            _ if member.link != "up" => Some(format!(
                "node {joining} is not there yet: start it with `chronos node --id {joining} --address {} --join --peers {}`",
                member.address,
                peers(view, &joining)
            )),
            _ => {
                let last = view.led().map_or(0, |group| group.last_index);
                let behind = last.saturating_sub(member.matched_index.unwrap_or(0));
                Some(format!("node {joining} follows, {behind} entries behind"))
            }
        }
    };
    cluster.until(wait.timeout, &format!("adding node {name}"), voting).await?;
    cluster.say(format!("node {name} at {address} is a voter, and all groups are in place"));
    Ok(())
}

fn peers(view: &View, joining: &str) -> String {
    let others = view.members.iter().filter(|member| member.name != joining);
    others.map(|member| format!("{}={}", member.name, member.address)).collect::<Vec<_>>().join(",")
}

async fn remove(mut cluster: Cluster, wait: Wait, name: String) -> Outcome {
    node_name(&name).map_err(|why| Failure::usage(format!("{name:?}: {why}")))?;
    // Who else is there has to be known before the node that was given may be gone.
    let _ = cluster.view().await;
    let (answer, lost) = cluster.act(None, Method::DELETE, &format!("/cluster/members/{name}"), None).await?;
    let gone_already = lost && answer.status == 404;
    if !gone_already {
        answer.good()?;
    }
    if wait.no_wait {
        cluster.say(format!("node {name} is being removed"));
        return Ok(());
    }
    let leaving = name.clone();
    // Once it is no member any more nodes know it by its number alone.
    let number = format!("{:016x}", NodeId::of_name(&name).0);
    let gone = move |view: &View, groups: &BTreeMap<u32, Group>| {
        if view.member(&leaving).is_some() {
            return Some(format!("node {leaving} is still a member"));
        }
        let holds = groups.values().filter(|group| group.has(&leaving) || group.has(&number)).count();
        match holds {
            0 => moving(groups).map(|what| format!("node {leaving} is in no group any more; {what}")),
            _ => Some(format!("node {leaving} is leaving {holds} of {} groups", groups.len())),
        }
    };
    cluster.until(wait.timeout, &format!("removing node {name}"), gone).await?;
    cluster.say(format!("node {name} is removed: it may be stopped, and its data directory deleted"));
    Ok(())
}

async fn transfer(cluster: &mut Cluster, group: u32, to: &str) -> Outcome {
    let groups = cluster.groups().await?;
    let before = groups.get(&group).ok_or_else(|| Failure::new(format!("there is no group {group}")))?;
    let leader = before.leader.as_ref().and_then(|leader| cluster.known.get(leader)).cloned();
    let body = json!({"group": group, "to": to});
    let (answer, _) = cluster.act(leader, Method::POST, "/cluster/transfer", Some(body)).await?;
    answer.good()?;
    let deadline = Instant::now() + TRANSFER_WAIT;
    loop {
        let groups = cluster.groups().await?;
        let leads = |group: &Group| group.serves && group.leader.as_deref() == Some(to);
        if groups.get(&group).is_some_and(leads) {
            cluster.say(format!("node {to} leads group {group}"));
            return Ok(());
        }
        if Instant::now() >= deadline {
            let leader = groups.get(&group).and_then(|group| group.leader.clone());
            let leader = leader.map_or("nobody".to_owned(), |leader| format!("node {leader}"));
            return Err(Failure::new(format!("node {to} did not take over: {leader} leads group {group}"))
                .hint("it may be too far behind, or slow: try again"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn rebalance(mut cluster: Cluster) -> Outcome {
    let mut moved = 0;
    // Each move makes it more even, and there are no more moves than groups.
    loop {
        let (view, _) = cluster.view().await?;
        let groups = cluster.groups().await?;
        let up = |name: &String| view.member(name).is_some_and(|m| m.link == "up" || m.link == "this");
        let Some((group, to)) = next_move(groups.values(), up) else { break };
        if moved == groups.len() {
            break;
        }
        transfer(&mut cluster, group, &to).await?;
        moved += 1;
    }
    if moved == 0 {
        cluster.say("leadership is spread evenly already".to_owned());
    }
    Ok(())
}

/// A group whose leader leads two more than another of its voters does, and that voter.
fn next_move<'a>(
    groups: impl Iterator<Item = &'a Group> + Clone,
    is_up: impl Fn(&String) -> bool,
) -> Option<(u32, String)> {
    let mut leads: BTreeMap<&str, usize> = BTreeMap::new();
    for group in groups.clone() {
        *leads.entry(group.leader.as_deref()?).or_default() += 1;
    }
    let count = |name: &str| leads.get(name).copied().unwrap_or(0);
    let moves = groups.filter_map(|group| {
        let leader = group.leader.as_deref()?;
        let to = group.voters.iter().filter(|name| is_up(name)).min_by_key(|name| count(name))?;
        let gain = count(leader).checked_sub(count(to) + 2)?;
        Some((gain, group.group, to.clone()))
    });
    moves.max_by_key(|(gain, group, _)| (*gain, std::cmp::Reverse(*group))).map(|(_, group, to)| (group, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u32, leader: &str, voters: &[&str]) -> Group {
        Group {
            group: number,
            term: 1,
            serves: true,
            leader: Some(leader.into()),
            voters: voters.iter().map(|name| (*name).to_owned()).collect(),
            outgoing: Vec::new(),
            learners: Vec::new(),
            wanted: voters.iter().map(|name| (*name).to_owned()).collect(),
            last_index: 1,
            committed_index: 1,
        }
    }

    #[test]
    fn a_change_is_complete_when_every_group_has_the_voters_that_it_is_to_have() {
        let settled = group(0, "a", &["a", "b", "c"]);
        assert_eq!(settled.moving(), None);
        let fourth = || ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let states = [
            (Group { wanted: fourth(), ..settled.clone() }, "is to take d in"),
            (Group { wanted: fourth(), learners: vec!["d".into()], ..settled.clone() }, "d is catching up"),
            (Group { wanted: vec!["a".into(), "b".into()], ..settled.clone() }, "is to let c go"),
            (Group { outgoing: vec!["c".into()], ..settled.clone() }, "is changing its voters"),
            (Group { serves: false, ..settled.clone() }, "waits for a, which leads it"),
            (Group { leader: None, ..settled.clone() }, "has no leader"),
        ];
        let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
        for (number, (moving, said)) in (0..).zip(states) {
            let moving = Group { group: number, ..moving };
            assert!(moving.moving().is_some_and(|what| what.contains(said)), "{moving:?}");
            groups.insert(number, moving);
        }
        groups.insert(6, Group { group: 6, ..settled });
        let said = moving(&groups).expect("six of seven");
        assert!(
            said.starts_with("1 of 7 groups are in place: group 0 ") && said.ends_with("; and 2 more"),
            "{said}"
        );
    }

    #[test]
    fn leadership_goes_to_voters_that_lead_less_until_it_is_even() {
        let all = ["a", "b", "c"];
        let mut groups: Vec<Group> = (0..6).map(|number| group(number, "a", &all)).collect();
        groups[0].voters.pop();
        for _ in 0..4 {
            let (number, to) = next_move(groups.iter(), |_| true).unwrap();
            groups[number as usize].leader = Some(to);
        }
        assert_eq!(next_move(groups.iter(), |_| true), None);
        for name in all {
            assert_eq!(groups.iter().filter(|group| group.leader.as_deref() == Some(name)).count(), 2);
        }
        assert_eq!(next_move([group(0, "a", &all)].iter(), |_| true), None);
        let down = [group(0, "a", &all), group(1, "a", &all), group(2, "a", &all)];
        assert_eq!(next_move(down.iter(), |name| name == "a"), None);
    }
}
