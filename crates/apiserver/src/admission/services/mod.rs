//! Services: addresses of each family, node ports, and the IPAddress objects that hold them.

mod addresses;
mod change;
mod families;
mod ports;

use objects::validation::field::ErrorKind;
use objects::{Kind, Object, Status};
use serde_json::json;

use crate::context::{self, Ctx};
use crate::failure;
use crate::store::{Change, Expect};
use crate::verbs::meta;

/// Tries of a random choice before what there is is counted through.
const TRIES: usize = 64;

fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    object["spec"][field].as_str().unwrap_or_default()
}

fn number(value: &Object) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn list(object: &Object, field: &str) -> Vec<String> {
    let items = object["spec"][field].as_array().into_iter().flatten();
    items
        .filter_map(Object::as_str)
        .map(str::to_owned)
        .collect()
}

fn remove(object: &mut Object, field: &str) {
    if let Some(spec) = object.get_mut("spec").and_then(Object::as_object_mut) {
        spec.remove(field);
    }
}

fn is_headless(object: &Object) -> bool {
    text(object, "clusterIP") == "None"
        || list(object, "clusterIPs")
            .first()
            .is_some_and(|a| a == "None")
}

/// Every type but ExternalName has an address, `None` counted as one.
fn has_address(object: &Object) -> bool {
    text(object, "type") != "ExternalName"
}

fn has_node_ports(object: &Object) -> bool {
    matches!(text(object, "type"), "NodePort" | "LoadBalancer")
}

fn has_health_port(object: &Object) -> bool {
    text(object, "type") == "LoadBalancer" && text(object, "externalTrafficPolicy") == "Local"
}

fn invalid(kind: &Kind, object: &Object, field: &str, message: String) -> Status {
    failure::invalid(
        kind,
        meta::get(object, "name"),
        ErrorKind::Invalid,
        field,
        message,
    )
}

/// Fills and checks a service; the changes claim and release its addresses.
pub fn admit(
    ctx: &Ctx,
    kind: &Kind,
    old: Option<&Object>,
    new: &mut Object,
) -> Result<Vec<Change>, Status> {
    match old {
        Some(old) => {
            change::keep_allocated(old, new);
            change::align_addresses(old, new);
            change::drop_of_type(old, new);
        }
        None => change::align_new(new),
    }
    let had = old.map(held_addresses).unwrap_or_default();
    if has_address(new) {
        families::settle(&ctx.settings, kind, old, new)?;
        addresses::allocate(ctx, kind, &had, new)?;
    }
    ports::allocate(ctx, kind, old, new)?;
    Ok(claims(ctx, &had, new))
}

/// Releases what a deleted service held.
pub fn release(ctx: &Ctx, object: &Object) -> Vec<Change> {
    let gone = held_addresses(object);
    gone.iter()
        .filter_map(|address| let_go(ctx, address))
        .collect()
}

fn held_addresses(object: &Object) -> Vec<String> {
    list(object, "clusterIPs")
        .into_iter()
        .filter(|a| a != "None" && !a.is_empty())
        .collect()
}

/// IPAddress objects made for addresses gained, removed for addresses lost.
fn claims(ctx: &Ctx, had: &[String], new: &Object) -> Vec<Change> {
    let has = held_addresses(new);
    let gained = has
        .iter()
        .filter(|a| !had.contains(a))
        .map(|a| claim(a, new));
    let lost = had
        .iter()
        .filter(|a| !has.contains(a))
        .filter_map(|a| let_go(ctx, a));
    gained.chain(lost).collect()
}

fn claim(address: &str, service: &Object) -> Change {
    let of = if address.contains(':') {
        "IPv6"
    } else {
        "IPv4"
    };
    let mut object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address, "uid": context::uid(), "creationTimestamp": context::now_text(), "generation": 1,
            "labels": {"ipaddress.kubernetes.io/ip-family": of, "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
        },
        "spec": {"parentRef": {"group": "", "resource": "services",
            "namespace": meta::get(service, "namespace"), "name": meta::get(service, "name")}},
    });
    Change::put(
        &format!("networking.k8s.io/ipaddresses//{address}"),
        Expect::Absent,
        &mut object,
    )
}

fn let_go(ctx: &Ctx, address: &str) -> Option<Change> {
    let key = format!("networking.k8s.io/ipaddresses//{address}");
    let entry = ctx.store.get(&key)?;
    Some(Change::delete(&key, entry.rev, &mut entry.object()))
}
