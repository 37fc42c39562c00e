//! `kubernetes` and `k8s_external`.

mod selector;

use std::collections::BTreeSet;
use std::time::Duration;

use model::selector::LabelSelector;

use super::ClientTls;
use crate::corefile::reader::{Reader, Result, quoted};
use crate::corefile::{Zone, value};

/// The cluster's names.
#[derive(Debug, Clone, PartialEq)]
pub struct Kubernetes {
    /// The zones, reverse zones among them.
    pub zones: Vec<Zone>,
    /// The API server's URL; `None` is that of the pod's own cluster.
    pub endpoint: Option<String>,
    /// Certificates for `endpoint`.
    pub tls: ClientTls,
    /// The cluster of a kubeconfig.
    pub kubeconfig: Option<Kubeconfig>,
    /// Only these namespaces; empty is all.
    pub namespaces: BTreeSet<String>,
    /// Only namespaces with these labels.
    pub namespace_labels: Option<LabelSelector>,
    /// Only Services and endpoints with these labels.
    pub labels: Option<LabelSelector>,
    /// Names of pods.
    pub pods: PodMode,
    /// An endpoint without a hostname is named after its pod, not after its address.
    pub endpoint_pod_names: bool,
    /// The TTL of answers.
    pub ttl: u32,
    /// Endpoints are watched; without them there are no headless Services.
    pub endpoints: bool,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
    /// NXDOMAIN for a Service without ready endpoints.
    pub ignore_empty_service: bool,
    /// Names of headless Services by topology zone.
    pub zonal: bool,
    /// The zones that are multi-cluster zones.
    pub multicluster: Vec<Zone>,
    /// How long the start waits for the first sync.
    pub startup_timeout: Duration,
    /// Requests per second to the API server; 0 is the client's default.
    pub apiserver_qps: f32,
    /// Requests at once; 0 is the client's default.
    pub apiserver_burst: u32,
    /// Requests in flight; 0 is no bound.
    pub apiserver_max_inflight: u32,
}

/// A kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The file.
    pub file: String,
    /// The context; `None` is the current one.
    pub context: Option<String>,
}

/// What is answered for `1-2-3-4.ns.pod.zone`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodMode {
    /// Nothing.
    #[default]
    Disabled,
    /// The address in the name.
    Insecure,
    /// The address in the name if such a pod exists in the namespace.
    Verified,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            endpoint: None,
            tls: ClientTls::default(),
            kubeconfig: None,
            namespaces: BTreeSet::new(),
            namespace_labels: None,
            labels: None,
            pods: PodMode::default(),
            endpoint_pod_names: false,
            ttl: 5,
            endpoints: true,
            fallthrough: Vec::new(),
            ignore_empty_service: false,
            zonal: false,
            multicluster: Vec::new(),
            startup_timeout: Duration::from_secs(5),
            apiserver_qps: 0.0,
            apiserver_burst: 0,
            apiserver_max_inflight: 0,
        }
    }
}

impl Kubernetes {
    /// The zone that names in PTR answers are in: the first one that is no reverse zone.
    pub fn primary_zone(&self) -> Option<&Zone> {
        let names = self.zones.iter().find(|zone| !is_reverse(zone));
        names.or_else(|| self.zones.first())
    }
}

/// Whether a zone is one of addresses.
fn is_reverse(zone: &Zone) -> bool {
    let of = |family: &[u8]| {
        Zone::from_labels([family, b"arpa"]).is_ok_and(|apex| zone.is_within(&apex))
    };
    of(b"in-addr") || of(b"ip6")
}

/// Services by their external addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct K8sExternal {
    /// The zones.
    pub zones: Vec<Zone>,
    /// The label under which the zone's own names (`ns1.dns`, ...) are.
    pub apex: String,
    /// The TTL of answers.
    pub ttl: u32,
    /// Headless Services too.
    pub headless: bool,
    /// Zones in which the next plugin is asked for a name that is not here; empty is none.
    pub fallthrough: Vec<Zone>,
}

impl Default for K8sExternal {
    fn default() -> Self {
        Self {
            zones: Vec::new(),
            apex: "dns".to_owned(),
            ttl: 5,
            headless: false,
            fallthrough: Vec::new(),
        }
    }
}

const OPTIONS: [&str; 19] = [
    "endpoint",
    "tls",
    "kubeconfig",
    "namespaces",
    "namespace_labels",
    "labels",
    "pods",
    "endpoint_pod_names",
    "ttl",
    "noendpoints",
    "zonal",
    "fallthrough",
    "ignore",
    "multicluster",
    "startup_timeout",
    "apiserver_qps",
    "apiserver_burst",
    "apiserver_max_inflight",
    "upstream",
];

pub(super) fn parse(reader: &mut Reader<'_>) -> Option<Kubernetes> {
    let mut found = None;
    reader.once(|reader| {
        let args = reader.args();
        let mut kubernetes = Kubernetes {
            zones: reader.zones(&args),
            ..Kubernetes::default()
        };
        // CoreDNS takes in-addr.arpa and ip6.arpa themselves for zones of names.
        let below = |zone: &Zone| is_reverse(zone) && zone.depth() > 2;
        if kubernetes.zones.iter().all(below) {
            let message = "a zone of names is missing, such as cluster.local: reverse zones alone \
                           have no names to answer with";
            let error = reader.error(message);
            reader.report.error(error);
        }
        reader.options(|reader, name| option(reader, name, &mut kubernetes));
        together(reader, &kubernetes);
        found = Some(kubernetes);
        Ok(())
    });
    found
}

/// Options that do not go together.
fn together(reader: &mut Reader<'_>, kubernetes: &Kubernetes) {
    let mut wrong = Vec::new();
    if !kubernetes.namespaces.is_empty() && kubernetes.namespace_labels.is_some() {
        wrong.push("namespaces and namespace_labels cannot both be there".to_owned());
    }
    if kubernetes.zonal && !kubernetes.endpoints {
        wrong.push("zonal needs the endpoints that noendpoints leaves out".to_owned());
    }
    for zone in &kubernetes.multicluster {
        if !kubernetes.zones.contains(zone) {
            wrong.push(format!(
                "the multicluster zone {zone} is none of the plugin's zones {:?}",
                kubernetes.zones
            ));
        }
    }
    for message in wrong {
        let error = reader.error(message);
        reader.report.error(error);
    }
}

fn option(reader: &mut Reader<'_>, name: &str, kubernetes: &mut Kubernetes) -> Result<()> {
    match name {
        "endpoint_pod_names" => {
            reader.no_args()?;
            kubernetes.endpoint_pod_names = true;
        }
        "noendpoints" => {
            reader.no_args()?;
            kubernetes.endpoints = false;
        }
        "zonal" => {
            reader.no_args()?;
            kubernetes.zonal = true;
        }
        "pods" => kubernetes.pods = pod_mode(reader)?,
        "namespaces" => {
            let names = reader.some_args("names of namespaces")?;
            kubernetes
                .namespaces
                .extend(names.into_iter().map(str::to_owned));
        }
        "labels" => kubernetes.labels = Some(labels(reader)?),
        "namespace_labels" => kubernetes.namespace_labels = Some(labels(reader)?),
        "fallthrough" => kubernetes.fallthrough = reader.fallthrough(),
        "ttl" => kubernetes.ttl = ttl(reader)?,
        "ignore" => match reader.args().first() {
            Some(&"empty_service") => kubernetes.ignore_empty_service = true,
            Some(other) => return Err(reader.unknown_value("kind", other, &["empty_service"])),
            None => reader.warn("ignore without empty_service is without effect"),
        },
        "multicluster" => {
            let args = reader.args();
            kubernetes.multicluster = reader.named_zones(&args);
        }
        "startup_timeout" => {
            let args = reader.some_args("a duration")?;
            kubernetes.startup_timeout = reader.check(value::duration(args[0]))?.or_zero();
        }
        _ => return connection(reader, name, kubernetes),
    }
    Ok(())
}

/// Options about the API server.
fn connection(reader: &mut Reader<'_>, name: &str, kubernetes: &mut Kubernetes) -> Result<()> {
    match name {
        "endpoint" => {
            let args = reader.some_args("a URL")?;
            if args.len() > 1 {
                reader.warn("only the first endpoint is used");
            }
            kubernetes.endpoint = Some(args[0].to_owned());
        }
        "tls" => match reader.args().as_slice() {
            // Beside no `root`, unlike the files of other plugins.
            [certificate, key, ca] => {
                kubernetes.tls = ClientTls {
                    certificate: Some(((*certificate).to_owned(), (*key).to_owned())),
                    ca: Some((*ca).to_owned()),
                };
            }
            other => {
                let found = quoted(other);
                return Err(reader.error(format!("tls takes CERT KEY CA; found {found}")));
            }
        },
        "kubeconfig" => match reader.args().as_slice() {
            [file, context @ ..] if context.len() < 2 => {
                kubernetes.kubeconfig = Some(Kubeconfig {
                    file: (*file).to_owned(),
                    context: context.first().map(|context| (*context).to_owned()),
                });
            }
            other => {
                let message = "kubeconfig takes a file and maybe a context";
                return Err(reader.error(format!("{message}; found {}", quoted(other))));
            }
        },
        "apiserver_qps" => kubernetes.apiserver_qps = requests_per_second(reader)?,
        "apiserver_burst" => kubernetes.apiserver_burst = requests(reader, name)?,
        "apiserver_max_inflight" => kubernetes.apiserver_max_inflight = requests(reader, name)?,
        "upstream" | "resyncperiod" => {
            reader.args();
            reader.warn(format!("{name} is without effect: CoreDNS has removed it"));
        }
        "transfer" => {
            let message = "transfer is an option no more: it is a plugin of its own, as in \
                           \"transfer { to * }\" over three lines";
            return Err(reader.error(message));
        }
        _ => return Err(reader.unknown_option(&OPTIONS)),
    }
    Ok(())
}

fn pod_mode(reader: &mut Reader<'_>) -> Result<PodMode> {
    Ok(match reader.one_arg("disabled, insecure or verified")? {
        "disabled" => PodMode::Disabled,
        "insecure" => PodMode::Insecure,
        "verified" => PodMode::Verified,
        other => {
            let known = ["disabled", "insecure", "verified"];
            return Err(reader.unknown_value("mode of pods", other, &known));
        }
    })
}

fn labels(reader: &mut Reader<'_>) -> Result<LabelSelector> {
    let text = reader.some_args("a label selector")?.join(" ");
    reader.check(selector::parse(&text))
}

fn ttl(reader: &mut Reader<'_>) -> Result<u32> {
    let args = reader.some_args("a number of seconds")?;
    reader.check(value::number(args[0], "the TTL", 0, 3600))
}

fn requests(reader: &mut Reader<'_>, name: &str) -> Result<u32> {
    let text = reader.one_arg("a number")?;
    reader.check(value::count(text, name))
}

fn requests_per_second(reader: &mut Reader<'_>) -> Result<f32> {
    let text = reader.one_arg("a number")?;
    match text.parse::<f32>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err(reader.error(format!(
            "apiserver_qps is {text:?}; a number from 0 on is expected"
        ))),
    }
}

pub(super) fn parse_external(reader: &mut Reader<'_>) -> Option<K8sExternal> {
    const OPTIONS: [&str; 4] = ["ttl", "apex", "headless", "fallthrough"];
    // As in CoreDNS, a second one changes what the first one set.
    let mut external = K8sExternal::default();
    let mut found = false;
    reader.each(|reader| {
        found = true;
        let args = reader.args();
        external.zones = reader.zones(&args);
        reader.options(|reader, name| {
            match name {
                "ttl" => external.ttl = ttl(reader)?,
                "apex" => external.apex = reader.some_args("a label")?[0].to_owned(),
                "headless" => external.headless = true,
                "fallthrough" => external.fallthrough = reader.fallthrough(),
                _ => return Err(reader.unknown_option(&OPTIONS)),
            }
            Ok(())
        });
        Ok(())
    });
    found.then_some(external)
}
