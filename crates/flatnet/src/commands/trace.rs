//! `trace`: each step a packet takes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ::trace::{Wish, World, ends};
use api::watch::{Update, What};
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
use services::{Plan as ServicesPlan, Settings};

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
    let (from, to) = (
        ends::parse(&words.src).map_err(usage)?,
        ends::parse(&words.dst).map_err(usage)?,
    );
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
    let source = ends::find(&from.0, &cluster, &client).map_err(failed)?;
    let target = ends::find(&to.0, &cluster, &client).map_err(failed)?;
    let plans = plans(&lab, &cluster, &config);
    let attachments = attachments(paths, &lab);
    let world = World {
        plans: &plans,
        attachments: &attachments,
        services: &services(&lab, &cluster, &config),
        mode: config.services.mode,
        cluster: &cluster,
        client: &client,
    };
    let wish = Wish {
        from: &source,
        to: &target,
        port: to.1,
        protocol: words.protocol,
        v6: words.ipv6,
    };
    let trace = ::trace::trace(&world, &wish).map_err(failed)?;
    if output == Output::Json {
        output::json(&trace)?;
    } else {
        print(&trace);
    }
    if trace.arrives {
        Ok(())
    } else {
        Err(Failure::Said)
    }
}

/// How long the API may take to list everything.
const LISTS: Duration = Duration::from_secs(10);

/// Nodes, pods, Services and the configuration, as the API has them.
pub async fn known(paths: &ClusterPaths) -> Result<(Cluster, Config), Failure> {
    use api::convert::{CONFIG_NAME, CONFIG_NAMESPACE};
    let client = api::client(Some(&paths.kubeconfig()), "flatnet").await?;
    let away = |error: kube::Error| {
        Failure::Failed(format!(
            "the API server: {}; flatnet up starts what is missing",
            api::error::cause(&error)
        ))
    };
    let maps = Api::<ConfigMap>::namespaced(client.clone(), CONFIG_NAMESPACE);
    let map = maps.get(CONFIG_NAME).await.map_err(away)?;
    let config = api::convert::config(&map)?;
    Ok((view(&client).await?.0, config))
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
fn attachments(paths: &ClusterPaths, lab: &Plan) -> BTreeMap<IpAddr, Attachment> {
    let mut all = BTreeMap::new();
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
    }
    all
}

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
