//! The network files of a pod: `resolv.conf`, `hosts` and the host name, written as
//! the kubelet writes them. Pure: text in, text out.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec};

/// Limits of `resolv.conf`, as Kubernetes enforces them.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_DOMAIN: usize = 253;
/// What `sethostname` takes.
const MAX_HOSTNAME: usize = 64;

/// The cluster's DNS, as every pod is told.
#[derive(Clone, Debug, Default)]
pub struct ClusterDns {
    /// Addresses of the cluster's DNS service.
    pub servers: Vec<IpAddr>,
    /// Cluster domain (`cluster.local`).
    pub domain: String,
}

/// The content of a `resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolv {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}

impl Resolv {
    /// Reads a `resolv.conf`; the last `search` and `options` lines win.
    pub fn parse(text: &str) -> Self {
        let mut resolv = Self::default();
        for line in text.lines() {
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("nameserver") => resolv.nameservers.extend(fields.next().map(str::to_owned)),
                Some("search") => {
                    resolv.searches = fields
                        .map(|domain| match domain {
                            "." => domain.to_owned(),
                            _ => domain.trim_end_matches('.').to_owned(),
                        })
                        .collect();
                }
                Some("options") => resolv.options = fields.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolv
    }

    /// The file's text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }

    /// Adds the pod's `dnsConfig`: servers and searches follow, options replace by name.
    fn merge(&mut self, config: &PodDNSConfig) {
        append_unique(&mut self.nameservers, config.nameservers.iter().flatten());
        append_unique(&mut self.searches, config.searches.iter().flatten());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            let text = match option.value.as_deref() {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            };
            let same = |existing: &String| existing.split(':').next() == Some(name.as_str());
            match self.options.iter_mut().find(|existing| same(existing)) {
                Some(existing) => *existing = text,
                None => self.options.push(text),
            }
        }
    }

    /// Cuts to Kubernetes' limits; each cut is a sentence for an Event.
    fn limit(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.nameservers.len() > MAX_NAMESERVERS {
            self.nameservers.truncate(MAX_NAMESERVERS);
            warnings.push(format!(
                "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
                self.nameservers.join(" ")
            ));
        }
        let before = self.searches.len();
        self.searches.truncate(MAX_SEARCHES);
        self.searches.retain(|domain| domain.len() <= MAX_DOMAIN);
        while self.searches.join(" ").len() > MAX_SEARCH_CHARS {
            self.searches.pop();
        }
        if self.searches.len() != before {
            warnings.push(format!(
                "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
                self.searches.join(" ")
            ));
        }
        warnings
    }
}

fn append_unique<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// A pod's `resolv.conf` and the sentences about what had to be cut.
pub fn resolv(
    spec: &PodSpec,
    namespace: &str,
    cluster: &ClusterDns,
    node: &Resolv,
) -> (Resolv, Vec<String>) {
    let host_network = spec.host_network == Some(true);
    let from_cluster = match spec.dns_policy.as_deref() {
        Some("None" | "Default") => false,
        Some("ClusterFirstWithHostNet") => true,
        _ => !host_network,
    };
    let mut warnings = Vec::new();
    let mut resolv = if spec.dns_policy.as_deref() == Some("None") {
        Resolv::default()
    } else if from_cluster && !cluster.servers.is_empty() {
        cluster_first(namespace, cluster, node)
    } else {
        if from_cluster {
            warnings.push(
                "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" policy. Falling back to \"Default\" policy."
                    .to_owned(),
            );
        }
        node.clone()
    };
    if let Some(config) = &spec.dns_config {
        resolv.merge(config);
    }
    warnings.extend(resolv.limit());
    (resolv, warnings)
}

fn cluster_first(namespace: &str, cluster: &ClusterDns, node: &Resolv) -> Resolv {
    let mut searches = Vec::new();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        searches.push(format!("{namespace}.svc.{domain}"));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.clone());
    }
    append_unique(&mut searches, node.searches.iter());
    Resolv {
        nameservers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".to_owned()],
    }
}

/// A pod's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The short host name.
    pub hostname: String,
    /// `SUBDOMAIN.NAMESPACE.svc.DOMAIN`, where the pod has a subdomain.
    pub domain: Option<String>,
    /// What `hostname` prints in the pod.
    pub kernel: String,
}

/// The names of a pod; refused where the fully qualified one does not fit the kernel.
pub fn names(pod: &Pod, node_name: &str, cluster_domain: &str) -> Result<Names, String> {
    let spec = pod.spec.as_ref();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let field = |get: fn(&PodSpec) -> &Option<String>| {
        spec.and_then(|spec| get(spec).as_deref())
            .filter(|value| !value.is_empty())
    };
    if let Some(hostname) = field(|spec| &spec.hostname_override) {
        return Ok(Names {
            hostname: hostname.to_owned(),
            domain: None,
            kernel: hostname.to_owned(),
        });
    }
    if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        return Ok(Names {
            hostname: node_name.to_owned(),
            domain: None,
            kernel: node_name.to_owned(),
        });
    }
    let hostname = match field(|spec| &spec.hostname) {
        Some(hostname) => hostname.to_owned(),
        None => short_hostname(name),
    };
    let domain = field(|spec| &spec.subdomain)
        .map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"));
    let kernel = match &domain {
        Some(domain) if spec.is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true)) => {
            format!("{hostname}.{domain}")
        }
        _ => hostname.clone(),
    };
    if kernel.len() > MAX_HOSTNAME {
        return Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {kernel} is too long ({MAX_HOSTNAME} characters is the max, {} characters requested)",
            kernel.len()
        ));
    }
    Ok(Names {
        hostname,
        domain,
        kernel,
    })
}

/// A pod's name cut to a DNS label's length.
fn short_hostname(name: &str) -> String {
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// A pod's `/etc/hosts`. `node_hosts` is the node's own file, for host network pods.
pub fn hosts(spec: &PodSpec, ips: &[IpAddr], names: &Names, node_hosts: &str) -> String {
    let mut text = if spec.host_network == Some(true) {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n",
        );
        for ip in ips {
            let hostname = &names.hostname;
            match &names.domain {
                Some(domain) => {
                    text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
                }
                None => text.push_str(&format!("{ip}\t{hostname}\n")),
            }
        }
        text
    };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let hostnames = alias.hostnames.as_deref().unwrap_or_default();
            text.push_str(&format!("{}\t{}\n", alias.ip, hostnames.join("\t")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        let mut value = value;
        value["containers"] = json!([]);
        serde_json::from_value(value).unwrap()
    }

    fn cluster() -> ClusterDns {
        ClusterDns {
            servers: vec!["10.96.0.10".parse().unwrap()],
            domain: "cluster.local".to_owned(),
        }
    }

    fn node() -> Resolv {
        Resolv::parse(
            "# a comment\nnameserver 192.0.2.53\nsearch old.example\nsearch corp.example. lan\noptions timeout:1\n",
        )
    }

    #[test]
    fn each_dns_policy_gives_the_file_kubernetes_writes() {
        let table = [
            (
                json!({"dnsPolicy": "ClusterFirst"}),
                "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lan\nnameserver 10.96.0.10\noptions ndots:5\n",
            ),
            (
                json!({}),
                "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lan\nnameserver 10.96.0.10\noptions ndots:5\n",
            ),
            (
                json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}),
                "search corp.example lan\nnameserver 192.0.2.53\noptions timeout:1\n",
            ),
            (
                json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}),
                "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lan\nnameserver 10.96.0.10\noptions ndots:5\n",
            ),
            (
                json!({"dnsPolicy": "Default"}),
                "search corp.example lan\nnameserver 192.0.2.53\noptions timeout:1\n",
            ),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a.example"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
                "search a.example\nnameserver 1.1.1.1\noptions ndots:2 edns0\n",
            ),
            (
                json!({"dnsPolicy": "ClusterFirst", "dnsConfig": {"nameservers": ["1.1.1.1", "10.96.0.10"], "searches": ["svc.cluster.local", "x"], "options": [{"name": "ndots", "value": "2"}]}}),
                "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example lan x\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2\n",
            ),
        ];
        for (input, want) in table {
            let (resolv, warnings) = resolv(&spec(input.clone()), "shop", &cluster(), &node());
            assert_eq!(resolv.render(), want, "{input}");
            assert!(warnings.is_empty(), "{input}: {warnings:?}");
        }
    }

    #[test]
    fn what_exceeds_the_limits_is_cut_and_said() {
        let many: Vec<String> = (0..40).map(|i| format!("d{i}.example")).collect();
        let input = json!({"dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], "searches": many}});
        let (resolv, warnings) = resolv(&spec(input), "shop", &cluster(), &node());
        assert_eq!(resolv.nameservers, ["1.1.1.1", "2.2.2.2", "3.3.3.3"]);
        assert_eq!(resolv.searches.len(), 32);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].ends_with("the applied nameserver line is: 1.1.1.1 2.2.2.2 3.3.3.3"));
    }

    #[test]
    fn no_cluster_dns_falls_back_to_the_node() {
        let none = ClusterDns::default();
        let (resolv, warnings) = resolv(&spec(json!({})), "shop", &none, &node());
        assert_eq!(resolv, node());
        assert!(warnings[0].starts_with("kubelet does not have ClusterDNS IP configured"));
    }

    fn pod(name: &str, value: serde_json::Value) -> Pod {
        Pod {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("shop".to_owned()),
                ..Default::default()
            },
            spec: Some(spec(value)),
            status: None,
        }
    }

    #[test]
    fn names_follow_hostname_subdomain_and_fqdn() {
        let of = |name: &str, value| names(&pod(name, value), "node1", "cluster.local");
        assert_eq!(of("web-0", json!({})).unwrap().kernel, "web-0");
        let full = of(
            "x",
            json!({"hostname": "db", "subdomain": "sql", "setHostnameAsFQDN": true}),
        )
        .unwrap();
        assert_eq!(full.hostname, "db");
        assert_eq!(full.kernel, "db.sql.shop.svc.cluster.local");
        assert_eq!(
            of("x", json!({"hostNetwork": true})).unwrap().kernel,
            "node1"
        );
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(of(&long, json!({})).unwrap().hostname, "a".repeat(62));
        let refused = of(
            "x",
            json!({"hostname": "h".repeat(60), "subdomain": "sql", "setHostnameAsFQDN": true}),
        );
        assert!(refused.unwrap_err().contains("is too long"));
    }

    #[test]
    fn hosts_names_the_pod_and_its_aliases() {
        let input = spec(json!({"subdomain": "sql", "hostname": "db",
            "hostAliases": [{"ip": "203.0.113.7", "hostnames": ["legacy", "old.example"]}]}));
        let names = Names {
            hostname: "db".to_owned(),
            domain: Some("sql.shop.svc.cluster.local".to_owned()),
            kernel: "db".to_owned(),
        };
        let ips = ["10.244.1.5".parse().unwrap(), "fd00::5".parse().unwrap()];
        let text = hosts(&input, &ips, &names, "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("10.244.1.5\tdb.sql.shop.svc.cluster.local\tdb\nfd00::5\tdb.sql"));
        assert!(
            text.ends_with(
                "\n\n# Entries added by HostAliases.\n203.0.113.7\tlegacy\told.example\n"
            )
        );
        let host = hosts(
            &spec(json!({"hostNetwork": true})),
            &ips,
            &names,
            "127.0.0.1 localhost\n",
        );
        assert_eq!(
            host,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n"
        );
    }
}
