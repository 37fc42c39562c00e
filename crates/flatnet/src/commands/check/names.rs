//! Names: whether a pod of each node is answered, by whoever answers at the DNS Service's address
//! and by each of the pods behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dns::wire::{Name, Rcode, Type};
use lab::cluster::plan::Plan;
use lab::paths::ClusterPaths;
use linux::{NetNs, run_in};
use model::{Cluster, Config, Protocol};
use policy::explain::asking;
use tokio::task::JoinSet;

use super::paths::Kind;
use super::pods::Pods;
use super::{Row, pod_addresses, pod_netns, pods};
use crate::commands::names::stub;

/// Port of DNS.
const PORT: u16 = 53;

/// One question to try.
struct Question {
    from: String,
    to: String,
    server: IpAddr,
    /// Policies let nobody ask there.
    denied: bool,
}

/// Asks from a pod of each node.
pub async fn rows(
    paths: &ClusterPaths,
    plan: &Plan,
    pods: &Pods,
    (cluster, config): (&Cluster, &Config),
    patience: Duration,
) -> Vec<Row> {
    let name = format!("kubernetes.default.svc.{}", config.cluster_domain);
    let Ok(name) = name.parse::<Name>() else {
        return Vec::new();
    };
    let mut tries = JoinSet::new();
    for node in &plan.nodes {
        let pod = pods::names(&node.name)[0].clone();
        let Some(Ok(found)) = pods.found.get(&pod) else {
            // Told by the paths between pods.
            continue;
        };
        let uid = found.metadata.uid.as_deref().unwrap_or_default();
        let netns = pod_netns(paths, &node.name, uid).map(Arc::new);
        for question in questions(&pod, &pod_addresses(found), cluster, config) {
            let (netns, name) = (netns.clone(), name.clone());
            tries.spawn_blocking(move || tried(&question, netns, &name, patience));
        }
    }
    let mut rows = tries.join_all().await;
    rows.sort_by(|a, b| (a.family, &a.to, &a.from).cmp(&(b.family, &b.to, &b.from)));
    rows
}

/// Whom a pod can ask, in the families that it has.
fn questions(pod: &str, own: &[IpAddr], cluster: &Cluster, config: &Config) -> Vec<Question> {
    let mut all = Vec::new();
    for service in &config.cluster_dns {
        let v6 = service.is_ipv6();
        let Some(source) = own.iter().find(|ip| ip.is_ipv6() == v6) else {
            continue;
        };
        let from = policy::End::at(cluster, *source);
        let (_, side) = asking(cluster, &from, *service, Protocol::Udp);
        let denied = !side.allowed;
        let question = |to: String, server| Question {
            from: format!("pod/{pod}"),
            to,
            server,
            denied,
        };
        all.push(question(service.to_string(), *service));
        let Some(owner) = cluster.service_at(*service) else {
            continue;
        };
        // Where policies single out some of the servers, it is not told which.
        let behind = cluster.ready_endpoints(owner, (Protocol::Udp, PORT), v6);
        let behind = behind.into_iter().filter(|_| !denied);
        all.extend(behind.map(|(ip, _)| {
            let whose = cluster.pod_at(ip);
            let to = whose.map_or_else(|| ip.to_string(), |pod| format!("pod/{}", pod.name));
            question(to, ip)
        }));
    }
    all
}

fn tried(
    question: &Question,
    netns: Result<Arc<NetNs>, String>,
    name: &Name,
    patience: Duration,
) -> Row {
    let server = SocketAddr::new(question.server, PORT);
    let patience = if question.denied {
        patience.min(Duration::from_millis(500))
    } else {
        patience
    };
    let start = Instant::now();
    let asked = netns.and_then(|netns| {
        let asked = run_in(&netns, || stub::ask(server, name, Type::A, patience));
        let asked = asked.map_err(|error| error.to_string())?;
        asked.map_err(|error| error.to_string())
    });
    let took = start.elapsed();
    let answered = asked.and_then(|answer| match answer.header.rcode {
        Rcode::NOERROR => Ok(()),
        rcode => Err(format!("answers {rcode} for {name}")),
    });
    let causes = match (&answered, question.denied) {
        (Ok(()), true) => vec!["is answered, but policies deny it".to_owned()],
        (Err(_), true) | (Ok(()), false) => Vec::new(),
        (Err(why), false) => vec![why.clone(), "see: flatnet show dns".to_owned()],
    };
    Row {
        path: Kind::Names,
        family: if question.server.is_ipv6() {
            "IPv6"
        } else {
            "IPv4"
        },
        from: question.from.clone(),
        to: question.to.clone(),
        ok: causes.is_empty(),
        tcp_ms: None,
        udp_ms: answered.is_ok().then_some(took.as_secs_f64() * 1000.0),
        mtu: None,
        denied: question
            .denied
            .then(|| "egress to the cluster's DNS".to_owned()),
        causes,
    }
}
