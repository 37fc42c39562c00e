//! Pods with different rights have the same address, one at once after the other, while both
//! nodes hear of it late and in any order, and policies, labels and namespaces change: there is
//! never a connection that no state allows that was in force meanwhile.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use linux::{NetNs, run_in};
use model::{Change, Key, Labels, Pod, Protocol};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{SockaddrStorage, connect};
use serde_json::{Value as Json, json};

use crate::lab::{self, Lab};
use crate::probe::{self, Outcome};
use crate::random::Random;
use crate::views::{Seen, Since, View, Views};
use crate::{objects, oracle};

/// How often the whole is done.
const RUNS: &str = "FLATNET_TEST_RUNS";
/// How often something changes in a run.
const ROUNDS: usize = 120;
/// How many connections of one place are waited for at once.
const AT_ONCE: usize = 20;

/// The shared address.
fn shared() -> [IpAddr; 2] {
    lab::addresses(0, 50)
}

/// One namespace for each sort of tenant.
const TENANTS: [&str; 2] = ["x", "z"];

/// A pod that will have the shared address.
fn tenant(number: usize, random: &mut Random) -> Pod {
    Pod {
        namespace: TENANTS[random.below(2)].into(),
        name: format!("t{number}"),
        uid: format!("uid{number}"),
        node: "node1".into(),
        ips: shared().into(),
        host_network: false,
        labels: rights(random),
        ports: Vec::new(),
        created: number as i64,
        leaving: false,
    }
}

fn rights(random: &mut Random) -> Labels {
    let right = if random.chance(2) { "yes" } else { "no" };
    Labels::from([("right", right)])
}

/// The policies that come and go.
fn policies() -> Vec<Json> {
    let yes = json!({"matchLabels": {"right": "yes"}});
    let no = json!({"matchLabels": {"right": "no"}});
    let red = json!({"matchLabels": {"team": "red"}});
    let mut all = vec![
        objects::policy(
            "y",
            "from-the-right",
            &json!({"podSelector": {}, "ingress": [{"from":
                [{"namespaceSelector": {}, "podSelector": yes.clone()}]}]}),
        ),
        objects::policy(
            "y",
            "from-red",
            &json!({"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": red}]}]}),
        ),
        objects::policy(
            "y",
            "to-the-right",
            &json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to":
                [{"namespaceSelector": {}, "podSelector": yes}]}]}),
        ),
        objects::cluster_policy(
            "nobody-else",
            &json!({"tier": "Admin", "priority": 1,
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": no.clone()}},
                "ingress": [{"action": "Deny", "from": [{"namespaces": {"matchLabels": {"ns": "y"}}}]}]}),
        ),
    ];
    for tenant in TENANTS {
        let spec = json!({"podSelector": no, "policyTypes": ["Ingress", "Egress"]});
        all.push(objects::policy(tenant, "closed", &spec));
    }
    all
}

/// What the connections came to.
#[derive(Default)]
struct Tally {
    tried: AtomicUsize,
    let_through: AtomicUsize,
    failed: AtomicBool,
}

/// Tries connections from a namespace, one after the other, until it is over.
struct Hammer<'a> {
    netns: NetNs,
    views: &'a Views,
    tally: &'a Tally,
    over: Arc<AtomicBool>,
    /// Whose they are.
    from: (usize, Key),
    from_ips: [IpAddr; 2],
    /// Node and addresses of those that are tried.
    to: Vec<(usize, [IpAddr; 2])>,
}

impl Hammer<'_> {
    fn run(self) {
        run_in(&self.netns, || {
            // The same ports as whoever had the address before.
            let datagrams = [false, true].map(|v6| {
                let any: IpAddr = if v6 { [0_u16; 8].into() } else { [0; 4].into() };
                let socket = UdpSocket::bind((any, 5555 + u16::from(v6))).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            });
            // When each datagram was sent, and the connections that are under way.
            let mut sent: Vec<Since> = Vec::new();
            let mut under_way = VecDeque::new();
            for number in 0_usize.. {
                if self.over.load(Ordering::SeqCst) || self.tally.failed.load(Ordering::SeqCst) {
                    return;
                }
                let (node, ips) = self.to[number / 4 % self.to.len()];
                let v6 = number % 2 == 1;
                let to = (node, ips[usize::from(v6)]);
                self.tally.tried.fetch_add(1, Ordering::Relaxed);
                let since = self.views.now();
                if number / 2 % 2 == 0 {
                    under_way.extend(connecting((to.1, 80).into()).map(|fd| (fd, to, since)));
                } else {
                    let _ = datagrams[usize::from(v6)]
                        .send_to(&(sent.len() as u64).to_be_bytes(), (to.1, 80));
                    sent.push(since);
                }
                self.look(&datagrams, &sent, &mut under_way);
                std::thread::sleep(Duration::from_micros(100));
            }
        })
        .unwrap();
    }

    /// What is let through by now.
    fn look(&self, datagrams: &[UdpSocket], sent: &[Since], under_way: &mut UnderWay) {
        under_way.retain(|(fd, to, since)| {
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
            let ready = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1));
            if ready && probe::connected(fd.as_fd()) == Outcome::Answered {
                self.through(Protocol::Tcp, *to, *since);
            }
            !ready
        });
        while under_way.len() > AT_ONCE {
            under_way.pop_front();
        }
        let mut buffer = [0; 8];
        for socket in datagrams {
            while let Ok((8, from)) = socket.recv_from(&mut buffer) {
                let since = sent[u64::from_be_bytes(buffer) as usize];
                let mut to = self.to.iter();
                if let Some((node, _)) = to.find(|(_, ips)| ips.contains(&from.ip())) {
                    self.through(Protocol::Udp, (*node, from.ip()), since);
                }
            }
        }
    }

    fn through(&self, protocol: Protocol, (to, to_ip): (usize, IpAddr), since: Since) {
        self.tally.let_through.fetch_add(1, Ordering::Relaxed);
        let seen = Seen {
            from: self.from.clone(),
            from_ip: self.from_ips[usize::from(to_ip.is_ipv6())],
            to,
            to_ip,
            port: (protocol, 80),
        };
        if !self.views.may(since, &seen) {
            self.tally.failed.store(true, Ordering::SeqCst);
            panic!("let through, and no state allows it: {seen:?} since {since:?}");
        }
    }
}

/// Connections, to whom, and since when.
type UnderWay = VecDeque<(OwnedFd, (usize, IpAddr), Since)>;

/// A connection under way.
fn connecting(to: SocketAddr) -> Option<OwnedFd> {
    let fd = probe::tcp(to.is_ipv6());
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(nix::Error::EINPROGRESS) => Some(fd),
        Err(_) => None,
    }
}

/// The nodes and what they have not heard yet.
struct Race<'a> {
    lab: Lab,
    views: &'a Views,
    /// Of each node what it will hear, in its order.
    news: [VecDeque<Change>; 2],
    tenant: Pod,
    policies: Vec<(Json, bool)>,
    team: [bool; 2],
}

impl Race<'_> {
    /// One node takes the news in that it has, or a part.
    fn turn(&mut self, at: usize, count: usize) {
        for _ in 0..count {
            let Some(change) = self.news[at].pop_front() else {
                break;
            };
            self.lab.tell(at, change);
        }
        let node = &self.lab.nodes[at];
        self.views.0[at].begin(View {
            cluster: node.cluster.clone(),
            locals: node.locals.clone(),
        });
        let report = self.lab.turn(at);
        assert_eq!(report.errors, []);
        self.views.0[at].finish();
    }

    fn tell_all(&mut self, change: &Change) {
        for news in &mut self.news {
            news.push_back(change.clone());
        }
        self.lab.cluster.take(change.clone());
    }

    /// The pod is gone and the next has its address; who hears what first is left to chance.
    fn swap(&mut self, number: usize, random: &mut Random) {
        let old = self.tenant.clone();
        self.lab.stop(&(old.namespace.clone(), old.name.clone()));
        if random.chance(2) {
            self.turn(0, 0);
        }
        let new = tenant(number, random);
        self.lab.attach(&new);
        let mut bye = vec![Change::PodGone(old.namespace.clone(), old.name.clone())];
        if random.chance(2) {
            let leaving = Pod {
                leaving: true,
                ..old
            };
            bye.insert(0, Change::Pod(Arc::new(leaving)));
        }
        let mut hello = vec![Change::Pod(Arc::new(new.clone()))];
        if random.chance(2) {
            let early = Pod {
                ips: Vec::new(),
                ..new.clone()
            };
            hello.insert(0, Change::Pod(Arc::new(early)));
        }
        for change in bye.iter().chain(&hello) {
            self.lab.cluster.take(change.clone());
        }
        for news in &mut self.news {
            let (mut bye, mut hello) = (bye.iter(), hello.iter());
            loop {
                let (first, second) = if random.chance(2) {
                    (&mut bye, &mut hello)
                } else {
                    (&mut hello, &mut bye)
                };
                match first.next().or_else(|| second.next()) {
                    Some(change) => news.push_back(change.clone()),
                    None => break,
                }
            }
        }
        self.tenant = new;
        // What the plugin waits for: the pod's own node has brought it to its kernel.
        self.turn(0, random.below(3));
        let key = (self.tenant.namespace.clone(), self.tenant.name.clone());
        self.lab.serve(&key, &lab::PORTS);
    }

    fn change(&mut self, random: &mut Random) {
        match random.below(4) {
            0 => {
                self.tenant.labels = rights(random);
                let pod = Change::Pod(Arc::new(self.tenant.clone()));
                self.tell_all(&pod);
            }
            1 => {
                let which = random.below(2);
                self.team[which] = !self.team[which];
                let mut namespace = lab::namespace(TENANTS[which]);
                let team = if self.team[which] { "red" } else { "blue" };
                namespace.labels = Labels::from([("team", team)]);
                self.tell_all(&Change::Namespace(Arc::new(namespace)));
            }
            _ => {
                let which = random.below(self.policies.len());
                let (object, there) = &mut self.policies[which];
                *there = !*there;
                let change = if *there {
                    objects::read(object).0
                } else {
                    objects::gone(object)
                };
                self.tell_all(&change);
            }
        }
    }

    /// Whoever has the shared address tries to reach the others.
    fn hammer<'a>(
        &self,
        views: &'a Views,
        tally: &'a Tally,
        over: &Arc<AtomicBool>,
        key: &Key,
        to: Vec<(usize, [IpAddr; 2])>,
    ) -> Hammer<'a> {
        let pod = &self.lab.pods[key];
        let path = format!("/proc/self/fd/{}", pod.station.netns.as_raw_fd());
        Hammer {
            netns: NetNs::open(path).unwrap(),
            views,
            tally,
            over: Arc::clone(over),
            from: (pod.node, key.clone()),
            from_ips: pod.ips,
            to,
        }
    }
}

/// A thread that hammers, and what ends it.
struct Running<'scope> {
    over: Arc<AtomicBool>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> Running<'scope> {
    fn start<'env: 'scope>(scope: &'scope Scope<'scope, 'env>, hammer: Hammer<'env>) -> Self {
        Self {
            over: Arc::clone(&hammer.over),
            thread: scope.spawn(move || hammer.run()),
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

/// Ends what hammers also when the test ends by a panic.
struct Over<'a>(&'a Tally);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let (views, tally) = (Views::new(), Tally::default());
    let mut lab = Lab::new();
    let tenant = tenant(0, &mut random);
    lab.start(&tenant, &lab::PORTS);
    lab.take(Change::Pod(Arc::new(tenant.clone())));
    let policies = policies().into_iter().map(|object| (object, false));
    let mut race = Race {
        lab,
        views: &views,
        news: Default::default(),
        tenant,
        policies: policies.collect(),
        team: [true, false],
    };
    race.turn(0, 0);
    race.turn(1, 0);
    // y/a and y/c are on node 2, y/b is on node 1 as the shared address is.
    let others = ["y/a", "y/b"].map(lab::key);
    std::thread::scope(|scope| {
        let _over = Over(&tally);
        let never = Arc::new(AtomicBool::new(false));
        let others: Vec<(Key, usize, [IpAddr; 2])> = others
            .iter()
            .map(|key| (key.clone(), race.lab.pods[key].node, race.lab.pods[key].ips))
            .collect();
        let to: Vec<_> = others.iter().map(|(_, node, ips)| (*node, *ips)).collect();
        let outside: Vec<_> = others
            .iter()
            .map(|(key, ..)| {
                let into = vec![(0, shared())];
                Running::start(scope, race.hammer(&views, &tally, &never, key, into))
            })
            .collect();
        let inside = |race: &Race<'_>| {
            let key = (race.tenant.namespace.clone(), race.tenant.name.clone());
            let over = Arc::new(AtomicBool::new(false));
            Running::start(scope, race.hammer(&views, &tally, &over, &key, to.clone()))
        };
        let mut within = inside(&race);
        for number in 1..=ROUNDS {
            if tally.failed.load(Ordering::SeqCst) {
                break;
            }
            if random.chance(3) {
                within.end();
                race.swap(number, &mut random);
                within = inside(&race);
            } else {
                race.change(&mut random);
            }
            for _ in 0..random.below(4) {
                let at = random.below(2);
                race.turn(at, 1 + random.below(3));
                if random.chance(2) {
                    std::thread::sleep(Duration::from_micros(random.below(3000) as u64));
                }
            }
        }
        within.end();
        never.store(true, Ordering::SeqCst);
        for running in outside {
            running.end();
        }
    });
    for at in 0..2 {
        race.turn(at, usize::MAX);
    }
    settled(&race.lab);
    let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    (count(&tally.let_through), count(&tally.tried))
}

/// When everything is heard, everything is as it should be.
fn settled(lab: &Lab) {
    for node in &lab.nodes {
        assert_eq!(node.cluster.pods, lab.cluster.pods);
    }
    let probes = probe::all(lab);
    let expected = oracle::expected(lab, &lab.cluster, &probes);
    let wrong = probe::differences(lab, &probes, &expected);
    assert!(wrong.is_empty(), "in the end: {}", wrong.join("\n"));
}

#[test]
fn an_address_that_is_used_again_has_nobody_elses_rights() {
    if !testing::root("an_address_that_is_used_again_has_nobody_elses_rights") {
        return;
    }
    let runs = std::env::var(RUNS).map_or(3, |runs| runs.parse().unwrap());
    let start = Instant::now();
    let (mut through, mut tried) = (0, 0);
    for seed in 1..=runs {
        println!("run {seed}");
        let counts = run(seed);
        through += counts.0;
        tried += counts.1;
    }
    println!(
        "{runs} runs, {through} of {tried} connections let through, {:?}",
        start.elapsed()
    );
    let few = 20 * runs as usize;
    assert!(
        through > few && tried - through > few,
        "{through} of {tried}"
    );
}
