//! A network of its own for each node: a namespace with an interface on a bridge, and a packet filter in it.
//!
//! Everything is named after this process and is gone when it is dropped. What is left by a process that was killed
//! is named after a process that is gone, and the next run removes it. Needs root, `ip` and `nft`.

use crate::cluster::run;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Interfaces' names have fifteen characters at most, so the number of the process must do.
const PREFIX: &str = "chaos";

/// The namespaces of a run.
pub struct Namespaces {
    nodes: usize,
    /// Sender and receiver of ways that are cut.
    cut: Mutex<BTreeSet<(usize, usize)>>,
    /// How many datagrams in a thousand are lost on their way in, everywhere.
    lost: Mutex<u64>,
}

impl Namespaces {
    /// Makes them.
    pub fn create(nodes: usize) -> Result<Namespaces, String> {
        remove_leftovers();
        let made = Namespaces { nodes, cut: Mutex::default(), lost: Mutex::default() };
        let bridge = bridge();
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", made.host()))?;
        ip(&format!("link set {bridge} up"))?;
        for node in 0..nodes {
            let (name, outside) = (name(node), outside(node));
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add {outside} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {outside} master {bridge} up"))?;
            ip(&format!("-n {name} addr add {}/24 dev eth0", made.address(node)))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            made.filter(node)?;
        }
        Ok(made)
    }

    /// A node's address.
    pub fn address(&self, node: usize) -> IpAddr {
        subnet(node as u8 + 1).into()
    }

    /// This process's address on the bridge.
    pub fn host(&self) -> IpAddr {
        subnet(254).into()
    }

    /// Runs a program within a node's namespace, under its own process id.
    pub fn command(&self, node: usize, binary: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name(node)]).arg(binary);
        command
    }

    /// Cuts or mends the way from one node to another.
    pub fn cut(&self, from: usize, to: usize, cut: bool) -> Result<(), String> {
        let changed = {
            let mut ways = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
            if cut { ways.insert((from, to)) } else { ways.remove(&(from, to)) }
        };
        if changed { self.filter(to) } else { Ok(()) }
    }

    /// Changes how many datagrams in a thousand are lost.
    pub fn lose(&self, lost: u64) -> Result<(), String> {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
        (0..self.nodes).try_for_each(|node| self.filter(node))
    }

    /// Brings a node's packet filter up to date, at one moment. It filters what comes in: a packet that may not go
    /// out would be an error to its sender, and a network tells nothing.
    fn filter(&self, node: usize) -> Result<(), String> {
        let mut rules = String::new();
        for (from, _) in
            self.cut.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|(_, to)| *to == node)
        {
            rules += &format!("ip saddr {} drop\n", self.address(*from));
        }
        let lost = *self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost > 0 {
            rules += &format!(
                "ip saddr != {} meta l4proto udp numgen random mod 1000 < {lost} drop\n",
                self.host()
            );
        }
        let text = format!(
            "table inet chaos {{ }}\nflush table inet chaos\ntable inet chaos {{ chain input {{\n\
             type filter hook input priority 0;\n{rules}}}\n}}\n"
        );
        let mut nft = Command::new("ip");
        nft.args(["netns", "exec", &name(node), "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = nft.spawn().map_err(|e| format!("nft: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(text.as_bytes()).map_err(|e| format!("nft: {e}"))?;
        }
        let told = child.wait_with_output().map_err(|e| format!("nft: {e}"))?;
        match told.status.success() {
            true => Ok(()),
            false => Err(format!("nft: {}", String::from_utf8_lossy(&told.stderr).trim())),
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        remove(std::process::id());
    }
}

fn name_of(pid: u32, node: usize) -> String {
    format!("{PREFIX}{pid}-{node}")
}

fn name(node: usize) -> String {
    name_of(std::process::id(), node)
}

fn bridge() -> String {
    format!("{PREFIX}{}", std::process::id())
}

fn outside(node: usize) -> String {
    format!("cv{}-{node}", std::process::id())
}

/// One of 200 networks, by the number of the process.
fn subnet(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, (std::process::id() % 200) as u8, host)
}

/// Removes a process's namespaces and bridge; with a namespace its interfaces go.
fn remove(pid: u32) {
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mine = format!("{PREFIX}{pid}-");
    for name in namespaces.filter_map(|entry| entry.file_name().into_string().ok()) {
        if name.starts_with(&mine) {
            complain(ip(&format!("netns del {name}")));
        }
    }
    let bridge = format!("{PREFIX}{pid}");
    if Path::new("/sys/class/net").join(&bridge).exists() {
        complain(ip(&format!("link del {bridge}")));
    }
}

/// Of processes that are gone.
fn remove_leftovers() {
    let names = ["/run/netns", "/sys/class/net"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let pids = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok()
    });
    let gone = |pid: &u32| !Path::new("/proc").join(pid.to_string()).exists();
    pids.filter(gone).collect::<BTreeSet<u32>>().into_iter().for_each(remove);
}

fn complain(told: Result<(), String>) {
    if let Err(why) = told {
        eprintln!("chaos: {why}");
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let arguments: Vec<&Path> = arguments.split(' ').map(Path::new).collect();
    run("ip", &arguments).map_err(|e| format!("namespaces want root, and `ip` of iproute2: {e}"))
}
