use linux::link::NewKind;
use linux::{Address, Kind, LinkChange, Mac, NewLink, VethEnd, Vxlan};

use crate::{namespace, root};

#[test]
fn a_veth_pair_across_two_namespaces() {
    if !root("veth pair") {
        return;
    }
    let (_host, mut host) = namespace();
    let (pod_netns, mut pod) = namespace();
    let mac: Mac = "02:00:00:00:00:07".parse().unwrap();
    host.create_link(&NewLink {
        mtu: Some(1450),
        ..NewLink::new(
            "fn-0123456789a",
            NewKind::Veth(VethEnd {
                name: "eth0",
                netns: Some(&pod_netns),
                mtu: Some(1450),
                mac: Some(mac),
            }),
        )
    })
    .unwrap();
    let inside = pod.expect_link("eth0").unwrap();
    assert!(!inside.up);
    pod.set_up(inside.index).unwrap();
    let inside = pod.expect_link("eth0").unwrap();
    let outside = host.expect_link("fn-0123456789a").unwrap();
    assert_eq!((inside.mac, inside.mtu, inside.up), (Some(mac), 1450, true));
    assert!(inside.carrier && outside.carrier && outside.up);
    assert_eq!(
        (&inside.kind, outside.peer),
        (&Kind::Veth, Some(inside.index))
    );
    assert_eq!(inside.peer, Some(outside.index));
    assert!(inside.peer_netns.is_some());
    assert!(host.delete_link("fn-0123456789a").unwrap());
    assert!(!host.delete_link("fn-0123456789a").unwrap());
    assert_eq!(pod.link("eth0").unwrap(), None);
}

#[test]
fn a_bridge_with_a_port_renamed_and_moved() {
    if !root("bridge") {
        return;
    }
    let (_netns, mut net) = namespace();
    net.create_link(&NewLink::new("cni0", NewKind::Bridge))
        .unwrap();
    let bridge = net.expect_link("cni0").unwrap();
    net.create_link(&NewLink {
        master: Some(bridge.index),
        ..NewLink::new(
            "port",
            NewKind::Veth(VethEnd {
                name: "far",
                ..VethEnd::default()
            }),
        )
    })
    .unwrap();
    let port = net.expect_link("port").unwrap();
    assert_eq!((port.master, port.hairpin), (Some(bridge.index), false));
    for hairpin in [true, false] {
        let change = LinkChange {
            hairpin: Some(hairpin),
            ..LinkChange::default()
        };
        net.change_link(port.index, &change).unwrap();
        assert_eq!(net.expect_link("port").unwrap().hairpin, hairpin);
    }
    let far = net.expect_link("far").unwrap();
    assert!(!far.up);
    let (elsewhere, mut other) = namespace();
    net.change_link(
        far.index,
        &LinkChange {
            name: Some("eth0"),
            netns: Some(&elsewhere),
            mtu: Some(1400),
            ..LinkChange::default()
        },
    )
    .unwrap();
    let moved = other.expect_link("eth0").unwrap();
    assert_eq!(moved.mtu, 1400);
    other.set_up(moved.index).unwrap();
    assert!(other.expect_link("eth0").unwrap().carrier);
    assert_eq!(net.links().unwrap().len(), 3, "lo, cni0, port");
}

#[test]
fn a_vxlan_end_with_its_settings() {
    if !root("vxlan") {
        return;
    }
    let (_netns, mut net) = namespace();
    net.create_link(&NewLink::new(
        "eth0",
        NewKind::Veth(VethEnd {
            name: "far",
            ..VethEnd::default()
        }),
    ))
    .unwrap();
    let eth0 = net.expect_link("eth0").unwrap();
    net.add_address(&Address::new(
        eth0.index,
        "10.0.1.10/24".parse::<ipnet::IpNet>().unwrap(),
    ))
    .unwrap();
    let vxlan = Vxlan {
        id: 1,
        port: 8472,
        local: Some([10, 0, 1, 10].into()),
        parent: Some(eth0.index),
        learning: false,
    };
    let mac = Mac::local([1, 2, 3, 4, 5, 6]);
    net.create_link(&NewLink {
        mac: Some(mac),
        mtu: Some(1450),
        ..NewLink::new("fn-vxlan", NewKind::Vxlan(vxlan.clone()))
    })
    .unwrap();
    let link = net.expect_link("fn-vxlan").unwrap();
    assert_eq!(link.kind, Kind::Vxlan(vxlan.clone()));
    assert_eq!((link.mac, link.mtu, link.up), (Some(mac), 1450, true));

    net.replace_fdb(link.index, mac, [10, 0, 1, 20].into())
        .unwrap();
    net.replace_fdb(link.index, mac, [10, 0, 1, 30].into())
        .unwrap();
    let fdb = net.fdb(link.index).unwrap();
    assert_eq!(fdb.len(), 1, "{fdb:?}");
    assert_eq!(fdb[0].dst, Some([10, 0, 1, 30].into()));
    assert!(fdb[0].permanent);
    net.replace_neighbour(link.index, [10, 244, 2, 0].into(), mac)
        .unwrap();
    let neighbours = net.neighbours(Some(link.index)).unwrap();
    assert!(
        neighbours
            .iter()
            .any(|n| n.ip == std::net::IpAddr::from([10, 244, 2, 0])
                && n.mac == Some(mac)
                && n.permanent)
    );
    net.delete_neighbour(link.index, [10, 244, 2, 0].into())
        .unwrap();
    net.delete_fdb(link.index, mac, None).unwrap();
    assert_eq!(net.fdb(link.index).unwrap(), []);

    let twice = net
        .create_link(&NewLink::new("fn-vxlan2", NewKind::Vxlan(vxlan)))
        .unwrap_err();
    assert!(
        twice
            .to_string()
            .starts_with("link fn-vxlan2: create: file exists"),
        "{twice}"
    );
}

#[test]
fn errors_name_the_link() {
    if !root("link errors") {
        return;
    }
    let (_netns, mut net) = namespace();
    assert_eq!(
        net.expect_link("eth9").unwrap_err().to_string(),
        "link eth9: find: no such device"
    );
    let long = net
        .create_link(&NewLink::new("a-name-too-long-", NewKind::Bridge))
        .unwrap_err();
    assert!(long.to_string().contains("1 to 15 bytes"), "{long}");
    let wrong = net
        .change_link(
            1,
            &LinkChange {
                master: Some(77),
                ..LinkChange::default()
            },
        )
        .unwrap_err();
    assert!(
        wrong.to_string().starts_with("link lo: change: "),
        "{wrong}"
    );
}
