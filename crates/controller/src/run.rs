//! The loop: nodes and configuration in, ranges out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use api::events::{Recorder, reference};
use api::lease::{Election, Ended};
use api::watch::ConfigUpdate;
use api::{Backoff, Error};
use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::balancer::Services;
use crate::cidr::{self, Action, Range};

/// How the controller runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who leads: unique among controllers of the cluster, stable over a restart.
    pub identity: String,
}

/// Runs until its future is dropped. Takes up work whenever it leads.
pub async fn run(client: Client, options: Options) -> Result<(), Error> {
    let election = Election::new("kube-system", "flatnet-controller", &options.identity);
    loop {
        let work = || {
            let nodes = Nodes::new(client.clone()).run();
            let services = Services::new(client.clone()).run();
            futures::future::join(nodes, services)
        };
        match api::lease::lead(&client, &election, work).await? {
            Ended::Done((never, _)) => match never {},
            Ended::Lost => tracing::warn!("no longer leading; standing by"),
        }
    }
}

struct Held {
    cidrs: Vec<IpNet>,
    on: ObjectReference,
    /// The resourceVersion of this state: what the watch tells may be older than what we
    /// wrote, and a range already given must not seem free.
    version: u64,
}

fn version(node: &Node) -> u64 {
    let version = node.metadata.resource_version.as_deref();
    version.and_then(|text| text.parse().ok()).unwrap_or(0)
}

struct Nodes {
    client: Client,
    recorder: Recorder,
    ranges: Vec<Range>,
    nodes: BTreeMap<String, Held>,
    /// What was reported of each node, so that it is said once.
    reported: BTreeMap<String, String>,
}

impl Nodes {
    fn new(client: Client) -> Self {
        Self {
            recorder: Recorder::new(client.clone(), "flatnet-controller", None),
            client,
            ranges: Vec::new(),
            nodes: BTreeMap::new(),
            reported: BTreeMap::new(),
        }
    }

    async fn run(mut self) -> std::convert::Infallible {
        let mut configs = api::watch::config(&self.client);
        let nodes = api::watch::raw(
            Api::<Node>::all(self.client.clone()),
            api::watch::settings(),
        );
        let mut nodes = std::pin::pin!(nodes);
        let mut listing: Option<BTreeSet<String>> = None;
        let mut synced = false;
        let mut backoff = Backoff::reconnect();
        let mut retry: Option<Duration> = None;
        loop {
            tokio::select! {
                Some(update) = configs.next() => self.configure(update),
                Some(event) = nodes.next() => match event {
                    Ok(Event::Init) => listing = Some(BTreeSet::new()),
                    Ok(Event::InitApply(node)) => {
                        if let Some(listing) = &mut listing {
                            listing.insert(node.name_any());
                        }
                        self.take(&node);
                        continue;
                    }
                    Ok(Event::InitDone) => {
                        let listed = listing.take().unwrap_or_default();
                        self.nodes.retain(|name, _| listed.contains(name));
                        synced = true;
                    }
                    Ok(Event::Apply(node)) => self.take(&node),
                    Ok(Event::Delete(node)) => {
                        self.nodes.remove(&node.name_any());
                        self.reported.remove(&node.name_any());
                    }
                    Err(error) => {
                        tracing::warn!("{}", api::watch::watch_error("Node", error));
                        continue;
                    }
                },
                () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
            }
            if synced {
                retry = match self.settle().await {
                    Ok(()) => {
                        backoff.reset();
                        None
                    }
                    Err(error) => {
                        tracing::warn!("{error}; trying again");
                        Some(backoff.wait())
                    }
                };
            }
        }
    }

    fn configure(&mut self, update: ConfigUpdate) {
        match update {
            ConfigUpdate::Config(config) => {
                let ranges = config
                    .cluster_cidrs
                    .iter()
                    .map(|net| Range::new(*net, config.node_mask(net)));
                match ranges.collect::<Result<Vec<Range>, String>>() {
                    Ok(ranges) => self.ranges = ranges,
                    Err(cause) => tracing::error!("clusterCIDRs: {cause}; keeping the last ones"),
                }
            }
            ConfigUpdate::Missing => tracing::warn!(
                "ConfigMap {}/{} is missing: no node gets a range until it is there",
                api::convert::CONFIG_NAMESPACE,
                api::convert::CONFIG_NAME
            ),
            ConfigUpdate::Problem(error) | ConfigUpdate::Bad { error, .. } => {
                tracing::warn!("{error}; keeping the last one")
            }
        }
    }

    fn take(&mut self, node: &Node) {
        let name = node.name_any();
        let version = version(node);
        if self
            .nodes
            .get(&name)
            .is_some_and(|held| held.version > version)
        {
            return;
        }
        match api::convert::pod_cidrs(&name, node) {
            Ok(cidrs) => {
                let on = reference(node);
                self.nodes.insert(name, Held { cidrs, on, version });
            }
            Err(error) => {
                // A range nobody can read: leave the node alone, and say so.
                self.nodes.remove(&name);
                self.report(&name, reference(node), "InvalidPodCIDR", &error);
            }
        }
    }

    /// Writes what the plan says.
    async fn settle(&mut self) -> Result<(), Error> {
        let have = self
            .nodes
            .iter()
            .map(|(name, held)| (name.clone(), held.cidrs.clone()))
            .collect();
        for action in cidr::plan(&self.ranges, &have) {
            match action {
                Action::Assign(node, cidrs) => self.assign(&node, cidrs).await?,
                Action::Exhausted(node, range) => {
                    let cause = format!(
                        "Node {node} status is now: CIDRNotAvailable (no node range is left in {range}: remove a node or widen clusterCIDRs)"
                    );
                    self.report_on(&node, "CIDRNotAvailable", &cause);
                }
                Action::Overlap { node, cidr, other } => {
                    let cause = format!(
                        "podCIDR {cidr} overlaps that of node {other}: delete one of the two nodes and let it register again"
                    );
                    self.report_on(&node, "CIDRConflict", &cause);
                }
            }
        }
        Ok(())
    }

    async fn assign(&mut self, node: &str, cidrs: Vec<IpNet>) -> Result<(), Error> {
        let text: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let uid = self.nodes.get(node).and_then(|held| held.on.uid.clone());
        // The uid keeps a node of the same name that registered meanwhile from getting it.
        let patch = json!({
            "metadata": {"uid": uid},
            "spec": {"podCIDR": text.first(), "podCIDRs": text},
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let written = api
            .patch(node, &PatchParams::default(), &Patch::Strategic(patch))
            .await;
        match written {
            Ok(written) => {
                tracing::info!(node, ranges = text.join(","), "node range assigned");
                if let Some(held) = self.nodes.get_mut(node) {
                    held.cidrs = cidrs;
                    held.version = version(&written);
                }
                Ok(())
            }
            // Gone, or another one of that name: the watch will tell.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.nodes.remove(node);
                Ok(())
            }
            Err(error) => Err(Error::request(format!("assign podCIDRs to Node {node}"))(
                error,
            )),
        }
    }

    fn report_on(&mut self, node: &str, reason: &str, cause: &str) {
        if let Some(on) = self.nodes.get(node).map(|held| held.on.clone()) {
            self.report(node, on, reason, &cause);
        }
    }

    fn report(
        &mut self,
        node: &str,
        mut on: ObjectReference,
        reason: &str,
        cause: &dyn fmt::Display,
    ) {
        let message = cause.to_string();
        if self.reported.get(node) == Some(&message) {
            return;
        }
        tracing::warn!(node, "{message}");
        // `kubectl describe node` looks for Events by name, not uid.
        on.uid = Some(node.to_owned());
        self.recorder.warning(on, reason, message.clone());
        self.reported.insert(node.to_owned(), message);
    }
}
