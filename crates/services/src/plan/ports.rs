//! What one Service asks for on this node, as if it were alone, and what is wrong with it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use model::{Cluster, EndpointSlice, Key, Service, ServicePort, ServiceType, TrafficPolicy};

use super::claims::Owner;
use super::settings::is_v6;
use super::{
    Frontend, FrontendKind, HealthCheck, PortId, PortName, PortPlan, Problem, Settings, endpoints,
};

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By name and family.
    pub(super) ports: Vec<WantedPort>,
    pub(super) health: Option<HealthCheck>,
    /// What is wrong whoever else is there.
    pub(super) problems: Vec<Problem>,
    pub(super) created: i64,
}

/// One port with all frontends it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantedPort {
    pub(super) owner: Arc<Owner>,
    pub(super) plan: Arc<PortPlan>,
}

impl Wanted {
    /// Whether it asks for the same places with the same right, whatever the endpoints.
    pub(super) fn claims_as(&self, other: &Self) -> bool {
        let check = |wanted: &Self| wanted.health.as_ref().map(|health| health.port);
        check(self) == check(other)
            && self.ports.len() == other.ports.len()
            && self.ports.iter().zip(&other.ports).all(|(one, two)| {
                one.owner == two.owner
                    && one.plan.cluster_ip == two.plan.cluster_ip
                    && one.plan.frontends == two.plan.frontends
            })
    }

    /// Keeps what is equal in `was`, so that each value is held once.
    pub(super) fn share(&mut self, was: &Self) {
        for (mine, old) in self.ports.iter_mut().zip(&was.ports) {
            if mine.owner == old.owner {
                mine.owner = Arc::clone(&old.owner);
            }
            if mine.plan == old.plan {
                mine.plan = Arc::clone(&old.plan);
            }
        }
    }
}

/// What the Service asks for; nothing where it is not there or no proxy's business.
pub(super) fn wanted(settings: &Settings, cluster: &Cluster, key: &Key) -> Option<Wanted> {
    let service = cluster.services.get(key)?;
    if !service.is_proxied() {
        return None;
    }
    let mut builder = Builder {
        settings,
        service,
        ports: Vec::with_capacity(service.ports.len()),
        problems: Vec::new(),
    };
    let slices = cluster.slices_of(key);
    let mut health = HealthCheck {
        port: health_port(service).unwrap_or_default(),
        local_endpoints: None,
        local_endpoints_v6: None,
    };
    for v6 in [false, true] {
        let served = builder.family(v6, slices);
        if served && health.port != 0 {
            let count = Some(endpoints::ready_here(settings, slices, v6));
            if v6 {
                health.local_endpoints_v6 = count;
            } else {
                health.local_endpoints = count;
            }
        }
    }
    builder.service_problems();
    for slice in slices {
        builder.slice_problems(slice);
    }
    builder
        .ports
        .sort_by(|one, two| one.owner.id.cmp(&two.owner.id));
    let checked = health
        .local_endpoints
        .or(health.local_endpoints_v6)
        .is_some();
    Some(Wanted {
        ports: builder.ports,
        health: checked.then_some(health),
        problems: builder.problems,
        created: service.created,
    })
}

/// The health check port of a balancer that leads only to nodes with endpoints.
fn health_port(service: &Service) -> Option<u16> {
    let needed = service.kind == ServiceType::LoadBalancer
        && external_policy(service) == TrafficPolicy::Local;
    service.health_check_port.filter(|_| needed)
}

/// The external policy counts only where the type makes the Service reachable from outside.
fn external_policy(service: &Service) -> TrafficPolicy {
    let reachable = match service.kind {
        ServiceType::NodePort | ServiceType::LoadBalancer => true,
        ServiceType::ClusterIp => !service.external_ips.is_empty(),
        ServiceType::ExternalName => false,
    };
    if reachable {
        service.external_policy
    } else {
        TrafficPolicy::Cluster
    }
}

/// Why an address cannot be a Service's, where it cannot. What passes here and is odd all the
/// same (a node's own address, a pod's) is served, as kube-proxy does.
fn unfit(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

/// The frontends of one family that differ from port to port only in their port.
struct Family {
    v6: bool,
    cluster_ip: IpAddr,
    load_balancer: Vec<IpAddr>,
    external: Vec<IpAddr>,
    sources: Option<Vec<IpNet>>,
}

struct Builder<'a> {
    settings: &'a Settings,
    service: &'a Service,
    ports: Vec<WantedPort>,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn problem(&mut self, field: String, message: String) {
        self.problems.push(Problem {
            kind: "Service",
            object: self.service.key(),
            field,
            message,
        });
    }

    /// Plans the ports of one family; false where the Service has none of it.
    fn family(&mut self, v6: bool, slices: &[Arc<EndpointSlice>]) -> bool {
        let Some(cluster_ip) = self.cluster_ip(v6) else {
            return false;
        };
        let load_balancer = self.load_balancer(cluster_ip);
        let external = self.external_ips(cluster_ip, &load_balancer);
        let sources = self.sources(v6, &load_balancer);
        let family = Family {
            v6,
            cluster_ip,
            load_balancer,
            external,
            sources,
        };
        let before = self.ports.len();
        for (index, port) in self.service.ports.iter().enumerate() {
            if port.port != 0 {
                self.port(&family, index, port, slices);
            }
        }
        self.ports.len() > before
    }

    fn cluster_ip(&mut self, v6: bool) -> Option<IpAddr> {
        let all = &self.service.cluster_ips;
        let (index, ip) = all.iter().enumerate().find(|(_, ip)| ip.is_ipv6() == v6)?;
        let field = || format!("spec.clusterIPs[{index}]");
        if let Some(what) = unfit(*ip) {
            let cause = format!("{ip} is {what}, not served; create the Service anew");
            self.problem(field(), cause);
            return None;
        }
        let mut ranges = self.settings.service_cidrs.iter();
        let known = self.settings.service_cidrs.iter().any(|r| is_v6(r) == v6);
        if known && !ranges.any(|range| range.contains(ip)) {
            let cause = format!(
                "{ip} is outside the service ranges; served all the same, but another Service may \
                 be given it: create this one anew, or add its range to the configuration's \
                 serviceCIDRs"
            );
            self.problem(field(), cause);
        }
        Some(*ip)
    }

    fn load_balancer(&mut self, cluster_ip: IpAddr) -> Vec<IpAddr> {
        let mut fit = Vec::new();
        for (index, address) in self.service.load_balancer.iter().enumerate() {
            let ip = address.ip;
            if address.proxied || ip.is_ipv6() != cluster_ip.is_ipv6() {
                continue;
            }
            if let Some(what) = unfit(ip) {
                let field = format!("status.loadBalancer.ingress[{index}].ip");
                let cause = format!("{ip} is {what}, not served; the balancer must give another");
                self.problem(field, cause);
            } else if ip != cluster_ip && !fit.contains(&ip) {
                fit.push(ip);
            }
        }
        fit
    }

    /// Those that are not the ClusterIP or a balancer's address as well: the ClusterIP keeps its
    /// own policy, the balancer's address its source ranges.
    fn external_ips(&mut self, cluster_ip: IpAddr, load_balancer: &[IpAddr]) -> Vec<IpAddr> {
        let mut fit = Vec::new();
        for (index, ip) in self.service.external_ips.iter().enumerate() {
            if ip.is_ipv6() != cluster_ip.is_ipv6() {
                continue;
            }
            if let Some(what) = unfit(*ip) {
                let field = format!("spec.externalIPs[{index}]");
                let cause = format!("{ip} is {what}, not served; take it off the list");
                self.problem(field, cause);
            } else if *ip != cluster_ip && !load_balancer.contains(ip) && !fit.contains(ip) {
                fit.push(*ip);
            }
        }
        fit
    }

    /// The sources that the balancer's addresses of a family let in. Ranges of the other family
    /// only restrict nothing here, and one that is everything lifts the others.
    fn sources(&self, v6: bool, load_balancer: &[IpAddr]) -> Option<Vec<IpNet>> {
        let all = self.service.source_ranges.iter();
        let mut ranges: Vec<IpNet> = all
            .filter(|range| is_v6(range) == v6)
            .map(IpNet::trunc)
            .collect();
        if ranges.is_empty() || ranges.iter().any(|range| range.prefix_len() == 0) {
            return None;
        }
        let node = self.settings.node_ip(v6);
        if node.is_some_and(|node| ranges.iter().any(|range| range.contains(&node))) {
            ranges.extend(load_balancer.iter().map(|ip| IpNet::from(*ip)));
        }
        ranges.sort();
        ranges.dedup();
        Some(ranges)
    }

    fn port(
        &mut self,
        family: &Family,
        index: usize,
        port: &ServicePort,
        slices: &[Arc<EndpointSlice>],
    ) {
        let service = self.service;
        let name = PortName {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
            port: port.name.clone(),
            protocol: port.protocol,
        };
        let frontends = self.frontends(family, port);
        let candidates = endpoints::merge(
            self.settings,
            slices,
            (&port.name, port.protocol),
            family.v6,
        );
        let wants_local = frontends
            .iter()
            .any(|frontend| frontend.policy == TrafficPolicy::Local);
        let choice = endpoints::choose(self.settings, &candidates, wants_local);
        let id: PortId = (name.clone(), family.v6);
        let plan = PortPlan {
            name,
            v6: family.v6,
            cluster_ip: family.cluster_ip,
            port: port.port,
            frontends,
            cluster: choice.cluster,
            local: choice.local,
            affinity: service.affinity.filter(|timeout| *timeout != 0),
            health_check: health_port(service),
        };
        let wanted = WantedPort {
            owner: Arc::new(Owner {
                created: service.created,
                index,
                id,
            }),
            plan: Arc::new(plan),
        };
        // The same name twice: the later counts, as in kube-proxy's map of ports.
        let twin = self
            .ports
            .iter_mut()
            .find(|p| p.owner.id == wanted.owner.id);
        match twin {
            Some(twin) => *twin = wanted,
            None => self.ports.push(wanted),
        }
    }

    fn frontends(&self, family: &Family, port: &ServicePort) -> Vec<Frontend> {
        let policy = external_policy(self.service);
        let frontend = |kind, ip, port, policy, sources| Frontend {
            kind,
            ip,
            port,
            policy,
            sources,
        };
        let internal = self.service.internal_policy;
        let cluster_ip = Some(family.cluster_ip);
        let count = 2 + family.external.len() + family.load_balancer.len();
        let mut all = Vec::with_capacity(count);
        let kind = FrontendKind::ClusterIp;
        all.push(frontend(kind, cluster_ip, port.port, internal, None));
        for ip in &family.external {
            let kind = FrontendKind::ExternalIp;
            all.push(frontend(kind, Some(*ip), port.port, policy, None));
        }
        for ip in &family.load_balancer {
            let kind = FrontendKind::LoadBalancer;
            let sources = family.sources.clone();
            all.push(frontend(kind, Some(*ip), port.port, policy, sources));
        }
        if let Some(number) = port.node_port.filter(|number| *number != 0) {
            all.push(frontend(FrontendKind::NodePort, None, number, policy, None));
        }
        all.sort();
        all
    }

    fn service_problems(&mut self) {
        let service = self.service;
        for (index, port) in service.ports.iter().enumerate() {
            if port.port == 0 {
                let cause = "0 is no port, not served; ports are 1 to 65535".to_owned();
                self.problem(format!("spec.ports[{index}].port"), cause);
            }
            let later = service.ports.get(index + 1..).unwrap_or_default();
            let twin = |other: &ServicePort| {
                other.name == port.name && other.protocol == port.protocol && other.port != 0
            };
            if port.port != 0 && later.iter().any(twin) {
                let cause = format!(
                    "a later {} port is named {:?} too, and that one is served; give each its own \
                     name",
                    port.protocol, port.name
                );
                self.problem(format!("spec.ports[{index}].name"), cause);
            }
        }
        if service.affinity == Some(0) {
            let cause = "0 seconds of affinity is none; at least 1 is needed".to_owned();
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            self.problem(field.to_owned(), cause);
        }
    }

    fn slice_problems(&mut self, slice: &EndpointSlice) {
        let mut problem = |field: String, message: String| {
            self.problems.push(Problem {
                kind: "EndpointSlice",
                object: (slice.namespace.clone(), slice.name.clone()),
                field,
                message,
            });
        };
        let mut wrong = slice.endpoints.iter().enumerate();
        if let Some((index, endpoint)) = wrong.find(|(_, each)| each.ip.is_ipv6() != slice.v6) {
            let more = match wrong
                .filter(|(_, each)| each.ip.is_ipv6() != slice.v6)
                .count()
            {
                0 => String::new(),
                more => format!(", and {more} more of it"),
            };
            let family = if slice.v6 { "IPv6" } else { "IPv4" };
            let cause = format!(
                "{} is not of addressType {family}{more}; not served: each family has its own \
                 slices",
                endpoint.ip
            );
            problem(format!("endpoints[{index}].addresses"), cause);
        }
        for (index, port) in slice.ports.iter().enumerate() {
            let asked = |own: &ServicePort| own.name == port.name && own.protocol == port.protocol;
            if port.port.is_none_or(|number| number == 0) && self.service.ports.iter().any(asked) {
                let cause = "no port number, so its endpoints are not served; a Service's port \
                             needs one of 1 to 65535"
                    .to_owned();
                problem(format!("ports[{index}].port"), cause);
            }
        }
    }
}
