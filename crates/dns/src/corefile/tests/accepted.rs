//! Corefiles of clusters, and the examples of `CoreDNS`'s plugins.

use std::time::Duration;

use super::{Given, accepted, cases, plugins, read, shown};
use crate::corefile::plugins::{
    Cache, CacheLimits, Errors, Forward, Health, Kubernetes, Listen, LoadBalance, PodMode,
    Prometheus, Ready, Reload, To,
};
use crate::corefile::{Address, Plugins, Scheme, Zone, parse};

fn zone(name: &str) -> Zone {
    name.parse().unwrap()
}

#[test]
fn the_corefile_of_kubeadm() {
    let corefile = accepted(include_str!("clusters/kubeadm"));
    let [server] = corefile.servers.as_slice() else {
        panic!("{corefile:?}");
    };
    let root = Address {
        scheme: Scheme::Dns,
        zone: Zone::root(),
        port: 53,
    };
    assert_eq!(server.addresses, [root]);
    assert_eq!(server.at.to_string(), "Corefile:1");
    let arpa = [zone("in-addr.arpa"), zone("ip6.arpa")];
    let listen = |port| Listen {
        host: String::new(),
        port,
    };
    let expected = Plugins {
        errors: Some(Errors::default()),
        health: Some(Health {
            listen: listen(8080),
            lameduck: Duration::from_secs(5),
        }),
        ready: Some(Ready {
            listen: listen(8181),
            continuously: false,
        }),
        kubernetes: Some(Kubernetes {
            zones: [&[zone("cluster.local")][..], &arpa].concat(),
            pods: PodMode::Insecure,
            fallthrough: arpa.to_vec(),
            ttl: 30,
            ..Kubernetes::default()
        }),
        prometheus: Some(Prometheus {
            listen: listen(9153),
        }),
        forward: vec![Forward {
            to: vec![To::File("/etc/resolv.conf".to_owned())],
            max_concurrent: 1000,
            ..Forward::default()
        }],
        cache: Some(Cache {
            zones: vec![Zone::root()],
            success: CacheLimits {
                capacity: 10_000,
                max_ttl: 30,
                min_ttl: 5,
            },
            denial: CacheLimits {
                capacity: 10_000,
                max_ttl: 30,
                min_ttl: 5,
            },
            disable_success: vec![zone("cluster.local")],
            disable_denial: vec![zone("cluster.local")],
            ..Cache::default()
        }),
        loop_zone: Some(Zone::root()),
        reload: Some(Reload::default()),
        loadbalance: Some(LoadBalance::default()),
        ..Plugins::default()
    };
    assert_eq!(server.plugins, expected);
}

#[test]
fn corefiles_of_clusters_are_taken_without_a_warning() {
    for (name, text) in [
        ("seed-deep-dive", include_str!("clusters/seed-deep-dive")),
        ("seed-guide", include_str!("clusters/seed-guide")),
        ("seed-notes", include_str!("clusters/seed-notes")),
        ("kubeadm", include_str!("clusters/kubeadm")),
        ("nodelocaldns", include_str!("clusters/nodelocaldns")),
        ("minikube", include_str!("clusters/minikube")),
        ("eks", include_str!("clusters/eks")),
        ("kubespray", include_str!("clusters/kubespray")),
    ] {
        match read(text) {
            Ok((_, warnings)) => assert!(warnings.is_empty(), "{name}: {warnings:?}"),
            Err(errors) => panic!("{name}: {}", shown(&errors)),
        }
    }
}

#[test]
fn comments_change_nothing() {
    let plain = accepted(include_str!("clusters/seed-deep-dive"));
    let commented = accepted(include_str!("clusters/seed-guide"));
    assert_eq!(plain.servers[0].plugins, commented.servers[0].plugins);
}

#[test]
fn node_local_dns_binds_each_zone() {
    let corefile = accepted(include_str!("clusters/nodelocaldns"));
    let zones: Vec<String> = corefile
        .servers
        .iter()
        .flat_map(|server| &server.addresses)
        .map(|address| address.zone.to_string())
        .collect();
    assert_eq!(zones, ["cluster.local.", "in-addr.arpa.", "ip6.arpa.", "."]);
    let cluster = &corefile.servers[0].plugins;
    assert_eq!(cluster.bind[0].addresses, ["169.254.20.10", "10.96.0.10"]);
    assert!(cluster.forward[0].force_tcp);
    let cache = cluster.cache.as_ref().unwrap();
    assert_eq!((cache.success.max_ttl, cache.denial.max_ttl), (30, 5));
}

#[test]
fn own_files_are_imported_into_the_corefiles_of_k3s_and_aks() {
    let (custom, server) = (
        "rewrite name a.example b.example",
        "corp {\nforward . 10.0.0.1\n}",
    );
    for (text, folder) in [
        (include_str!("clusters/k3s"), "/etc/coredns/custom"),
        (include_str!("clusters/aks"), "/etc/coredns/custom"),
    ] {
        let read = |sources: &Given| {
            let (corefile, warnings) = parse("/etc/coredns/Corefile", text, 53, sources)
                .map_err(|e| shown(&e))
                .unwrap();
            (corefile.servers, warnings.len())
        };
        let (servers, warnings) = read(&Given::default());
        assert_eq!((servers.len(), warnings), (1, 2), "{servers:?}");
        let mut given = Given::default();
        for (name, text) in [("a.override", custom), ("b.server", server)] {
            let path = format!("{folder}/{name}").leak();
            given.files.insert(path, text.to_owned());
        }
        let (servers, warnings) = read(&given);
        assert_eq!((servers.len(), warnings), (2, 0), "{servers:?}");
        assert_eq!(servers[0].plugins.rewrite.len(), 1);
        assert_eq!(servers[1].at.to_string(), "/etc/coredns/custom/b.server:1");
    }
}

#[test]
fn the_examples_of_the_plugins_are_taken() {
    let mut count = 0;
    for (name, text) in cases(include_str!("examples.txt")) {
        if let Err(errors) = read(text) {
            panic!("{name}:\n{text}\n{}", shown(&errors));
        }
        count += 1;
    }
    assert!(count > 100, "{count}");
}

#[test]
fn no_block_at_all_is_whoami() {
    let (corefile, warnings) = read("# nothing\n").unwrap();
    assert_eq!(corefile.servers[0].plugins, plugins("whoami\nlog"));
    assert_eq!(warnings.len(), 1);
}
