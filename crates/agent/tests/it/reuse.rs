//! An address is given from pod to pod: each is judged by its own rules, never by its
//! predecessor's.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use linux::run_in;
use model::{Change, Config, Labels};
use pods::cni::Command;

use crate::node::{Agent, Node, eventually};
use crate::pod::{Pod, cni, namespace, policy, with_label};

/// How many pods come and go on each address.
const ROUNDS: usize = 24;
/// Asked for by name, so that they need no rest.
const ADDRESSES: [[u8; 4]; 3] = [[10, 244, 1, 10], [10, 244, 1, 11], [10, 244, 1, 12]];
const PORT: u16 = 80;

/// A pod of which anybody may hear, that hears each of those that may speak.
struct Well {
    pod: Pod,
    socket: UdpSocket,
}

impl Well {
    fn new(node: &Node, agent: &Agent) -> Self {
        agent.change(Pod::new("well", "well").known(Labels::default()));
        let pod = Pod::add(node, "well", "well");
        let at = SocketAddr::new(pod.ip.unwrap(), PORT);
        let socket = run_in(&pod.netns, || UdpSocket::bind(at)).unwrap().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        Self { pod, socket }
    }

    /// Counts what may speak, by name; whatever else is heard is a wrong verdict.
    fn listen(&self, stop: &AtomicBool, heard: &AtomicUsize, wrong: &AtomicUsize) {
        let mut text = [0; 64];
        while !stop.load(Ordering::Relaxed) {
            match self.socket.recv(&mut text) {
                Ok(length) if text[..length].starts_with(b"may") => {
                    heard.fetch_add(1, Ordering::Relaxed)
                }
                Ok(_) => wrong.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    assert!(matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut
                    ));
                    continue;
                }
            };
        }
    }
}

/// Sends to all addresses all the time, each time from another port and from the same one.
fn probe(from: &Pod, stop: &AtomicBool) {
    let steady = from.udp();
    while !stop.load(Ordering::Relaxed) {
        let fresh = from.udp();
        for ip in ADDRESSES {
            // A pod that is just gone is told of by an error of the one before.
            let _ = steady.send_to(b"probe", (IpAddr::from(ip), PORT));
            let _ = fresh.send_to(b"probe", (IpAddr::from(ip), PORT));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

struct Verdicts {
    /// What closed pods heard, and the well heard of them.
    wrong: AtomicUsize,
    /// Open pods that the well did not hear, or that heard nothing.
    deaf: AtomicUsize,
    heard: AtomicUsize,
}

/// One pod after another on one address, each as fast as it can.
fn come_and_go(node: &Node, agent: &Agent, well: IpAddr, at: usize, verdicts: &Verdicts) {
    let ip = IpAddr::from(ADDRESSES[at]);
    for round in 0..ROUNDS {
        let may = (round + at).is_multiple_of(2);
        let role = if may { "may" } else { "mustnot" };
        let mut pod = Pod::new("d", &format!("{role}{at}x{round}"));
        let labels: Labels = [("role", role)].into();
        agent.change(pod.known(labels.clone()));
        pod.attach(node, Some(ip)).unwrap();
        let server = SocketAddr::new(ip, PORT);
        let socket = run_in(&pod.netns, || UdpSocket::bind(server))
            .unwrap()
            .unwrap();
        socket.send_to(role.as_bytes(), (well, PORT)).unwrap();
        // Its address is told of late, as the kubelet does, and its end too, or never in time.
        let mut object = pod.object(labels);
        object.ips = vec![ip];
        object.created = i64::try_from(round).unwrap();
        agent.change(Change::Pod(Arc::new(object.clone())));
        socket.send_to(role.as_bytes(), (well, PORT)).unwrap();
        let patience = if may { 5000 } else { 10 };
        socket
            .set_read_timeout(Some(Duration::from_millis(patience)))
            .unwrap();
        match (socket.recv(&mut [0; 16]), may) {
            (Ok(_), false) => verdicts.wrong.fetch_add(1, Ordering::Relaxed),
            (Err(_), true) => verdicts.deaf.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        pod.detach(node);
        match round % 3 {
            0 => agent.change(Change::PodGone("d".into(), pod.name.clone())),
            1 => {
                object.leaving = true;
                agent.change(Change::Pod(Arc::new(object)));
            }
            _ => {}
        }
    }
}

/// The same policy about pods with this label alone.
fn about(label: (&str, &str), policy: Change) -> Change {
    let Change::Policy(policy) = policy else {
        return policy;
    };
    let mut policy = (*policy).clone();
    policy.pods.match_labels = [label].into();
    Change::Policy(Arc::new(policy))
}

#[test]
fn an_address_never_carries_the_rules_of_the_pod_before() {
    let test = "an_address_never_carries_the_rules_of_the_pod_before";
    if !testing::root(test) {
        return;
    }
    let node = Node::new();
    let agent = node.start(&Config::default());
    for name in ["d", "well"] {
        agent.change(namespace(name));
    }
    // Who may, speaks with everybody; who must not, with nobody.
    let may = || {
        Some(vec![
            with_label("role", "prober"),
            with_label("role", "may"),
        ])
    };
    agent.change(policy("well", may(), None));
    agent.change(about(
        ("role", "mustnot"),
        policy("d", Some(Vec::new()), None),
    ));
    eventually("pods can be attached", || {
        let status = Pod::new("d", "nobody").call(Command::Status, None);
        cni(&node, &status).is_ok()
    });
    let well = Well::new(&node, &agent);
    let prober = Pod::new("well", "prober");
    agent.change(prober.known([("role", "prober")].into()));
    let prober = Pod::add(&node, "well", "prober");
    let verdicts = Verdicts {
        wrong: AtomicUsize::new(0),
        deaf: AtomicUsize::new(0),
        heard: AtomicUsize::new(0),
    };
    let stop = AtomicBool::new(false);
    let ip = well.pod.ip.unwrap();
    thread::scope(|scope| {
        scope.spawn(|| well.listen(&stop, &verdicts.heard, &verdicts.wrong));
        scope.spawn(|| probe(&prober, &stop));
        let (node, agent, verdicts) = (&node, &agent, &verdicts);
        let spawn = |at| scope.spawn(move || come_and_go(node, agent, ip, at, verdicts));
        let all: Vec<_> = (0..ADDRESSES.len()).map(spawn).collect();
        let ended: Vec<_> = all.into_iter().map(|one| one.join()).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    assert_eq!(count(&verdicts.wrong), 0, "packets that must not arrive");
    assert_eq!(
        count(&verdicts.deaf),
        0,
        "pods that were closed and must not be"
    );
    // Both packets of each.
    assert_eq!(count(&verdicts.heard), ADDRESSES.len() * ROUNDS);
}
