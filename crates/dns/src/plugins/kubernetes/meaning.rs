//! What a name below a zone stands for.

use std::net::IpAddr;
use std::ops::Range;

use model::{Protocol, Service, ServiceType};
use smallvec::SmallVec;

use super::{Kubernetes, Search};
use crate::corefile::plugins::PodMode;
use crate::plan::{Address, ServiceNames, is_headless, undashed};
use crate::wire::Name;

/// What a name stands for.
pub(super) enum Meaning<'a> {
    /// There is no such name.
    Nothing,
    /// The name is there, without an address: the zone itself, a namespace, ...
    Bare,
    /// `dns-version`.
    Version,
    /// `ns.dns`.
    NameServer,
    /// The pod with an address.
    Pod(&'a [u8], &'a [u8], IpAddr),
    /// A Service that is another name.
    Alias(&'a str),
    /// A Service with addresses of its own.
    Cluster(&'a Service, Filter<'a>),
    /// Endpoints of a Service; they may be none, where the name is there without them.
    Endpoints(&'a Service, Filter<'a>, Vec<Address<'a>>),
}

/// Labels in front of a Service's.
#[derive(Clone, Default)]
pub(super) struct Filter<'a> {
    /// Name of an endpoint.
    endpoint: Option<&'a [u8]>,
    /// Name of a port, empty for any.
    port: &'a [u8],
    /// Protocol, empty for any.
    protocol: &'a [u8],
    /// Labels of a topology zone, and whether all do where it has none.
    zone: Option<(Zone<'a>, bool)>,
}

type Zone<'a> = SmallVec<[&'a [u8]; 2]>;
type Labels<'a> = SmallVec<[&'a [u8]; 8]>;

/// In lower case: the key of a Service, with the namespace's label in it.
struct Key {
    bytes: SmallVec<[u8; 128]>,
    namespace: Range<usize>,
}

impl Key {
    /// Of the labels `service` and `namespace`; of the namespace alone if there is no service.
    fn new(service: Option<&[u8]>, namespace: &[u8]) -> Self {
        let mut bytes = SmallVec::new();
        for label in service.into_iter().chain([namespace]) {
            // A label has at most 63 bytes.
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label);
        }
        bytes.make_ascii_lowercase();
        let namespace = bytes.len() - namespace.len()..bytes.len();
        Self { bytes, namespace }
    }

    fn namespace(&self) -> &[u8] {
        &self.bytes[self.namespace.clone()]
    }
}

impl<'a> Search<'a> {
    /// What a name in the zone stands for.
    pub(super) fn meaning(self, name: &'a Name) -> Meaning<'a> {
        let Some(below) = name.below(self.zone) else {
            return Meaning::Nothing;
        };
        let labels: Labels<'a> = below.collect();
        let Some((kind, rest)) = labels.split_last() else {
            return Meaning::Bare;
        };
        let is = |word: &str| kind.eq_ignore_ascii_case(word.as_bytes());
        let pods = is("pod");
        if !pods && !is("svc") {
            return match rest {
                [] if is("dns-version") => Meaning::Version,
                [ns] if is("dns") && ns.eq_ignore_ascii_case(b"ns") => Meaning::NameServer,
                _ => Meaning::Nothing,
            };
        }
        match rest {
            [] => Meaning::Bare,
            // There are no Services in zones of addresses.
            _ if is_reverse(name) => Meaning::Nothing,
            [namespace] => self.namespace(namespace, pods),
            [.., namespace] if pods && !self.exposes(namespace) => Meaning::Nothing,
            // Labels in front of a pod's mean nothing; CoreDNS allows for an endpoint's or for
            // those of a port there.
            [.., pod, namespace] if pods && rest.len() <= 4 => self.pod(pod, namespace),
            [front @ .., service, namespace] if !pods => self.service(front, service, namespace),
            _ => Meaning::Nothing,
        }
    }

    fn exposes(self, namespace: &[u8]) -> bool {
        let key = Key::new(None, namespace);
        self.plugin.exposes(&self.view.names, key.namespace())
    }

    fn namespace(self, namespace: &[u8], pods: bool) -> Meaning<'a> {
        if !self.exposes(namespace) || pods && self.plugin.options.pods == PodMode::Disabled {
            return Meaning::Nothing;
        }
        Meaning::Bare
    }

    fn pod(self, label: &'a [u8], namespace: &'a [u8]) -> Meaning<'a> {
        let Some(ip) = undashed(label) else {
            return Meaning::Nothing;
        };
        let there = match self.plugin.options.pods {
            PodMode::Disabled => false,
            PodMode::Insecure => true,
            PodMode::Verified => self.has_pod(namespace, ip),
        };
        if there {
            Meaning::Pod(label, namespace, ip)
        } else {
            Meaning::Nothing
        }
    }

    /// Whether a pod of the namespace has an address.
    fn has_pod(self, namespace: &[u8], ip: IpAddr) -> bool {
        let cluster = &self.view.cluster;
        let is = |pod: &model::Pod| {
            pod.namespace.as_bytes().eq_ignore_ascii_case(namespace)
                && pod.ips.contains(&ip)
                && self
                    .plugin
                    .options
                    .labels
                    .as_ref()
                    .is_none_or(|wanted| wanted.matches(&pod.labels))
        };
        if cluster.pod_at(ip).is_some_and(|pod| is(pod)) {
            return true;
        }
        // Pods on the host's network have a node's address.
        let mut nodes = cluster.nodes.values();
        if !nodes.any(|node| node.addresses.contains(&ip)) {
            return false;
        }
        let Ok(first) = std::str::from_utf8(namespace) else {
            return false;
        };
        let from = (first.to_ascii_lowercase(), String::new());
        let pods = cluster.pods.range(from..).map(|(_, pod)| pod);
        let mut pods = pods.take_while(|pod| pod.namespace.eq_ignore_ascii_case(first));
        pods.any(|pod| pod.host_network && is(pod))
    }

    fn service(self, front: &[&'a [u8]], name: &'a [u8], namespace: &'a [u8]) -> Meaning<'a> {
        let Some(filter) = self.filter(front) else {
            return Meaning::Nothing;
        };
        let key = Key::new(Some(name), namespace);
        let Some(entry) = self.view.names.service_at(&key.bytes) else {
            return Meaning::Nothing;
        };
        let Some(service) = self.plugin.service(entry) else {
            return Meaning::Nothing;
        };
        // Where a Service is, its namespace is.
        let restricted = self.plugin.options.namespace_labels.is_some()
            || !self.plugin.options.namespaces.is_empty();
        if restricted && !self.plugin.exposes(&self.view.names, key.namespace()) {
            return Meaning::Nothing;
        }
        self.meaning_of(entry, service, filter)
    }

    fn meaning_of(
        self,
        entry: &'a ServiceNames,
        service: &'a Service,
        filter: Filter<'a>,
    ) -> Meaning<'a> {
        if service.kind == ServiceType::ExternalName {
            // Such a Service has neither endpoints nor ports.
            let plain = filter.is_plain();
            let target = service.external_name.as_deref().filter(|_| plain);
            // What is an address is no name.
            let target = target.filter(|target| target.parse::<IpAddr>().is_err());
            return target.map_or(Meaning::Nothing, Meaning::Alias);
        }
        let headless = is_headless(service);
        if filter.zone.is_some() && !headless {
            return Meaning::Nothing;
        }
        let empty = || !self.plugin.options.endpoints || entry.addresses().next().is_none();
        if self.plugin.options.ignore_empty_service && !headless && empty() {
            return Meaning::Nothing;
        }
        if headless || filter.endpoint.is_some() {
            let addresses = self.plugin.endpoints_of(entry, &filter);
            // A topology zone may be without endpoints of a Service that is there.
            if addresses.is_empty() && filter.zone.is_none() {
                return Meaning::Nothing;
            }
            return Meaning::Endpoints(service, filter, addresses);
        }
        if !filter.has_port(service) {
            return Meaning::Nothing;
        }
        Meaning::Cluster(service, filter)
    }

    /// What is in front of a Service's name; none where that means nothing.
    fn filter(self, front: &[&'a [u8]]) -> Option<Filter<'a>> {
        let mut filter = Filter::default();
        match front {
            [] => {}
            [endpoint] => filter.endpoint = Some(endpoint),
            [port, protocol] => {
                filter.port = stripped(port);
                filter.protocol = stripped(protocol);
            }
            [zone @ .., directive, anchor] => {
                let pin = directive.eq_ignore_ascii_case(b"pin");
                let prefer = directive.eq_ignore_ascii_case(b"prefer");
                let anchored = anchor.eq_ignore_ascii_case(b"_zone");
                if !self.plugin.options.zonal || !anchored || !pin && !prefer {
                    return None;
                }
                filter.zone = Some((zone.iter().copied().collect(), prefer));
            }
        }
        Some(filter)
    }
}

impl Kubernetes {
    /// The Service of an entry, if it is one whose names are answered.
    pub(crate) fn service<'a>(&self, entry: &'a ServiceNames) -> Option<&'a Service> {
        let service = entry.service.as_deref()?;
        let labels = self.options.labels.as_ref();
        labels
            .is_none_or(|wanted| wanted.matches(&service.labels))
            .then_some(service)
    }

    /// What an endpoint is called below its Service.
    pub(crate) fn endpoint_name(&self, address: &Address<'_>) -> crate::plan::Label {
        address.name(self.options.endpoint_pod_names)
    }

    /// Addresses of endpoints that are ready: of all, or of those with a name.
    pub(crate) fn addresses_of<'a>(
        &self,
        entry: &'a ServiceNames,
        label: Option<&[u8]>,
    ) -> Vec<Address<'a>> {
        match label {
            _ if !self.options.endpoints => Vec::new(),
            Some(label) => entry.named(label, self.options.endpoint_pod_names),
            None => entry.addresses().collect(),
        }
    }

    /// Addresses of those endpoints that are meant.
    fn endpoints_of<'a>(&self, entry: &'a ServiceNames, filter: &Filter<'_>) -> Vec<Address<'a>> {
        let mut all = self.addresses_of(entry, filter.endpoint);
        all.retain(|one| filter.has_slice_port(one));
        let Some((zone, prefer)) = &filter.zone else {
            return all;
        };
        let inside = |one: &Address<'_>| is_zone(one.endpoint.zone.as_deref(), zone);
        if *prefer && !all.iter().any(inside) {
            return all;
        }
        all.retain(inside);
        all
    }
}

impl Filter<'_> {
    fn is_plain(&self) -> bool {
        self.endpoint.is_none()
            && self.port.is_empty()
            && self.protocol.is_empty()
            && self.zone.is_none()
    }

    /// Whether a port is meant.
    pub(super) fn is(&self, name: &str, protocol: Protocol) -> bool {
        let is = |wanted: &[u8], has: &str| {
            wanted.is_empty() || has.as_bytes().eq_ignore_ascii_case(wanted)
        };
        is(self.port, name) && is(self.protocol, protocol.word())
    }

    /// Whether all ports are meant.
    pub(super) fn is_any(&self) -> bool {
        self.port.is_empty() && self.protocol.is_empty()
    }

    /// Whether a port of the Service is meant; without ports it is there all the same.
    fn has_port(&self, service: &Service) -> bool {
        let mut ports = service.ports.iter();
        self.is_any() || ports.any(|port| self.is(&port.name, port.protocol))
    }

    fn has_slice_port(&self, address: &Address<'_>) -> bool {
        let mut ports = address.slice.ports.iter();
        self.is_any() || ports.any(|port| self.is(&port.name, port.protocol))
    }
}

/// Whether a topology zone has these labels.
fn is_zone(zone: Option<&str>, labels: &[&[u8]]) -> bool {
    let mut parts = zone.unwrap_or_default().split('.').map(str::as_bytes);
    let same = labels.iter().all(|label| {
        let part = parts.next();
        part.is_some_and(|part| part.eq_ignore_ascii_case(label))
    });
    same && parts.next().is_none()
}

/// A label without the underscore in front.
pub(crate) fn stripped(label: &[u8]) -> &[u8] {
    label.strip_prefix(b"_").unwrap_or(label)
}

/// Whether a name is below the zones of addresses.
fn is_reverse(name: &Name) -> bool {
    let bytes = name.as_bytes();
    let ends = |with: &[u8]| {
        let from = bytes.len().checked_sub(with.len());
        from.is_some_and(|from| from > 0 && bytes[from..].eq_ignore_ascii_case(with))
    };
    ends(b"\x07in-addr\x04arpa\0") || ends(b"\x03ip6\x04arpa\0")
}
