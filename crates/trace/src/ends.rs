//! Who is asked about: words of a user become an end of a path, with an address.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use model::{Cluster, Pod, Service};

/// An end as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `pod/NAME` or `pod/NAMESPACE/NAME`.
    Pod {
        /// Namespace, `default` where none was written.
        namespace: String,
        /// Name.
        name: String,
    },
    /// `svc/NAME` or `svc/NAMESPACE/NAME`.
    Service {
        /// Namespace, `default` where none was written.
        namespace: String,
        /// Name.
        name: String,
    },
    /// `node/NAME`.
    Node(String),
    /// `client`: outside the cluster.
    Client,
    /// An address.
    Address(IpAddr),
}

/// What cannot be traced: the words, the cause, the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What was written.
    pub object: String,
    /// The cause and the next step.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.message)
    }
}

impl std::error::Error for Error {}

pub(crate) fn wrong<T>(object: impl Into<String>, message: impl Into<String>) -> Result<T, Error> {
    Err(Error {
        object: object.into(),
        message: message.into(),
    })
}

/// Reads `pod/web-0`, `pod/db/web-0:80`, `node/node1`, `client`, `10.244.1.5:80`,
/// `[fd00::5]:80`; the port where one is written.
pub fn parse(text: &str) -> Result<(Place, Option<u16>), Error> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok((Place::Address(address), None));
    }
    let (rest, port) = split_port(text)?;
    let bare = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(rest);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok((Place::Address(address), port));
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let (kind, namespace, name) = match parts.as_slice() {
        ["client"] => return Ok((Place::Client, port)),
        [kind, name] => (*kind, "default", *name),
        [kind, namespace, name] => (*kind, *namespace, *name),
        _ => ("", "", ""),
    };
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let place = match kind {
        _ if namespace.is_empty() || name.is_empty() => None,
        "pod" | "pods" | "po" => Some(Place::Pod { namespace, name }),
        "svc" | "service" | "services" => Some(Place::Service { namespace, name }),
        "node" | "nodes" | "no" if parts.len() == 2 => Some(Place::Node(name)),
        _ => None,
    };
    match place {
        Some(place) => Ok((place, port)),
        None => wrong(
            text,
            "not an end of a path: write pod/NAME, pod/NAMESPACE/NAME, svc/NAME, svc/NAMESPACE/NAME, node/NAME, client, or an address",
        ),
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), Error> {
    let Some((rest, port)) = text.rsplit_once(':') else {
        return Ok((text, None));
    };
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok((rest, Some(port))),
        _ => wrong(
            text,
            format!("{port:?} is not a port: write a number from 1 to 65535"),
        ),
    }
}

/// An end found in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A pod with a network of its own.
    Pod(Arc<Pod>),
    /// A Service: whoever stands behind it.
    Service(Arc<Service>),
    /// A node, or a pod that shares its network.
    Node {
        /// What was asked for.
        called: String,
        /// The node.
        node: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
    /// Nobody of the cluster.
    Outside {
        /// What was asked for.
        called: String,
        /// Its addresses.
        addresses: Vec<IpAddr>,
    },
}

impl End {
    /// What to call it.
    pub fn name(&self) -> String {
        match self {
            Self::Pod(pod) => format!("pod {}/{}", pod.namespace, pod.name),
            Self::Service(service) => format!("service {}/{}", service.namespace, service.name),
            Self::Node { called, .. } | Self::Outside { called, .. } => called.clone(),
        }
    }

    /// Its addresses, primary first.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Pod(pod) => &pod.ips,
            Self::Service(service) => &service.cluster_ips,
            Self::Node { addresses, .. } | Self::Outside { addresses, .. } => addresses,
        }
    }

    /// The node it is on.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Pod(pod) => Some(&pod.node),
            Self::Node { node, .. } => Some(node),
            Self::Service(_) | Self::Outside { .. } => None,
        }
    }
}

/// Finds an end; `client` are the addresses of the client outside.
pub fn find(place: &Place, cluster: &Cluster, client: &[IpAddr]) -> Result<End, Error> {
    match place {
        Place::Client => Ok(End::Outside {
            called: "client".into(),
            addresses: client.to_vec(),
        }),
        Place::Node(name) => find_node(&format!("node {name}"), name, cluster),
        Place::Pod { namespace, name } => find_pod(namespace, name, cluster),
        Place::Service { namespace, name } => find_service(namespace, name, cluster),
        Place::Address(address) => find_address(*address, cluster, client),
    }
}

fn find_node(called: &str, name: &str, cluster: &Cluster) -> Result<End, Error> {
    let Some(node) = cluster.nodes.get(name) else {
        let all: Vec<&str> = cluster.nodes.keys().map(String::as_str).collect();
        return wrong(
            called,
            format!("there is no such node; there are {}", all.join(", ")),
        );
    };
    if node.addresses.is_empty() {
        return wrong(
            called,
            "it has no InternalIP yet; see: kubectl describe node",
        );
    }
    Ok(End::Node {
        called: called.into(),
        node: name.into(),
        addresses: node.addresses.clone(),
    })
}

fn find_pod(namespace: &str, name: &str, cluster: &Cluster) -> Result<End, Error> {
    let called = format!("pod {namespace}/{name}");
    let Some(pod) = cluster.pods.get(&(namespace.to_owned(), name.to_owned())) else {
        return wrong(
            &called,
            format!(
                "there is no such pod{}",
                elsewhere(namespace, name, cluster)
            ),
        );
    };
    if pod.node.is_empty() {
        return wrong(
            &called,
            format!("it is on no node yet; see: kubectl -n {namespace} describe pod {name}"),
        );
    }
    if pod.host_network {
        return find_node(
            &format!("{called} (hostNetwork of {})", pod.node),
            &pod.node,
            cluster,
        );
    }
    if pod.ips.is_empty() {
        return wrong(
            &called,
            format!("it has no address yet; see: kubectl -n {namespace} describe pod {name}"),
        );
    }
    Ok(End::Pod(pod.clone()))
}

fn find_service(namespace: &str, name: &str, cluster: &Cluster) -> Result<End, Error> {
    let key = (namespace.to_owned(), name.to_owned());
    if let Some(service) = cluster.services.get(&key) {
        return Ok(End::Service(service.clone()));
    }
    let twin = cluster.services.keys().find(|(_, other)| other == name);
    let hint = match twin {
        Some((namespace, name)) => format!("; did you mean svc/{namespace}/{name}?"),
        None => format!("; see: kubectl -n {namespace} get services"),
    };
    wrong(
        format!("service {namespace}/{name}"),
        format!("there is no such service{hint}"),
    )
}

/// Where else a pod of that name is, or which pods are there.
fn elsewhere(namespace: &str, name: &str, cluster: &Cluster) -> String {
    let twin = cluster.pods.keys().find(|(_, other)| other == name);
    if let Some((other, _)) = twin {
        return format!("; did you mean pod/{other}/{name}?");
    }
    let beginning = name.split(['-', '.']).next().unwrap_or(name);
    let near = cluster
        .pods
        .keys()
        .find(|(other, pod)| other == namespace && pod.starts_with(beginning));
    match near {
        Some((_, pod)) => format!("; did you mean pod/{namespace}/{pod}?"),
        None => format!("; see: kubectl -n {namespace} get pods"),
    }
}

/// Whoever has an address.
pub(crate) fn find_address(
    address: IpAddr,
    cluster: &Cluster,
    client: &[IpAddr],
) -> Result<End, Error> {
    if let Some(pod) = cluster.pod_at(address) {
        return Ok(End::Pod(Arc::new(Pod {
            ips: vec![address],
            ..Pod::clone(pod)
        })));
    }
    let node = cluster
        .nodes
        .values()
        .find(|node| node.addresses.contains(&address));
    if let Some(node) = node {
        return Ok(End::Node {
            called: format!("node {}", node.name),
            node: node.name.clone(),
            addresses: vec![address],
        });
    }
    let range = cluster
        .nodes
        .values()
        .find(|node| node.pod_cidrs.iter().any(|net| net.contains(&address)));
    if let Some(node) = range {
        return wrong(
            address.to_string(),
            format!(
                "it is in the pod range of {}, but no pod has it; see: kubectl get pods -A -o wide",
                node.name
            ),
        );
    }
    let called = if client.contains(&address) {
        "client".into()
    } else {
        format!("{address} (outside the cluster)")
    };
    Ok(End::Outside {
        called,
        addresses: vec![address],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::cluster;

    #[test]
    fn ends_are_read_with_and_without_port() {
        let pod = |namespace: &str, name: &str| Place::Pod {
            namespace: namespace.into(),
            name: name.into(),
        };
        assert_eq!(parse("pod/web-0").unwrap(), (pod("default", "web-0"), None));
        assert_eq!(
            parse("pod/db/web-0:5432").unwrap(),
            (pod("db", "web-0"), Some(5432))
        );
        assert_eq!(
            parse("node/node1").unwrap(),
            (Place::Node("node1".into()), None)
        );
        let web = Place::Service {
            namespace: "shop".into(),
            name: "web".into(),
        };
        assert_eq!(parse("svc/shop/web:80").unwrap(), (web, Some(80)));
        assert_eq!(parse("client").unwrap(), (Place::Client, None));
        let v6 = || Place::Address("fd00::5".parse().unwrap());
        assert_eq!(parse("fd00::5").unwrap(), (v6(), None));
        assert_eq!(parse("[fd00::5]:80").unwrap(), (v6(), Some(80)));
        assert_eq!(parse("10.1.2.3:80").unwrap().1, Some(80));
    }

    #[test]
    fn what_is_no_end_is_answered_with_the_forms() {
        for text in [
            "",
            "pod/",
            "svc/",
            "ingress/web",
            "web",
            "pod/a/b/c",
            "pod/web:0",
            "pod/web:http",
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("write "), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_not_there_says_what_may_have_been_meant() {
        let cluster = cluster();
        let error = |text: &str| {
            find(&parse(text).unwrap().0, &cluster, &[])
                .unwrap_err()
                .to_string()
        };
        assert!(error("pod/db-0").contains("did you mean pod/data/db-0?"));
        assert!(error("pod/web-7").contains("did you mean pod/default/web-0?"));
        assert!(error("node/node9").contains("there are node1, node2"));
        assert!(error("10.244.2.77").contains("in the pod range of node2, but no pod has it"));
        assert!(error("pod/pending").contains("on no node yet"));
    }

    #[test]
    fn an_address_is_whoever_has_it() {
        let cluster = cluster();
        let name = |text: &str| {
            find(
                &parse(text).unwrap().0,
                &cluster,
                &["203.0.113.10".parse().unwrap()],
            )
            .unwrap()
            .name()
        };
        assert_eq!(name("10.244.2.5"), "pod data/db-0");
        assert_eq!(name("10.0.1.10"), "node node1");
        assert_eq!(name("203.0.113.10"), "client");
        assert_eq!(name("8.8.8.8"), "8.8.8.8 (outside the cluster)");
        assert_eq!(
            name("pod/kube-system/proxy"),
            "pod kube-system/proxy (hostNetwork of node1)"
        );
    }
}
