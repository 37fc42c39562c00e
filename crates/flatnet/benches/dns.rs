//! The DNS server as a user has it, `flatnet dns --conf Corefile`, beside CoreDNS with the same
//! Corefile and Unbound with the same names, in turns, on the loopback.
//!
//! `COREDNS=/path/to/coredns cargo bench -p flatnet --bench dns`, as root; it is also looked for
//! on the PATH and in ~/go/bin. Load is dnsperf's, on a processor of its own; the servers have
//! another one, all but one of them stopped. What counts is the server's processor time a
//! question, as /proc tells it: throughput says as much about dnsperf. `DNS_BENCH=quick` does all
//! of it in short rounds.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a bench's failure is a panic"
)]

mod bursts;
mod daemon;
mod filled;
mod resolvers;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use linux::Nftables;
use nft::Family;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;

use daemon::{Cluster, print_changes};
use filled::{NAMES, fill, inside, namespaces, of, outside, service, slices};
use resolvers::{Load, Resolver, address, processors};

const FLATNET: &str = env!("CARGO_BIN_EXE_flatnet");
const NAME: &str = "bench-dns";
/// A rate at which no server is busy, so that questions come one at a time.
const CALM: f64 = 20_000.0;
/// Which number each server's address has.
const UPSTREAM: usize = 1;
const OURS: usize = 2;
const COREDNS: usize = 3;
const UNBOUND: usize = 4;

/// How much of everything.
struct Size {
    /// Rounds of each server and load, and seconds of each.
    rounds: usize,
    seconds: u32,
    /// New Services.
    created: usize,
    bursts: usize,
    /// The large cluster's Services, and endpoints of each.
    services: usize,
    endpoints: usize,
}

const WHOLE: Size = Size {
    rounds: 5,
    seconds: 2,
    created: 50,
    bursts: 60,
    services: 5_000,
    endpoints: 10,
};

const QUICK: Size = Size {
    rounds: 1,
    seconds: 1,
    created: 5,
    bursts: 5,
    services: 1_500,
    endpoints: 2,
};

fn main() {
    if !testing::root("dns bench") || testing::program("dns bench", "dnsperf").is_none() {
        return;
    }
    let processors = processors();
    let [server, load, ..] = processors[..] else {
        testing::skip(
            "dns bench",
            "needs two processors, for the server and for dnsperf",
        );
        return;
    };
    let quick = std::env::var("DNS_BENCH").is_ok_and(|size| size == "quick");
    let size = if quick { QUICK } else { WHOLE };
    let runtime = Runtime::new().unwrap();
    let cluster = Cluster::up(NAME);
    let client = cluster.client(&runtime);
    runtime.block_on(namespaces(&client));
    runtime.block_on(fill(&client, 0..NAMES, 1));
    let bench = Bench {
        size,
        folder: tempfile::tempdir().unwrap(),
        kubeconfig: cluster.paths.kubeconfig(),
        coredns: coredns(),
        unbound: beside("unbound", None, "it is not on the PATH"),
        server,
        load,
    };
    println!(
        "processor time a question; {NAMES} names, {} rounds of {} s in turns, medians:",
        bench.size.rounds, bench.size.seconds
    );
    bench.costs();
    bench.new_services(&runtime, &client);
    bench.scaling();
    bench.memory(&runtime, &client, &cluster);
}

struct Bench {
    size: Size,
    folder: tempfile::TempDir,
    kubeconfig: PathBuf,
    coredns: Option<PathBuf>,
    unbound: Option<PathBuf>,
    /// The processor of the servers, and that of dnsperf.
    server: usize,
    load: usize,
}

impl Bench {
    /// A file of this bench.
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The Corefile that clusters have; each server has an address of its own.
    fn corefile(&self, cache: &str) -> PathBuf {
        let (kubeconfig, upstream) = (self.kubeconfig.display(), address(UPSTREAM));
        let text = format!(
            ".:1053 {{
    bind {{$ADDRESS}}
    errors
    health {{$ADDRESS}}:8080
    ready {{$ADDRESS}}:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }}
    prometheus {{$ADDRESS}}:9153
    forward . {upstream}:1053 {{
        max_concurrent 1000
    }}
    {cache}
    loop
    reload
    loadbalance
}}
"
        );
        self.file(&format!("Corefile-{}", cache.replace(' ', "-")), &text)
    }

    /// Of the address 192.0.2.1 is any name outside the cluster.
    fn upstream(&self) -> Resolver {
        let answer = r#"answer "{{ .Name }} 3600 IN A 192.0.2.1""#;
        let text = format!(
            ".:1053 {{\n bind {{$ADDRESS}}\n template IN A example.org {{\n  {answer}\n }}\n \
             template ANY ANY {{\n  rcode NXDOMAIN\n }}\n}}\n"
        );
        let file = self.file("Corefile-upstream", &text);
        let mut command = serve(Path::new(FLATNET), &file);
        let known = outside(0);
        Resolver::start("upstream", UPSTREAM, &[self.load], &mut command, &known)
    }

    fn ours(&self, corefile: &Path, processors: &[usize]) -> Resolver {
        let mut command = serve(Path::new(FLATNET), corefile);
        Resolver::start("flatnet", OURS, processors, &mut command, &inside(0))
    }

    fn coredns(&self, corefile: &Path, processors: &[usize]) -> Option<Resolver> {
        let mut command = Command::new(self.coredns.as_ref()?);
        command.arg("-conf").arg(corefile);
        let known = inside(0);
        Some(Resolver::start(
            "coredns",
            COREDNS,
            processors,
            &mut command,
            &known,
        ))
    }

    /// The cluster's names as local data, all else forwarded to the same upstream; one thread, as
    /// there is one processor.
    fn unbound(&self) -> Option<Resolver> {
        let data = (0..NAMES).map(|number| {
            let name = inside(number);
            format!("    local-data: \"{name}. 30 IN A 10.96.1.1\"\n")
        });
        let text = format!(
            "server:
    interface: {}
    port: 1053
    num-threads: 1
    chroot: \"\"
    username: \"\"
    pidfile: \"\"
    use-syslog: no
    do-not-query-localhost: no
    module-config: \"iterator\"
    access-control: 127.0.0.0/8 allow
    local-zone: \"cluster.local.\" static
{}
forward-zone:
    name: \".\"
    forward-addr: {}@1053
",
            address(UNBOUND),
            data.collect::<String>(),
            address(UPSTREAM)
        );
        let file = self.file("unbound.conf", &text);
        let mut command = Command::new(self.unbound.as_ref()?);
        command.arg("-d").arg("-c").arg(file);
        let known = inside(0);
        Some(Resolver::start(
            "unbound",
            UNBOUND,
            &[self.server],
            &mut command,
            &known,
        ))
    }

    /// Figures of processor time, then latency at the most that CoreDNS does.
    fn costs(&self) {
        let upstream = self.upstream();
        let corefile = self.corefile("cache 30");
        let on = [self.server];
        let servers = [
            Some(self.ours(&corefile, &on)),
            self.coredns(&corefile, &on),
            self.unbound(),
        ];
        let servers: Vec<Resolver> = servers.into_iter().flatten().collect();
        for server in &servers {
            server.signal(Signal::SIGSTOP);
        }
        let list = |name: fn(usize) -> String| -> String {
            (0..NAMES).map(|number| name(number) + " A\n").collect()
        };
        let inside = self.file("inside", &list(inside));
        let outside = self.file("outside", &list(outside));
        let mut most = None;
        for (what, names) in [("cluster names", &inside), ("cached names", &outside)] {
            let coredns = servers.iter().position(|server| server.name == "coredns");
            // Where dnsperf has the same processor, a server finds a queue whenever it runs: what
            // it does when it has as much to do as it can. On processors of their own the faster
            // server waits for dnsperf, and waking up is most of what it does.
            for (how, processor, rate) in [
                (
                    "as many as can be, on dnsperf's processor",
                    self.server,
                    None,
                ),
                ("as many as dnsperf asks", self.load, None),
                ("20,000/s", self.load, Some(CALM)),
            ] {
                let load = self.load(names, &processor);
                let rates = compare(&self.size, &load, &servers, &format!("{what}, {how}"), rate);
                if processor == self.load && most.is_none() {
                    most = coredns.map(|at| rates[at]);
                }
            }
        }
        if let Some(most) = most {
            self.latencies(&inside, &servers, most);
        }
        drop(upstream);
    }

    fn load<'a>(&self, names: &'a Path, processor: &'a usize) -> Load<'a> {
        Load {
            processors: std::slice::from_ref(processor),
            names,
            seconds: self.size.seconds,
        }
    }

    fn latencies(&self, names: &Path, servers: &[Resolver], rate: f64) {
        println!("latency at {rate:.0} questions a second, CoreDNS's most:");
        let load = self.load(names, &self.load);
        let mut rounds = vec![Vec::new(); servers.len()];
        for _ in 0..self.size.rounds {
            for (server, rounds) in servers.iter().zip(&mut rounds) {
                server.signal(Signal::SIGCONT);
                let all = load.latencies(server, rate);
                let of = |percent: usize| all[(all.len() * percent / 100).min(all.len() - 1)];
                rounds.push((of(99), of(50)));
                server.signal(Signal::SIGSTOP);
            }
        }
        let mut ours = None;
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            let (p99, p50) = median(rounds);
            let ours = *ours.get_or_insert(p99);
            println!(
                "  {:8} p50 {:6.0} us, p99 {:6.0} us (best round {:.0} us), {:.1} times ours",
                server.name,
                p50.as_secs_f64() * 1e6,
                p99.as_secs_f64() * 1e6,
                rounds[0].0.as_secs_f64() * 1e6,
                p99.as_secs_f64() / ours.as_secs_f64()
            );
        }
    }

    /// From the request that makes a Service until its name has an address.
    fn new_services(&self, runtime: &Runtime, client: &Client) {
        println!("a new Service until its name has its address (target 20 ms):");
        let both = [self.server, self.load];
        // CoreDNS's cache would keep a name for half a minute that was asked too early.
        let bare = self.corefile("");
        let servers = [
            Some(self.ours(&self.corefile("cache 30"), &both)),
            self.coredns(&bare, &both),
        ];
        for (at, server) in servers.iter().flatten().enumerate() {
            let (mut of_sent, mut of_answered) = (Vec::new(), Vec::new());
            for number in 0..self.size.created {
                let name = format!("new{at}-{number}");
                let full = format!("{name}.ns0.svc.cluster.local");
                let services: Api<Service> = Api::namespaced(client.clone(), "ns0");
                let sent = Instant::now();
                let service = of(service(&name, false));
                let made = async { services.create(&PostParams::default(), &service).await };
                runtime.block_on(made).unwrap();
                let answered = Instant::now();
                while !server.knows(&full) {
                    assert!(sent.elapsed() < Duration::from_secs(60), "{full} never is");
                    std::thread::sleep(Duration::from_micros(100));
                }
                of_sent.push(sent.elapsed());
                of_answered.push(answered.elapsed());
            }
            print_changes(server.name, &mut of_sent, &mut of_answered);
        }
    }

    /// One worker, and two.
    fn scaling(&self) {
        let corefile = self.corefile("cache 30");
        let ours = [&[self.server][..], &[self.server, self.load]]
            .map(|processors| self.ours_at(processors, &corefile));
        // Not left to where they happen to wake up.
        ours[1].pin("dns-0", self.server);
        ours[1].pin("dns-1", self.load);
        let names: Vec<String> = (0..NAMES).map(inside).collect();
        bursts::compare(&ours, &names, self.size.bursts);
    }

    /// With an address for each number of processors.
    fn ours_at(&self, processors: &[usize], corefile: &Path) -> Resolver {
        let mut command = serve(Path::new(FLATNET), corefile);
        let number = UNBOUND + processors.len();
        let known = inside(0);
        Resolver::start("flatnet", number, processors, &mut command, &known)
    }

    fn memory(&self, runtime: &Runtime, client: &Client, cluster: &Cluster) {
        let Size {
            services,
            endpoints,
            ..
        } = self.size;
        let start = Instant::now();
        runtime.block_on(fill(client, NAMES..services, endpoints));
        let more = NAMES * (endpoints - 1);
        runtime.block_on(slices(client, 0..NAMES, 1..endpoints));
        println!(
            "{services} Services, {} endpoints, {more} of them added, made in {:.0} s; resident:",
            services * endpoints,
            start.elapsed().as_secs_f64()
        );
        let both = [self.server, self.load];
        let with = self.corefile("cache 30");
        let without = self.file("Corefile-without", &without_names());
        let settled = |server: &Resolver| {
            std::thread::sleep(Duration::from_secs(2));
            server.resident()
        };
        let mut bare = serve(Path::new(FLATNET), &without);
        let bare = Resolver::start("flatnet", OURS, &both, &mut bare, &outside(0));
        let bare = settled(&bare);
        let full = settled(&self.ours(&with, &both));
        println!(
            "  flatnet dns {full:.0} MB, without names {bare:.0} MB: {:.0} MB on top (target 40)",
            full - bare
        );
        if let Some(peer) = self.coredns(&with, &both) {
            println!("  coredns {:.0} MB", settled(&peer));
        }
        let (off, on) = agents(runtime, client, cluster);
        println!(
            "  agent {:.0} MB, at most {:.0}; without names {:.0} MB, at most {:.0}: {:.0} MB on top \
             (target 40)",
            on.0,
            on.1,
            off.0,
            off.1,
            on.0 - off.0
        );
    }
}

/// A server without a cluster.
fn without_names() -> String {
    let answer = r#"answer "{{ .Name }} 3600 IN A 192.0.2.1""#;
    format!(".:1053 {{\n bind {{$ADDRESS}}\n cache 30\n template IN A {{\n  {answer}\n }}\n}}\n")
}

/// What a node's agent takes without the cluster's Corefile, and with it.
/// Now and at most, in MB.
fn agents(runtime: &Runtime, client: &Client, cluster: &Cluster) -> ((f64, f64), (f64, f64)) {
    const OWN: (Family, &str) = (Family::Inet, "flatnet-dns");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let mut corefile = runtime.block_on(maps.get("coredns")).unwrap();
    corefile.metadata.resource_version = None;
    corefile.metadata.uid = None;
    let gone = async { maps.delete("coredns", &DeleteParams::default()).await };
    runtime.block_on(gone).unwrap();
    let mut agent = cluster.agent(&[(Family::Inet, "flatnet"), OWN]);
    let answers = |agent: &daemon::Daemon| {
        let mut nftables = Nftables::open_in(&agent.netns).unwrap();
        nftables.read(OWN.0, OWN.1).unwrap().is_some()
    };
    agent.start(|agent| !answers(agent));
    let off = agent.resident();
    agent.end();
    agent.clear();
    let made = async { maps.create(&PostParams::default(), &corefile).await };
    runtime.block_on(made).unwrap();
    agent.start(answers);
    (off, agent.resident())
}

/// Rounds of each server in turns, and what comes of it, ours first; the rates.
fn compare(
    size: &Size,
    load: &Load,
    servers: &[Resolver],
    what: &str,
    rate: Option<f64>,
) -> Vec<f64> {
    let mut rounds = vec![Vec::new(); servers.len()];
    // The first round fills caches.
    for round in 0..=size.rounds {
        for (server, rounds) in servers.iter().zip(&mut rounds) {
            server.signal(Signal::SIGCONT);
            let done = load.round(server, rate);
            server.signal(Signal::SIGSTOP);
            if round > 0 {
                rounds.push((done.cost, done.rate));
            }
        }
    }
    println!("{what}:");
    let mut ours = None;
    let each = servers.iter().zip(&mut rounds);
    each.map(|(server, rounds)| {
        let (cost, rate) = median(rounds);
        let ours = *ours.get_or_insert(cost);
        println!(
            "  {:8} {cost:6.2} us, {:.2} times ours; {rate:.0} answers a second",
            server.name,
            cost / ours
        );
        rate
    })
    .collect()
}

/// `flatnet dns` with this Corefile.
fn serve(program: &Path, corefile: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(["dns", "--conf"]).arg(corefile);
    command
}

fn coredns() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("COREDNS") {
        return Some(named.into());
    }
    let go = std::env::var_os("HOME").map(|home| PathBuf::from(home).join("go/bin"));
    beside(
        "coredns",
        go,
        "COREDNS names it, or it is on the PATH or in ~/go/bin",
    )
}

/// A peer's program on the PATH or in another folder.
fn beside(program: &str, also: Option<PathBuf>, how: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(also)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        testing::skip(&format!("dns bench, {program} beside us"), how);
    }
    found
}

/// By the first figure.
fn median<A: PartialOrd + Copy, B: Copy>(rounds: &mut [(A, B)]) -> (A, B) {
    rounds.sort_by(|one, other| one.0.partial_cmp(&other.0).unwrap());
    rounds[rounds.len() / 2]
}
