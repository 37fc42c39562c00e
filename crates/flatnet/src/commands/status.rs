//! `status`: nodes, functions, versions, health.

use std::collections::BTreeMap;
use std::time::Duration;

use api::convert::{CONFIG_NAME, CONFIG_NAMESPACE};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use lab::cluster::plan::{Plan, Process, plan};
use lab::cluster::spec::{ClusterSpec, shown};
use lab::cluster::{cgroup, process, state};
use lab::paths::ClusterPaths;
use model::{Cluster, Config};
use serde::Serialize;

use super::{Failure, Outcome, runtime, trace};
use crate::cli::Output;
use crate::output::{self, Tone, toned};

/// How long the API may take before it counts as away.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    name: String,
    healthy: bool,
    version: &'static str,
    kubernetes: Option<String>,
    server: String,
    api: String,
    fabric: String,
    pod_mode: String,
    services: Services,
    policies: Policies,
    /// What is wrong with the network's configuration; the last good one is in force.
    configuration: Option<String>,
    cluster_cidrs: Vec<String>,
    service_cidrs: Vec<String>,
    processes: BTreeMap<String, bool>,
    nodes: Vec<NodeRow>,
}

/// How Services stand.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Services {
    mode: String,
    /// Services that nodes serve.
    count: usize,
    /// Endpoints that are ready.
    endpoints: usize,
    /// What is wrong with Services and slices, by object and field.
    problems: Vec<String>,
}

/// How policies stand.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Policies {
    network_policies: usize,
    cluster_network_policies: usize,
    /// What is wrong with policies, by object and field: what is not understood closes.
    problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeRow {
    name: String,
    ready: bool,
    message: String,
    addresses: Vec<String>,
    pod_cidrs: Vec<String>,
    pods: usize,
    running: usize,
}

/// What the API knows.
struct Known {
    version: String,
    nodes: Vec<Node>,
    pods: Vec<Pod>,
    /// The configuration in force, where it can be read.
    config: Option<Config>,
    /// Why it cannot be read.
    bad_config: Option<String>,
    /// Services and slices, pods and policies.
    cluster: Cluster,
    /// What is wrong with objects.
    problems: Vec<String>,
}

/// Prints how the cluster stands; exit 1 where something is wrong.
pub fn status(paths: &ClusterPaths, output: Output) -> Outcome {
    let spec = state::existing(paths)?;
    let plan = plan(&spec, paths);
    let mount = cgroup::mount()?;
    let known = runtime()?.block_on(async {
        let asked = tokio::time::timeout(PATIENCE, ask(paths)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())))
    });
    let each = plan.nodes.iter().flat_map(|node| &node.processes);
    let all = [&plan.apiserver, &plan.controllers, &plan.resolver]
        .into_iter()
        .chain(each);
    let runs = |process: &Process| (process.name.clone(), process::runs(&mount, process));
    let status = assess(&spec, &plan, known, all.map(runs).collect());
    if output == Output::Json {
        output::json(&status)?;
    } else {
        print(&status);
    }
    if status.healthy {
        Ok(())
    } else {
        Err(Failure::Said)
    }
}

async fn ask(paths: &ClusterPaths) -> Result<Known, String> {
    let client: Client = api::client(Some(&paths.kubeconfig()), "flatnet")
        .await
        .map_err(|error| error.to_string())?;
    let fail = |error: kube::Error| api::error::cause(&error);
    let all = ListParams::default();
    let (nodes, pods) = (
        Api::<Node>::all(client.clone()),
        Api::<Pod>::all(client.clone()),
    );
    let maps = Api::<ConfigMap>::namespaced(client.clone(), CONFIG_NAMESPACE);
    let lists = futures::future::try_join4(
        client.apiserver_version(),
        nodes.list(&all),
        pods.list(&all),
        maps.get_opt(CONFIG_NAME),
    );
    let (lists, cluster) = futures::join!(lists, trace::view(&client));
    let (version, nodes, pods, map) = lists.map_err(fail)?;
    let config = map.map(|map| api::convert::config(&map)).transpose();
    let (config, bad_config) = match config {
        Ok(config) => (config, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let (cluster, problems) = cluster.map_err(|failure| failure.to_string())?;
    Ok(Known {
        version: version.git_version,
        nodes: nodes.items,
        pods: pods.items,
        config,
        bad_config,
        cluster,
        problems,
    })
}

fn assess(
    spec: &ClusterSpec,
    plan: &Plan,
    known: Result<Known, String>,
    processes: BTreeMap<String, bool>,
) -> Status {
    let strings = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect();
    let (api, known) = match known {
        Ok(known) => ("ok".to_owned(), Some(known)),
        Err(why) => (why, None),
    };
    let config = known
        .as_ref()
        .and_then(|known| known.config.clone())
        .unwrap_or_else(|| spec.config());
    let nodes: Vec<NodeRow> = plan
        .nodes
        .iter()
        .map(|node| row(&node.name, known.as_ref()))
        .collect();
    let services = services(plan, known.as_ref(), &config);
    let policies = known.as_ref().map(policies).unwrap_or_default();
    let configuration = known.as_ref().and_then(|known| known.bad_config.clone());
    Status {
        healthy: api == "ok"
            && configuration.is_none()
            && nodes.iter().all(|node| node.ready)
            && processes.values().all(|runs| *runs),
        name: spec.name.clone(),
        version: env!("CARGO_PKG_VERSION"),
        kubernetes: known.map(|known| known.version),
        server: format!("https://127.0.0.1:{}", spec.api_port),
        api,
        fabric: shown(&config.fabric.mode),
        pod_mode: shown(&config.pod_mode),
        services,
        policies,
        configuration,
        cluster_cidrs: strings(&config.cluster_cidrs),
        service_cidrs: strings(&config.service_cidrs),
        processes,
        nodes,
    }
}

fn services(plan: &Plan, known: Option<&Known>, config: &Config) -> Services {
    let mut services = Services {
        mode: shown(&config.services.mode),
        count: 0,
        endpoints: 0,
        problems: Vec::new(),
    };
    let Some(known) = known else {
        return services;
    };
    let cluster = &known.cluster;
    let proxied = cluster.services.values().filter(|each| each.is_proxied());
    services.count = proxied.count();
    let endpoints = cluster.slices.values().flat_map(|slice| &slice.endpoints);
    services.endpoints = endpoints.filter(|endpoint| endpoint.ready).count();
    let plans = trace::services(plan, cluster, config);
    let problems = plans.values().flat_map(services::Plan::problems);
    services.problems = problems.map(ToString::to_string).collect();
    services.problems.sort();
    services.problems.dedup();
    services
}

fn policies(known: &Known) -> Policies {
    let kinds = ["NetworkPolicy ", "ClusterNetworkPolicy "];
    let of_policies = |problem: &&String| kinds.iter().any(|kind| problem.starts_with(kind));
    Policies {
        network_policies: known.cluster.policies.len(),
        cluster_network_policies: known.cluster.cluster_policies.len(),
        problems: known.problems.iter().filter(of_policies).cloned().collect(),
    }
}

fn row(name: &str, known: Option<&Known>) -> NodeRow {
    let mut row = NodeRow {
        name: name.to_owned(),
        ready: false,
        message: "the API is away".into(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        pods: 0,
        running: 0,
    };
    let Some(known) = known else {
        return row;
    };
    let on_node = |pod: &&Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.as_deref() == Some(name))
    };
    let running = |pod: &&Pod| {
        pod.status
            .as_ref()
            .is_some_and(|status| status.phase.as_deref() == Some("Running"))
    };
    row.pods = known.pods.iter().filter(on_node).count();
    row.running = known.pods.iter().filter(on_node).filter(running).count();
    let Some(node) = known.nodes.iter().find(|node| node.name_any() == name) else {
        row.message = "not registered".into();
        return row;
    };
    row.pod_cidrs = node
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_cidrs.clone())
        .unwrap_or_default();
    let Some(status) = &node.status else {
        return row;
    };
    let internal = status
        .addresses
        .iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP");
    row.addresses = internal.map(|address| address.address.clone()).collect();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    row.ready = ready.is_some_and(|condition| condition.status == "True");
    row.message = ready
        .and_then(|condition| condition.message.clone())
        .unwrap_or_default();
    row
}

fn print(status: &Status) {
    let tone = |good| if good { Tone::Good } else { Tone::Bad };
    let mut text = format!(
        "cluster   {} ({})\napi       {} {}\nversion   flatnet {}{}\nfabric    {}, pods {}, {}\n",
        status.name,
        toned(
            if status.healthy {
                "healthy"
            } else {
                "not healthy"
            },
            tone(status.healthy)
        ),
        status.server,
        toned(&status.api, tone(status.api == "ok")),
        status.version,
        status
            .kubernetes
            .as_deref()
            .map(|version| format!(", Kubernetes API {version}"))
            .unwrap_or_default(),
        status.fabric,
        status.pod_mode,
        status.cluster_cidrs.join(","),
    );
    let services = &status.services;
    text.push_str(&format!(
        "services  {}, {}; {} with {} ready endpoints\n",
        services.mode,
        status.service_cidrs.join(","),
        services.count,
        services.endpoints
    ));
    for problem in &services.problems {
        text.push_str(&format!("          {}\n", toned(problem, Tone::Bad)));
    }
    let policies = &status.policies;
    let (own, cluster) = (policies.network_policies, policies.cluster_network_policies);
    text.push_str(&format!(
        "policies  {own} NetworkPolicies, {cluster} ClusterNetworkPolicies\n"
    ));
    for problem in &policies.problems {
        text.push_str(&format!("          {}\n", toned(problem, Tone::Bad)));
    }
    if let Some(wrong) = &status.configuration {
        text.push_str(&format!(
            "          {}\n          the nodes keep the last good one; see: kubectl -n kube-system edit configmap flatnet\n",
            toned(wrong, Tone::Bad)
        ));
    }
    let stopped: Vec<&str> = status
        .processes
        .iter()
        .filter(|(_, runs)| !**runs)
        .map(|(name, _)| name.as_str())
        .collect();
    if !stopped.is_empty() {
        text.push_str(&format!(
            "stopped   {}\n          `flatnet up` starts what is missing\n",
            toned(&stopped.join(", "), Tone::Bad)
        ));
    }
    text.push('\n');
    output::print(&text);
    let rows = status.nodes.iter().map(|node| {
        let state = if node.ready { "Ready" } else { "NotReady" };
        vec![
            node.name.clone(),
            toned(state, tone(node.ready)),
            node.addresses.join(","),
            node.pod_cidrs.join(","),
            format!("{}/{}", node.running, node.pods),
            if node.ready {
                String::new()
            } else {
                node.message.clone()
            },
        ]
    });
    output::table(
        &["NODE", "STATE", "ADDRESS", "POD CIDR", "PODS", ""],
        rows.collect(),
    );
}
