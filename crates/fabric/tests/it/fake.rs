//! Apply on a kernel in memory.

use std::time::{Duration, Instant};

use fabric::Fabric;
use linux::fake::Fake;
use model::config::FabricMode;

use crate::cluster::{cluster, config, net, node};

fn start(mode: FabricMode) -> (Fake, Fabric, model::Cluster, model::Config, Instant) {
    let kernel = Fake::host(&["10.0.1.10/24"]);
    let cluster = cluster([node(1, false), node(2, false), node(3, false)]);
    (
        kernel,
        Fabric::new("node1"),
        cluster,
        config(mode),
        Instant::now(),
    )
}

#[test]
fn what_is_made_is_flannels() {
    let (mut kernel, mut fabric, cluster, config, now) = start(FabricMode::Vxlan);
    let report = fabric.reconcile(&mut kernel, &cluster, &config, now);
    assert_eq!(
        (&report.errors[..], &report.problems[..]),
        (&[][..], &[][..])
    );
    assert_eq!(report.mtu, Some(1450));
    let link = kernel.link("fn-vxlan").unwrap();
    assert_eq!(report.published.v4, link.mac);
    let route = kernel
        .routes
        .iter()
        .find(|route| route.dst == net("10.244.2.0/24"))
        .unwrap();
    assert_eq!(
        route.to_string(),
        format!("10.244.2.0/24 via 10.244.2.0 dev #{} onlink", link.index)
    );
    assert!(
        kernel
            .neighbours
            .iter()
            .any(|n| n.ip.to_string() == "10.244.2.0")
    );
    let ends: Vec<String> = kernel
        .fdb
        .iter()
        .map(|entry| entry.dst.unwrap().to_string())
        .collect();
    assert!(ends.contains(&"10.0.1.20".to_owned()), "{ends:?}");
    assert_eq!(kernel.sysctls["net/ipv4/ip_forward"], "1");

    kernel.take_changes();
    let again = fabric.reconcile(&mut kernel, &cluster, &config, now);
    assert_eq!((again.changes, kernel.take_changes()), (0, vec![]));
    // A new process adopts it all.
    let adopted = Fabric::new("node1").reconcile(&mut kernel, &cluster, &config, now);
    assert_eq!((adopted.changes, kernel.take_changes()), (0, vec![]));
}

#[test]
fn a_change_costs_by_its_size() {
    let (mut kernel, mut fabric, mut cluster, config, now) = start(FabricMode::Vxlan);
    for number in 4..=20 {
        let node = node(number, false);
        cluster.nodes.insert(node.name.clone(), node);
    }
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    kernel.take_changes();
    cluster.nodes.remove("node7");
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    let mac = fabric::plan::vtep_mac("node7", "fn-vxlan");
    assert_eq!(
        kernel.take_changes(),
        [
            "delete route 10.244.7.0/24".to_owned(),
            "delete neighbour 10.244.7.0".to_owned(),
            format!("delete forwarding entry {mac}"),
        ]
    );
    cluster.nodes.get_mut("node8").unwrap().addresses = vec![[10, 0, 1, 88].into()];
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    let mac = fabric::plan::vtep_mac("node8", "fn-vxlan");
    assert_eq!(
        kernel.take_changes(),
        [format!("set forwarding entry {mac}")]
    );
}

#[test]
fn another_mode_makes_before_it_breaks_and_goes_on_receiving() {
    let (mut kernel, mut fabric, cluster, config1, now) = start(FabricMode::Vxlan);
    fabric.reconcile(&mut kernel, &cluster, &config1, now);
    kernel.take_changes();
    let report = fabric.reconcile(&mut kernel, &cluster, &config(FabricMode::HostGw), now);
    let changes = kernel.take_changes();
    assert_eq!(
        &changes[..2],
        ["set route 10.244.2.0/24", "set route 10.244.3.0/24"]
    );
    assert_eq!(report.published.v4, None);
    assert!(kernel.link("fn-vxlan").is_some());
    let later = now + report.again.unwrap();
    let report = fabric.reconcile(&mut kernel, &cluster, &config(FabricMode::HostGw), later);
    assert_eq!(kernel.take_changes(), ["delete link fn-vxlan"]);
    assert_eq!(report.again, None);
    assert_eq!(kernel.routes.len(), 2);
}

#[test]
fn errors_are_named_and_what_does_not_depend_on_them_is_made() {
    let (mut kernel, mut fabric, cluster, config, now) = start(FabricMode::Vxlan);
    kernel
        .refuse
        .insert("set route 10.244.2.0/24".into(), ENOBUFS);
    let report = fabric.reconcile(&mut kernel, &cluster, &config, now);
    assert_eq!(report.errors.len(), 1);
    assert!(report.errors[0].to_string().contains("10.244.2.0/24"));
    assert_eq!(kernel.routes.len(), 1);
    kernel.refuse.clear();
    let report = fabric.reconcile(&mut kernel, &cluster, &config, now + report.again.unwrap());
    assert_eq!(
        (report.errors.len(), report.changes, kernel.routes.len()),
        (0, 1, 2)
    );
}

const ENOBUFS: i32 = nix::errno::Errno::ENOBUFS as i32;

#[test]
fn what_others_break_is_healed_after_a_look() {
    let (mut kernel, mut fabric, cluster, config, now) = start(FabricMode::Vxlan);
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    let good = kernel.clone();
    kernel.routes.clear();
    kernel.fdb.clear();
    kernel.neighbours.remove(0);
    kernel.nft.clear();
    fabric.resync();
    fabric.reconcile(&mut kernel, &cluster, &config, now + Duration::from_secs(1));
    kernel.changes.clone_from(&good.changes);
    assert_eq!(kernel.routes, good.routes);
    assert_eq!(kernel.fdb, good.fdb);
    assert_eq!(kernel.nft, good.nft);
    assert_eq!(kernel.neighbours.len(), 2);
}

/// The node's address is announced by routing and lives on `lo`.
#[test]
fn an_address_on_no_cable_uses_the_default_routes_link() {
    let (mut kernel, mut fabric, cluster, config, now) = start(FabricMode::Vxlan);
    kernel.addresses[0] = linux::Address::new(1, net("10.0.1.10/32"));
    kernel
        .addresses
        .push(linux::Address::new(2, net("192.168.7.2/30")));
    let default = linux::Route::new(net("0.0.0.0/0"), 2).via([192, 168, 7, 1].into());
    kernel.routes.push(default);
    let report = fabric.reconcile(&mut kernel, &cluster, &config, now);
    assert_eq!((&report.errors[..], report.mtu), (&[][..], Some(1450)));
    let uplink = fabric.plan().unwrap().underlay.v4.clone().unwrap();
    assert_eq!(
        (uplink.link.as_str(), &uplink.subnets[..]),
        ("eth0", &[net("192.168.7.0/30")][..])
    );
}

#[test]
fn the_underlays_mtu_is_followed() {
    let (mut kernel, mut fabric, cluster, config, now) = start(FabricMode::Vxlan);
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    kernel.links[1].mtu = 9000;
    let event = linux::Event::Link {
        link: kernel.links[1].clone(),
        gone: false,
    };
    assert!(fabric.notice(&event));
    let report = fabric.reconcile(&mut kernel, &cluster, &config, now);
    assert_eq!(
        (report.mtu, kernel.link("fn-vxlan").unwrap().mtu),
        (Some(8950), 8950)
    );
    assert!(!fabric.notice(&event));
}

/// Routes of other programs, and of the node's own pods, are none of its business.
#[test]
fn what_is_others_stays() {
    let (mut kernel, mut fabric, mut cluster, config, now) = start(FabricMode::Vxlan);
    let pod = kernel.add_link("fn-0123456789a", linux::Kind::Veth, 1450);
    let mut others = vec![
        linux::Route::new(net("10.244.1.5/32"), pod).protocol(102),
        linux::Route::new(net("10.244.77.0/24"), 2).via([10, 0, 1, 77].into()),
        linux::Route {
            table: 100,
            ..linux::Route::new(net("10.244.2.0/24"), 2).via([10, 0, 1, 9].into())
        },
    ];
    kernel.routes.clone_from(&others);
    let left = linux::Route::new(net("10.244.66.0/24"), 2).via([10, 0, 1, 66].into());
    kernel.routes.push(left.protocol(102));
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    let others_of_cluster: Vec<String> = cluster.nodes.keys().skip(1).cloned().collect();
    for name in others_of_cluster {
        cluster.nodes.remove(&name);
    }
    fabric.reconcile(&mut kernel, &cluster, &config, now);
    kernel.routes.sort_by_key(|route| (route.dst, route.table));
    others.sort_by_key(|route| (route.dst, route.table));
    assert_eq!(kernel.routes, others);
}
