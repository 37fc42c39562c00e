//! The real kernel, in a network namespace.

use std::process::Command;
use std::time::Duration;

use linux::{Event, Host, Kernel, Monitor, NetNs, run_in};
use model::{Change, Changed, Cluster, Protocol, Service, TrafficPolicy};
use nft::{Family, Op, Transaction};
use services::Services;

use super::{reconcile, wanted};
use crate::build::{Put, balanced, cluster, config, endpoint, ip, port, service, slice};

/// Services of every kind, in both families.
fn every_kind() -> Cluster {
    let mut cluster = cluster();
    let v4 = ["10.244.1.1", "10.244.1.2", "10.244.2.1"].map(endpoint);
    let v6 = ["fd00:10:244:1::1", "fd00:10:244:2::1"].map(endpoint);
    let mut number = 0;
    for (external, internal) in [
        (TrafficPolicy::Cluster, TrafficPolicy::Cluster),
        (TrafficPolicy::Local, TrafficPolicy::Local),
    ] {
        for affinity in [None, Some(300)] {
            for ranges in [vec![], vec!["203.0.113.0/24", "2001:db8::/32"]] {
                number += 1;
                let name = format!("s{number}");
                let node_port = 30000 + u16::from(number);
                let mut made = Service {
                    external_policy: external,
                    internal_policy: internal,
                    affinity,
                    source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
                    external_ips: vec![
                        ip(&format!("198.51.100.{number}")),
                        ip(&format!("2001:db8:1::{number}")),
                    ],
                    ..balanced(&name, number, &format!("192.0.2.{number}"), node_port)
                };
                made.cluster_ips.push(ip(&format!("fd00:10:96::{number}")));
                made.put(&mut cluster);
                slice(&name, "4", v4.to_vec()).put(&mut cluster);
                slice(&name, "6", v6.to_vec()).put(&mut cluster);
            }
        }
    }
    let mut media = service("media", 100);
    media.ports = vec![port("", Protocol::Sctp, 9)];
    media.put(&mut cluster);
    service("empty", 101).put(&mut cluster);
    cluster
}

/// Runs a test in a namespace of its own, as root.
fn in_namespace(test: &str, body: impl FnOnce(&mut Host) + Send) {
    if !testing::root(test) {
        return;
    }
    let netns = NetNs::anonymous().unwrap();
    run_in(&netns, || body(&mut Host::open().unwrap())).unwrap();
}

fn there(host: &mut Host) -> nft::Compiled {
    let found = host.nft_table(Family::Inet, "flatnet").unwrap();
    found.unwrap()
}

#[test]
fn the_kernel_has_what_was_rendered() {
    in_namespace("the_kernel_has_what_was_rendered", |host| {
        let cluster = every_kind();
        let mut services = Services::new("node1");
        let nothing = Changed::default();
        let report = reconcile(&mut services, host, &cluster, &nothing, &config());
        assert_eq!((report.errors, report.problems), (vec![], vec![]));
        assert_eq!(there(host), wanted(&services));
        let mut adopter = Services::new("node1");
        let report = reconcile(&mut adopter, host, &cluster, &nothing, &config());
        assert_eq!((report.errors, report.changes), (vec![], 0));
        let value = host.sysctl("net/ipv4/conf/all/route_localnet").unwrap();
        assert_eq!(value.as_deref(), Some("1"));
        assert_eq!(Services::remove_all(host), []);
        assert_eq!(host.nft_table(Family::Inet, "flatnet").unwrap(), None);
        let value = host.sysctl("net/ipv4/conf/all/route_localnet").unwrap();
        assert_eq!(value.as_deref(), Some("0"));
    });
}

#[test]
fn changes_one_by_one_on_the_kernel() {
    in_namespace("changes_one_by_one_on_the_kernel", |host| {
        let mut cluster = cluster();
        let mut services = Services::new("node1");
        let mut follow = |host: &mut Host, cluster: &mut Cluster, change: Change| {
            let mut changed = Changed::default();
            cluster.note(change, &mut changed);
            let report = reconcile(&mut services, host, cluster, &changed, &config());
            assert_eq!((report.errors, report.problems), (vec![], vec![]));
            assert_eq!(there(host), wanted(&services));
        };
        let whole = every_kind();
        for service in whole.services.values() {
            follow(host, &mut cluster, Change::Service(service.clone()));
        }
        for slice in whole.slices_of(&("ns".into(), "s7".into())) {
            follow(host, &mut cluster, Change::Slice(slice.clone()));
        }
        // From none to many endpoints and back, one at a time.
        let addresses: Vec<String> = (1..=6).map(|n| format!("10.244.{}.{n}", n % 3)).collect();
        let sizes = (0..=6).chain((0..6).rev());
        for (count, name) in sizes.zip(["s1", "s8", "s5"].into_iter().cycle()) {
            for at in [count, 6 - count] {
                let endpoints = addresses[..at].iter().map(|one| endpoint(one)).collect();
                let slice = slice(name, "4", endpoints);
                follow(host, &mut cluster, Change::Slice(slice.into()));
            }
        }
        for (namespace, name) in whole.services.keys().cloned() {
            follow(host, &mut cluster, Change::ServiceGone(namespace, name));
        }
    });
}

#[test]
fn an_operator_can_read_it() {
    in_namespace("an_operator_can_read_it", |host| {
        let Some(nft) = testing::program("an_operator_can_read_it", "nft") else {
            return;
        };
        let mut services = Services::new("node1");
        let nothing = Changed::default();
        reconcile(&mut services, host, &every_kind(), &nothing, &config());
        let list = |words: &[&str]| {
            let output = Command::new(&nft).args(words).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{words:?}: {errors}");
            String::from_utf8(output.stdout).unwrap()
        };
        let all = list(&["list", "ruleset"]);
        assert!(
            all.contains("comment \"no Service has this address\""),
            "{all}"
        );
        assert!(
            all.contains("dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @services-endpoints"),
            "{all}"
        );
        let ips = list(&["list", "map", "inet", "flatnet", "services-ips"]);
        assert!(
            ips.contains("10.96.0.1 . tcp . 80 : goto services-internal-3"),
            "{ips}"
        );
        let ports = list(&["list", "map", "inet", "flatnet", "services-nodeports"]);
        assert!(
            ports.contains("tcp . 30001 : goto services-nodeport-3"),
            "{ports}"
        );
    });
}

#[test]
fn what_others_do_is_noticed_and_what_is_ours_is_not() {
    in_namespace("what_others_do_is_noticed", |host| {
        let mut monitor = Monitor::open().unwrap();
        monitor.ignore(&[host.nftables.port().unwrap()]).unwrap();
        let mut cluster = every_kind();
        let mut services = Services::new("node1");
        let nothing = Changed::default();
        reconcile(&mut services, host, &cluster, &nothing, &config());
        let mut changed = Changed::default();
        let slice = slice("s1", "4", vec![endpoint("10.244.1.9")]);
        cluster.note(Change::Slice(slice.into()), &mut changed);
        reconcile(&mut services, host, &cluster, &changed, &config());
        let own: Vec<Event> = monitor.wait(Duration::from_millis(50)).unwrap();
        assert!(!own.iter().any(|event| services.notice(event)), "{own:?}");
        let delete = Transaction {
            family: Family::Inet,
            table: "flatnet".into(),
            ops: vec![Op::DeleteTable],
        };
        linux::Nftables::open().unwrap().apply(&delete).unwrap();
        let events = monitor.wait(Duration::from_secs(30)).unwrap();
        assert!(
            events.iter().any(|event| services.notice(event)),
            "{events:?}"
        );
        reconcile(&mut services, host, &cluster, &nothing, &config());
        assert_eq!(there(host), wanted(&services));
    });
}
