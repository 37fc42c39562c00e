//! `ipFamilies` and `ipFamilyPolicy`: what was asked for, inferred, or is the cluster's default.

use std::net::IpAddr;

use objects::validation::{self, field::ErrorKind, field::FieldError};
use objects::{Kind, Object, Status};
use serde_json::json;

use super::{invalid, is_headless, list, text};
use crate::context::Settings;
use crate::verbs::meta;

const SINGLE: &str = "SingleStack";
const REQUIRED: &str = "RequireDualStack";

/// The family of an address, as Kubernetes writes it.
pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// Chooses `ipFamilies` and `ipFamilyPolicy`, or says what does not go together.
pub(super) fn settle(
    settings: &Settings,
    kind: &Kind,
    old: Option<&Object>,
    new: &mut Object,
) -> Result<(), Status> {
    if old.is_some_and(|old| stays_preferred(old, new)) {
        return Ok(());
    }
    let bare = is_headless(new)
        && new["spec"]["selector"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
    if text(new, "ipFamilyPolicy").is_empty() {
        let policy = match old.map(|old| text(old, "ipFamilyPolicy")) {
            Some(policy) if !policy.is_empty() => policy.to_owned(),
            _ if bare => REQUIRED.to_owned(),
            _ => SINGLE.to_owned(),
        };
        new["spec"]["ipFamilyPolicy"] = policy.into();
    }
    validation::service_addresses(kind, new)?;
    let policy = text(new, "ipFamilyPolicy").to_owned();
    let configured: Vec<&'static str> = settings
        .service_cidrs
        .iter()
        .map(|range| family(range.addr()))
        .collect();
    let mut wrong = reduced(&policy, old, new);
    wrong.extend(too_many(&policy, new));
    let (mut wanted, unknown) = inferred(&configured, new);
    wrong.extend(unknown);
    refuse(kind, new, wrong)?;
    let default = configured.first().copied().unwrap_or("IPv4");
    if !bare {
        refuse(kind, new, unsupported(&policy, &configured, &wanted))?;
    }
    if wanted.is_empty() {
        wanted.push(default.to_owned());
    }
    // Without selector and address a Service is only a name: it has both families, whatever the
    // cluster's are.
    if wanted.len() == 1 && policy != SINGLE && (bare || configured.len() == 2) {
        wanted.push(other(&wanted[0]).to_owned());
    }
    new["spec"]["ipFamilies"] = json!(wanted);
    Ok(())
}

fn refuse(kind: &Kind, new: &Object, wrong: Vec<FieldError>) -> Result<(), Status> {
    if wrong.is_empty() {
        return Ok(());
    }
    let name = meta::get(new, "name");
    Err(Status::invalid(&kind.group, &kind.kind, name, &wrong))
}

fn error(field: impl Into<String>, value: impl serde::Serialize, why: &str) -> FieldError {
    let value = serde_json::to_string(&value).unwrap_or_default();
    FieldError {
        kind: ErrorKind::Invalid,
        field: field.into(),
        message: format!("Invalid value: {value}: {why}"),
    }
}

/// A Service that prefers both families stays as it is when the cluster's families change; only
/// its author moves it.
fn stays_preferred(old: &Object, new: &Object) -> bool {
    let same = |field: &str| old["spec"][field] == new["spec"][field];
    same("type")
        && same("clusterIPs")
        && same("ipFamilies")
        && same("ipFamilyPolicy")
        && text(new, "ipFamilyPolicy") == "PreferDualStack"
}

/// The second family is given back only by saying `SingleStack`.
fn reduced(policy: &str, old: Option<&Object>, new: &mut Object) -> Vec<FieldError> {
    let Some(old) = old else {
        return Vec::new();
    };
    let mut wrong = Vec::new();
    for (field, what) in [
        ("clusterIPs", "secondary cluster IP"),
        ("ipFamilies", "secondary IP family"),
    ] {
        let (before, after) = (list(old, field), list(new, field));
        if policy == SINGLE {
            if before == after && after.len() > 1 {
                new["spec"][field] = json!(after[..1]);
            }
        } else if !after.is_empty() && after.len() < before.len() {
            let why = format!("must be 'SingleStack' to release the {what}");
            wrong.push(error("spec.ipFamilyPolicy", policy, &why));
        }
    }
    wrong
}

fn too_many(policy: &str, new: &Object) -> Vec<FieldError> {
    if policy != SINGLE {
        return Vec::new();
    }
    let fields = [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")];
    let two = fields
        .iter()
        .filter(|(field, _)| list(new, field).len() == 2);
    two.map(|(_, what)| {
        let why = format!(
            "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
        );
        error("spec.ipFamilyPolicy", policy, &why)
    })
    .collect()
}

/// The families asked for, completed from the addresses asked for.
fn inferred(configured: &[&str], new: &Object) -> (Vec<String>, Vec<FieldError>) {
    let mut families = list(new, "ipFamilies");
    let mut wrong = Vec::new();
    let given = list(new, "clusterIPs");
    for (index, address) in given.iter().enumerate() {
        let Ok(address) = address.parse() else {
            break;
        };
        if index < families.len() {
            continue;
        }
        let family = family(address);
        if configured.contains(&family) {
            families.push(family.to_owned());
        } else {
            let why = format!("{family} is not configured on this cluster");
            wrong.push(error(format!("spec.clusterIPs[{index}]"), &given, &why));
        }
    }
    (families, wrong)
}

fn unsupported(policy: &str, configured: &[&str], wanted: &[String]) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if policy == REQUIRED && configured.len() < 2 {
        let why = "this cluster is not configured for dual-stack services";
        wrong.push(error("spec.ipFamilyPolicy", policy, why));
    }
    for (index, family) in wanted.iter().enumerate() {
        if !configured.contains(&family.as_str()) {
            let field = format!("spec.ipFamilies[{index}]");
            wrong.push(error(field, family, "not configured on this cluster"));
        }
    }
    wrong
}

/// Refuses an address of the allocator's.
pub(super) fn refused(kind: &Kind, new: &Object, address: &str, why: &str) -> Status {
    let given = serde_json::to_string(&list(new, "clusterIPs")).unwrap_or_default();
    let message = format!("Invalid value: {given}: failed to allocate IP {address}: {why}");
    invalid(kind, new, "spec.clusterIPs", message)
}
