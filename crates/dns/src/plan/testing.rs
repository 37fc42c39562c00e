//! Clusters and questions for tests, in few words.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::{
    Change, Changed, Cluster, Endpoint, EndpointSlice, Labels, Namespace, Node, Pod, Protocol,
    Service, ServicePort, ServiceType, SlicePort,
};

use super::{Names, View};
use crate::plugins::kubernetes::Found;
use crate::wire::{Class, Data, Question, Record, Type};

/// A cluster with its names, changed step by step.
#[derive(Debug)]
pub(crate) struct Town {
    pub cluster: Cluster,
    pub names: Names,
    at: SystemTime,
}

impl Default for Town {
    fn default() -> Self {
        Self {
            cluster: Cluster::default(),
            names: Names::default(),
            at: UNIX_EPOCH + Duration::from_secs(1000),
        }
    }
}

impl Town {
    pub fn view(&self) -> View {
        View {
            names: self.names.clone(),
            cluster: self.cluster.clone(),
        }
    }

    pub fn at(&mut self, at: SystemTime) {
        self.at = at;
    }

    pub fn take(&mut self, change: Change) -> &mut Self {
        let mut changed = Changed::default();
        self.cluster.note(change, &mut changed);
        self.names.update(&self.cluster, &changed, self.at);
        self
    }

    pub fn namespace(&mut self, name: &str) -> &mut Self {
        let labels = Labels::from([("name", name)]);
        let name = name.to_owned();
        self.take(Change::Namespace(Arc::new(Namespace { name, labels })))
    }

    pub fn service(&mut self, key: &str, ips: &[&str], ports: &[&str]) -> &mut Self {
        self.take(Change::Service(Arc::new(service(key, ips, ports))))
    }

    pub fn change(
        &mut self,
        key: &str,
        ips: &[&str],
        ports: &[&str],
        change: impl FnOnce(&mut Service),
    ) -> &mut Self {
        let mut service = service(key, ips, ports);
        change(&mut service);
        self.take(Change::Service(Arc::new(service)))
    }

    pub fn alias(&mut self, key: &str, target: &str) -> &mut Self {
        self.take(Change::Service(Arc::new(Service {
            kind: ServiceType::ExternalName,
            external_name: Some(target.to_owned()),
            ..service(key, &[], &[])
        })))
    }

    /// Ports as `name/protocol/number`, endpoints as `address host=... pod=... zone=... unready`.
    pub fn slice(&mut self, key: &str, ports: &[&str], endpoints: &[&str]) -> &mut Self {
        self.any_slice(key, ports, endpoints, false)
    }

    pub fn slice6(&mut self, key: &str, ports: &[&str], endpoints: &[&str]) -> &mut Self {
        self.any_slice(key, ports, endpoints, true)
    }

    fn any_slice(&mut self, key: &str, ports: &[&str], endpoints: &[&str], v6: bool) -> &mut Self {
        let (namespace, service) = key.split_once('/').unwrap();
        self.take(Change::Slice(Arc::new(EndpointSlice {
            namespace: namespace.to_owned(),
            name: format!("{service}-{}", if v6 { "b" } else { "a" }),
            service: service.to_owned(),
            v6,
            ports: ports.iter().map(|text| slice_port(text)).collect(),
            endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
            triggered: None,
        })))
    }

    pub fn pod(&mut self, key: &str, ip: &str, host_network: bool) -> &mut Self {
        let (namespace, name) = key.split_once('/').unwrap();
        self.take(Change::Pod(Arc::new(Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: key.to_owned(),
            node: "node1".to_owned(),
            ips: vec![ip.parse().unwrap()],
            host_network,
            labels: Labels::default(),
            ports: Vec::new(),
            created: 0,
            leaving: false,
        })))
    }

    pub fn node(&mut self, name: &str, ip: &str) -> &mut Self {
        self.take(Change::Node(Node {
            name: name.to_owned(),
            addresses: vec![ip.parse().unwrap()],
            pod_cidrs: Vec::new(),
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: Default::default(),
            leaving: false,
        }))
    }
}

/// A Service by `namespace/name`; its name is a label too.
pub(crate) fn service(key: &str, ips: &[&str], ports: &[&str]) -> Service {
    let (namespace, name) = key.split_once('/').unwrap();
    let ports = ports.iter().map(|text| slice_port(text));
    let ports = ports.map(|port| ServicePort {
        name: port.name,
        protocol: port.protocol,
        port: port.port.unwrap(),
        node_port: None,
    });
    Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports: ports.collect(),
        labels: Labels::from([("name", name)]),
        ..Service::default()
    }
}

fn slice_port(text: &str) -> SlicePort {
    let parts: Vec<&str> = text.split('/').collect();
    let protocols = Protocol::ALL.into_iter();
    SlicePort {
        name: parts[0].to_owned(),
        protocol: protocols
            .into_iter()
            .find(|one| one.word() == parts[1])
            .unwrap(),
        port: parts[2].parse().ok(),
    }
}

pub(crate) fn endpoint(text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let ip = words.next().unwrap().parse().unwrap();
    let words: Vec<&str> = words.collect();
    let value = |key: &str| {
        let found = words.iter().find_map(|word| word.strip_prefix(key));
        found.map(str::to_owned)
    };
    Endpoint {
        ip,
        more: value("more=")
            .into_iter()
            .map(|ip| ip.parse().unwrap())
            .collect(),
        ready: !words.contains(&"unready"),
        serving: true,
        terminating: false,
        node: None,
        zone: value("zone="),
        hostname: value("host="),
        pod: value("pod="),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    }
}

/// A question as `name type`.
pub(crate) fn question(text: &str) -> Question {
    let (name, kind) = text.split_once(' ').unwrap();
    Question {
        name: name.parse().unwrap(),
        kind: Type::from_word(kind).unwrap(),
        class: Class::IN,
    }
}

/// What was found, line by line: code, answers, authority with `?`, additional records with `+`,
/// what is to be asked for further with `>`.
pub(crate) fn answered(found: Option<&Found>) -> Vec<String> {
    let Some(Found { answer, lookups }) = found else {
        return vec!["next".to_owned()];
    };
    let records = |mark: &str, records: &[Record]| -> Vec<String> {
        let lines = records.iter().map(|one| format!("{mark}{}", shown(one)));
        lines.collect()
    };
    let mut lines = vec![answer.rcode.to_string()];
    lines.extend(records("", &answer.answers));
    lines.extend(records("? ", &answer.authorities));
    lines.extend(records("+ ", &answer.additionals));
    lines.extend(
        lookups
            .iter()
            .map(|one| format!("> {} {}", one.name, one.kind)),
    );
    lines
}

pub(crate) fn shown(record: &Record) -> String {
    let data = match &record.data {
        Data::A(ip) => ip.to_string(),
        Data::Aaaa(ip) => ip.to_string(),
        Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => name.to_string(),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => format!("{priority} {weight} {port} {target}"),
        Data::Soa(soa) => format!(
            "{} {} {} {} {} {} {}",
            soa.primary, soa.mailbox, soa.serial, soa.refresh, soa.retry, soa.expire, soa.minimum
        ),
        Data::Txt(bytes) => format!("{:?}", String::from_utf8_lossy(&bytes[1..])),
        other => format!("{other:?}"),
    };
    format!("{} {} {} {data}", record.name, record.ttl, record.kind())
}
