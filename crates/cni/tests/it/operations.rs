//! Each operation, by the specification.

use serde_json::json;

use super::lab::{Node, Pod, can_run, ip_of};

#[test]
fn version_needs_no_agent() {
    let answer = super::lab::plugin_alone("VERSION", &json!({"cniVersion": "0.4.0"}));
    assert!(answer.ok, "{answer:?}");
    assert_eq!(
        answer.json,
        json!({"cniVersion": "0.4.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
}

#[test]
fn a_broken_call_is_refused_by_the_plugin_itself() {
    let refused = |command: &str, conf: serde_json::Value| {
        let answer = super::lab::plugin_alone(command, &conf);
        (
            answer.code(),
            answer.json["cniVersion"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            answer.msg(),
        )
    };
    let (code, version, msg) = refused("ADD", json!({"cniVersion": "1.0.0", "name": "n"}));
    assert_eq!((code, version.as_str()), (4, "1.0.0"));
    assert!(
        msg.contains("CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME"),
        "{msg}"
    );
    assert_eq!(
        refused("STATUS", json!({"cniVersion": "9.0.0", "name": "n"})).0,
        1
    );
    assert_eq!(refused("STATUS", json!({"cniVersion": "1.1.0"})).0, 7);
    assert_eq!(
        refused(
            "STATUS",
            json!({"cniVersion": "1.1.0", "name": "n", "ipam": {}})
        )
        .0,
        2
    );
    assert_eq!(refused("STATUS", json!([])).0, 6);
    assert_eq!(refused("JUMP", json!({})).0, 4);
}

#[test]
fn each_version_gets_its_own_result() {
    if !can_run("each_version_gets_its_own_result") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::new(&format!("v{version}"));
        let answer = node.call("ADD", &pod.id, &pod.path(), &node.conf(version));
        assert!(answer.ok, "{answer:?}");
        assert_eq!(answer.json["cniVersion"], version);
        assert_eq!(
            answer.json["ips"][0].get("version").is_some(),
            version < "1.0.0"
        );
        assert_eq!(
            answer.json["interfaces"][0].get("mtu").is_some(),
            version >= "1.1.0"
        );
    }
}

#[test]
fn add_refuses_an_interface_that_exists() {
    if !can_run("add_refuses_an_interface_that_exists") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("c1");
    node.add(&pod);
    let again = node.call("ADD", &pod.id, &pod.path(), &node.conf("1.1.0"));
    assert_eq!(again.code(), 102);
    assert!(again.msg().contains("eth0 exists"), "{}", again.msg());
    // Another container that shares the namespace: the same name is taken there.
    let other = node.call("ADD", "c2", &pod.path(), &node.conf("1.1.0"));
    assert_eq!(other.code(), 102);
    assert_eq!(
        node.status()["attachments"].as_array().unwrap().len(),
        1,
        "the refused ADD holds nothing"
    );
}

#[test]
fn add_refuses_a_namespace_that_is_none() {
    if !can_run("add_refuses_a_namespace_that_is_none") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let missing = node.call("ADD", "c1", "/proc/nonexistent/ns/net", &node.conf("1.1.0"));
    assert_eq!(missing.code(), 8);
    let own = {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), node.netns.as_raw_fd())
    };
    let own = node.call("ADD", "c1", &own, &node.conf("1.1.0"));
    assert_eq!(own.code(), 8, "{own:?}");
}

#[test]
fn del_can_be_repeated_and_needs_no_namespace() {
    if !can_run("del_can_be_repeated_and_needs_no_namespace") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("c1");
    node.add(&pod);
    for netns in ["", "/nonexistent", &pod.path()] {
        let answer = node.call("DEL", &pod.id, netns, &node.conf("1.1.0"));
        assert!(answer.ok && answer.json.is_null(), "{answer:?}");
    }
    assert!(pod.netlink().link("eth0").unwrap().is_none());
    let never = node.call("DEL", "never-added", "", &node.conf("0.3.1"));
    assert!(never.ok, "{never:?}");
}

#[test]
fn check_says_what_is_different() {
    if !can_run("check_says_what_is_different") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("c1");
    let mut conf = node.conf("1.1.0");
    assert_eq!(
        node.call("CHECK", &pod.id, &pod.path(), &conf).code(),
        7,
        "prevResult is missing"
    );
    conf["prevResult"] = node.add(&pod);
    let check = |conf: &serde_json::Value| node.call("CHECK", &pod.id, &pod.path(), conf);
    assert!(check(&conf).ok);
    let mut inside = pod.netlink();
    let link = inside.expect_link("eth0").unwrap().index;
    let default = inside
        .routes(linux::RouteFilter::main())
        .unwrap()
        .into_iter()
        .find(|route| route.dst.prefix_len() == 0)
        .unwrap();
    inside.delete_route(&default).unwrap();
    let answer = check(&conf);
    assert_eq!(answer.code(), 104);
    assert!(
        answer
            .msg()
            .contains("route 0.0.0.0/0 via 10.244.1.1 is not there"),
        "{}",
        answer.msg()
    );
    inside.add_route(&default).unwrap();
    assert!(check(&conf).ok);
    let address = inside
        .addresses(Some(link))
        .unwrap()
        .into_iter()
        .find(|a| a.net.addr().is_ipv4())
        .unwrap();
    inside.delete_address(&address).unwrap();
    assert!(
        check(&conf)
            .msg()
            .contains("address 10.244.1.2/24 is not on eth0")
    );
    inside.delete_link("eth0").unwrap();
    assert!(check(&conf).msg().contains("interface eth0 is not in"));
    node.del(&pod);
    assert_eq!(check(&conf).code(), 3);
    conf["cniVersion"] = "0.3.1".into();
    assert_eq!(check(&conf).code(), 1, "0.3.1 has no CHECK");
}

#[test]
fn status_and_add_wait_for_a_range() {
    if !can_run("status_and_add_wait_for_a_range") {
        return;
    }
    let node = Node::start(&[]);
    let pod = Pod::new("c1");
    assert_eq!(node.call("STATUS", "", "", &node.conf("1.1.0")).code(), 50);
    assert_eq!(
        node.call("ADD", &pod.id, &pod.path(), &node.conf("1.1.0"))
            .code(),
        11
    );
    assert!(
        !node.dir.path().join("net.d/10-flatnet.conflist").exists(),
        "no conflist before pods can be attached"
    );
    let ready = Node::start(&["10.244.1.0/24"]);
    let status = ready.call("STATUS", "", "", &ready.conf("1.1.0"));
    assert!(status.ok, "{status:?}");
    assert!(ready.dir.path().join("net.d/10-flatnet.conflist").exists());
}

#[test]
fn gc_removes_what_the_runtime_does_not_know() {
    if !can_run("gc_removes_what_the_runtime_does_not_know") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let (kept, stale) = (Pod::new("kept"), Pod::new("stale"));
    node.add(&kept);
    node.add(&stale);
    let mut conf = node.conf("1.1.0");
    assert_eq!(
        node.call("GC", "", "", &conf).code(),
        7,
        "without a list nothing is removed"
    );
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "kept", "ifname": "eth0"}]);
    assert!(node.call("GC", "", "", &conf).ok);
    assert!(kept.netlink().link("eth0").unwrap().is_some());
    assert!(stale.netlink().link("eth0").unwrap().is_none());
}

#[test]
fn a_chain_gets_the_results_together() {
    if !can_run("a_chain_gets_the_results_together") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("c1");
    let mut conf = node.conf("1.0.0");
    conf["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "net1", "sandbox": pod.path()}],
        "ips": [{"address": "192.0.2.5/24", "interface": 0}],
    });
    let answer = node.call("ADD", &pod.id, &pod.path(), &conf);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(answer.json["interfaces"][0]["name"], "net1");
    assert_eq!(answer.json["interfaces"][2]["name"], "eth0");
    assert_eq!(answer.json["ips"][1]["interface"], 2);
}

#[test]
fn requested_address_and_mac_are_honoured_or_refused() {
    if !can_run("requested_address_and_mac_are_honoured_or_refused") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pod = Pod::new("c1");
    let mut conf = node.conf("1.1.0");
    conf["runtimeConfig"] = json!({"ips": ["10.244.1.77"], "mac": "c2:11:22:33:44:55", "dns": {"servers": ["10.96.0.10"]}});
    let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1";
    let answer = node.call_with("ADD", &pod.id, &pod.path(), &conf, args);
    assert!(answer.ok, "{answer:?}");
    assert_eq!(ip_of(&answer.json, 0).to_string(), "10.244.1.77");
    assert_eq!(answer.json["interfaces"][1]["mac"], "c2:11:22:33:44:55");
    assert_eq!(answer.json["dns"]["nameservers"][0], "10.96.0.10");
    let mac = pod.netlink().expect_link("eth0").unwrap().mac.unwrap();
    assert_eq!(mac.to_string(), "c2:11:22:33:44:55");
    conf["runtimeConfig"] = json!({"ips": ["10.244.1.77"]});
    let other = Pod::new("c2");
    let refused = node.call("ADD", &other.id, &other.path(), &conf);
    assert_eq!(refused.code(), 101);
    assert!(
        refused
            .msg()
            .contains("10.244.1.77 is in use by pod default/web"),
        "{}",
        refused.msg()
    );
    let refused = node.call_with(
        "ADD",
        &other.id,
        &other.path(),
        &node.conf("1.1.0"),
        "IP=10.244.9.9",
    );
    assert!(
        refused
            .msg()
            .contains("outside this node's range 10.244.1.0/24"),
        "{}",
        refused.msg()
    );
}

#[test]
fn with_the_agent_away_add_waits_and_del_cleans_up() {
    if !can_run("with_the_agent_away_add_waits_and_del_cleans_up") {
        return;
    }
    let mut node = Node::start(&["10.244.1.0/24"]);
    let (kept, gone, next) = (Pod::new("kept"), Pod::new("gone"), Pod::new("next"));
    let mut conf = node.conf("1.1.0");
    conf["prevResult"] = node.add(&kept);
    node.add(&gone);
    node.kill_agent();
    let add = node.call("ADD", &next.id, &next.path(), &node.conf("1.1.0"));
    assert_eq!(add.code(), 11);
    assert!(
        add.msg()
            .contains("is `flatnet agent` running on this node?"),
        "{}",
        add.msg()
    );
    assert_eq!(node.call("STATUS", "", "", &node.conf("1.1.0")).code(), 50);
    assert_eq!(node.call("CHECK", &kept.id, &kept.path(), &conf).code(), 11);
    node.del(&gone);
    assert!(gone.netlink().link("eth0").unwrap().is_none());
    node.start_agent();
    let status = node.status();
    let attached: Vec<&str> = status["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a["container"].as_str().unwrap())
        .collect();
    assert_eq!(attached, ["kept"]);
    assert!(node.call("CHECK", &kept.id, &kept.path(), &conf).ok);
    assert_eq!(
        std::fs::read_dir(node.dir.path().join("state/released"))
            .unwrap()
            .count(),
        0
    );
}
