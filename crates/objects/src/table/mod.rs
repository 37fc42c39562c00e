//! `meta.k8s.io/v1 Table`: what `kubectl get` prints, as upstream's printers print it.

use serde_json::{Value, json};

use crate::selector::LabelSelector;
use crate::{Kind, Object};

mod custom;
mod network;
mod pod;
mod small;
mod workload;

/// A column: its name, its type, and 1 where only `-o wide` shows it.
type Column = (&'static str, &'static str, u8);

const NONE: &str = "<none>";

#[rustfmt::skip]
fn builtin_columns(kind: &Kind) -> &'static [Column] {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => &[("Ready", "string", 0), ("Status", "string", 0), ("Restarts", "string", 0), ("Age", "string", 0), ("IP", "string", 1), ("Node", "string", 1), ("Nominated Node", "string", 1), ("Readiness Gates", "string", 1)],
        ("", "Service") => &[("Type", "string", 0), ("Cluster-IP", "string", 0), ("External-IP", "string", 0), ("Port(s)", "string", 0), ("Age", "string", 0), ("Selector", "string", 1)],
        ("", "Endpoints") => &[("Endpoints", "string", 0), ("Age", "string", 0)],
        ("", "Node") => &[("Status", "string", 0), ("Roles", "string", 0), ("Age", "string", 0), ("Version", "string", 0), ("Internal-IP", "string", 1), ("External-IP", "string", 1), ("OS-Image", "string", 1), ("Kernel-Version", "string", 1), ("Container-Runtime", "string", 1)],
        ("", "Namespace") => &[("Status", "string", 0), ("Age", "string", 0)],
        ("", "Secret") => &[("Type", "string", 0), ("Data", "string", 0), ("Age", "string", 0)],
        ("", "ConfigMap") => &[("Data", "string", 0), ("Age", "string", 0)],
        ("", "ServiceAccount") => &[("Age", "string", 0)],
        ("", "ResourceQuota") => &[("Request", "string", 0), ("Limit", "string", 0), ("Age", "string", 0)],
        ("apps", "Deployment") => &[("Ready", "string", 0), ("Up-to-date", "string", 0), ("Available", "string", 0), ("Age", "string", 0), ("Containers", "string", 1), ("Images", "string", 1), ("Selector", "string", 1)],
        ("apps", "ReplicaSet") => &[("Desired", "integer", 0), ("Current", "integer", 0), ("Ready", "integer", 0), ("Age", "string", 0), ("Containers", "string", 1), ("Images", "string", 1), ("Selector", "string", 1)],
        ("apps", "StatefulSet") => &[("Ready", "string", 0), ("Age", "string", 0), ("Containers", "string", 1), ("Images", "string", 1)],
        ("apps", "DaemonSet") => &[("Desired", "integer", 0), ("Current", "integer", 0), ("Ready", "integer", 0), ("Up-to-date", "integer", 0), ("Available", "integer", 0), ("Node Selector", "string", 0), ("Age", "string", 0), ("Containers", "string", 1), ("Images", "string", 1), ("Selector", "string", 1)],
        ("apps", "ControllerRevision") => &[("Controller", "string", 0), ("Revision", "string", 0), ("Age", "string", 0)],
        ("policy", "PodDisruptionBudget") => &[("Min Available", "string", 0), ("Max Unavailable", "string", 0), ("Allowed Disruptions", "integer", 0), ("Age", "string", 0)],
        ("networking.k8s.io", "Ingress") => &[("Class", "string", 0), ("Hosts", "string", 0), ("Address", "string", 0), ("Ports", "string", 0), ("Age", "string", 0)],
        ("networking.k8s.io", "IngressClass") => &[("Controller", "string", 0), ("Parameters", "string", 0), ("Age", "string", 0)],
        ("networking.k8s.io", "NetworkPolicy") => &[("Pod-Selector", "string", 0), ("Age", "string", 0)],
        ("networking.k8s.io", "IPAddress") => &[("ParentRef", "string", 0), ("Age", "string", 0)],
        ("networking.k8s.io", "ServiceCIDR") => &[("CIDRs", "string", 0), ("Age", "string", 0)],
        ("discovery.k8s.io", "EndpointSlice") => &[("AddressType", "string", 0), ("Ports", "string", 0), ("Endpoints", "string", 0), ("Age", "string", 0)],
        ("coordination.k8s.io", "Lease") => &[("Holder", "string", 0), ("Age", "string", 0)],
        ("scheduling.k8s.io", "PriorityClass") => &[("Value", "integer", 0), ("Global-Default", "boolean", 0), ("Age", "string", 0), ("PreemptionPolicy", "string", 0)],
        ("node.k8s.io", "RuntimeClass") => &[("Handler", "string", 0), ("Age", "string", 0)],
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &[("Role", "string", 0), ("Age", "string", 0), ("Users", "string", 1), ("Groups", "string", 1), ("ServiceAccounts", "string", 1)],
        _ => &[("Created At", "date", 0)],
    }
}

#[rustfmt::skip]
const EVENT: &[Column] = &[
    ("Last Seen", "string", 0), ("Type", "string", 0), ("Reason", "string", 0), ("Object", "string", 0),
    ("Subobject", "string", 1), ("Source", "string", 1), ("Message", "string", 0),
    ("First Seen", "string", 1), ("Count", "string", 1), ("Name", "string", 1),
];

fn column(name: &str, kind: &str, wide: u8) -> Value {
    let format = if name == "Name" { "name" } else { "" };
    json!({ "name": name, "type": kind, "format": format, "description": "", "priority": wide })
}

/// The columns (`columnDefinitions`) of a kind.
pub fn columns(kind: &Kind) -> Object {
    if kind.custom.is_none() && kind.kind == "Event" {
        return EVENT.iter().map(|(n, t, w)| column(n, t, *w)).collect();
    }
    let mut all = vec![column("Name", "string", 0)];
    match &kind.custom {
        Some(custom) => all.extend(custom::columns(custom)),
        None => all.extend(
            builtin_columns(kind)
                .iter()
                .map(|(n, t, w)| column(n, t, *w)),
        ),
    }
    all.into()
}

/// The cells of one row. `now` is seconds since the epoch, for ages.
pub fn cells(kind: &Kind, object: &Object, now: i64) -> Vec<Object> {
    let mut row: Vec<Value> = vec![text(&object["metadata"]["name"]).into()];
    let row = &mut row;
    if let Some(custom) = &kind.custom {
        custom::cells(custom, object, now, row);
        return std::mem::take(row);
    }
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => pod::cells(object, now, row),
        ("", "Node") => small::node(object, now, row),
        ("" | "events.k8s.io", "Event") => small::event(object, now, row),
        ("", "Service") => network::service(object, now, row),
        ("", "Endpoints") => network::endpoints(object, now, row),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(object, now, row),
        ("networking.k8s.io", _) => network::networking(&kind.kind, object, now, row),
        ("apps", _) => workload::cells(&kind.kind, object, now, row),
        _ => small::cells(kind, object, now, row),
    }
    std::mem::take(row)
}

/// Text of a value; empty where it is missing.
fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn or_none(value: &Value) -> &str {
    match text(value) {
        "" => NONE,
        text => text,
    }
}

fn count(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn seconds(time: &Value) -> Option<i64> {
    let time: jiff::Timestamp = text(time).parse().ok()?;
    Some(time.as_second())
}

/// How long ago, as `5m30s`; `<unknown>` without a time.
fn ago(time: &Value, now: i64) -> String {
    seconds(time).map_or_else(|| "<unknown>".to_owned(), |then| human(now - then))
}

fn age(object: &Value, now: i64) -> Value {
    ago(&object["metadata"]["creationTimestamp"], now).into()
}

/// A duration in at most two units, as `duration.HumanDuration` writes it.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{unit}")
        } else {
            format!("{big}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn labels(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    let pairs: Vec<String> = pairs.map(|(k, v)| format!("{k}={}", text(v))).collect();
    if pairs.is_empty() {
        NONE.to_owned()
    } else {
        pairs.join(",")
    }
}

fn selector(selector: &Value) -> String {
    match LabelSelector::from_object(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(selector) => match selector.to_string() {
            text if text.is_empty() => NONE.to_owned(),
            text => text,
        },
    }
}

fn int_or_string(value: &Value, missing: &str) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => missing.to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> std::sync::Arc<Kind> {
        let kinds = crate::kind::builtin();
        kinds.iter().find(|k| k.kind == name).unwrap().clone()
    }

    /// One line of cells, as a reader of `kubectl get -o wide` sees them.
    pub(super) fn line(name: &str, object: &Value, now: i64) -> String {
        let cells = cells(&kind(name), object, now);
        let texts = cells.iter().map(|c| int_or_string(c, NONE));
        texts.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn every_row_fills_every_column() {
        for kind in crate::kind::builtin() {
            let columns = columns(&kind).as_array().unwrap().len();
            assert_eq!(cells(&kind, &json!({}), 0).len(), columns, "{}", kind.kind);
        }
    }

    #[test]
    fn durations() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (310, "5m10s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (100_000, "27h"),
            (200_000, "2d7h"),
            (1_000_000, "11d"),
            (100_000_000, "3y62d"),
            (300_000_000, "9y"),
        ] {
            assert_eq!(human(seconds), text);
        }
    }
}
