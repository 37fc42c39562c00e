//! A cluster of 100,000 Services.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dns::plan::{Names, View};
use dns::plugins::output::Output;
use dns::serve::Served;
use dns::wire::Name;
use model::{
    Change, Changed, Cluster, Endpoint, EndpointSlice, Labels, Namespace, Protocol, Service,
    ServicePort, SlicePort,
};

use crate::corefiles::{free_port, options, parse, resources};
use crate::serve::dig;

const MANY: u32 = 100_000;
const NAMESPACES: u32 = 50;

fn key(n: u32) -> (String, String) {
    (format!("ns{}", n % NAMESPACES), format!("service{n}"))
}

fn cluster_ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a60_0000 + n)
}

fn pod_ip(n: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x2000_0000 + n)
}

/// One of ten is headless.
fn service(n: u32) -> Change {
    let (namespace, name) = key(n);
    let ip = (!n.is_multiple_of(10)).then(|| IpAddr::from(cluster_ip(n)));
    Change::Service(Arc::new(Service {
        namespace,
        name,
        cluster_ips: ip.into_iter().collect(),
        ports: vec![ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    }))
}

fn slice(n: u32, ip: Ipv4Addr) -> Change {
    let (namespace, service) = key(n);
    Change::Slice(Arc::new(EndpointSlice {
        namespace,
        name: format!("{service}-abcde"),
        service,
        v6: false,
        ports: vec![SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints: vec![Endpoint {
            ip: ip.into(),
            more: Box::default(),
            ready: true,
            serving: true,
            terminating: false,
            node: None,
            zone: None,
            hostname: None,
            pod: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }],
        triggered: None,
    }))
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    for n in 0..NAMESPACES {
        let name = format!("ns{n}");
        let labels = Labels::default();
        cluster.take(Change::Namespace(Arc::new(Namespace { name, labels })));
    }
    for n in 0..MANY {
        cluster.take(service(n));
        cluster.take(slice(n, pod_ip(n)));
    }
    cluster
}

#[test]
fn a_hundred_thousand_services() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let mut cluster = cluster();
    let mut names = Names::of(&cluster, SystemTime::now());
    let resources = resources(&Arc::new(Output::kept()));
    let view = Arc::clone(&resources.view);
    let publish = |names: &Names, cluster: &Cluster| {
        view.store(Some(Arc::new(View {
            names: names.clone(),
            cluster: cluster.clone(),
        })));
    };
    publish(&names, &cluster);
    let port = free_port();
    let corefile = parse(&format!(
        ".:{port} {{\n bind 127.0.0.1\n errors\n kubernetes cluster.local in-addr.arpa {{\n \
         ttl 30\n }}\n transfer cluster.local {{\n to *\n }}\n }}\n"
    ));
    let served = Served::start(&corefile, resources, options(2)).unwrap();
    let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
    let ask = |name: &str, kind: &str| dig(address, &["+short", name, kind]).trim().to_owned();
    let full = |n: u32| {
        let (namespace, name) = key(n);
        format!("{name}.{namespace}.svc.cluster.local")
    };
    for n in [1, 49_999, MANY - 1] {
        assert_eq!(ask(&full(n), "A"), cluster_ip(n).to_string());
        let port = ask(&format!("_http._tcp.{}", full(n)), "SRV");
        assert_eq!(port, format!("0 100 80 {}.", full(n)));
        let back = Name::of_address(cluster_ip(n).into()).to_string();
        assert_eq!(ask(&back, "PTR"), format!("{}.", full(n)));
    }
    assert_eq!(ask(&full(50_000), "A"), pod_ip(50_000).to_string());
    let nobody = dig(address, &["nobody.ns7.svc.cluster.local"]);
    assert!(nobody.contains("status: NXDOMAIN"), "{nobody}");

    // Each change is in the next answer, and is none of 100,000's work.
    let since = Instant::now();
    for round in 0..20 {
        let n = round * 4_990;
        let mut changed = Changed::default();
        let moved = pod_ip(MANY + n);
        cluster.note(slice(n, moved), &mut changed);
        cluster.note(service(MANY + round + 1), &mut changed);
        names.update(&cluster, &changed, SystemTime::now());
        publish(&names, &cluster);
        assert_eq!(ask(&full(n), "A"), moved.to_string());
        let new = MANY + round + 1;
        if !new.is_multiple_of(10) {
            assert_eq!(ask(&full(new), "A"), cluster_ip(new).to_string());
        }
    }
    assert!(since.elapsed() < Duration::from_secs(20), "{since:?}");

    // The whole zone: three records a Service, in hundreds of messages.
    let whole = dig(address, &["+time=60", "cluster.local", "AXFR"]);
    let size = whole.lines().find_map(|line| {
        let rest = line.strip_prefix(";; XFR size: ")?;
        rest.split(' ').next()?.parse::<u32>().ok()
    });
    assert!(size.is_some_and(|size| size > 3 * MANY), "{size:?}");
    assert_eq!(ask(&full(1), "A"), cluster_ip(1).to_string());
    runtime.block_on(served.stop());
}
