//! A node with a routed pod and one on the bridge, and behind its uplink a router where the
//! servers are that the DNS Service leads to.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dns::apply::{Interception, mark};
use linux::link::NewKind;
use linux::{Conntrack, FlowFilter, LinkChange, Netlink, NewLink, Nftables, run_in, transparent};
use nft::{
    Base, Chain, ChainKind, Family, Hook, IpFamily, Key, NatKind, NatTo, Policy, Rule, Statement,
    Table, Verdict, diff,
};
use testing::station::{Station, ip};

/// The DNS Service.
pub const SERVICE: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
/// NodeLocal's.
pub const LOCAL: &str = "169.254.20.10";
/// Where the Service's ordinary translation leads.
pub const ELSEWHERE: [&str; 2] = ["10.0.1.1", "fd00:10:0:1::ffff"];
/// What a server answers that is on the node.
pub const HERE: &str = "here";
/// What one answers that is not.
pub const THERE: &str = "there";
/// A lost packet is noticed after this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// All of it.
pub struct Lab {
    pub node: Station,
    pub pod: Station,
    pub bridged: Station,
    pub router: Station,
    _there: Server,
}

impl Lab {
    /// The Service leads elsewhere.
    pub fn new() -> Self {
        let mut node = Station::new();
        node.forwards();
        let mut router = Station::new();
        router.forwards();
        node.cable("uplink", &mut router);
        for (near, far, length) in [
            ("10.0.1.10", ELSEWHERE[0], 24),
            ("fd00:10:0:1::a", ELSEWHERE[1], 64),
        ] {
            node.address("uplink", &format!("{near}/{length}"));
            router.address("eth0", &format!("{far}/{length}"));
        }
        for (at, all) in ["0.0.0.0/0", "::/0"].into_iter().enumerate() {
            node.route("uplink", all, ip(ELSEWHERE[at]));
            let near = ip(["10.0.1.10", "fd00:10:0:1::a"][at]);
            let range = ["10.0.0.0/8", "fd00:10::/32"][at];
            router.route("eth0", range, near);
            let service = format!("{}/{}", SERVICE[at], [32, 128][at]);
            router.route("eth0", &service, near);
        }
        let mut pod = Station::new();
        let ips = [ip("10.244.1.2"), ip("fd00:10:244:1::2")];
        let gateways = [ip("10.244.1.1"), ip("fd00:10:244:1::1")];
        node.attach("fn-0123456789a", &mut pod, ips, gateways);
        let bridged = bridged(&mut node);
        translate(&node);
        let at = ELSEWHERE.map(|at| SocketAddr::new(ip(at), 53));
        let sockets = run_in(&router.netns, || Sockets::ordinary(&at)).unwrap();
        Self {
            node,
            pod,
            bridged,
            _there: sockets.unwrap().answer(THERE),
            router,
        }
    }

    /// What of the node's connection tracking is about DNS.
    pub fn tracked(&self) -> usize {
        let mut conntrack = Conntrack::open_in(&self.node.netns).unwrap();
        let mut found = 0;
        let mut take = |flow: linux::Flow| {
            found += usize::from([flow.orig.dport, flow.reply.sport].contains(&53));
        };
        conntrack.flows(&FlowFilter::default(), &mut take).unwrap();
        found
    }
}

fn bridged(node: &mut Station) -> Station {
    let bridge = NewLink::new("cni0", NewKind::Bridge);
    node.netlink.create_link(&bridge).unwrap();
    for address in ["10.244.9.1/24", "fd00:10:244:9::1/64"] {
        node.address("cni0", address);
    }
    let mut pod = Station::new();
    node.cable("fn-bbbbbbbbbbb", &mut pod);
    let (cni0, port) = (node.index("cni0"), node.index("fn-bbbbbbbbbbb"));
    let enslave = LinkChange {
        master: Some(cni0),
        ..LinkChange::default()
    };
    node.netlink.change_link(port, &enslave).unwrap();
    node.netlink.set_up(cni0).unwrap();
    pod.address("eth0", "10.244.9.2/24");
    pod.address("eth0", "fd00:10:244:9::2/64");
    pod.route("eth0", "0.0.0.0/0", ip("10.244.9.1"));
    pod.route("eth0", "::/0", ip("fd00:10:244:9::1"));
    pod
}

/// As Services do, without their crate: whoever asks the Service is led to the router.
fn translate(node: &Station) {
    let mut table = Table::new(Family::Inet, "flatnet");
    let rules: Vec<Rule> = SERVICE
        .into_iter()
        .zip(ELSEWHERE)
        .map(|(service, at)| {
            let family = IpFamily::of(ip(service));
            let to = NatTo::Fixed(ip(at), None);
            let kind = NatKind::Dnat;
            let service = Statement::is(Key::Daddr(family), ip(service));
            Rule::new([service, Statement::Nat { kind, family, to }])
        })
        .collect();
    for (name, hook) in [("in", Hook::Prerouting), ("out", Hook::Output)] {
        let base = Some(Base {
            kind: ChainKind::Nat,
            hook,
            priority: -100,
            policy: Policy::Accept,
        });
        let rules = rules.clone();
        table.chains.insert(name.into(), Chain { base, rules });
    }
    // All of the node's packets are tracked that may be, answers of servers too.
    let base = Some(Base {
        kind: ChainKind::Filter,
        hook: Hook::Input,
        priority: 0,
        policy: Policy::Accept,
    });
    let rules = vec![Rule::new([
        Statement::CtDnat,
        Statement::Verdict(Verdict::Accept),
    ])];
    table.chains.insert("seen".into(), Chain { base, rules });
    let mut nftables = Nftables::open_in(&node.netns).unwrap();
    let all = diff(None, &table.compile(), |_| true);
    nftables.apply(&all).unwrap();
}

/// Sockets of a server.
pub struct Sockets {
    datagrams: Vec<UdpSocket>,
    listeners: Vec<TcpListener>,
}

impl Sockets {
    fn ordinary(at: &[SocketAddr]) -> io::Result<Self> {
        Ok(Self {
            datagrams: at.iter().map(UdpSocket::bind).collect::<io::Result<_>>()?,
            listeners: at
                .iter()
                .map(TcpListener::bind)
                .collect::<io::Result<_>>()?,
        })
    }

    /// At addresses that are led here, in the calling thread's namespace; two at each, as
    /// several workers have them.
    pub fn transparent(addresses: &[IpAddr]) -> Self {
        let twice = || addresses.iter().chain(addresses);
        let at = |ip: &IpAddr| SocketAddr::new(*ip, 53);
        Self {
            datagrams: twice()
                .map(|ip| transparent::udp(at(ip)).unwrap())
                .collect(),
            listeners: twice()
                .map(|ip| transparent::tcp(at(ip)).unwrap())
                .collect(),
        }
    }

    /// Answers whatever is asked by a word.
    pub fn answer(self, word: &'static str) -> Server {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let pause = Some(Duration::from_millis(20));
        let mut threads = Vec::new();
        for socket in self.datagrams {
            socket.set_nonblocking(false).unwrap();
            socket.set_read_timeout(pause).unwrap();
            let told = told.clone();
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while !told.load(Ordering::Relaxed) {
                    if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                        let _ = socket.send_to(word.as_bytes(), from);
                    }
                }
            }));
        }
        for listener in self.listeners {
            listener.set_nonblocking(true).unwrap();
            let told = told.clone();
            threads.push(std::thread::spawn(move || {
                while !told.load(Ordering::Relaxed) {
                    match listener.accept() {
                        Ok((mut stream, _)) => {
                            let _ = stream.set_nonblocking(false);
                            let _ = stream.read(&mut [0; 512]);
                            let _ = stream.write_all(word.as_bytes());
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            }));
        }
        Server { over, threads }
    }
}

/// A server; it ends when dropped.
pub struct Server {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// All addresses that may be led to a node.
pub fn all() -> Vec<IpAddr> {
    [SERVICE[0], SERVICE[1], LOCAL].map(ip).into()
}

/// What the agent has while its server answers.
pub struct Local {
    pub interception: Interception,
    pub netlink: Netlink,
    _server: Server,
}

/// Starts a server on the node, and leads queries there. The calling thread is in its namespace.
pub fn serve_here(addresses: &[IpAddr]) -> Local {
    let mut interception = Interception::claim().unwrap().unwrap();
    let server = Sockets::transparent(addresses).answer(HERE);
    let mut netlink = Netlink::open().unwrap();
    interception
        .lead(&mut netlink, addresses, mark(14))
        .unwrap();
    Local {
        interception,
        netlink,
        _server: server,
    }
}

/// The same from outside.
pub fn serve_on(node: &Station, addresses: &[IpAddr]) -> Local {
    run_in(&node.netns, || serve_here(addresses)).unwrap()
}

/// Asks over UDP; who answered, or what the asker was told.
pub fn ask_udp(from: &Station, server: &str) -> Result<String, ErrorKind> {
    ask_udp_for(from, server, PATIENCE)
}

/// The same with so much patience.
pub fn ask_udp_for(from: &Station, server: &str, patience: Duration) -> Result<String, ErrorKind> {
    let ask = || {
        let any = if server.contains(':') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = UdpSocket::bind(any)?;
        // The answer has to come from whom was asked.
        socket.connect(SocketAddr::new(ip(server), 53))?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(b"who?")?;
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    };
    let told: io::Result<String> = run_in(&from.netns, ask).unwrap();
    told.map_err(|error| error.kind())
}

/// Asks over TCP.
pub fn ask_tcp(from: &Station, server: &str) -> Result<String, ErrorKind> {
    let ask = || {
        let at = SocketAddr::new(ip(server), 53);
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"who?")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let told: io::Result<String> = run_in(&from.netns, ask).unwrap();
    told.map_err(|error| error.kind())
}
