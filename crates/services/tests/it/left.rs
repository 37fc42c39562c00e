//! What of Services is in a kernel, in an order that does not depend on how it came there.

use std::collections::BTreeMap;

use linux::{NetNs, Nftables, run_in};
use model::config::ServicesMode;
use nft::Family;

/// Lines, sorted, by chain or set.
pub type Left = BTreeMap<String, Vec<String>>;

/// Reads a namespace.
pub fn read(netns: &NetNs, mode: ServicesMode) -> Left {
    match mode {
        ServicesMode::Nftables => nftables(netns),
        ServicesMode::Iptables => iptables(netns),
    }
}

fn nftables(netns: &NetNs) -> Left {
    let table = Nftables::open_in(netns)
        .unwrap()
        .read(Family::Inet, "flatnet");
    let mut left = Left::new();
    let Some(table) = table.unwrap() else {
        return left;
    };
    let ours = |name: &str| name.starts_with("services-");
    for (name, chain) in table.chains.iter().filter(|(name, _)| ours(name)) {
        let rules = chain.rules.iter().map(|rule| format!("{rule:?}"));
        left.insert(name.clone(), rules.collect());
    }
    for (name, set) in table.sets.iter().filter(|(name, _)| ours(name)) {
        // What packets put there is theirs.
        if set.dynamic {
            left.insert(name.clone(), Vec::new());
            continue;
        }
        let mut lines: Vec<String> = Vec::new();
        // Which endpoint has which number depends on what was there before; that the numbers are
        // those from 0 on, and the endpoints the same, does not.
        let numbered = name.contains("endpoints");
        for (key, data) in &set.elements {
            if numbered {
                let (front, number) = key.key.split_at(key.key.len() - 4);
                lines.push(format!("{front:?} {number:?}"));
                lines.push(format!("{front:?} {data:?}"));
            } else {
                lines.push(format!("{key:?} {data:?}"));
            }
        }
        lines.sort();
        left.insert(name.clone(), lines);
    }
    left
}

fn iptables(netns: &NetNs) -> Left {
    let mut left = Left::new();
    for program in ["iptables-save", "ip6tables-save"] {
        let saved = run_in(netns, || {
            std::process::Command::new(program).output().unwrap()
        });
        let saved = String::from_utf8(saved.unwrap().stdout).unwrap();
        let mut table = String::new();
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if line.contains("KUBE-") {
                // Without its counters.
                let line = line.split(" [").next().unwrap_or(line);
                let chain = line.split(' ').nth(1).unwrap_or_default();
                let key = format!("{program} {table} {chain}");
                left.entry(key).or_default().push(line.to_owned());
            }
        }
    }
    // The order in which Services are looked for means nothing.
    for (chain, lines) in &mut left {
        if !chain.contains("KUBE-SVC-") && !chain.contains("KUBE-SVL-") {
            lines.sort();
        }
    }
    left
}
