use super::*;
use crate::config::Config;

fn read(fields: &str) -> Result<ProxyConfig, String> {
    let comma = if fields.is_empty() { "" } else { "," };
    let text = format!(
        r#"{{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration"{comma}{fields}}}"#
    );
    let document: Document = serde_json::from_str(&text).unwrap();
    assert!(ProxyConfig::is(&document));
    ProxyConfig::read(&document).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

/// What kubeadm writes.
const KUBEADM: &str = r#""bindAddress":"0.0.0.0","bindAddressHardFail":false,
    "clientConnection":{"acceptContentTypes":"","burst":0,"contentType":"","kubeconfig":"/var/lib/kube-proxy/kubeconfig.conf","qps":0},
    "clusterCIDR":"10.244.0.0/16","configSyncPeriod":"0s",
    "conntrack":{"maxPerCore":null,"min":null,"tcpBeLiberal":false,"tcpCloseWaitTimeout":null,"tcpEstablishedTimeout":null,"udpStreamTimeout":"0s","udpTimeout":"0s"},
    "detectLocal":{"bridgeInterface":"","interfaceNamePrefix":""},"detectLocalMode":"",
    "enableProfiling":false,"healthzBindAddress":"","hostnameOverride":"",
    "iptables":{"localhostNodePorts":null,"masqueradeAll":false,"masqueradeBit":null,"minSyncPeriod":"0s","syncPeriod":"0s"},
    "ipvs":{"excludeCIDRs":null,"minSyncPeriod":"0s","scheduler":"","strictARP":false,"syncPeriod":"0s","tcpFinTimeout":"0s","tcpTimeout":"0s","udpTimeout":"0s"},
    "logging":{"flushFrequency":0,"options":{"json":{"infoBufferSize":"0"},"text":{"infoBufferSize":"0"}},"verbosity":0},
    "metricsBindAddress":"","mode":"",
    "nftables":{"masqueradeAll":false,"masqueradeBit":null,"minSyncPeriod":"0s","syncPeriod":"0s"},
    "nodePortAddresses":null,"oomScoreAdj":null,"portRange":"","showHiddenMetricsForVersion":"",
    "winkernel":{"enableDSR":false,"forwardHealthCheckVip":false,"networkName":"","rootHnsEndpointName":"","sourceVip":""}"#;

#[test]
fn what_kubeadm_writes_is_taken_without_a_word() {
    let config = read(KUBEADM).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(
        config.kubeconfig.as_deref(),
        Some("/var/lib/kube-proxy/kubeconfig.conf")
    );
    assert_eq!((config.healthz, config.hostname.as_deref()), (None, None));
    assert_eq!(config.conntrack, ConntrackConfig::default());
    assert_eq!(config.conntrack.max(2), Some(131_072));
    assert_eq!(config.conntrack.max(8), Some(262_144));
    let over = config.over(&Config::default());
    assert_eq!(over.services.mode, ServicesMode::Nftables);
    assert_eq!(
        over.services.local_detection,
        LocalDetection::Ranges(vec!["10.244.0.0/16".parse().unwrap()])
    );
}

#[test]
fn what_it_says_of_services_is_put_over_the_network_s() {
    let config = read(
        r#""mode":"iptables","iptables":{"masqueradeBit":15,"masqueradeAll":true,"localhostNodePorts":false,"syncPeriod":"45s"},
           "nftables":{"masqueradeBit":3},"detectLocalMode":"InterfaceNamePrefix",
           "detectLocal":{"interfaceNamePrefix":"fn-"},"clusterCIDR":"10.0.0.0/8,fd00::/8",
           "nodePortAddresses":["10.0.1.7/24","fd00::/64"],"hostnameOverride":"node7",
           "healthzBindAddress":"[::]:10356","metricsBindAddress":"0.0.0.0","oomScoreAdj":-998,
           "conntrack":{"maxPerCore":0,"tcpEstablishedTimeout":"1h30m","udpTimeout":"2.5s"}"#,
    )
    .unwrap();
    let services = config.over(&Config::default()).services;
    assert_eq!(services.mode, ServicesMode::Iptables);
    assert_eq!(
        (services.masquerade_bit, services.masquerade_all),
        (15, true)
    );
    assert!(!services.localhost_node_ports);
    assert_eq!(
        services.local_detection,
        LocalDetection::InterfaceNamePrefix("fn-".into())
    );
    let ranges = ["10.0.1.0/24", "fd00::/64"].map(|range| range.parse().unwrap());
    assert_eq!(
        services.node_port_addresses,
        NodePortAddresses::Ranges(ranges.to_vec())
    );
    assert_eq!(config.sync_period(), Some(Duration::from_secs(45)));
    assert_eq!(config.healthz.unwrap().to_string(), "[::]:10356");
    assert_eq!(config.metrics.unwrap().to_string(), "0.0.0.0:10249");
    assert_eq!(config.oom_score_adj, Some(-998));
    assert_eq!(config.conntrack.max(4), None);
    assert_eq!(
        config.conntrack.tcp_established_timeout,
        Duration::from_secs(5400)
    );
    assert_eq!(config.conntrack.udp_timeout, Duration::from_millis(2500));
    assert_eq!(config.warnings, []);
}

#[test]
fn what_has_no_effect_is_said_with_the_reason() {
    let config = read(
        r#""ipvs":{"scheduler":"rr"},"featureGates":{"NFTablesProxyMode":true},
           "clientConnection":{"qps":50},"iptables":{"minSyncPeriod":"2s"},"bindAddress":"10.0.1.7",
           "logging":{"verbosity":4},"udpIdleTimeout":"1s""#,
    )
    .unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "ipvs.scheduler: has no effect here: mode ipvs is not served",
            "featureGates: has no effect here: there are no gates here: what has graduated in Kubernetes 1.36 is on",
            "clientConnection.qps: has no effect here: JSON is spoken to the API server, over few long requests",
            "iptables.minSyncPeriod: has no effect here: a change goes to the kernel as it comes, and many at once go together",
            "bindAddress: has no effect here: the node's addresses are those of its Node object",
            "logging.verbosity: has no effect here: the environment variable FLATNET_LOG says what is logged",
            "udpIdleTimeout: has no effect here: the mode it was for is gone, from kube-proxy too",
        ]
    );
}

#[test]
fn mistakes_are_named_with_what_was_meant() {
    for (written, message) in [
        (
            r#""clusterCidr":"10.0.0.0/8""#,
            r#"clusterCidr: unknown field; did you mean "clusterCIDR"?"#,
        ),
        (
            r#""iptables":{"masqueradeBits":1}"#,
            r#"iptables.masqueradeBits: unknown field; did you mean "masqueradeBit"?"#,
        ),
        (
            r#""mode":"ipvs""#,
            r#"mode: "ipvs" is not served (Kubernetes deprecates it too, KEP-5495): choose nftables or iptables, or leave it out"#,
        ),
        (
            r#""mode":"iptable""#,
            r#"mode: "iptable" is not known; did you mean "iptables"? (known: nftables, iptables)"#,
        ),
        (
            r#""detectLocalMode":"BridgeInterface""#,
            "detectLocal.bridgeInterface: missing: detectLocalMode BridgeInterface needs it",
        ),
        (
            r#""detectLocalMode":"clustercidr""#,
            r#"detectLocalMode: "clustercidr" is not known; did you mean "ClusterCIDR"? (known: ClusterCIDR, NodeCIDR, BridgeInterface, InterfaceNamePrefix)"#,
        ),
        (
            r#""healthzBindAddress":"localhost:1""#,
            r#"healthzBindAddress: "localhost:1" is not IP:port, for example 0.0.0.0:10256"#,
        ),
        (
            r#""conntrack":{"udpTimeout":"5 minutes"}"#,
            r#"conntrack.udpTimeout: "5 minutes" is not a duration such as 30s, 1h30m or 500ms"#,
        ),
        (
            r#""clusterCIDR":"10.0.0.0/8,11.0.0.0/8""#,
            r#"clusterCIDR: "10.0.0.0/8,11.0.0.0/8": one range, or one a family (for example 10.100.0.0/16,fde4:8dba:82e1::/48)"#,
        ),
        (
            r#""nodePortAddresses":["primary","10.0.0.0/8"]"#,
            "nodePortAddresses: primary stands alone; take the others out",
        ),
        (
            r#""oomScoreAdj":-1001"#,
            "oomScoreAdj: -1001 is out of range: choose -1000 to 1000",
        ),
    ] {
        assert_eq!(read(written).unwrap_err(), message);
    }
}

#[test]
fn durations_are_go_s() {
    for (text, milliseconds) in [
        ("0", Some(0)),
        ("0s", Some(0)),
        ("1h2m3s", Some(3_723_000)),
        ("250ms", Some(250)),
        ("1.5m", Some(90_000)),
        ("", None),
        ("10", None),
        ("s", None),
        ("-5s", None),
        ("1x", None),
    ] {
        let read = go_duration(text).map(|read| read.as_millis());
        assert_eq!(read, milliseconds, "{text}");
    }
}
