//! Never the same address twice: many at once, kills in the middle, a full range.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::thread;

use super::lab::{Answer, Node, Pod, can_run, ip_of};

/// Runs ADD for all pods, eight at a time.
fn add_all(node: &Node, pods: &[Pod]) -> Vec<Answer> {
    let next = Mutex::new(0..pods.len());
    let answers: Mutex<BTreeMap<usize, Answer>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().unwrap().next() else {
                        return;
                    };
                    let pod = &pods[at];
                    let answer = node.call("ADD", &pod.id, &pod.path(), &node.conf("1.1.0"));
                    answers.lock().unwrap().insert(at, answer);
                }
            });
        }
    });
    answers.into_inner().unwrap().into_values().collect()
}

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|n| Pod::new(&format!("pod{n}"))).collect()
}

/// The address eth0 really has.
fn address_in(pod: &Pod) -> Option<IpAddr> {
    let mut netlink = pod.netlink();
    let link = netlink.link("eth0").unwrap()?;
    let addresses = netlink.addresses(Some(link.index)).unwrap();
    addresses
        .iter()
        .map(|address| address.net.addr())
        .find(IpAddr::is_ipv4)
}

fn assert_all_different(addresses: &[IpAddr]) {
    let mut sorted = addresses.to_vec();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), addresses.len(), "{addresses:?}");
}

#[test]
fn two_hundred_at_once_get_two_hundred_addresses() {
    if !can_run("two_hundred_at_once_get_two_hundred_addresses") {
        return;
    }
    let node = Node::start(&["10.244.1.0/24"]);
    let pods = pods(200);
    let answers = add_all(&node, &pods);
    assert!(
        answers.iter().all(|answer| answer.ok),
        "{:?}",
        answers.iter().find(|answer| !answer.ok)
    );
    let addresses: Vec<IpAddr> = answers
        .iter()
        .map(|answer| ip_of(&answer.json, 0))
        .collect();
    assert_all_different(&addresses);
    let real: Vec<IpAddr> = pods.iter().filter_map(address_in).collect();
    assert_eq!(real, addresses);
}

#[test]
fn a_full_range_says_so() {
    if !can_run("a_full_range_says_so") {
        return;
    }
    let node = Node::start(&["10.244.1.0/28"]);
    let pods = pods(14);
    let answers = add_all(&node, &pods);
    let (given, refused): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.ok);
    assert_eq!((given.len(), refused.len()), (13, 1));
    assert_eq!(refused[0].code(), 11);
    assert!(
        refused[0]
            .msg()
            .contains("no address left in 10.244.1.0/28: 13 of 13 in use"),
        "{}",
        refused[0].msg()
    );
}

#[test]
fn an_agent_killed_amid_two_hundred_adds_gives_no_address_twice() {
    if !can_run("an_agent_killed_amid_two_hundred_adds_gives_no_address_twice") {
        return;
    }
    let mut node = Node::start(&["10.244.1.0/24"]);
    let pods = pods(200);
    let mut acknowledged: BTreeMap<usize, IpAddr> = BTreeMap::new();
    let chunks = [0..60, 60..130, 130..200];
    for chunk in chunks {
        // The kill comes once some of the chunk are attached, and while others are under way.
        let victim = node.take_agent();
        let before = acknowledged.len();
        let answers = thread::scope(|scope| {
            let adding = scope.spawn(|| add_all(&node, &pods[chunk.clone()]));
            super::lab::until("a third of the pods are attached", || {
                let attached = pods[chunk.clone()]
                    .iter()
                    .filter(|pod| address_in(pod).is_some())
                    .count();
                attached >= chunk.len() / 3
            });
            drop(victim);
            adding.join().unwrap()
        });
        for (at, answer) in chunk.zip(answers) {
            if answer.ok {
                acknowledged.insert(at, ip_of(&answer.json, 0));
            } else {
                assert_eq!(answer.code(), 11, "{answer:?}");
            }
        }
        assert!(acknowledged.len() > before);
        node.start_agent();
    }
    // What was acknowledged stands.
    for (at, ip) in &acknowledged {
        assert_eq!(address_in(&pods[*at]), Some(*ip));
    }
    // What was refused is done again, as a runtime does: DEL, then ADD.
    for (at, pod) in pods.iter().enumerate() {
        acknowledged.entry(at).or_insert_with(|| {
            node.del(pod);
            ip_of(&node.add(pod), 0)
        });
    }
    let addresses: Vec<IpAddr> = acknowledged.values().copied().collect();
    assert_eq!(addresses.len(), 200);
    assert_all_different(&addresses);
    let real: Vec<IpAddr> = pods.iter().filter_map(address_in).collect();
    assert_eq!(real, addresses);
    // No leak: the agent knows of exactly these, and after DEL of none.
    assert_eq!(node.status()["attachments"].as_array().unwrap().len(), 200);
    for pod in &pods {
        node.del(pod);
    }
    assert_eq!(node.status()["pools"][0]["used"], 0);
}

#[test]
fn pods_that_vanish_while_the_agent_is_away_are_released() {
    if !can_run("pods_that_vanish_while_the_agent_is_away_are_released") {
        return;
    }
    let mut node = Node::start(&["10.244.1.0/24"]);
    let kept = Pod::new("kept");
    node.add(&kept);
    let gone = Pod::new("gone");
    node.add(&gone);
    node.kill_agent();
    drop(gone);
    let mut netlink = node.netlink();
    super::lab::until("the namespace's links are gone", || {
        netlink
            .links()
            .unwrap()
            .iter()
            .filter(|link| pods::manager::is_pod_link(&link.name))
            .count()
            == 1
    });
    node.start_agent();
    let status = node.status();
    assert_eq!(status["attachments"].as_array().unwrap().len(), 1);
    assert_eq!(status["attachments"][0]["container"], "kept");
}

#[test]
fn a_lost_journal_cuts_no_pod_and_gives_no_address_twice() {
    if !can_run("a_lost_journal_cuts_no_pod_and_gives_no_address_twice") {
        return;
    }
    let mut node = Node::start(&["10.244.1.0/24"]);
    let living = pods(3);
    let before: Vec<IpAddr> = living.iter().map(|pod| ip_of(&node.add(pod), 0)).collect();
    node.kill_agent();
    std::fs::remove_dir_all(node.dir.path().join("state")).unwrap();
    node.start_agent();
    let new = Pod::new("new");
    let ip = ip_of(&node.add(&new), 0);
    assert!(!before.contains(&ip), "{ip} twice");
    assert_eq!(
        living.iter().filter_map(address_in).collect::<Vec<_>>(),
        before
    );
    for pod in living.iter().chain([&new]) {
        node.del(pod);
    }
    assert_eq!(node.status()["pools"][0]["used"], 0);
}

/// In a mount namespace of its own, so that the small disk goes with the test.
#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    if !can_run("a_full_disk_refuses_and_loses_nothing") {
        return;
    }
    let body = || {
        use nix::mount::{MsFlags, mount};
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let mut node = Node::without_agent(&["10.244.1.0/24"]);
        let state = node.dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        mount(
            Some("tmpfs"),
            &state,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=24k"),
        )
        .unwrap();
        node.start_agent();
        let mut attached = Vec::new();
        let refused = loop {
            let pod = Pod::new(&format!("p{}", attached.len()));
            let answer = node.call("ADD", &pod.id, &pod.path(), &node.conf("1.1.0"));
            if !answer.ok {
                break answer;
            }
            attached.push((ip_of(&answer.json, 0), pod));
            assert!(attached.len() < 200, "the disk is never full");
        };
        assert_eq!(refused.code(), 5);
        assert!(
            refused.msg().contains("cannot be written down"),
            "{}",
            refused.msg()
        );
        node.kill_agent();
        node.start_agent();
        assert_eq!(
            node.status()["attachments"].as_array().unwrap().len(),
            attached.len()
        );
        for (ip, pod) in &attached {
            assert_eq!(address_in(pod), Some(*ip));
        }
        // Pods can go although nothing can be written.
        node.del(&attached[0].1);
        assert_eq!(address_in(&attached[0].1), None);
    };
    thread::scope(|scope| scope.spawn(body).join()).unwrap();
}
