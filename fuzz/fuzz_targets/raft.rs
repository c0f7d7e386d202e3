#![no_main]
// The cluster and the oracle of the engine's own tests, driven by typed operations instead of a seed.
// The files are taken in whole and used in part: what this target does not call is used by those tests.
#[path = "../../engine/tests/raft/cluster.rs"]
#[allow(dead_code)]
mod cluster;
#[path = "../../engine/tests/raft/oracle.rs"]
#[allow(dead_code)]
mod oracle;
#[path = "../../engine/tests/raft/text.rs"]
#[allow(dead_code)]
mod text;

use chronos_engine::raft::{Change, Role, Settings};
use chronos_fuzz::Choices;
use chronos_proto::id::NodeId;
use chronos_proto::membership::Configuration;
use cluster::Cluster;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut choices = Choices(data);
    let settings = Settings {
        append_bytes_max: [1, 30, 1 << 20][choices.below(3)],
        inflight_max: [1, 2, 256][choices.below(3)],
        kept_bytes_max: [0, 50, 1 << 20][choices.below(3)],
        ..Settings::default()
    };
    let mut cluster = Cluster::new(settings, u64::from(choices.byte()), 3);
    for id in [4, 5] {
        cluster.add(NodeId(id), Configuration::default());
    }
    let mut texts = 0;
    while !choices.is_empty() {
        let (operation, who) = (choices.byte(), choices.byte());
        let id = NodeId(1 + u64::from(who % 5));
        let other = NodeId(1 + u64::from(who / 5 % 5));
        let under_way = cluster.wire.len();
        let leads = |id: &NodeId| cluster.raft(*id).is_some_and(|raft| raft.role() == Role::Leader);
        let leader = cluster.ids().into_iter().find(leads).unwrap_or(id);
        match operation % 32 {
            0..=5 if under_way > 0 => cluster.deliver(0),
            6 | 7 if under_way > 0 => cluster.deliver(usize::from(who) % under_way),
            8 => cluster.deliver_all(),
            9..=11 => {
                cluster.now += u64::from(who) * 3_000;
                for id in cluster.ids() {
                    let due = cluster.raft(id).and_then(|raft| raft.next_deadline());
                    if due.is_some_and(|at| at <= cluster.clock(id)) {
                        cluster.tick(id);
                    }
                }
            }
            12..=15 => {
                texts += 1;
                cluster.propose(leader, &format!("t{texts}"));
            }
            16 => drop(cluster.read(leader)),
            17 => drop(cluster.at(id, |raft, now| raft.campaign(now))),
            18 => cluster.finish(id, usize::from(who / 5 % 4)),
            19 => cluster.restart(id),
            20 => {
                let under_way = cluster.members[&id].writes.len();
                cluster.crash(id, usize::from(who / 5) % (under_way + 1));
            }
            21 if under_way > 0 => drop(cluster.wire.remove(usize::from(who) % under_way)),
            22 if under_way > 0 => {
                let twice = cluster.wire[usize::from(who) % under_way].clone();
                cluster.wire.push(twice);
            }
            23 => member(&mut cluster, id).holds_writes ^= true,
            24 => member(&mut cluster, id).paused ^= true,
            25 => {
                cluster.cut.insert((id, other));
            }
            26 => cluster.cut.clear(),
            27 => cluster.compact(id),
            28 => {
                let changes = match who / 25 % 3 {
                    0 => [Change::AddVoter(other)],
                    1 => [Change::AddLearner(other)],
                    _ => [Change::Remove(other)],
                };
                drop(cluster.at(leader, |raft, _| raft.change_membership(&changes)));
            }
            29 => drop(cluster.at(leader, |raft, _| raft.transfer(other))),
            30 => member(&mut cluster, id).holds_snapshots ^= true,
            31 => {
                let to = cluster.members[&id].sending.first().copied();
                match to {
                    Some(to) => cluster.send_snapshot(id, to, who % 2 == 0),
                    None => cluster.install(id, who % 2 == 0),
                }
            }
            _ => {}
        }
    }
});

fn member(cluster: &mut Cluster, id: NodeId) -> &mut cluster::Member {
    cluster.members.get_mut(&id).expect("a member")
}
