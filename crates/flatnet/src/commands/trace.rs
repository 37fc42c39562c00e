//! `trace`: each step a packet takes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ::trace::{Place, Wish, World, ends};
use api::watch::{Update, What};
use dns::wire::Type;
use fabric::{Plan as FabricPlan, Underlay, Uplink};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use lab::cluster::plan::{NodePlan, Plan, plan};
use lab::cluster::state;
use lab::paths::ClusterPaths;
use model::{Cluster, Config};
use pods::attachment::Attachment;
use pods::wire::{self, Answer, Request};
use serde::Serialize;
use services::{Plan as ServicesPlan, Settings};

use super::names::{Asker, Resolution, query};
use super::{Failure, Outcome, runtime};
use crate::cli::{Output, Trace};
use crate::output::{self, Tone, toned};

/// The underlay's MTU: veth pairs and bridges as the kernel makes them.
const UNDERLAY_MTU: u32 = 1500;
/// How long an agent may take to say what it holds.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Prints each step a packet takes; exit 1 where it does not arrive.
pub fn trace(paths: &ClusterPaths, words: &Trace, output: Output) -> Outcome {
    let usage = |error: ends::Error| Failure::Usage(error.to_string());
    let (from, _) = ends::parse(&words.src).map_err(usage)?;
    let to = far_end(&words.dst).map_err(usage)?;
    let spec = state::existing(paths)?;
    let lab = plan(&spec, paths);
    let (cluster, config) = runtime()?.block_on(known(paths))?;
    let client: Vec<IpAddr> = lab
        .client_cable
        .addresses
        .iter()
        .map(|net| net.addr())
        .collect();
    let failed = |error: ends::Error| Failure::Failed(error.to_string());
    let source = ends::find(&from, &cluster, &client).map_err(failed)?;
    let (place, port, names) = match to {
        Far::Place(place, port) => (place, port, None),
        Far::Name(name, port) => {
            let v6 = words.ipv6 || source.addresses().iter().all(IpAddr::is_ipv6);
            let kind = if v6 { Type::AAAA } else { Type::A };
            let asker = Asker::find(paths, &from, &cluster)?;
            let resolution = asker.resolve(&name, kind)?;
            let Some(address) = resolution.addresses.first() else {
                return unresolved(&resolution, output);
            };
            (whose(*address, &cluster), port, Some(resolution))
        }
    };
    let target = ends::find(&place, &cluster, &client).map_err(failed)?;
    let plans = plans(&lab, &cluster, &config);
    let (attachments, resolvers) = held(paths, &lab, &config);
    let world = World {
        plans: &plans,
        attachments: &attachments,
        services: &services(&lab, &cluster, &config),
        mode: config.services.mode,
        resolvers: &resolvers,
        cluster: &cluster,
        client: &client,
    };
    let wish = Wish {
        from: &source,
        to: &target,
        port,
        protocol: words.protocol,
        v6: words.ipv6,
    };
    let trace = ::trace::trace(&world, &wish).map_err(failed)?;
    if output == Output::Json {
        output::json(&Told {
            names: names.as_ref(),
            trace: Some(&trace),
        })?;
    } else {
        if let Some(resolution) = &names {
            resolved(resolution);
        }
        print(&trace);
    }
    if trace.arrives {
        Ok(())
    } else {
        Err(Failure::Said)
    }
}

/// The far end as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
enum Far {
    Place(Place, Option<u16>),
    /// Somebody has to resolve it first.
    Name(String, Option<u16>),
}

/// Names have no slash, and places that are no addresses have one; `client` is a place.
fn far_end(text: &str) -> Result<Far, ends::Error> {
    let error = match ends::parse(text) {
        Ok((place, port)) => return Ok(Far::Place(place, port)),
        Err(error) => error,
    };
    let (name, port) = match text.rsplit_once(':') {
        None => (text, None),
        Some((name, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => (name, Some(port)),
            _ => return Err(error),
        },
    };
    let is_name = !name.contains(['/', ':', '[', ' ']) && name.parse::<dns::wire::Name>().is_ok();
    if is_name && !name.is_empty() {
        Ok(Far::Name(name.to_owned(), port))
    } else {
        Err(error)
    }
}

/// The Service that has an address, or the address.
fn whose(address: IpAddr, cluster: &Cluster) -> Place {
    let served = |service: &&std::sync::Arc<model::Service>| service.cluster_ips.contains(&address);
    match cluster.services.values().find(served) {
        Some(service) => Place::Service {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        },
        None => Place::Address(address),
    }
}

/// A trace, and how the name of its far end was resolved.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<&'a Resolution>,
    #[serde(flatten)]
    trace: Option<&'a ::trace::Trace>,
}

fn resolved(resolution: &Resolution) {
    query::head(resolution);
    query::steps(resolution);
    output::print("\n");
}

/// A name without an address leads nowhere.
fn unresolved(resolution: &Resolution, output: Output) -> Outcome {
    if output == Output::Json {
        output::json(&Told {
            names: Some(resolution),
            trace: None,
        })?;
    } else {
        resolved(resolution);
        let verdict = format!("no packet leaves: {}", query::verdict(resolution));
        output::print(&format!("{}\n", toned(&verdict, Tone::Bad)));
    }
    Err(Failure::Said)
}

/// How long the API may take to list everything.
const LISTS: Duration = Duration::from_secs(10);

/// Nodes, pods, Services and the configuration, as the API has them.
pub async fn known(paths: &ClusterPaths) -> Result<(Cluster, Config), Failure> {
    let client = api::client(Some(&paths.kubeconfig()), "flatnet").await?;
    let config = config(&client).await?;
    Ok((view(&client).await?.0, config))
}

/// The network's configuration.
pub async fn config(client: &Client) -> Result<Config, Failure> {
    use api::convert::{CONFIG_NAME, CONFIG_NAMESPACE};
    let away = |error: kube::Error| {
        Failure::Failed(format!(
            "the API server: {}; flatnet up starts what is missing",
            api::error::cause(&error)
        ))
    };
    let maps = Api::<ConfigMap>::namespaced(client.clone(), CONFIG_NAMESPACE);
    let map = maps.get(CONFIG_NAME).await.map_err(away)?;
    Ok(api::convert::config(&map)?)
}

/// What the agents' watches would show, once: objects, and what is wrong with some.
pub async fn view(client: &Client) -> Result<(Cluster, Vec<String>), Failure> {
    let listed = tokio::time::timeout(LISTS, list(client)).await;
    listed.map_err(|_| {
        Failure::Failed(format!(
            "the API server lists nothing within {} s; see: flatnet status",
            LISTS.as_secs()
        ))
    })?
}

async fn list(client: &Client) -> Result<(Cluster, Vec<String>), Failure> {
    let mut updates = api::watch::changes(client, What::ALL);
    let (mut cluster, mut problems) = (Cluster::default(), Vec::new());
    while let Some(update) = updates.next().await {
        match update {
            Update::Change(change) => {
                cluster.take(change);
            }
            Update::Synced => return Ok((cluster, problems)),
            Update::Problem(error) => return Err(error.into()),
            Update::Bad { problem, .. } => problems.push(problem),
            Update::Good { .. } => {}
        }
    }
    Err(Failure::Failed("the API server's lists ended early".into()))
}

/// Each node's plan of Services.
pub fn services(lab: &Plan, cluster: &Cluster, config: &Config) -> BTreeMap<String, ServicesPlan> {
    let of = |node: &NodePlan| {
        let settings = Settings::of(cluster, config, &node.name)?;
        Some((node.name.clone(), ServicesPlan::of(settings, cluster)))
    };
    lab.nodes.iter().filter_map(of).collect()
}

/// What the fabric plans on each node that the cluster knows.
pub fn plans(lab: &Plan, cluster: &Cluster, config: &Config) -> BTreeMap<String, FabricPlan> {
    let of = |node: &NodePlan| {
        let plan = fabric::plan::plan(cluster, config, &node.name, &underlay(node))?;
        Some((node.name.clone(), plan))
    };
    lab.nodes.iter().filter_map(of).collect()
}

/// How a node hangs on the underlay: by one cable.
fn underlay(node: &NodePlan) -> Underlay {
    let uplink = |v6: bool| {
        let net = node
            .cable
            .addresses
            .iter()
            .find(|net| net.addr().is_ipv6() == v6)?;
        Some(Uplink {
            address: net.addr(),
            link: "eth0".into(),
            mtu: UNDERLAY_MTU,
            subnets: vec![net.trunc()],
        })
    };
    Underlay {
        v4: uplink(false),
        v6: uplink(true),
    }
}

/// What the nodes' agents hold, by address; nothing of an agent that is away.
fn held(paths: &ClusterPaths, lab: &Plan, config: &Config) -> (Attachments, Resolvers) {
    let (mut all, mut resolvers) = (Attachments::new(), Resolvers::new());
    for node in &lab.nodes {
        let socket = paths.node(&node.name).agent_socket();
        let Ok(Answer::Ok(status)) = wire::ask(&socket, &Request::Status, PATIENCE) else {
            continue;
        };
        let held = status.get("attachments").cloned().unwrap_or_default();
        let held: Vec<Attachment> = serde_json::from_value(held).unwrap_or_default();
        for attachment in held {
            let ips: Vec<IpAddr> = attachment.ips().collect();
            all.extend(ips.into_iter().map(|ip| (ip, attachment.clone())));
        }
        let led = status.pointer("/dns/addresses").cloned();
        let led: Vec<IpAddr> = serde_json::from_value(led.unwrap_or_default()).unwrap_or_default();
        let services = led.iter().map(|ip| config.dns_service_of(*ip));
        let led = led.iter().copied().zip(services);
        let led = led.filter_map(|(ip, service)| Some((ip, service?)));
        resolvers.insert(node.name.clone(), led.collect());
    }
    (all, resolvers)
}

/// What agents hold, by the pod's address.
type Attachments = BTreeMap<IpAddr, Attachment>;
/// Where agents answer questions for names; see [`World::resolvers`].
type Resolvers = BTreeMap<String, BTreeMap<IpAddr, IpAddr>>;

fn print(trace: &::trace::Trace) {
    let port = trace
        .port
        .map(|port| format!(" port {port}/{}", trace.protocol))
        .unwrap_or_default();
    output::print(&format!(
        "{} ({}) to {} ({}){port}\n\n",
        trace.from, trace.source, trace.to, trace.destination
    ));
    let rows = trace.steps.iter().enumerate().map(|(number, step)| {
        vec![
            (number + 1).to_string(),
            step.at.clone(),
            step.what.clone(),
            step.why.clone(),
        ]
    });
    output::table(&["", "WHERE", "WHAT HAPPENS", "WHY"], rows.collect());
    endpoints(trace);
    let tone = if trace.arrives { Tone::Good } else { Tone::Bad };
    let verdict = toned(&trace.verdict, tone);
    output::print(&if trace.arrives {
        format!("\n{verdict}; largest packet {} bytes\n", trace.mtu)
    } else {
        format!("\n{verdict}\n")
    });
}

/// What policies say of each endpoint of a Service, where they deny any.
fn endpoints(trace: &::trace::Trace) {
    let endpoints = trace.services.iter().flat_map(|through| &through.endpoints);
    let endpoints: Vec<_> = endpoints.collect();
    if endpoints.len() < 2 || endpoints.iter().all(|one| one.denied.is_none()) {
        return;
    }
    let rows = endpoints.into_iter().map(|one| {
        let says = one.denied.as_deref().unwrap_or("policies let it through");
        vec![one.address.to_string(), one.name.clone(), says.to_owned()]
    });
    output::print("\n");
    output::table(&["ENDPOINT", "WHOSE", "POLICIES"], rows.collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_place_and_no_address_is_a_name() {
        let name = |name: &str, port| Far::Name(name.into(), port);
        for (text, far) in [
            ("backend:80", name("backend", Some(80))),
            ("backend.shop", name("backend.shop", None)),
            ("google.com.:443", name("google.com.", Some(443))),
            ("client:80", Far::Place(Place::Client, Some(80))),
        ] {
            assert_eq!(far_end(text).unwrap(), far, "{text}");
        }
        for text in [
            "dop/web-0:80",
            "backend:http",
            "backend:0",
            "a..b",
            "",
            "[fd00::5]:x",
        ] {
            assert!(far_end(text).is_err(), "{text}");
        }
    }
}
