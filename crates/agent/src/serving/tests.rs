use std::net::IpAddr;

use linux::fake::Fake;
use model::{Endpoint, EndpointSlice, Node, Service, ServicePort, SlicePort, TrafficPolicy};

use super::*;
use crate::metrics::Metrics;

struct Lab {
    kernel: Fake,
    cluster: Cluster,
    config: Config,
    metrics: Arc<Metrics>,
    health: Arc<ProxyHealth>,
    serving: Serving,
}

impl Lab {
    fn new(mode: ServicesMode) -> Self {
        let metrics = Arc::<Metrics>::default();
        let health = Arc::new(ProxyHealth::new(Duration::ZERO));
        let publisher = Arc::new(Publisher::start(None, "node1"));
        let proxy = metrics.proxy.clone();
        let mut serving = Serving::new("node1", publisher, health.clone(), proxy);
        let mut config = Config::default();
        config.services.mode = mode;
        serving.configure(&config);
        let mut cluster = Cluster::default();
        cluster.take(Change::Node(Node {
            name: "node1".into(),
            addresses: vec!["10.0.1.10".parse().unwrap()],
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: std::collections::BTreeMap::default(),
            leaving: false,
        }));
        Self {
            kernel: Fake::host(&["10.0.1.10/24"]),
            cluster,
            config,
            metrics,
            health,
            serving,
        }
    }

    fn take(&mut self, change: Change) -> bool {
        self.serving.take(&mut self.cluster, change).is_some()
    }

    fn reconcile(&mut self) -> Outcome {
        self.serving
            .reconcile(&mut self.kernel, &self.cluster, &self.config)
    }

    fn has(&self, line: &str) {
        let text = self.metrics.text();
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

fn service(name: &str, change: impl FnOnce(&mut Service)) -> Change {
    let mut service = Service {
        namespace: "d".into(),
        name: name.into(),
        cluster_ips: vec![IpAddr::from([10, 96, 0, u8::try_from(name.len()).unwrap()])],
        ports: vec![ServicePort {
            name: String::new(),
            protocol: model::Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        ..Service::default()
    };
    change(&mut service);
    Change::Service(Arc::new(service))
}

fn slice(name: &str, node: &str, triggered: Option<i64>) -> Change {
    Change::Slice(Arc::new(EndpointSlice {
        namespace: "d".into(),
        name: format!("{name}-1"),
        service: name.into(),
        v6: false,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: model::Protocol::Tcp,
            port: Some(8080),
        }],
        endpoints: vec![Endpoint {
            ip: "10.244.2.2".parse().unwrap(),
            more: Box::default(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.into()),
            zone: None,
            hostname: None,
            pod: None,
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
        }],
        triggered,
    }))
}

#[tokio::test]
async fn changes_are_counted_until_they_are_in_the_kernel() {
    let mut lab = Lab::new(ServicesMode::Nftables);
    assert!(lab.take(service("web", |_| ())));
    let now = milliseconds(SystemTime::now());
    assert!(lab.take(slice("web", "node2", Some(now + 1))));
    assert!(!lab.take(slice("web", "node2", Some(now + 1))));
    // Caused before this agent ran: it says nothing of how long it took.
    assert!(lab.take(slice("other", "node2", Some(now - 3_600_000))));
    lab.has("kubeproxy_sync_proxy_rules_service_changes_pending 1");
    lab.has("kubeproxy_sync_proxy_rules_endpoint_changes_pending 2");
    lab.reconcile();
    lab.has("kubeproxy_sync_proxy_rules_service_changes_pending 0");
    lab.has("kubeproxy_sync_proxy_rules_endpoint_changes_pending 0");
    lab.has("kubeproxy_sync_proxy_rules_endpoint_changes_total 2");
    lab.has("kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1");
    lab.has("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1");
    lab.has("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1");
    lab.take(slice("web", "node1", None));
    lab.reconcile();
    lab.has("kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1");
    lab.has("kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"} 1");
    assert!(lab.health.told(Instant::now(), SystemTime::now()).healthy);
}

#[tokio::test]
async fn what_the_kernel_refuses_waits_and_is_tried_again() {
    let mut lab = Lab::new(ServicesMode::Iptables);
    let localnet = "net/ipv4/conf/all/route_localnet";
    lab.kernel.sysctls.insert(localnet.into(), "0".into());
    assert!(lab.reconcile().again.is_none());
    let healthy = |lab: &Lab| lab.health.told(Instant::now(), SystemTime::now()).healthy;
    assert!(healthy(&lab));
    lab.kernel.refuse.insert("restore ".into(), 28);
    lab.take(service("web", |_| ()));
    let waits: Vec<Option<Duration>> = (0..3).map(|_| lab.reconcile().again).collect();
    let wait = |milliseconds| Some(Duration::from_millis(milliseconds));
    assert_eq!(waits, [wait(100), wait(200), wait(400)]);
    assert!(!healthy(&lab), "the change waits for longer than allowed");
    assert_eq!(lab.serving.problems().count(), 1);
    lab.has("kubeproxy_sync_proxy_rules_service_changes_pending 1");
    lab.has("kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family=\"IPv4\"} 3");
    lab.kernel.refuse.clear();
    let outcome = lab.reconcile();
    assert!(outcome.again.is_none() && outcome.problems_changed && healthy(&lab));
    assert_eq!(lab.serving.problems().count(), 0);
    lab.has("kubeproxy_sync_proxy_rules_service_changes_pending 0");
}

#[tokio::test]
async fn a_clash_is_told_once_and_is_over_with_its_cause() {
    let mut lab = Lab::new(ServicesMode::Nftables);
    let external = |service: &mut Service| {
        service.external_ips = vec!["192.0.2.1".parse().unwrap()];
        service.created = i64::try_from(service.name.len()).unwrap();
    };
    lab.take(service("old", external));
    lab.take(service("newer", external));
    assert!(lab.reconcile().problems_changed);
    let problems: Vec<String> = lab.serving.problems().collect();
    assert!(
        matches!(&problems[..], [one] if one.starts_with("Service d/newer: ")),
        "{problems:?}"
    );
    lab.has("flatnet_service_problems 1");
    lab.take(service("another", |_| ()));
    assert!(!lab.reconcile().problems_changed);
    lab.take(Change::ServiceGone("d".into(), "old".into()));
    assert!(lab.reconcile().problems_changed);
    assert_eq!(lab.serving.problems().count(), 0);
}

#[tokio::test]
async fn services_without_a_local_endpoint_are_counted() {
    let mut lab = Lab::new(ServicesMode::Nftables);
    let local = |service: &mut Service| service.internal_policy = TrafficPolicy::Local;
    lab.take(service("web", local));
    lab.take(slice("web", "node2", None));
    lab.take(service("empty", local));
    lab.reconcile();
    let line = |count| {
        format!(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{{ip_family=\"IPv4\",traffic_policy=\"internal\"}} {count}"
        )
    };
    lab.has(&line(1));
    lab.take(slice("web", "node1", None));
    lab.reconcile();
    lab.has(&line(0));
    lab.take(slice("web", "node2", None));
    lab.take(Change::ServiceGone("d".into(), "web".into()));
    lab.reconcile();
    lab.has(&line(0));
}
