//! The check's own Services, of every kind, and who tries them how.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use model::{Cluster, Protocol};
use serde_json::{Value, json};

use super::denied::{self, Fate, Fates, Way};
use super::paths::{End, Kind, Place};
use super::pods::{NAMESPACE, POD, SERVES, code, failed, names};
use super::probe::{Patience, REFUSED, Station, Told};
use crate::commands::Failure;

/// The port that the endpoints listen on.
pub const TARGET: u16 = 9376;
/// The Services' port.
const PORT: u16 = 80;
/// How long endpoints and a load balancer's address may take to be known.
const KNOWN: Duration = Duration::from_secs(5);
/// How long the nodes may take to follow: a connection begun before they did fails only after its
/// whole time, and is then tried once more.
pub const SETTLE: Duration = Duration::from_secs(5);
/// Addresses for documentation: nobody else has them.
const EXTERNAL: [&str; 2] = ["198.51.100.53", "2001:db8:53::1"];

/// A Service of the check, as the API has it.
#[derive(Clone, Debug, Default)]
pub struct Made {
    name: String,
    cluster_ips: Vec<IpAddr>,
    external: Vec<IpAddr>,
    balanced: Vec<IpAddr>,
    node_port: Option<u16>,
}

/// What is expected of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// An answer; the server sees the source so, and is on the caller's node.
    Answer { source: Source, near: bool },
    /// The same server again and again.
    Same,
    /// A connection.
    Connection,
    /// A refusal at once.
    Refusal,
}

/// Which source the server is to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Any,
    Own,
    NotOwn,
}

/// One try.
#[derive(Clone, Debug)]
pub struct Try {
    /// What it stands for.
    pub kind: Kind,
    /// Index of the end that tries.
    pub from: usize,
    /// What it tries, for people.
    pub to: String,
    /// Over IPv6.
    pub v6: bool,
    address: SocketAddr,
    want: Want,
}

/// How a try went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How long TCP took.
    pub tcp: Option<Duration>,
    /// How long UDP took.
    pub udp: Option<Duration>,
    /// By which policies it does not pass, as it should be.
    pub denied: Option<String>,
    /// What is wrong.
    pub causes: Vec<String>,
}

fn manifests(families: &[bool], one: &str) -> Vec<Value> {
    let serving = json!({ SERVES: "true" });
    let external: Vec<&str> = families
        .iter()
        .map(|v6| EXTERNAL[usize::from(*v6)])
        .collect();
    let all = [
        ("plain", json!({})),
        ("near", json!({ "internalTrafficPolicy": "Local" })),
        ("external", json!({ "externalIPs": external })),
        ("port", json!({ "type": "NodePort" })),
        (
            "port-local",
            json!({ "type": "NodePort", "externalTrafficPolicy": "Local" }),
        ),
        ("balanced", json!({ "type": "LoadBalancer" })),
        (
            "balanced-local",
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" }),
        ),
        ("sticky", json!({ "sessionAffinity": "ClientIP" })),
        ("self", json!({ "selector": { POD: one } })),
        ("nobody", json!({ "selector": { POD: "nobody" } })),
    ];
    all.into_iter()
        .map(|(name, mut spec)| {
            spec["ipFamilyPolicy"] = "PreferDualStack".into();
            if spec["selector"].is_null() {
                spec["selector"] = serving.clone();
            }
            spec["ports"] = json!([
                { "name": "tcp", "port": PORT, "targetPort": TARGET },
                { "name": "udp", "port": PORT, "targetPort": TARGET, "protocol": "UDP" },
            ]);
            json!({ "metadata": { "name": name }, "spec": spec })
        })
        .collect()
}

/// Makes the Services, and waits until their endpoints and addresses are known.
pub async fn make(client: &Client, nodes: &[String], ends: &[End]) -> Result<Vec<Made>, Failure> {
    let api = Api::<Service>::namespaced(client.clone(), NAMESPACE);
    let has = |v6: bool| {
        ends.iter()
            .any(|end| end.addresses.iter().any(|ip| ip.is_ipv6() == v6))
    };
    let families: Vec<bool> = [false, true].into_iter().filter(|v6| has(*v6)).collect();
    let one = nodes.first().map(|node| names(node)[1].clone());
    for manifest in manifests(&families, &one.unwrap_or_default()) {
        let service: Service =
            serde_json::from_value(manifest).map_err(|error| Failure::Failed(error.to_string()))?;
        let name = service.name_any();
        match api.create(&PostParams::default(), &service).await {
            Err(error) if code(&error) != Some(409) => {
                return Err(failed(&format!("create service {NAMESPACE}/{name}"))(error));
            }
            _ => {}
        }
    }
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), NAMESPACE);
    let deadline = Instant::now() + KNOWN;
    loop {
        let all = ListParams::default();
        let services = api.list(&all).await;
        let services = services.map_err(failed("list the services of flatnet-check"))?;
        let slices = slices.list(&all).await;
        let slices = slices.map_err(failed("list the slices of flatnet-check"))?;
        let ready = endpoints(&slices.items);
        let made: Vec<Made> = services.items.iter().map(read).collect();
        let complete = made.iter().all(|service| {
            let wanted = match service.name.as_str() {
                "nobody" => 0,
                "self" => families.len(),
                _ => nodes.len() * families.len(),
            };
            let addressed = !service.name.starts_with("balanced") || !service.balanced.is_empty();
            addressed && ready.get(&service.name).copied().unwrap_or_default() >= wanted
        });
        if complete || Instant::now() >= deadline {
            return Ok(made);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Services of type LoadBalancer that have no address.
pub fn unaddressed(made: &[Made]) -> impl Iterator<Item = &str> {
    let waiting = |each: &&Made| each.name.starts_with("balanced") && each.balanced.is_empty();
    made.iter().filter(waiting).map(|each| each.name.as_str())
}

fn endpoints(slices: &[EndpointSlice]) -> BTreeMap<String, usize> {
    let mut ready = BTreeMap::new();
    for slice in slices {
        let Some(name) = slice.labels().get("kubernetes.io/service-name") else {
            continue;
        };
        let is_ready = |endpoint: &&Endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.is_none_or(|conditions| conditions.ready != Some(false))
        };
        let count = slice.endpoints.iter().flatten().filter(is_ready).count();
        *ready.entry(name.clone()).or_default() += count;
    }
    ready
}

fn read(service: &Service) -> Made {
    let spec = service.spec.clone().unwrap_or_default();
    let ips = |all: Option<Vec<String>>| -> Vec<IpAddr> {
        let all = all.into_iter().flatten();
        all.filter_map(|ip| ip.parse().ok()).collect()
    };
    let ingress = service.status.as_ref().and_then(|status| {
        let balancer = status.load_balancer.as_ref()?;
        Some(
            balancer
                .ingress
                .iter()
                .flatten()
                .filter_map(|each| each.ip.clone())
                .collect(),
        )
    });
    let first = spec.ports.as_ref().and_then(|ports| ports.first());
    Made {
        name: service.name_any(),
        node_port: first.and_then(|port| port.node_port?.try_into().ok()),
        cluster_ips: ips(spec.cluster_ips),
        external: ips(spec.external_ips),
        balanced: ips(ingress),
    }
}

/// Who tries what, `one` being the pod behind a Service of its own: pods and nodes every Service, the client what is open to the outside.
pub fn tries(ends: &[End], services: &[Made], api: &[IpAddr], one: &str) -> Vec<Try> {
    let mut all = Vec::new();
    for (from, end) in ends.iter().enumerate() {
        let first = ends.iter().position(|other| other.place == end.place) == Some(from);
        let of_pod = matches!(end.place, Place::Pod(_));
        let outside = end.place == Place::Outside;
        let mut add = |kind, to: String, ip: IpAddr, port, want| {
            // A family that the caller does not have is no case; loopback is its own.
            let has = end
                .addresses
                .iter()
                .any(|own| own.is_ipv6() == ip.is_ipv6());
            if has {
                let address = SocketAddr::new(ip, port);
                let (v6, to) = (ip.is_ipv6(), format!("{to} {address}"));
                all.push(Try {
                    kind,
                    from,
                    to,
                    v6,
                    address,
                    want,
                });
            }
        };
        let any = Want::Answer {
            source: Source::Any,
            near: false,
        };
        let own = Want::Answer {
            source: Source::Own,
            near: false,
        };
        for service in services {
            let called = format!("svc/{}", service.name);
            let whole = if of_pod { own } else { any };
            let (kind, want) = match service.name.as_str() {
                "near" => {
                    let source = if of_pod { Source::Own } else { Source::Any };
                    (Kind::ClusterIp, Want::Answer { source, near: true })
                }
                "sticky" => (Kind::Affinity, Want::Same),
                "nobody" => (Kind::NoEndpoints, Want::Refusal),
                "self" => {
                    let source = Source::NotOwn;
                    (Kind::Hairpin, Want::Answer { source, near: true })
                }
                _ => (Kind::ClusterIp, whole),
            };
            let caller = if kind == Kind::Hairpin {
                end.name == one
            } else {
                first
            };
            for ip in service.cluster_ips.iter().filter(|_| caller && !outside) {
                add(kind, called.clone(), *ip, PORT, want);
            }
            if !first {
                continue;
            }
            for ip in service.external.iter().filter(|_| !outside) {
                add(Kind::ExternalIp, called.clone(), *ip, PORT, any);
            }
            let local = service.name.ends_with("-local");
            let kept = if local && outside { own } else { any };
            for ip in &service.balanced {
                add(Kind::LoadBalancer, called.clone(), *ip, PORT, kept);
            }
            let Some(port) = service
                .node_port
                .filter(|_| service.name.starts_with("port"))
            else {
                continue;
            };
            for node in ends
                .iter()
                .filter(|node| matches!(node.place, Place::Node(_)))
            {
                // Pods and nodes try their own node and one other.
                if outside || near(&end.place, &node.place, ends) {
                    for ip in &node.addresses {
                        add(Kind::NodePort, called.clone(), *ip, port, kept);
                    }
                }
            }
            if matches!(end.place, Place::Node(_)) {
                add(
                    Kind::NodePort,
                    called.clone(),
                    Ipv4Addr::LOCALHOST.into(),
                    port,
                    any,
                );
            }
        }
        for ip in api.iter().filter(|_| first && !outside) {
            add(
                Kind::Api,
                "svc/kubernetes".into(),
                *ip,
                443,
                Want::Connection,
            );
        }
    }
    all.sort_by_key(|each| (each.v6, each.kind as u8, each.to.clone(), each.from));
    all
}

fn number(place: &Place) -> Option<usize> {
    match place {
        Place::Pod(node) | Place::Node(node) => Some(*node),
        Place::Outside => None,
    }
}

/// A node's own ports, and those of the next node in the circle.
fn near(from: &Place, node: &Place, ends: &[End]) -> bool {
    let count = ends
        .iter()
        .filter(|end| matches!(end.place, Place::Node(_)))
        .count();
    match (number(from), number(node)) {
        (Some(a), Some(b)) => a == b || (a + 1) % count.max(1) == b,
        _ => false,
    }
}

impl Try {
    /// What policies say about it.
    pub fn fates(&self, cluster: &Cluster, ends: &[End]) -> Fates {
        let from = &ends[self.from];
        let ends_at = self.ends_at(cluster, ends);
        let is_address = |end: &&End| end.addresses.contains(&self.address.ip());
        let node = ends.iter().find(is_address).map(|end| &end.place);
        // A pod's own node translates all addresses of Services and its own, and no other node's.
        let on = node.filter(|place| number(place) != number(&from.place));
        let leaves_for = match on {
            Some(_) => vec![self.address],
            None => ends_at.clone(),
        };
        let direct = matches!(
            self.kind,
            Kind::ClusterIp | Kind::Affinity | Kind::Hairpin | Kind::Api | Kind::NoEndpoints
        );
        let through = if direct {
            Vec::new()
        } else {
            denied::through(cluster, self.v6)
        };
        let way = Way {
            own: denied::own(cluster, from, self.v6),
            through,
            leaves_for,
            ends_at,
        };
        Fates {
            tcp: way.fate(cluster, Protocol::Tcp),
            udp: way.fate(cluster, Protocol::Udp),
        }
    }

    /// Where it may end, after translation.
    fn ends_at(&self, cluster: &Cluster, ends: &[End]) -> Vec<SocketAddr> {
        let from = &ends[self.from];
        let serves = |end: &End| {
            let near = matches!(self.want, Want::Answer { near: true, .. });
            let here = number(&end.place) == number(&from.place);
            end.name.ends_with("-b") && (here || !near)
        };
        let of_family = |ip: &&IpAddr| ip.is_ipv6() == self.v6;
        let at = |end: &End, port| -> Vec<SocketAddr> {
            let ips = end.addresses.iter().filter(of_family);
            ips.map(|ip| SocketAddr::new(*ip, port)).collect()
        };
        match self.kind {
            Kind::NoEndpoints => vec![self.address],
            Kind::Hairpin => at(from, TARGET),
            Kind::Api => denied::api_servers(cluster, self.v6),
            _ => {
                let all = ends.iter().filter(|end| serves(end));
                all.flat_map(|end| at(end, TARGET)).collect()
            }
        }
    }

    /// Tries, again while the nodes may still be following the Services just made.
    pub async fn run(
        &self,
        station: &Station,
        ends: &[End],
        start: Instant,
        patience: Patience,
        fates: &Fates,
    ) -> Outcome {
        loop {
            let outcome = self.once(station, ends, patience, fates).await;
            if outcome.causes.is_empty() || start.elapsed() > SETTLE {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn once(
        &self,
        station: &Station,
        ends: &[End],
        patience: Patience,
        fates: &Fates,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        match self.want {
            Want::Connection => {
                let tcp = station.connect(self.address, patience.tcp).await;
                outcome.causes.extend(fates.tcp.wrong(&tcp));
                outcome.denied = fates.tcp.denied(&tcp);
                outcome.tcp = tcp.ok();
            }
            Want::Refusal => match station.tcp(self.address, patience.tcp).await {
                Ok((_, told)) => outcome.causes.push(format!("{} answers", told.server)),
                Err(why) if why == REFUSED => {}
                Err(why) => {
                    let tcp: Result<(), String> = Err(format!("not refused at once: {why}"));
                    outcome.causes.extend(fates.tcp.wrong(&tcp));
                    outcome.denied = fates.tcp.denied(&tcp);
                }
            },
            Want::Same => {
                self.again(station, patience, &fates.tcp, &mut outcome)
                    .await
            }
            Want::Answer { source, near } => {
                let (tcp, udp) = tokio::join!(
                    station.tcp(self.address, patience.tcp),
                    station.udp(self.address, 32, patience.udp)
                );
                let named = |what: &str, why| format!("{what}: {why}");
                let (of_tcp, of_udp) = (fates.tcp.wrong(&tcp), fates.udp.wrong(&udp));
                outcome.causes.extend(of_tcp.map(|why| named("TCP", why)));
                outcome.causes.extend(of_udp.map(|why| named("UDP", why)));
                outcome.denied = denied::both(fates.tcp.denied(&tcp), fates.udp.denied(&udp));
                outcome.udp = udp.ok();
                if let Ok((took, told)) = tcp {
                    outcome.tcp = Some(took);
                    outcome.causes.extend(self.wrong(ends, told, source, near));
                }
            }
        }
        outcome
    }

    async fn again(
        &self,
        station: &Station,
        patience: Patience,
        fate: &Fate,
        outcome: &mut Outcome,
    ) {
        let mut before: Option<IpAddr> = None;
        for _ in 0..6 {
            let tcp = station.tcp(self.address, patience.tcp).await;
            outcome.causes.extend(fate.wrong(&tcp));
            outcome.denied = fate.denied(&tcp);
            let Ok((took, told)) = tcp else {
                return;
            };
            outcome.tcp = Some(took);
            if before.is_some_and(|before| before != told.server) {
                outcome
                    .causes
                    .push("different endpoints for one client".into());
            }
            if !outcome.causes.is_empty() {
                return;
            }
            before = Some(told.server);
        }
    }

    /// What is wrong with what the server told.
    fn wrong(&self, ends: &[End], told: Told, source: Source, near: bool) -> Vec<String> {
        let from = &ends[self.from];
        let own = from.addresses.contains(&told.seen);
        let mut causes = Vec::new();
        match source {
            Source::Own if !own => causes.push(format!(
                "translated: seen as {}, not by the caller's own address",
                told.seen
            )),
            Source::NotOwn if own => causes.push(format!("not masqueraded: seen as {}", told.seen)),
            _ => {}
        }
        let server = ends.iter().find(|end| end.addresses.contains(&told.server));
        let here = server.is_some_and(|server| number(&server.place) == number(&from.place));
        if near && !here {
            causes.push(format!(
                "answered by {}, which is on another node",
                told.server
            ));
        }
        causes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(name: &str, place: Place, address: &str) -> End {
        End {
            name: name.into(),
            place,
            addresses: vec![address.parse().unwrap()],
        }
    }

    fn ends() -> Vec<End> {
        vec![
            end("a1", Place::Pod(0), "10.244.1.2"),
            end("b1", Place::Pod(0), "10.244.1.3"),
            end("node1", Place::Node(0), "10.0.1.10"),
            end("a2", Place::Pod(1), "10.244.2.2"),
            end("b2", Place::Pod(1), "10.244.2.3"),
            end("node2", Place::Node(1), "10.0.1.20"),
            end("client", Place::Outside, "203.0.113.10"),
        ]
    }

    fn who(name: &str, change: impl FnOnce(&mut Made)) -> Vec<String> {
        let mut made = Made {
            name: name.into(),
            cluster_ips: vec!["10.96.0.5".parse().unwrap()],
            ..Made::default()
        };
        change(&mut made);
        let ends = ends();
        let all = tries(&ends, &[made], &[], "b1");
        all.iter()
            .map(|each| format!("{}>{}", ends[each.from].name, each.address))
            .collect()
    }

    #[test]
    fn cluster_ips_are_tried_from_inside_and_what_is_open_from_outside_too() {
        assert_eq!(
            who("plain", |_| {}),
            [
                "a1>10.96.0.5:80",
                "node1>10.96.0.5:80",
                "a2>10.96.0.5:80",
                "node2>10.96.0.5:80"
            ]
        );
        let port = who("port", |made| {
            made.cluster_ips.clear();
            made.node_port = Some(30001);
        });
        for wanted in [
            "client>10.0.1.10:30001",
            "client>10.0.1.20:30001",
            "node1>127.0.0.1:30001",
            "a2>10.0.1.10:30001",
        ] {
            assert!(port.contains(&wanted.to_owned()), "{wanted} in {port:?}");
        }
        let own = who("self", |_| {});
        assert_eq!(own, ["b1>10.96.0.5:80"]);
    }
}
