//! What the node says of itself in the API: its VXLAN ends, whether its network works, and
//! what is wrong with objects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use api::convert::{COREFILE_NAME, COREFILE_NAMESPACE, flannel};
use api::events::Recorder;
use fabric::Published;
use k8s_openapi::api::core::v1::ObjectReference;
use model::config::FabricMode;
use model::{Config, Node};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const COMPONENT: &str = "flatnet-agent";
/// Written once more after this time although nothing changed: somebody else may have.
const AGAIN: Duration = Duration::from_secs(60);

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// Annotations of the Node, once there is a plan.
    pub annotations: Option<BTreeMap<String, String>>,
    /// The node's network: `Ok`, or why it does not work. Absent while nothing is known.
    pub network: Option<Result<(), String>>,
}

/// Flannel's annotations for a node.
pub(crate) fn annotations(
    node: &Node,
    config: &Config,
    published: &Published,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut say = |key: &str, value: String| {
        all.insert(key.to_owned(), value);
    };
    let kind = match config.fabric.mode {
        FabricMode::Vxlan | FabricMode::CrossSubnet => "vxlan",
        FabricMode::HostGw => "host-gw",
    };
    say(flannel::BACKEND_TYPE, kind.to_owned());
    say(flannel::KUBE_SUBNET_MANAGER, "true".to_owned());
    let data = |mac: linux::Mac| format!(r#"{{"VNI":{},"VtepMAC":"{mac}"}}"#, config.fabric.vni);
    if let Some(mac) = published.v4 {
        say(flannel::BACKEND_DATA, data(mac));
    }
    if let Some(mac) = published.v6 {
        say(flannel::BACKEND_V6_DATA, data(mac));
    }
    for address in &node.addresses {
        let key = if address.is_ipv4() {
            flannel::PUBLIC_IP
        } else {
            flannel::PUBLIC_IPV6
        };
        say(key, IpAddr::to_string(address));
    }
    all
}

/// The writer's end in the loop.
#[derive(Debug)]
pub(crate) struct Publisher {
    said: watch::Sender<Said>,
    recorder: Option<Recorder>,
    node: String,
}

impl Publisher {
    /// Starts the writer; without a client nothing is written.
    pub(crate) fn start(client: Option<kube::Client>, node: &str) -> Publisher {
        let (said, heard) = watch::channel(Said::default());
        let recorder = client
            .as_ref()
            .map(|client| Recorder::new(client.clone(), COMPONENT, Some(node)));
        if let Some(client) = client {
            tokio::spawn(write(client, node.to_owned(), heard));
        }
        Publisher {
            said,
            recorder,
            node: node.to_owned(),
        }
    }

    /// What is to be written from now on.
    pub(crate) fn say(&self, said: Said) {
        self.said.send_if_modified(|old| {
            let changed = *old != said;
            *old = said;
            changed
        });
    }

    /// An Event on this node.
    pub(crate) fn node_event(&self, reason: &str, message: &str) {
        // As the kubelet refers to its node: `kubectl describe node` looks for it.
        let on = reference("Node", None, &self.node, &self.node);
        self.event(on, reason, message);
    }

    /// An Event on an object that cannot be understood, named as `Kind name` or
    /// `Kind namespace/name`. Of nodes only this one's: each tells of itself.
    pub(crate) fn invalid(&self, object: &str, uid: &str, problem: &str, own: bool) {
        let Some((kind, name)) = object.split_once(' ') else {
            return;
        };
        match (kind, name.split_once('/')) {
            ("Node", None) if own => self.node_event("InvalidNode", problem),
            ("ConfigMap", Some((namespace, name))) => {
                let on = reference("ConfigMap", Some(namespace), name, uid);
                self.shared_event(on, "InvalidConfiguration", problem);
            }
            (
                kind @ ("Service" | "EndpointSlice" | "NetworkPolicy" | "Pod"),
                Some((namespace, name)),
            ) => {
                let on = reference(kind, Some(namespace), name, uid);
                self.shared_event(on, &format!("Invalid{kind}"), problem);
            }
            ("ClusterNetworkPolicy", None) => {
                let on = reference("ClusterNetworkPolicy", None, name, uid);
                self.shared_event(on, "InvalidClusterNetworkPolicy", problem);
            }
            _ => {}
        }
    }

    /// An Event on the ConfigMap with the cluster's Corefile.
    pub(crate) fn corefile(&self, uid: &str, problem: &str) {
        let (namespace, name) = (COREFILE_NAMESPACE, COREFILE_NAME);
        let on = reference("ConfigMap", Some(namespace), name, uid);
        self.shared_event(on, "InvalidCorefile", problem);
    }

    /// An Event on a Service.
    pub(crate) fn service_event(&self, key: &model::Key, uid: &str, reason: &str, message: &str) {
        let on = reference("Service", Some(&key.0), &key.1, uid);
        self.event(on, reason, message);
    }

    fn event(&self, on: ObjectReference, reason: &str, message: &str) {
        if let Some(recorder) = &self.recorder {
            recorder.warning(on, reason, message);
        }
    }

    fn shared_event(&self, on: ObjectReference, reason: &str, message: &str) {
        if let Some(recorder) = &self.recorder {
            recorder.shared_warning(on, reason, message);
        }
    }
}

fn reference(kind: &str, namespace: Option<&str>, name: &str, uid: &str) -> ObjectReference {
    let version = match kind {
        "EndpointSlice" => "discovery.k8s.io/v1",
        "NetworkPolicy" => "networking.k8s.io/v1",
        "ClusterNetworkPolicy" => "policy.networking.k8s.io/v1alpha2",
        _ => "v1",
    };
    ObjectReference {
        api_version: Some(version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

async fn write(client: kube::Client, node: String, mut heard: watch::Receiver<Said>) {
    let mut backoff = api::Backoff::reconnect();
    let mut failures = 0;
    loop {
        let said = heard.borrow_and_update().clone();
        let wait = match write_once(&client, &node, &said).await {
            Ok(()) => {
                backoff.reset();
                failures = 0;
                AGAIN
            }
            Err(error) => {
                // A connection that lay idle may be closed by the time it is used: that is
                // no news, the next try has a new one.
                failures += 1;
                if failures > 1 {
                    tracing::warn!(%error, "the node's state is not written");
                }
                backoff.wait()
            }
        };
        let Ok(changed) = timeout(wait, heard.changed()).await else {
            continue;
        };
        if changed.is_err() {
            return;
        }
        // Changes come in groups.
        sleep(Duration::from_millis(20)).await;
    }
}

async fn write_once(client: &kube::Client, node: &str, said: &Said) -> Result<(), api::Error> {
    if let Some(annotations) = &said.annotations {
        api::status::node_annotations(client, COMPONENT, node, annotations).await?;
    }
    if let Some(network) = &said.network {
        let (unavailable, reason, message) = match network {
            Ok(()) => (false, "FlatnetIsUp", "flatnet is running on this node"),
            Err(cause) => (true, "FlatnetNotReady", cause.as_str()),
        };
        api::status::node_condition(
            client,
            node,
            "NetworkUnavailable",
            unavailable,
            reason,
            message,
        )
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotations_are_flannels() {
        let node = Node {
            name: "node1".into(),
            addresses: vec!["10.0.1.10".parse().unwrap()],
            pod_cidrs: Vec::new(),
            vtep_mac: None,
            vtep_mac_v6: None,
            labels: BTreeMap::new(),
            leaving: false,
        };
        let published = Published {
            v4: Some(linux::Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56])),
            v6: None,
        };
        let all = annotations(&node, &Config::default(), &published);
        let text: Vec<String> = all
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        assert_eq!(
            text,
            [
                r#"flannel.alpha.coreos.com/backend-data={"VNI":1,"VtepMAC":"52:54:00:12:34:56"}"#,
                "flannel.alpha.coreos.com/backend-type=vxlan",
                "flannel.alpha.coreos.com/kube-subnet-manager=true",
                "flannel.alpha.coreos.com/public-ip=10.0.1.10",
            ]
        );
    }
}
