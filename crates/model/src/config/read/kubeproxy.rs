//! KubeProxyConfiguration, every field of Kubernetes 1.36: used, or said to have no effect.

use std::net::SocketAddr;
use std::time::Duration;

use super::services::link_name;
use super::{ConfigError, Document, Reader, choose, cidr, error, text, truth, whole};
use crate::config::kubeproxy::{
    ConntrackConfig, ModeConfig, PROXY_API_VERSION, PROXY_KIND, ProxyConfig,
};
use crate::config::{LocalDetection, NodePortAddresses, ServicesMode};

const FIELDS: [&str; 28] = [
    "apiVersion",
    "kind",
    "featureGates",
    "clientConnection",
    "logging",
    "hostnameOverride",
    "bindAddress",
    "healthzBindAddress",
    "metricsBindAddress",
    "bindAddressHardFail",
    "enableProfiling",
    "showHiddenMetricsForVersion",
    "mode",
    "iptables",
    "ipvs",
    "nftables",
    "winkernel",
    "detectLocalMode",
    "detectLocal",
    "clusterCIDR",
    "nodePortAddresses",
    "oomScoreAdj",
    "conntrack",
    "configSyncPeriod",
    "portRange",
    "windowsRunAsService",
    "udpIdleTimeout",
    "resourceContainer",
];
const CLIENT: [&str; 5] = [
    "kubeconfig",
    "acceptContentTypes",
    "contentType",
    "qps",
    "burst",
];
const IPTABLES: [&str; 6] = [
    "masqueradeBit",
    "masqueradeAll",
    "localhostNodePorts",
    "snatNodeInternalIP",
    "syncPeriod",
    "minSyncPeriod",
];
const NFTABLES: [&str; 4] = [
    "masqueradeBit",
    "masqueradeAll",
    "syncPeriod",
    "minSyncPeriod",
];
const IPVS: [&str; 9] = [
    "syncPeriod",
    "minSyncPeriod",
    "scheduler",
    "excludeCIDRs",
    "strictARP",
    "tcpTimeout",
    "tcpFinTimeout",
    "udpTimeout",
    "ipSet",
];
const WINKERNEL: [&str; 5] = [
    "networkName",
    "sourceVip",
    "enableDSR",
    "rootHnsEndpointName",
    "forwardHealthCheckVip",
];
const LOGGING: [&str; 5] = [
    "format",
    "flushFrequency",
    "verbosity",
    "vmodule",
    "options",
];
const CONNTRACK: [&str; 7] = [
    "maxPerCore",
    "min",
    "tcpEstablishedTimeout",
    "tcpCloseWaitTimeout",
    "tcpBeLiberal",
    "udpTimeout",
    "udpStreamTimeout",
];
const DETECT: [&str; 2] = ["bridgeInterface", "interfaceNamePrefix"];
const DETECT_MODES: [&str; 4] = [
    "ClusterCIDR",
    "NodeCIDR",
    "BridgeInterface",
    "InterfaceNamePrefix",
];

const GRADUATED: &str = "there are no gates here: what has graduated in Kubernetes 1.36 is on";
const WINDOWS: &str = "it is about Windows";
const COALESCED: &str = "a change goes to the kernel as it comes, and many at once go together";
const JSON: &str = "JSON is spoken to the API server, over few long requests";
const LOGS: &str = "the environment variable FLATNET_LOG says what is logged";
const NOT_IPVS: &str = "mode ipvs is not served";

/// Fields that are known and do nothing, their upstream defaults, and why.
const NO_EFFECT: [(&str, &str, &str); 20] = [
    (
        "bindAddress",
        "0.0.0.0",
        "the node's addresses are those of its Node object",
    ),
    ("clientConnection.acceptContentTypes", "", JSON),
    ("clientConnection.burst", "10", JSON),
    (
        "clientConnection.contentType",
        "application/vnd.kubernetes.protobuf",
        JSON,
    ),
    ("clientConnection.qps", "5", JSON),
    (
        "configSyncPeriod",
        "15m0s",
        "objects are watched, not refreshed",
    ),
    ("enableProfiling", "", "there is no profiler to ask"),
    ("featureGates", "", GRADUATED),
    ("iptables.minSyncPeriod", "1s", COALESCED),
    (
        "iptables.snatNodeInternalIP",
        "",
        "masqueraded packets take the address of the link they leave by",
    ),
    ("nftables.minSyncPeriod", "1s", COALESCED),
    (
        "portRange",
        "",
        "the mode it was for is gone, from kube-proxy too",
    ),
    (
        "resourceContainer",
        "/kube-proxy",
        "kube-proxy has it no longer",
    ),
    ("showHiddenMetricsForVersion", "", "no metric is hidden"),
    (
        "udpIdleTimeout",
        "250ms",
        "the mode it was for is gone, from kube-proxy too",
    ),
    ("windowsRunAsService", "", WINDOWS),
    ("ipvs.", "30s", NOT_IPVS),
    ("logging.flushFrequency", "5s", LOGS),
    ("logging.", "text", LOGS),
    ("winkernel.", "", WINDOWS),
];

impl ProxyConfig {
    /// Whether a document is one: by its kind.
    pub fn is(document: &Document) -> bool {
        matches!(document, Document::Map(fields) if fields
            .iter()
            .any(|(name, value)| name == "kind" && *value == Document::Text(PROXY_KIND.into())))
    }

    /// Reads a document; the error lists every mistake.
    pub fn read(document: &Document) -> Result<ProxyConfig, Vec<ConfigError>> {
        let mut reader = Reader { errors: Vec::new() };
        let config = reader.proxy(document);
        if reader.errors.is_empty() {
            Ok(config)
        } else {
            Err(reader.errors)
        }
    }
}

type Fields<'d> = &'d [(String, Document)];

impl Reader {
    fn proxy(&mut self, document: &Document) -> ProxyConfig {
        let mut config = ProxyConfig::default();
        let Some(fields) = self.mapping("", document, &FIELDS) else {
            return config;
        };
        self.head(fields);
        let mut ineffective = Vec::new();
        for (name, value) in fields {
            if matches!(value, Document::Null) {
                continue;
            }
            ineffective.extend(no_effect(name, value));
            self.proxy_field(&mut config, name, value, &mut ineffective);
        }
        self.detection(&mut config, fields);
        config.warnings = ineffective;
        config
    }

    fn head(&mut self, fields: Fields<'_>) {
        for (field, wanted) in [("apiVersion", PROXY_API_VERSION), ("kind", PROXY_KIND)] {
            let given = fields.iter().find(|(name, _)| name == field);
            match given.map(|(_, value)| value) {
                None => {
                    let message = format!("missing: write `{field}: {wanted}`");
                    self.errors.push(error(field, message));
                }
                Some(Document::Text(given)) if given == wanted => {}
                Some(Document::Text(given)) => {
                    let message = format!("{given:?} is not known; write {wanted:?}");
                    self.errors.push(error(field, message));
                }
                Some(other) => {
                    let message = format!("{} given, text wanted", other.kind());
                    self.errors.push(error(field, message));
                }
            }
        }
    }

    fn proxy_field(
        &mut self,
        config: &mut ProxyConfig,
        name: &str,
        value: &Document,
        ineffective: &mut Vec<ConfigError>,
    ) {
        match name {
            "mode" => self.set(&mut config.mode, name, value, mode),
            "hostnameOverride" => self.set(&mut config.hostname, name, value, optional_text),
            "healthzBindAddress" => self.set(&mut config.healthz, name, value, |path, value| {
                socket(path, value, 10256)
            }),
            "metricsBindAddress" => self.set(&mut config.metrics, name, value, |path, value| {
                socket(path, value, 10249)
            }),
            "bindAddressHardFail" => self.set(&mut config.bind_hard_fail, name, value, truth),
            "oomScoreAdj" => self.set(&mut config.oom_score_adj, name, value, |path, value| {
                whole(path, value, -1000, 1000).map(Some)
            }),
            "clusterCIDR" => self.set(&mut config.cluster_cidrs, name, value, cluster_cidr),
            "nodePortAddresses" => self.node_ports(config, name, value),
            "conntrack" => config.conntrack = self.conntrack(name, value),
            "iptables" => {
                config.iptables = self.mode_section(name, value, &IPTABLES, ineffective);
                self.localhost(config, value);
            }
            "nftables" => {
                config.nftables = self.mode_section(name, value, &NFTABLES, ineffective);
            }
            "clientConnection" => {
                self.section(name, value, &CLIENT, ineffective);
                let kubeconfig = field(value, "kubeconfig");
                if let Some(value) = kubeconfig {
                    let path = "clientConnection.kubeconfig";
                    self.set(&mut config.kubeconfig, path, value, optional_text);
                }
            }
            "ipvs" => self.section(name, value, &IPVS, ineffective),
            "winkernel" => self.section(name, value, &WINKERNEL, ineffective),
            "logging" => self.section(name, value, &LOGGING, ineffective),
            "detectLocal" => self.section(name, value, &DETECT, ineffective),
            _ => {}
        }
    }

    /// Checks the names of a section, and says which of its fields do nothing.
    fn section(
        &mut self,
        path: &str,
        value: &Document,
        known: &[&str],
        ineffective: &mut Vec<ConfigError>,
    ) {
        for (name, value) in self.mapping(path, value, known).unwrap_or_default() {
            ineffective.extend(no_effect(&format!("{path}.{name}"), value));
        }
    }

    fn mode_section(
        &mut self,
        path: &str,
        value: &Document,
        known: &[&str],
        ineffective: &mut Vec<ConfigError>,
    ) -> ModeConfig {
        self.section(path, value, known, ineffective);
        let mut section = ModeConfig::default();
        let Document::Map(fields) = value else {
            return section;
        };
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match (name.as_str(), value) {
                (_, Document::Null) => {}
                ("masqueradeAll", _) => {
                    self.set(&mut section.masquerade_all, &path, value, |path, value| {
                        truth(path, value).map(Some)
                    });
                }
                ("masqueradeBit", _) => {
                    self.set(&mut section.masquerade_bit, &path, value, |path, value| {
                        whole(path, value, 0, 31).map(Some)
                    });
                }
                ("syncPeriod", _) => {
                    self.set(&mut section.sync_period, &path, value, |path, value| {
                        let period = duration(path, value)?;
                        Ok(Some(period).filter(|period| !period.is_zero()))
                    });
                }
                _ => {}
            }
        }
        section
    }

    fn localhost(&mut self, config: &mut ProxyConfig, iptables: &Document) {
        if let Some(value) = field(iptables, "localhostNodePorts") {
            let path = "iptables.localhostNodePorts";
            self.set(
                &mut config.localhost_node_ports,
                path,
                value,
                |path, value| truth(path, value).map(Some),
            );
        }
    }

    fn conntrack(&mut self, path: &str, value: &Document) -> ConntrackConfig {
        let mut conntrack = ConntrackConfig::default();
        let Some(fields) = self.mapping(path, value, &CONNTRACK) else {
            return conntrack;
        };
        let most = i128::from(i32::MAX);
        for (name, value) in fields {
            let path = format!("{path}.{name}");
            match (name.as_str(), value) {
                (_, Document::Null) => {}
                ("tcpBeLiberal", _) => {
                    self.set(&mut conntrack.tcp_be_liberal, &path, value, truth);
                }
                ("maxPerCore", _) => {
                    self.set(&mut conntrack.max_per_core, &path, value, |p, v| {
                        whole(p, v, 0, most)
                    });
                }
                ("min", _) => {
                    self.set(&mut conntrack.min, &path, value, |p, v| {
                        whole(p, v, 0, most)
                    });
                }
                (name, _) => {
                    let target = match name {
                        "tcpEstablishedTimeout" => &mut conntrack.tcp_established_timeout,
                        "tcpCloseWaitTimeout" => &mut conntrack.tcp_close_wait_timeout,
                        "udpTimeout" => &mut conntrack.udp_timeout,
                        "udpStreamTimeout" => &mut conntrack.udp_stream_timeout,
                        _ => continue,
                    };
                    self.set(target, &path, value, duration);
                }
            }
        }
        conntrack
    }

    fn node_ports(&mut self, config: &mut ProxyConfig, path: &str, value: &Document) {
        let is = |value: &Document, word: &str| *value == Document::Text(word.into());
        match value {
            Document::List(items) if items.is_empty() => {}
            Document::List(items) if items.iter().any(|item| is(item, "all")) => {
                config.node_port_addresses = Some(NodePortAddresses::All);
            }
            Document::List(items) if items.iter().any(|item| is(item, "primary")) => {
                if items.len() > 1 {
                    let message = "primary stands alone; take the others out".to_owned();
                    self.errors.push(error(path, message));
                }
                config.node_port_addresses = Some(NodePortAddresses::Primary);
            }
            _ => {
                let mut ranges = Vec::new();
                self.list(&mut ranges, path, value, |path, value| {
                    Ok(cidr(path, value)?.trunc())
                });
                config.node_port_addresses = Some(NodePortAddresses::Ranges(ranges));
            }
        }
    }

    /// `detectLocalMode` with the name it needs out of `detectLocal`.
    fn detection(&mut self, config: &mut ProxyConfig, fields: Fields<'_>) {
        let find = |wanted: &str| fields.iter().find(|(name, _)| name == wanted);
        let mode = match find("detectLocalMode").map(|(_, value)| value) {
            None | Some(Document::Null) => return,
            Some(value) => match text("detectLocalMode", value) {
                Ok(mode) => mode,
                Err(error) => return self.errors.push(error),
            },
        };
        let section = find("detectLocal").map(|(_, section)| section);
        let mut named = |name: &str| {
            let path = format!("detectLocal.{name}");
            let given = section.and_then(|section| field(section, name));
            let given = given.unwrap_or(&Document::Null);
            let missing = || error(&path, format!("missing: detectLocalMode {mode} needs it"));
            let read = match given {
                Document::Null => Err(missing()),
                given => text(&path, given).and_then(|text| link_name(&path, &text)),
            };
            read.map_err(|error| self.errors.push(error)).ok()
        };
        config.local_detection = match mode.as_str() {
            "" => None,
            "ClusterCIDR" => Some(LocalDetection::ClusterCidr),
            "NodeCIDR" => Some(LocalDetection::NodeCidr),
            "BridgeInterface" => named("bridgeInterface").map(LocalDetection::BridgeInterface),
            "InterfaceNamePrefix" => {
                named("interfaceNamePrefix").map(LocalDetection::InterfaceNamePrefix)
            }
            other => {
                let known = DETECT_MODES.map(|mode| (mode, ()));
                if let Err(error) = choose("detectLocalMode", other, &known) {
                    self.errors.push(error);
                }
                None
            }
        };
    }
}

/// What to say of a field that does nothing, where it asks for something.
fn no_effect(path: &str, value: &Document) -> Option<ConfigError> {
    let (_, default, why) = NO_EFFECT
        .iter()
        .find(|(name, ..)| path == *name || (name.ends_with('.') && path.starts_with(name)))?;
    let written = match value {
        Document::Null | Document::Bool(false) | Document::Int(0) => return None,
        Document::List(items) if items.is_empty() => return None,
        Document::Map(_) if path.starts_with("logging.") => return None,
        Document::Map(fields) if fields.is_empty() => return None,
        Document::Text(text) => text.clone(),
        Document::Int(number) => number.to_string(),
        Document::Float(number) => number.to_string(),
        _ => "?".to_owned(),
    };
    let zero = matches!(written.as_str(), "" | "0s" | "::");
    if zero || written == *default {
        return None;
    }
    Some(error(path, format!("has no effect here: {why}")))
}

fn field<'d>(section: &'d Document, name: &str) -> Option<&'d Document> {
    let Document::Map(fields) = section else {
        return None;
    };
    let (_, value) = fields.iter().find(|(other, _)| other == name)?;
    (*value != Document::Null).then_some(value)
}

fn mode(path: &str, value: &Document) -> Result<Option<ServicesMode>, ConfigError> {
    let name = text(path, value)?;
    let gone = match name.as_str() {
        "" => return Ok(None),
        "nftables" => return Ok(Some(ServicesMode::Nftables)),
        "iptables" => return Ok(Some(ServicesMode::Iptables)),
        "ipvs" => "is not served (Kubernetes deprecates it too, KEP-5495)",
        "userspace" => "is gone, from kube-proxy too since 1.26",
        "kernelspace" => "is for Windows",
        _ => {
            let known = [("nftables", ()), ("iptables", ())];
            return choose(path, &name, &known).map(|()| None);
        }
    };
    let message = format!("{name:?} {gone}: choose nftables or iptables, or leave it out");
    Err(error(path, message))
}

fn optional_text(path: &str, value: &Document) -> Result<Option<String>, ConfigError> {
    text(path, value).map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// `IP:port`; an address alone has the port that is usual.
fn socket(path: &str, value: &Document, port: u16) -> Result<Option<SocketAddr>, ConfigError> {
    let text = text(path, value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let alone = || {
        let ip = text.parse().ok()?;
        Some(SocketAddr::new(ip, port))
    };
    let address = text.parse().ok().or_else(alone);
    let address = address.filter(|address: &SocketAddr| address.port() != 0);
    address.map(Some).ok_or_else(|| {
        let message = format!("{text:?} is not IP:port, for example 0.0.0.0:{port}");
        error(path, message)
    })
}

fn cluster_cidr(path: &str, value: &Document) -> Result<Vec<ipnet::IpNet>, ConfigError> {
    let text = text(path, value)?;
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let ranges: Vec<ipnet::IpNet> = parts
        .map(|part| Ok(cidr(path, &Document::Text(part.to_owned()))?.trunc()))
        .collect::<Result<_, ConfigError>>()?;
    let v6 = ranges.iter().filter(|range| range.addr().is_ipv6()).count();
    if v6 > 1 || ranges.len() - v6 > 1 {
        let message = format!(
            "{text:?}: one range, or one a family (for example 10.100.0.0/16,fde4:8dba:82e1::/48)"
        );
        return Err(error(path, message));
    }
    Ok(ranges)
}

/// A duration as Go writes it: `1h30m`, `2.5s`, `300ms`.
fn duration(path: &str, value: &Document) -> Result<Duration, ConfigError> {
    let text = text(path, value)?;
    go_duration(&text).ok_or_else(|| {
        let message = format!("{text:?} is not a duration such as 30s, 1h30m or 500ms");
        error(path, message)
    })
}

fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty())
        .then(|| Duration::try_from_secs_f64(seconds).ok())
        .flatten()
}

#[cfg(test)]
mod tests;
