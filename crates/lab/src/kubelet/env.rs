//! A container's environment, from the pod and what it refers to. Pure: the driver
//! fetches the ConfigMaps and Secrets named by [`references`] beforehand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret,
};

use super::quantity;

/// Where CNI plugins find the machine's programs.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A Service as far as environment variables need it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceLink {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Cluster address; a Service without one gives no variables.
    pub cluster_ip: Option<IpAddr>,
    /// Ports: name, port, protocol.
    pub ports: Vec<(Option<String>, u16, String)>,
}

/// The objects a container may refer to; `None` where it does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps of the pod's namespace by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets of the pod's namespace by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// What the environment is made from.
pub struct Context<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// Services, of every namespace.
    pub services: &'a [ServiceLink],
    /// ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// The pod's host name.
    pub hostname: &'a str,
    /// Allocatable of the node, for missing limits.
    pub allocatable: &'a BTreeMap<String, String>,
}

/// Names of the ConfigMaps and of the Secrets a container's environment refers to.
pub fn references(container: &Container) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut maps = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
    }
    let sources = container.env.iter().flatten();
    for source in sources.filter_map(|var| var.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// What the pod sets of the container's environment, in a stable order; PATH is the image's.
/// The error is Kubernetes'
/// message of a `CreateContainerConfigError`.
pub fn environment(
    container: &Container,
    context: &Context<'_>,
) -> Result<Vec<(String, String)>, String> {
    let services = service_variables(context);
    let mut vars: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut set = |vars: &mut BTreeMap<String, String>, name: String, value: String| {
        if vars.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    set(
        &mut vars,
        "HOSTNAME".to_owned(),
        context.hostname.to_owned(),
    );
    for (name, value) in env_from(container, context)? {
        set(&mut vars, name, value);
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => match from_source(source, container, context)? {
                Some(value) => value,
                None => continue,
            },
            (Some(value), None) => expand(value, |name| {
                vars.get(name).or_else(|| services.get(name)).cloned()
            }),
            (None, None) => String::new(),
        };
        set(&mut vars, var.name.clone(), value);
    }
    for (name, value) in services {
        if !vars.contains_key(&name) {
            set(&mut vars, name, value);
        }
    }
    Ok(order
        .into_iter()
        .map(|name| {
            let value = vars.remove(&name).unwrap_or_default();
            (name, value)
        })
        .collect())
}

fn env_from(container: &Container, context: &Context<'_>) -> Result<Vec<(String, String)>, String> {
    let mut result = Vec::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let mut take = |key: &str, value: String| {
            let name = format!("{prefix}{key}");
            if valid_name(&name) {
                result.push((name, value));
            }
        };
        if let Some(reference) = &from.config_map_ref {
            let optional = reference.optional == Some(true);
            if let Some(map) = config_map(context, &reference.name, optional)? {
                for (key, value) in map.data.iter().flatten() {
                    take(key, value.clone());
                }
            }
        }
        if let Some(reference) = &from.secret_ref {
            let optional = reference.optional == Some(true);
            if let Some(secret) = secret(context, &reference.name, optional)? {
                for (key, value) in secret.data.iter().flatten() {
                    take(key, String::from_utf8_lossy(&value.0).into_owned());
                }
            }
        }
    }
    Ok(result)
}

/// Printable ASCII without `=`: what Kubernetes takes as a variable's name.
fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=')
}

fn config_map<'a>(
    context: &'a Context<'_>,
    name: &str,
    optional: bool,
) -> Result<Option<&'a ConfigMap>, String> {
    match context
        .sources
        .config_maps
        .get(name)
        .and_then(Option::as_ref)
    {
        Some(map) => Ok(Some(map)),
        None if optional => Ok(None),
        None => Err(format!("configmap \"{name}\" not found")),
    }
}

fn secret<'a>(
    context: &'a Context<'_>,
    name: &str,
    optional: bool,
) -> Result<Option<&'a Secret>, String> {
    match context.sources.secrets.get(name).and_then(Option::as_ref) {
        Some(secret) => Ok(Some(secret)),
        None if optional => Ok(None),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

fn from_source(
    source: &EnvVarSource,
    container: &Container,
    context: &Context<'_>,
) -> Result<Option<String>, String> {
    let namespace = context
        .pod
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    if let Some(reference) = &source.field_ref {
        return field(&reference.field_path, context).map(Some);
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource(reference, container, context.allocatable).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let (name, key) = (&reference.name, &reference.key);
        let optional = reference.optional == Some(true);
        let Some(map) = config_map(context, name, optional)? else {
            return Ok(None);
        };
        return match map.data.as_ref().and_then(|data| data.get(key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {key} in ConfigMap {namespace}/{name}"
            )),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let (name, key) = (&reference.name, &reference.key);
        let optional = reference.optional == Some(true);
        let Some(secret) = secret(context, name, optional)? else {
            return Ok(None);
        };
        return match secret.data.as_ref().and_then(|data| data.get(key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {key} in Secret {namespace}/{name}"
            )),
        };
    }
    Ok(None)
}

/// The value of a `fieldRef`, for variables and for downward API files.
pub fn field(path: &str, context: &Context<'_>) -> Result<String, String> {
    let meta = &context.pod.metadata;
    let spec = context.pod.spec.as_ref();
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let joined = |ips: &[IpAddr]| {
        let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        ips.join(",")
    };
    let first = |ips: &[IpAddr]| ips.first().map(IpAddr::to_string).unwrap_or_default();
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        let value = map.as_ref().and_then(|map| map.get(key));
        value.cloned().unwrap_or_default()
    };
    Ok(match path {
        "metadata.name" => text(&meta.name),
        "metadata.namespace" => text(&meta.namespace),
        "metadata.uid" => text(&meta.uid),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(&spec.and_then(|spec| spec.node_name.clone())),
        "spec.serviceAccountName" => text(&spec.and_then(|spec| spec.service_account_name.clone())),
        "status.hostIP" => first(context.host_ips),
        "status.hostIPs" => joined(context.host_ips),
        "status.podIP" => first(context.pod_ips),
        "status.podIPs" => joined(context.pod_ips),
        _ => match subscript(path) {
            Some(("metadata.labels", key)) => entry(&meta.labels, key),
            Some(("metadata.annotations", key)) => entry(&meta.annotations, key),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        },
    })
}

/// `metadata.labels['key']` as (`metadata.labels`, `key`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, rest) = path.split_once("['")?;
    Some((field, rest.strip_suffix("']")?))
}

/// Labels or annotations as the downward API writes them: `key="value"` lines.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

/// A string in double quotes, escaped as Go's `%q` does for the usual characters.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`; a missing limit is the node's allocatable.
pub fn resource(
    selector: &ResourceFieldSelector,
    container: &Container,
    allocatable: &BTreeMap<String, String>,
) -> Result<String, String> {
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let of =
        |map: Option<&BTreeMap<_, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| {
            map.and_then(|map: &BTreeMap<String, _>| map.get(name))
                .map(|quantity| quantity.0.clone())
        };
    let limits = of(resources.and_then(|r| r.limits.as_ref()));
    let value = match kind {
        "limits" => limits.or_else(|| allocatable.get(name).cloned()),
        "requests" => of(resources.and_then(|r| r.requests.as_ref())).or(limits),
        _ => return Err(unsupported()),
    };
    let milli = match value {
        Some(text) => quantity::milli(&text).ok_or_else(unsupported)?,
        None => 0,
    };
    let divisor = selector.divisor.as_ref().map_or("1", |d| d.0.as_str());
    let result = quantity::divided(milli, divisor).ok_or_else(unsupported)?;
    Ok(result.to_string())
}

/// Variables of the Services a pod may see.
fn service_variables(context: &Context<'_>) -> BTreeMap<String, String> {
    let namespace = context
        .pod
        .metadata
        .namespace
        .as_deref()
        .unwrap_or_default();
    let spec = context.pod.spec.as_ref();
    let links = spec
        .and_then(|spec| spec.enable_service_links)
        .unwrap_or(true);
    let mut vars = BTreeMap::new();
    for service in context.services {
        let master = service.namespace == "default" && service.name == "kubernetes";
        if !(master || links && service.namespace == namespace) {
            continue;
        }
        // The pod's own namespace wins over the master service of the same name.
        if master && namespace != "default" && vars.contains_key("KUBERNETES_SERVICE_HOST") {
            continue;
        }
        if let (Some(ip), Some(_)) = (service.cluster_ip, service.ports.first()) {
            link_variables(service, ip, &mut vars);
        }
    }
    vars
}

fn link_variables(service: &ServiceLink, ip: IpAddr, vars: &mut BTreeMap<String, String>) {
    let shout = |text: &str| text.to_uppercase().replace('-', "_");
    let name = shout(&service.name);
    vars.insert(format!("{name}_SERVICE_HOST"), ip.to_string());
    for (index, (port_name, port, protocol)) in service.ports.iter().enumerate() {
        let protocol = protocol.to_lowercase();
        let url = format!("{protocol}://{}", std::net::SocketAddr::new(ip, *port));
        if index == 0 {
            vars.insert(format!("{name}_SERVICE_PORT"), port.to_string());
            vars.insert(format!("{name}_PORT"), url.clone());
        }
        if let Some(port_name) = port_name {
            let key = format!("{name}_SERVICE_PORT_{}", shout(port_name));
            vars.insert(key, port.to_string());
        }
        let prefix = format!("{name}_PORT_{port}_{}", protocol.to_uppercase());
        vars.insert(format!("{prefix}_PROTO"), protocol);
        vars.insert(format!("{prefix}_PORT"), port.to_string());
        vars.insert(format!("{prefix}_ADDR"), ip.to_string());
        vars.insert(prefix, url);
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar, an unknown name stays as it is.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// `command` and `args` with the container's variables filled in.
pub fn expand_all(words: &[String], env: &[(String, String)]) -> Vec<String> {
    let value = |name: &str| {
        let found = env.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    words.iter().map(|word| expand(word, value)).collect()
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
