//! The rules of one port.

use std::net::IpAddr;

use ipnet::IpNet;
use model::TrafficPolicy;

use super::base::Place;
use super::names::{self, Kind};
use super::rule::{Rule, probability};
use super::{Chain, Context, base};
use crate::explain::Origin;
use crate::plan::{Backend, Frontend, FrontendKind, Local, PortPlan};

/// What one port asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortRules {
    /// Its lines in the chains it shares with all other ports.
    pub(crate) shared: Vec<(Place, String)>,
    /// Its own chains of the nat table.
    pub(crate) own: Vec<Chain>,
}

/// What is decided about a port before its rules are written.
struct Port<'a> {
    context: &'a Context<'a>,
    plan: &'a PortPlan,
    name: String,
    internal: Option<&'a Frontend>,
    external: Vec<&'a Frontend>,
    /// No `loadBalancerSourceRanges` means no chain for them.
    sources: Option<&'a [IpNet]>,
    external_local: bool,
    cluster: Vec<&'a Backend>,
    local: Vec<&'a Backend>,
    cluster_chain: String,
    local_chain: String,
    external_chain: String,
    firewall_chain: String,
    out: PortRules,
}

/// Names of the chains that a connection to a frontend meets, in their order: what to look for
/// with `iptables -t nat -S`.
pub fn way(
    port: &PortPlan,
    frontend: &Frontend,
    origin: Origin,
    endpoint: Option<&Backend>,
) -> Vec<String> {
    let internal = frontend.kind == FrontendKind::ClusterIp;
    let Some(endpoint) = endpoint else {
        let chain = if internal {
            "KUBE-SERVICES"
        } else {
            "KUBE-EXTERNAL-SERVICES"
        };
        return vec![format!("filter {chain}")];
    };
    let chain = |kind| names::name(kind, &port.name);
    let mut way = vec!["KUBE-SERVICES".to_owned()];
    if frontend.ip.is_none() {
        way.push("KUBE-NODEPORTS".to_owned());
    }
    if frontend.sources.is_some() {
        way.push(chain(Kind::Firewall));
    }
    if !internal {
        way.push(chain(Kind::External));
    }
    let local =
        frontend.policy == TrafficPolicy::Local && (internal || origin == Origin::Elsewhere);
    way.push(chain(if local { Kind::Local } else { Kind::Cluster }));
    way.push(names::endpoint_chain_name(&port.name, endpoint));
    way
}

/// Renders one port.
pub(crate) fn render(context: &Context<'_>, plan: &PortPlan) -> PortRules {
    let mut port = Port::new(context, plan);
    port.frontends();
    if let Some(check) = plan.health_check {
        let rule = Rule::new()
            .comment(&format!("{} health check node port", port.name))
            .port(model::Protocol::Tcp, check)
            .jump("ACCEPT");
        port.share(Place::FilterNodePorts, rule);
    }
    if port.reachable() {
        port.external_chain();
        port.firewall_chain();
    }
    port.policy_chains();
    port.out
}

impl<'a> Port<'a> {
    fn new(context: &'a Context<'a>, plan: &'a PortPlan) -> Self {
        let is_internal = |frontend: &&Frontend| frontend.kind == FrontendKind::ClusterIp;
        let internal = plan.frontends.iter().find(is_internal);
        let external: Vec<_> = plan
            .frontends
            .iter()
            .filter(|frontend| !is_internal(frontend))
            .collect();
        let is_local = |frontend: &&Frontend| frontend.policy == TrafficPolicy::Local;
        let external_local = external.iter().any(is_local);
        let used = |backends: &'a [Backend], is: bool| if is { sorted(backends) } else { vec![] };
        Self {
            context,
            plan,
            name: plan.name.to_string(),
            internal,
            sources: external
                .iter()
                .find_map(|frontend| frontend.sources.as_deref()),
            external,
            external_local,
            cluster: used(&plan.cluster, plan.uses_cluster()),
            local: used(&plan.local, plan.uses_local()),
            cluster_chain: names::name(Kind::Cluster, &plan.name),
            local_chain: names::name(Kind::Local, &plan.name),
            external_chain: names::name(Kind::External, &plan.name),
            firewall_chain: names::name(Kind::Firewall, &plan.name),
            out: PortRules::default(),
        }
    }

    /// It has an endpoint somewhere in the cluster.
    fn reachable(&self) -> bool {
        !self.plan.cluster.is_empty()
    }

    fn share(&mut self, place: Place, rule: String) {
        self.out.shared.push((place, rule));
    }

    fn own(&mut self, name: &str, rules: Vec<String>) {
        self.out.own.push((name.to_owned(), rules));
    }

    /// The chain that spreads over what a policy leads to, and whether there is anything.
    fn spreads(&self, policy: TrafficPolicy) -> (&str, bool) {
        match policy {
            TrafficPolicy::Cluster => (&self.cluster_chain, !self.cluster.is_empty()),
            TrafficPolicy::Local => (&self.local_chain, !self.local.is_empty()),
        }
    }

    /// Why a connection that finds no endpoint ends, and how.
    fn refusal(&self) -> (String, &'static str) {
        if self.reachable() {
            (format!("{} has no local endpoints", self.name), "DROP")
        } else {
            let reject = if self.plan.v6 {
                "REJECT --reject-with icmp6-port-unreachable"
            } else {
                "REJECT --reject-with icmp-port-unreachable"
            };
            (format!("{} has no endpoints", self.name), reject)
        }
    }

    /// The lines of the shared chains that lead here, or that refuse.
    fn frontends(&mut self) {
        let protocol = self.plan.name.protocol;
        let (why, refuse) = self.refusal();
        if let Some(internal) = self.internal {
            let (chain, any) = self.spreads(internal.policy);
            let at = |comment: &str| {
                Rule::new()
                    .destination(&host(self.plan.cluster_ip))
                    .comment(comment)
                    .port(protocol, internal.port)
            };
            let (place, rule) = if any {
                let comment = format!("{} cluster IP", self.name);
                (Place::NatServices, at(&comment).jump(chain))
            } else {
                (Place::FilterServices, at(&why).jump(refuse))
            };
            self.share(place, rule);
        }
        for frontend in self.external.clone() {
            let at = |comment: &str| match frontend.ip {
                Some(ip) => Rule::new().destination(&host(ip)).comment(comment),
                None => Rule::new().comment(comment),
            };
            if self.reachable() {
                let (place, comment) = match frontend.kind {
                    FrontendKind::NodePort => (Place::NatNodePorts, self.name.clone()),
                    FrontendKind::LoadBalancer => {
                        (Place::NatServices, format!("{} loadbalancer IP", self.name))
                    }
                    FrontendKind::ExternalIp | FrontendKind::ClusterIp => {
                        (Place::NatServices, format!("{} external IP", self.name))
                    }
                };
                let guarded = frontend.sources.is_some();
                let chain = if guarded {
                    &self.firewall_chain
                } else {
                    &self.external_chain
                };
                let rule = at(&comment).port(protocol, frontend.port).jump(chain);
                self.share(place, rule);
                if guarded {
                    let why = format!(
                        "{} traffic not accepted by {}",
                        self.name, self.firewall_chain
                    );
                    let rule = at(&why).port(protocol, frontend.port).jump("DROP");
                    self.share(Place::FilterFirewall, rule);
                }
            }
            if !self.spreads(frontend.policy).1 {
                let mut rule = at(&why);
                if frontend.ip.is_none() {
                    rule = rule.with("-m addrtype --dst-type LOCAL");
                }
                let rule = rule.port(protocol, frontend.port).jump(refuse);
                self.share(Place::FilterExternal, rule);
            }
        }
    }

    /// Connections to external addresses: masqueraded where they may cross nodes; from this
    /// node and its pods they follow no Local policy.
    fn external_chain(&mut self) {
        if self.external.is_empty() {
            return;
        }
        let about = |what: &str| {
            Rule::new().comment(&format!("{what} {} external destinations", self.name))
        };
        let mut rules = Vec::new();
        if self.external_local {
            let own = &self.context.settings.own_pods;
            let pods = from_pods(own, self.context.v6, about("pod traffic for"));
            rules.extend(pods.into_iter().map(|pods| pods.jump(&self.cluster_chain)));
            let local = |what| about(what).with("-m addrtype --src-type LOCAL");
            rules.push(local("masquerade LOCAL traffic for").jump(base::MARK));
            rules.push(local("route LOCAL traffic for").jump(&self.cluster_chain));
        } else {
            rules.push(about("masquerade traffic for").jump(base::MARK));
        }
        let policy = if self.external_local {
            TrafficPolicy::Local
        } else {
            TrafficPolicy::Cluster
        };
        let (chain, any) = self.spreads(policy);
        if any {
            rules.push(Rule::new().jump(chain));
        }
        self.own(&self.external_chain.clone(), rules);
    }

    /// Who may connect to a load balancer's addresses; the rest falls through to the firewall
    /// chain of the filter table.
    fn firewall_chain(&mut self) {
        let Some(sources) = self.sources else { return };
        let from = |source: &IpNet| {
            Rule::new()
                .source(source)
                .comment(&format!("{} loadbalancer IP", self.name))
                .jump(&self.external_chain)
        };
        // The balancer's own addresses, for connections of a node that has them, come last.
        let own = |source: &&IpNet| {
            let ip = Some(source.addr());
            source.prefix_len() == source.max_prefix_len()
                && self.external.iter().any(|frontend| frontend.ip == ip)
        };
        let (last, first): (Vec<&IpNet>, Vec<&IpNet>) = sources.iter().partition(own);
        let mut rules: Vec<String> = first.into_iter().chain(last).map(from).collect();
        let rest = format!(
            "other traffic to {} will be dropped by KUBE-PROXY-FIREWALL",
            self.name
        );
        rules.push(Rule::new().comment(&rest).end());
        self.own(&self.firewall_chain.clone(), rules);
    }

    /// The chains that spread, and those of the endpoints.
    fn policy_chains(&mut self) {
        let internal = self.internal_masquerade();
        let mut endpoints: Vec<&Backend> = Vec::new();
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            let backends = match policy {
                TrafficPolicy::Cluster => self.cluster.clone(),
                TrafficPolicy::Local => self.local.clone(),
            };
            if backends.is_empty() {
                continue;
            }
            let mut rules = Vec::new();
            if self.internal.is_some_and(|it| it.policy == policy) {
                rules.extend(internal.clone());
            }
            rules.extend(self.spread(&backends));
            let chain = self.spreads(policy).0.to_owned();
            self.own(&chain, rules);
            endpoints.extend(backends);
        }
        let mut done = std::collections::BTreeSet::new();
        for backend in endpoints {
            if done.insert((backend.ip, backend.port)) {
                let name = names::endpoint_chain_name(&self.plan.name, backend);
                let rules = self.endpoint(backend, &name);
                self.own(&name, rules);
            }
        }
    }

    /// Connections to the ClusterIP that do not come from pods take the node's address: the
    /// answer has to come back here.
    fn internal_masquerade(&self) -> Vec<String> {
        let Some(internal) = self.internal else {
            return Vec::new();
        };
        let rule = Rule::new()
            .destination(&host(self.plan.cluster_ip))
            .comment(&format!("{} cluster IP", self.name))
            .port(self.plan.name.protocol, internal.port);
        if self.context.settings.masquerade_all {
            vec![rule.jump(base::MARK)]
        } else {
            mark_strangers(self.context, rule)
        }
    }

    /// Endpoint by endpoint: who was here before goes there again; then each of those left with
    /// the same probability.
    fn spread(&self, backends: &[&Backend]) -> Vec<String> {
        let to = |backend: &Backend| {
            let text = format!("{} -> {}", self.name, names::endpoint(backend));
            (
                self.comment(&text),
                names::endpoint_chain_name(&self.plan.name, backend),
            )
        };
        let mut rules = Vec::with_capacity(backends.len());
        if let Some(seconds) = self.plan.affinity {
            rules.extend(backends.iter().map(|backend| {
                let (rule, chain) = to(backend);
                rule.with(&format!(
                    "-m recent --rcheck --seconds {seconds} --reap --name {chain} {}",
                    self.recent_mask()
                ))
                .jump(&chain)
            }));
        }
        for (at, backend) in backends.iter().enumerate() {
            let (mut rule, chain) = to(backend);
            let left = backends.len() - at;
            if left > 1 {
                rule = rule.with(&format!(
                    "-m statistic --mode random --probability {}",
                    probability(left)
                ));
            }
            rules.push(rule.jump(&chain));
        }
        rules
    }

    /// What reaches itself takes the node's address, or the answer would not come by here.
    fn endpoint(&self, backend: &Backend, chain: &str) -> Vec<String> {
        let hairpin = self
            .comment(&self.name)
            .source(&host(backend.ip))
            .jump(base::MARK);
        let mut dnat = self.comment(&self.name);
        if self.plan.affinity.is_some() {
            let mask = self.recent_mask();
            dnat = dnat.with(&format!("-m recent --set --name {chain} {mask}"));
        }
        let target = format!("DNAT --to-destination {}", names::endpoint(backend));
        vec![
            hairpin,
            dnat.protocol(self.plan.name.protocol).jump(&target),
        ]
    }

    fn comment(&self, text: &str) -> Rule {
        if self.context.large {
            Rule::new()
        } else {
            Rule::new().comment(text)
        }
    }

    fn recent_mask(&self) -> &'static str {
        if self.plan.v6 {
            "--mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource"
        } else {
            "--mask 255.255.255.255 --rsource"
        }
    }
}

/// Restricts a rule to what comes from pods: a rule for each range of theirs, none where nothing
/// tells them.
fn from_pods(pods: &Local, v6: bool, rule: Rule) -> Vec<Rule> {
    match pods {
        Local::Sources(ranges) => ranges
            .iter()
            .filter(|range| range.addr().is_ipv6() == v6)
            .map(|range| rule.clone().source(range))
            .collect(),
        Local::Link(name) => vec![rule.link(&pattern(name), true)],
    }
}

/// Marks what the rule matches and does not come from pods.
fn mark_strangers(context: &Context<'_>, rule: Rule) -> Vec<String> {
    let ranges = match &context.settings.local {
        Local::Sources(ranges) => ranges,
        Local::Link(name) => return vec![rule.link(&pattern(name), false).jump(base::MARK)],
    };
    let mut own = ranges
        .iter()
        .filter(|range| range.addr().is_ipv6() == context.v6);
    match (own.next(), own.next()) {
        (None, _) => Vec::new(),
        (Some(range), None) => vec![rule.not_source(range).jump(base::MARK)],
        // kube-proxy has one range at most. A rule cannot say "none of these", but the mark can
        // be taken back.
        _ => {
            let unmark = format!(
                "MARK --set-xmark 0x0/{:#x}",
                context.settings.masquerade_mark
            );
            let pods = from_pods(&context.settings.local, context.v6, rule.clone()).into_iter();
            let mut rules = vec![rule.jump(base::MARK)];
            rules.extend(pods.map(|pods| pods.jump(&unmark)));
            rules
        }
    }
}

/// A link's name as iptables has it: `+` stands for any rest.
fn pattern(name: &str) -> String {
    match name.strip_suffix('*') {
        Some(prefix) => format!("{prefix}+"),
        None => name.to_owned(),
    }
}

/// In the order of their text, as kube-proxy has them.
fn sorted(backends: &[Backend]) -> Vec<&Backend> {
    let mut keyed: Vec<_> = backends.iter().map(|b| (names::endpoint(b), b)).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    keyed.dedup_by(|a, b| a.0 == b.0);
    keyed.into_iter().map(|(_, backend)| backend).collect()
}

fn host(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}
