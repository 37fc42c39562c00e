//! Services of type LoadBalancer, seen by the client outside.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use linux::{NetNs, run_in};
use nix::sys::signal::Signal;

use crate::cluster::{Cluster, eventually, root};

const PATIENCE: Duration = Duration::from_secs(30);
/// Within this time another node answers.
const FAILOVER: Duration = Duration::from_secs(2);

/// One request of the client outside; true where it is answered.
fn asks(client: &NetNs, address: SocketAddr) -> bool {
    let patience = Duration::from_millis(150);
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        Ok(stream.read(&mut [0; 16])? > 0)
    };
    run_in(client, ask).unwrap().unwrap_or(false)
}

/// What the client saw while `hurt` was done: from when on it was not answered, until when.
fn outage(client: &NetNs, address: SocketAddr, hurt: impl FnOnce() + Send) -> Duration {
    let (watch, mut last, mut worst) = (Duration::from_secs(4), Instant::now(), Duration::ZERO);
    std::thread::scope(|scope| {
        let hurt = scope.spawn(hurt);
        let begun = Instant::now();
        while begun.elapsed() < watch || !hurt.is_finished() {
            if asks(client, address) {
                worst = worst.max(last.elapsed());
                last = Instant::now();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    worst.max(last.elapsed())
}

fn holder(cluster: &Cluster, lease: &str) -> String {
    let words = [
        "-n",
        "kube-system",
        "get",
        "lease",
        lease,
        "--ignore-not-found",
    ];
    let path = ["-o", "jsonpath={.spec.holderIdentity}"];
    cluster.kube(&[&words[..], &path[..]].concat())
}

fn another_holder(cluster: &Cluster, lease: &str, old: &str) -> String {
    eventually("another node holds it", PATIENCE, || {
        Some(holder(cluster, lease)).filter(|new| !new.is_empty() && new != old)
    })
}

/// The address of a Service, once it has one.
fn address(cluster: &Cluster, service: &str) -> SocketAddr {
    let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
    let ip = eventually("the Service has an address", PATIENCE, || {
        let ip = cluster.kube(&["get", "service", service, "-o", path]);
        ip.parse::<IpAddr>().ok()
    });
    SocketAddr::new(ip, 80)
}

/// A server on one node, behind a Service of type LoadBalancer.
fn serve_on(cluster: &Cluster, name: &str, node: &str, policy: &str) {
    let spec = format!(
        r#"{{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":0,"containers":[{{"name":"{name}","image":"nginx"}}]}}}}"#
    );
    let label = format!("app={name}");
    let overrides = format!("--overrides={spec}");
    cluster.kube(&["run", name, "--image=nginx", "--labels", &label, &overrides]);
    let manifest = format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}"}},"spec":{{"type":"LoadBalancer","ipFamilyPolicy":"RequireDualStack","externalTrafficPolicy":"{policy}","selector":{{"app":"{name}"}},"ports":[{{"port":80}}]}}}}"#
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), manifest).unwrap();
    let path = file.path().display().to_string();
    cluster.kube(&["apply", "-f", &path]);
    cluster.kube(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=30s",
        &format!("pod/{name}"),
    ]);
}

fn signal(cluster: &Cluster, node: &str, signal: Signal) {
    let mount = lab::cluster::cgroup::mount().unwrap();
    let folder = mount.join(cluster.paths.node_cgroup(node)).join("agent");
    let all = lab::cluster::cgroup::processes(&folder);
    assert_eq!(all.len(), 1, "{all:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(all[0]), signal).unwrap();
}

#[test]
fn the_client_outside_reaches_an_address_that_moves_when_its_node_dies() {
    let test = "the_client_outside_reaches_an_address_that_moves_when_its_node_dies";
    if !root(test) {
        return;
    }
    let cluster = Cluster::up("balancer", &["--dual-stack"]);
    let client = NetNs::named(&cluster.paths.netns("client")).unwrap();
    serve_on(&cluster, "web", "node1", "Cluster");
    let web = address(&cluster, "web");
    assert_eq!(web.to_string(), "10.0.1.200:80");
    eventually("the client is answered", PATIENCE, || {
        asks(&client, web).then_some(())
    });
    let six: SocketAddr = "[fd00:10:0:1::200]:80".parse().unwrap();
    eventually("the client is answered by IPv6 too", PATIENCE, || {
        asks(&client, six).then_some(())
    });
    let lease = "flatnet-announce-10-0-1-200-default";

    // Where the server is the address shall not be: its node is not to die.
    cluster.kube(&["label", "node", "node1", EXCLUDED]);
    for round in 0..3 {
        let old = another_holder(&cluster, lease, "node1");
        let out = outage(&client, web, || cluster_power(&cluster, "stop", &old));
        println!("round {round}: {old} without power: {out:?}");
        assert!(out < FAILOVER, "{out:?}");
        assert_ne!(holder(&cluster, lease), old);
        assert!(asks(&client, six));
        cluster_power(&cluster, "start", &old);
    }
    for round in 0..3 {
        let old = another_holder(&cluster, lease, "node1");
        // A router that asks anew finds nobody until another node answers.
        let out = outage(&client, web, || {
            signal(&cluster, &old, Signal::SIGKILL);
            forget(&cluster, web.ip());
        });
        println!("round {round}: {old} without agent: {out:?}");
        assert!(out < FAILOVER, "{out:?}");
        assert_ne!(holder(&cluster, lease), old);
        cluster.run(&["up"]);
    }
    // Without the API server nobody takes over, and nobody gives up.
    let old = another_holder(&cluster, lease, "node1");
    let mount = lab::cluster::cgroup::mount().unwrap();
    let apiserver = mount.join(cluster.paths.cgroup()).join("apiserver");
    let out = outage(&client, web, || {
        let pid = lab::cluster::cgroup::processes(&apiserver)[0];
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        forget(&cluster, web.ip());
    });
    println!("without the API server: {out:?}");
    assert!(out < Duration::from_millis(700), "{out:?}");
    cluster.run(&["up"]);
    assert_eq!(holder(&cluster, lease), old);
    assert!(asks(&client, web));

    cut_off(&cluster, &client, web, lease);
    local(&cluster, &client);
    cluster.down();
}

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers=";

/// A node that does not reach the API goes on answering, until another one takes over; at no time
/// is nobody there, and then never two.
fn cut_off(cluster: &Cluster, client: &NetNs, web: SocketAddr, lease: &str) {
    let old = holder(cluster, lease);
    let netns = NetNs::named(&cluster.paths.netns(&old)).unwrap();
    let mut netlink = linux::Netlink::open_in(&netns).unwrap();
    let api: ipnet::IpNet = "10.0.1.1/32".parse().unwrap();
    let nowhere = linux::Route {
        kind: linux::RouteType::Blackhole,
        dev: None,
        ..linux::Route::new(api, 0)
    };
    netlink.add_route(&nowhere).unwrap();
    let out = outage(client, web, || {
        another_holder(cluster, lease, &old);
        // The router asks anew: who answers now?
        forget(cluster, web.ip());
    });
    println!("{old} cut off from the API: {out:?}");
    assert!(out < Duration::from_millis(700), "{out:?}");
    let log = cluster.paths.log(&format!("{old}-agent"));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("giving way"), "{old} did not give way");
    netlink.delete_route(&nowhere).unwrap();
}

/// An address whose packets stay on the node that gets them is where the endpoint is.
fn local(cluster: &Cluster, client: &NetNs) {
    serve_on(cluster, "here", "node2", "Local");
    let here = address(cluster, "here");
    eventually("the client is answered", PATIENCE, || {
        asks(client, here).then_some(())
    });
    let lease = format!(
        "flatnet-announce-{}",
        here.ip().to_string().replace('.', "-")
    );
    assert_eq!(holder(cluster, &lease), "node2");
    let out = outage(client, here, || {
        cluster.kube(&["run", "here-too", "--image=nginx", "--labels=app=here",
            r#"--overrides={"spec":{"nodeName":"node3","containers":[{"name":"here-too","image":"nginx"}]}}"#]);
        cluster.kube(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=30s",
            "pod/here-too",
        ]);
        cluster.kube(&["delete", "pod", "here", "--grace-period=1"]);
    });
    println!("the endpoint moved: {out:?}");
    assert_eq!(holder(cluster, &lease), "node3");
    assert!(out < FAILOVER, "{out:?}");
}

fn cluster_power(cluster: &Cluster, word: &str, node: &str) {
    cluster.run(&["node", word, node]);
}

/// The router forgets where the address is.
fn forget(cluster: &Cluster, ip: IpAddr) {
    let underlay = NetNs::named(&cluster.paths.netns("underlay")).unwrap();
    let mut netlink = linux::Netlink::open_in(&underlay).unwrap();
    let bridge = netlink.expect_link("fn-br0").unwrap().index;
    let _ = netlink.delete_neighbour(bridge, ip);
}
