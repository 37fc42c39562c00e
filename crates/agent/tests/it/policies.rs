//! Policies follow the updates, and a pod is judged before it runs.

use std::thread;
use std::time::{Duration, Instant};

use linux::{Nftables, run_in};
use model::{Change, Config, Labels};
use nft::Family;
use pods::cni::{Command, code};

use crate::node::{METRICS, Node, eventually};
use crate::pod::{Pod, cni, namespace, policy, with_label};

fn table(node: &Node) -> bool {
    let mut nftables = Nftables::open_in(&node.netns).unwrap();
    let table = nftables.read(Family::Inet, policy_table());
    table.unwrap().is_some()
}

fn policy_table() -> &'static str {
    policy::render::nftables::TABLE
}

fn none() -> Labels {
    Labels::default()
}

#[test]
fn a_pod_is_judged_before_its_add_is_answered() {
    let test = "a_pod_is_judged_before_its_add_is_answered";
    if !testing::root(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&Config::default());
    for name in ["open", "closed"] {
        agent.change(namespace(name));
    }
    agent.change(policy("closed", None, Some(Vec::new())));
    let server = {
        let server = Pod::new("open", "server");
        agent.change(server.known(none()));
        eventually("pods can be attached", || {
            let status = server.call(Command::Status, None);
            cni(&node, &status).is_ok()
        });
        Pod::add(&node, "open", "server")
    };
    let ip = server.ip.unwrap();
    let bind = || std::net::UdpSocket::bind((ip, 80));
    let hears = run_in(&server.netns, bind).unwrap().unwrap();
    hears
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();

    // What its first container would do first.
    for n in 0..20 {
        let mut pod = Pod::new("closed", &format!("pod{n}"));
        agent.change(pod.known(none()));
        pod.attach(&node, None).unwrap();
        pod.udp().send_to(b"closed", (ip, 80)).unwrap();
    }
    // Nobody is asked of what no policy can be about.
    let mut free = Pod::new("open", "unknown");
    free.attach(&node, None).unwrap();
    free.udp().send_to(b"open", (ip, 80)).unwrap();
    let mut heard = [0; 16];
    let length = hears.recv(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"open", "the first that was let through");
}

/// The object of a pod may come after its ADD: that one waits for it, and nobody else does.
#[test]
fn an_add_waits_for_its_pod_alone() {
    let test = "an_add_waits_for_its_pod_alone";
    if !testing::root(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&Config::default());
    agent.change(namespace("open"));
    agent.change(namespace("d"));
    agent.change(policy(
        "d",
        Some(vec![with_label("may", "yes")]),
        Some(Vec::new()),
    ));
    eventually("pods can be attached", || {
        let status = Pod::new("d", "nobody").call(Command::Status, None);
        cni(&node, &status).is_ok()
    });
    let begun = Instant::now();
    thread::scope(|scope| {
        let late = scope.spawn(|| Pod::add(&node, "d", "late"));
        eventually("late is attached", || attached(&node, "d-late"));
        let client = Pod::add(&node, "open", "client");
        assert!(
            !late.is_finished() || begun.elapsed() > Duration::from_secs(2),
            "it waits"
        );
        agent.change(client.known([("may", "yes")].into()));
        let object = Pod::new("d", "late").known(none());
        agent.change(object);
        let late = late.join().unwrap();
        let _listener = late.listen(80);
        eventually("it is reached", || client.reaches(late.ip.unwrap(), 80));
        let server = client.listen(80);
        assert!(!late.reaches(client.ip.unwrap(), 80));
        drop(server);
    });

    // Never told of: it starts, closed, and opens with its object.
    let lost = Pod::add(&node, "d", "lost");
    let client = Pod::add(&node, "open", "client2");
    let _listener = lost.listen(80);
    assert!(!client.reaches(lost.ip.unwrap(), 80));
    let metrics = node.get(METRICS, "/metrics").unwrap();
    let line = "flatnet_policy_unknown_pods_total 1";
    assert!(metrics.lines().any(|other| other == line), "{metrics}");
    agent.change(client.known([("may", "yes")].into()));
    agent.change(lost.known(none()));
    eventually("it opens", || client.reaches(lost.ip.unwrap(), 80));
}

fn attached(node: &Node, container: &str) -> bool {
    let asked = pods::wire::ask(
        &node.socket(),
        &pods::wire::Request::Status,
        Duration::from_secs(20),
    );
    match asked {
        Ok(pods::wire::Answer::Ok(status)) => {
            let all = status["attachments"].as_array().unwrap();
            all.iter().any(|one| one["container"] == container)
        }
        _ => false,
    }
}

#[test]
fn policies_follow_the_cluster_and_survive_a_restart() {
    let test = "policies_follow_the_cluster_and_survive_a_restart";
    if !testing::root(test) {
        return;
    }
    let node = Node::new();
    let config = Config::default();
    let agent = node.start_unaware(&config);
    let (mut server, mut client) = (Pod::new("d", "server"), Pod::new("d", "client"));
    // The node is ready, and knows too little to attach anybody.
    eventually("it waits for policies alone", || {
        let error = server.attach(&node, None).unwrap_err();
        error.details.contains("policies are not known")
    });
    let status = cni(&node, &server.call(Command::Status, None)).unwrap_err();
    assert_eq!(status.code, code::NOT_AVAILABLE);
    let world = |client_labels: Labels| {
        let both = [server.known(none()), client.known(client_labels)];
        [namespace("d")].into_iter().chain(both).collect::<Vec<_>>()
    };
    let told = world(none());
    for change in told {
        agent.change(change);
    }
    agent.say(agent::Update::PoliciesSynced);
    eventually("pods can be attached", || {
        server.attach(&node, None).is_ok()
    });
    client.attach(&node, None).unwrap();
    let ip = server.ip.unwrap();
    let _listener = server.listen(80);
    eventually("nobody forbids it", || client.reaches(ip, 80));
    assert!(!table(&node), "no policy, no rule");

    let closed = || policy("d", Some(vec![with_label("may", "yes")]), None);
    agent.change(closed());
    eventually("it is closed", || !client.reaches(ip, 80));
    agent.change(client.known([("may", "yes")].into()));
    eventually("to all but some", || client.reaches(ip, 80));
    agent.change(client.known(none()));
    eventually("no longer to this one", || !client.reaches(ip, 80));

    // Somebody flushes the rules.
    let mut nftables = Nftables::open_in(&node.netns).unwrap();
    let removal = nft::Transaction {
        family: Family::Inet,
        table: policy_table().into(),
        ops: vec![nft::Op::DeleteTable],
    };
    nftables.apply(&removal).unwrap();
    eventually("it is healed", || table(&node) && !client.reaches(ip, 80));

    // Another agent knows nothing yet, not even whose the pods' addresses are.
    drop(agent);
    assert!(!client.reaches(ip, 80), "without an agent");
    let agent = node.start_unaware(&config);
    eventually("the agent answers", || {
        cni(&node, &server.call(Command::Status, None)).is_err_and(|error| error.code != code::IO)
    });
    assert!(!client.reaches(ip, 80), "before all is known");
    let mut objects = [server.object(none()), client.object(none())];
    for (object, pod) in objects.iter_mut().zip([&server, &client]) {
        object.ips = vec![pod.ip.unwrap()];
        agent.change(Change::Pod(std::sync::Arc::new(object.clone())));
    }
    agent.change(namespace("d"));
    agent.change(closed());
    agent.say(agent::Update::PoliciesSynced);
    eventually("policies are in force", || {
        cni(&node, &server.call(Command::Status, None)).is_ok()
    });
    assert!(!client.reaches(ip, 80), "when all is known");
    agent.change(Change::PolicyGone("d".into(), "policy".into()));
    eventually("it is open again", || {
        client.reaches(ip, 80) && !table(&node)
    });

    agent.change(closed());
    eventually("closed once more", || table(&node));
    drop(agent);
    assert!(table(&node), "rules outlive the agent");
    run_in(&node.netns, agent::cleanup).unwrap().unwrap();
    assert!(!table(&node));
}
