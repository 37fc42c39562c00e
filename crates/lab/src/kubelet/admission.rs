//! Whether a pod bound to this node fits it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec};

use super::quantity;
use super::state::{PodFailure, all, inits, is_sidecar};

/// The node as admission sees it.
pub struct Node<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What it offers, by resource.
    pub allocatable: &'a BTreeMap<String, String>,
}

/// Refuses a pod that does not fit beside the `others`, all still active.
pub fn admit(pod: &Pod, others: &[&Pod], node: &Node<'_>) -> Result<(), PodFailure> {
    let Some(spec) = pod.spec.as_ref() else {
        return Ok(());
    };
    let rejected = |reason: &str, message: String| PodFailure {
        reason: reason.to_owned(),
        message: format!("Pod was rejected: {message}"),
    };
    resources(spec, others, node)
        .map_err(|(resource, message)| rejected(&format!("OutOf{resource}"), message))?;
    if !selected(spec, node) {
        let message =
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(rejected("NodeAffinity", message.to_owned()));
    }
    let taken: Vec<HostPort> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod)
        .iter()
        .any(|port| taken.iter().any(|other| port.conflicts(other)))
    {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Err(rejected("NodePorts", message.to_owned()));
    }
    Ok(())
}

fn resources(
    spec: &PodSpec,
    others: &[&Pod],
    node: &Node<'_>,
) -> Result<(), (&'static str, String)> {
    for resource in ["pods", "cpu", "memory"] {
        let Some(capacity) = node
            .allocatable
            .get(resource)
            .and_then(|q| quantity::milli(q))
        else {
            continue;
        };
        let of = |spec: &PodSpec| {
            if resource == "pods" {
                1000
            } else {
                request(spec, resource)
            }
        };
        let requested = of(spec);
        let used: i128 = others
            .iter()
            .filter_map(|other| other.spec.as_ref())
            .map(of)
            .sum();
        if requested > 0 && used + requested > capacity {
            // cpu is told in thousandths, everything else in units, as Kubernetes does.
            let unit = if resource == "cpu" { 1 } else { 1000 };
            return Err((
                resource,
                format!(
                    "Node didn't have enough resource: {resource}, requested: {}, used: {}, capacity: {}",
                    requested / unit,
                    used / unit,
                    capacity / unit
                ),
            ));
        }
    }
    Ok(())
}

/// A pod's request: its containers and sidecars together, or its largest init container.
fn request(spec: &PodSpec, resource: &str) -> i128 {
    let of = |container: &k8s_openapi::api::core::v1::Container| {
        let resources = container.resources.as_ref();
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let quantity = requests.and_then(|requests| requests.get(resource));
        quantity
            .and_then(|quantity| quantity::milli(&quantity.0))
            .unwrap_or(0)
    };
    let sidecars: i128 = inits(spec).iter().filter(|c| is_sidecar(c)).map(of).sum();
    let together = sidecars + spec.containers.iter().map(of).sum::<i128>();
    let largest = inits(spec).iter().filter(|c| !is_sidecar(c)).map(of).max();
    together.max(largest.unwrap_or(0))
}

struct HostPort {
    ip: String,
    port: i32,
    protocol: String,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let containers = pod.spec.iter().flat_map(all);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                ip: port.host_ip.clone().unwrap_or_default(),
                port: port.host_port.filter(|port| *port > 0)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            })
        })
        .collect()
}

fn selected(spec: &PodSpec, node: &Node<'_>) -> bool {
    let selector = spec.node_selector.iter().flatten();
    if !selector
        .into_iter()
        .all(|(key, value)| node.labels.get(key) == Some(value))
    {
        return false;
    }
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    required.is_none_or(|required| {
        required
            .node_selector_terms
            .iter()
            .any(|term| term_matches(term, node))
    })
}

fn term_matches(term: &NodeSelectorTerm, node: &Node<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    expressions.iter().all(|requirement| {
        matches(
            requirement,
            node.labels.get(&requirement.key).map(String::as_str),
        )
    }) && fields.iter().all(|requirement| {
        matches(
            requirement,
            (requirement.key == "metadata.name").then_some(node.name),
        )
    })
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let named = |value: &str| values.iter().any(|wanted| wanted == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = values.first().and_then(|wanted| number(wanted));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(named),
        "NotIn" => !value.is_some_and(named),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value
            .and_then(number)
            .zip(bound)
            .is_some_and(|(value, bound)| value > bound),
        "Lt" => value
            .and_then(number)
            .zip(bound)
            .is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn verdict(spec: serde_json::Value, others: &[&Pod]) -> Result<(), PodFailure> {
        let labels = BTreeMap::from([
            ("disk".to_owned(), "ssd".to_owned()),
            ("cores".to_owned(), "8".to_owned()),
        ]);
        let of = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let allocatable: BTreeMap<String, String> = of(&[("pods", "2"), ("cpu", "1")]);
        let node = Node {
            name: "node1",
            labels: &labels,
            allocatable: &allocatable,
        };
        admit(&pod(spec), others, &node)
    }

    #[test]
    fn more_than_the_node_has_is_refused_by_resource() {
        let half =
            pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}));
        let spec =
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]});
        assert!(verdict(spec.clone(), &[]).is_ok());
        let refused = verdict(spec, &[&half]).unwrap_err();
        assert_eq!(refused.reason, "OutOfcpu");
        assert_eq!(
            refused.message,
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 500, used: 600, capacity: 1000"
        );
        let refused = verdict(json!({"containers": []}), &[&half, &half]).unwrap_err();
        assert_eq!(refused.reason, "OutOfpods");
        assert!(
            refused
                .message
                .ends_with("pods, requested: 1, used: 2, capacity: 2")
        );
    }

    #[test]
    fn host_ports_conflict_by_protocol_and_address() {
        let with =
            |port: serde_json::Value| json!({"containers": [{"name": "c", "ports": [port]}]});
        let other = pod(with(json!({"containerPort": 80, "hostPort": 8080})));
        let refused = verdict(
            with(json!({"containerPort": 1, "hostPort": 8080, "hostIP": "10.0.1.10"})),
            &[&other],
        );
        assert_eq!(refused.unwrap_err().reason, "NodePorts");
        assert!(
            verdict(
                with(json!({"containerPort": 1, "hostPort": 8080, "protocol": "UDP"})),
                &[&other]
            )
            .is_ok()
        );
        assert!(
            verdict(
                with(json!({"containerPort": 1, "hostPort": 8081})),
                &[&other]
            )
            .is_ok()
        );
    }

    #[test]
    fn the_node_must_match_selector_and_affinity() {
        let affinity = |key: &str, operator: &str, values: &[&str]| {
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}}}})
        };
        for (spec, fits) in [
            (
                json!({"containers": [], "nodeSelector": {"disk": "ssd"}}),
                true,
            ),
            (
                json!({"containers": [], "nodeSelector": {"disk": "hdd"}}),
                false,
            ),
            (affinity("disk", "In", &["ssd", "x"]), true),
            (affinity("disk", "NotIn", &["ssd"]), false),
            (affinity("gpu", "DoesNotExist", &[]), true),
            (affinity("cores", "Gt", &["4"]), true),
            (affinity("cores", "Lt", &["4"]), false),
        ] {
            let verdict = verdict(spec.clone(), &[]);
            assert_eq!(verdict.is_ok(), fits, "{spec}");
            if let Err(failure) = verdict {
                assert_eq!(failure.reason, "NodeAffinity");
            }
        }
    }
}
