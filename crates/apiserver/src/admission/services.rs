//! Services: addresses of each family, node ports, and the IPAddress objects that hold them.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;
use objects::validation::field::ErrorKind;
use objects::{Kind, Object, Status};
use serde_json::json;

use crate::context::{self, Ctx, Settings};
use crate::failure;
use crate::store::{Change, Expect, Store};
use crate::verbs::meta;

/// Tries of a random choice before addresses are counted through.
const TRIES: usize = 64;

fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    object["spec"][field].as_str().unwrap_or_default()
}

fn list(object: &Object, field: &str) -> Vec<String> {
    let items = object["spec"][field].as_array().into_iter().flatten();
    items
        .filter_map(Object::as_str)
        .map(str::to_owned)
        .collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

fn cidr_of<'a>(settings: &'a Settings, family: &str) -> Option<&'a IpNet> {
    settings
        .service_cidrs
        .iter()
        .find(|c| self::family(c.addr()) == family)
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

/// What the cluster's services hold.
struct Held<'a> {
    store: &'a Store,
    ports: HashSet<(u64, String)>,
}

impl<'a> Held<'a> {
    /// Of all services but `but`.
    fn of(store: &'a Store, but: &str) -> Self {
        let mut ports = HashSet::new();
        for (key, entry) in store.list("/services/").items {
            if key.as_ref() == but {
                continue;
            }
            let service = entry.object();
            for port in service["spec"]["ports"].as_array().into_iter().flatten() {
                let protocol = port["protocol"].as_str().unwrap_or("TCP");
                ports.extend(port["nodePort"].as_u64().map(|p| (p, protocol.to_owned())));
            }
            ports.extend(
                service["spec"]["healthCheckNodePort"]
                    .as_u64()
                    .map(|p| (p, "TCP".to_owned())),
            );
        }
        Self { store, ports }
    }

    fn address_taken(&self, address: IpAddr) -> bool {
        self.store
            .get(&format!("networking.k8s.io/ipaddresses//{address}"))
            .is_some()
    }

    fn port_taken(&self, port: u64, protocol: &str) -> bool {
        self.ports.contains(&(port, protocol.to_owned()))
    }
}

/// Fills and checks a service; the changes claim and release its addresses.
pub fn admit(
    ctx: &Ctx,
    kind: &Kind,
    old: Option<&Object>,
    new: &mut Object,
) -> Result<Vec<Change>, Status> {
    if let Some(old) = old {
        inherit(old, new);
        drop_of_type(old, new);
    }
    let key = format!(
        "/services/{}/{}",
        meta::get(new, "namespace"),
        meta::get(new, "name")
    );
    let held = Held::of(&ctx.store, &key);
    let had: Vec<String> = old.map(held_addresses).unwrap_or_default();
    if text(new, "type") == "ExternalName" {
        for field in [
            "clusterIP",
            "clusterIPs",
            "ipFamilies",
            "ipFamilyPolicy",
            "healthCheckNodePort",
        ] {
            remove(new, field);
        }
    } else {
        families(&ctx.settings, kind, new)?;
        addresses(&ctx.settings, kind, &held, &had, new)?;
    }
    ports(&ctx.settings, kind, &held, new)?;
    Ok(claims(ctx, &had, new))
}

/// Releases what a deleted service held.
pub fn release(ctx: &Ctx, object: &Object) -> Vec<Change> {
    let gone = held_addresses(object);
    gone.iter()
        .filter_map(|address| let_go(ctx, address))
        .collect()
}

fn remove(object: &mut Object, field: &str) {
    if let Some(spec) = object.get_mut("spec").and_then(Object::as_object_mut) {
        spec.remove(field);
    }
}

fn held_addresses(object: &Object) -> Vec<String> {
    list(object, "clusterIPs")
        .into_iter()
        .filter(|a| a != "None" && !a.is_empty())
        .collect()
}

/// An update that does not name addresses and ports keeps those there are.
fn inherit(old: &Object, new: &mut Object) {
    if text(old, "type") == "ExternalName" || text(new, "type") == "ExternalName" {
        return;
    }
    if text(new, "clusterIP").is_empty() && list(new, "clusterIPs").is_empty() {
        for field in ["clusterIP", "clusterIPs"] {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    for field in ["ipFamilies", "ipFamilyPolicy"] {
        if new["spec"][field].is_null() && !old["spec"][field].is_null() {
            new["spec"][field] = old["spec"][field].clone();
        }
    }
    if text(new, "type") == "ClusterIP" {
        return;
    }
    if new["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0) == 0
        && text(new, "externalTrafficPolicy") == "Local"
        && old["spec"]["healthCheckNodePort"].is_u64()
    {
        new["spec"]["healthCheckNodePort"] = old["spec"]["healthCheckNodePort"].clone();
    }
    let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for port in meta::array_mut(new, &["spec", "ports"])
        .into_iter()
        .flatten()
    {
        if port["nodePort"].as_u64().unwrap_or(0) != 0 {
            continue;
        }
        let same = |o: &&Object| o["port"] == port["port"] && o["protocol"] == port["protocol"];
        if let Some(found) = before
            .iter()
            .find(same)
            .and_then(|o| o["nodePort"].as_u64())
        {
            port["nodePort"] = found.into();
        }
    }
}

/// What a type does not have any more goes with it, unless the update sets it anew.
fn drop_of_type(old: &Object, new: &mut Object) {
    let (was, is) = (text(old, "type").to_owned(), text(new, "type").to_owned());
    let outside = |of: &str| of == "NodePort" || of == "LoadBalancer";
    let unchanged = |new: &Object, field: &str| new["spec"][field] == old["spec"][field];
    if outside(&was) && !outside(&is) {
        let before = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
        for port in meta::array_mut(new, &["spec", "ports"])
            .into_iter()
            .flatten()
        {
            let had = before
                .iter()
                .any(|o| o["port"] == port["port"] && o["nodePort"] == port["nodePort"]);
            if had && let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
        }
        if unchanged(new, "externalTrafficPolicy") {
            remove(new, "externalTrafficPolicy");
        }
    }
    if was == "LoadBalancer" && is != was {
        for field in [
            "allocateLoadBalancerNodePorts",
            "loadBalancerClass",
            "healthCheckNodePort",
        ] {
            if unchanged(new, field) {
                remove(new, field);
            }
        }
        new["status"] = json!({"loadBalancer": {}});
    }
}

/// Chooses `ipFamilies` and `ipFamilyPolicy`.
fn families(settings: &Settings, kind: &Kind, new: &mut Object) -> Result<(), Status> {
    let configured: Vec<&str> = settings
        .service_cidrs
        .iter()
        .map(|c| family(c.addr()))
        .collect();
    let headless = text(new, "clusterIP") == "None"
        || list(new, "clusterIPs").first().is_some_and(|a| a == "None");
    let bare = headless
        && new["spec"]["selector"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty);
    let mut wanted = list(new, "ipFamilies");
    if wanted.is_empty() {
        let mut given = list(new, "clusterIPs");
        if given.is_empty() && !text(new, "clusterIP").is_empty() {
            given.push(text(new, "clusterIP").to_owned());
        }
        wanted = given
            .iter()
            .filter_map(|a| a.parse().ok())
            .map(|a| family(a).to_owned())
            .collect();
    }
    let mut policy = text(new, "ipFamilyPolicy").to_owned();
    if policy.is_empty() {
        policy = if wanted.len() == 2 {
            "RequireDualStack".into()
        } else if bare && wanted.is_empty() {
            if configured.len() == 2 {
                "RequireDualStack".into()
            } else {
                "SingleStack".into()
            }
        } else {
            "SingleStack".into()
        };
    }
    if policy == "RequireDualStack" && configured.len() < 2 && !bare {
        return Err(invalid(kind, new, "spec.ipFamilyPolicy",
            "Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services".into()));
    }
    if let Some(index) = wanted
        .iter()
        .position(|f| !bare && !configured.contains(&f.as_str()))
    {
        let message = format!(
            "Invalid value: {:?}: not configured on this cluster",
            wanted[index]
        );
        return Err(invalid(
            kind,
            new,
            &format!("spec.ipFamilies[{index}]"),
            message,
        ));
    }
    if wanted.is_empty() {
        wanted.extend(configured.first().map(|f| (*f).to_owned()));
    }
    let both =
        policy == "RequireDualStack" || (policy == "PreferDualStack" && configured.len() == 2);
    if both && wanted.len() == 1 {
        wanted.push(if wanted[0] == "IPv4" {
            "IPv6".into()
        } else {
            "IPv4".into()
        });
    } else if policy == "SingleStack" {
        wanted.truncate(1);
        if let Some(addresses) = meta::array_mut(new, &["spec", "clusterIPs"]) {
            addresses.truncate(1);
        }
    }
    new["spec"]["ipFamilies"] = json!(wanted);
    new["spec"]["ipFamilyPolicy"] = policy.into();
    Ok(())
}

/// Gives an address of each family, or checks the ones asked for.
fn addresses(
    settings: &Settings,
    kind: &Kind,
    held: &Held<'_>,
    had: &[String],
    new: &mut Object,
) -> Result<(), Status> {
    let mut given = list(new, "clusterIPs");
    if given.is_empty() && !text(new, "clusterIP").is_empty() {
        given.push(text(new, "clusterIP").to_owned());
    }
    if given.first().is_some_and(|a| a == "None") {
        new["spec"]["clusterIP"] = "None".into();
        new["spec"]["clusterIPs"] = json!(["None"]);
        return Ok(());
    }
    let mut chosen = Vec::new();
    for (index, family) in list(new, "ipFamilies").iter().enumerate() {
        let Some(range) = cidr_of(settings, family) else {
            continue;
        };
        let address = match given.get(index).filter(|a| !a.is_empty()) {
            Some(asked) => {
                let refused = |why: String| {
                    let message = format!(
                        "Invalid value: [{:?}]: failed to allocate IP {asked}: {why}",
                        asked
                    );
                    invalid(kind, new, "spec.clusterIPs", message)
                };
                let address: IpAddr = asked
                    .parse()
                    .map_err(|_| refused("not a valid IP address".into()))?;
                if !range.contains(&address) {
                    return Err(refused(format!(
                        "the provided IP ({asked}) is not in the valid range. The range of valid IPs is {range}"
                    )));
                }
                if !had.contains(asked) && held.address_taken(address) {
                    return Err(refused("provided IP is already allocated".into()));
                }
                address
            }
            None => free_address(range, held).ok_or_else(|| {
                Status::internal(format!(
                    "failed to allocate a serviceIP: range {range} is full"
                ))
            })?,
        };
        chosen.push(address.to_string());
    }
    new["spec"]["clusterIP"] = chosen.first().cloned().unwrap_or_default().into();
    new["spec"]["clusterIPs"] = json!(chosen);
    Ok(())
}

/// The address `offset` places into a range.
fn nth(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            IpAddr::from(u32::from(base).saturating_add(offset).to_be_bytes())
        }
        IpAddr::V6(base) => IpAddr::from(u128::from(base).saturating_add(offset).to_be_bytes()),
    }
}

/// How many addresses a range gives, and how many of the first ones are left to be asked for.
fn extent(range: &IpNet) -> (u128, u128) {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    let size = 1_u128 << bits.min(64);
    // Kubernetes keeps min(max(16, size/16), 256) addresses for static use.
    (size, (size / 16).clamp(16, 256).min(size / 2))
}

/// A free address, from the part that is not kept for static use as long as there is one.
fn free_address(range: &IpNet, held: &Held<'_>) -> Option<IpAddr> {
    let (size, kept) = extent(range);
    // Neither the network's own address nor an IPv4 broadcast address is given.
    let last = if range.addr().is_ipv4() {
        size.saturating_sub(1)
    } else {
        size
    };
    if last > kept {
        for _ in 0..TRIES {
            let address = nth(range, rand::random_range(kept..last));
            if !held.address_taken(address) {
                return Some(address);
            }
        }
    }
    let most = last.min(kept + (1 << 20));
    (kept..most)
        .chain(1..kept)
        .map(|n| nth(range, n))
        .find(|a| !held.address_taken(*a))
}

/// Gives node ports, or checks the ones asked for.
fn ports(
    settings: &Settings,
    kind: &Kind,
    held: &Held<'_>,
    new: &mut Object,
) -> Result<(), Status> {
    let service_type = text(new, "type").to_owned();
    let balanced = service_type == "LoadBalancer";
    let wanted = service_type == "NodePort"
        || (balanced && new["spec"]["allocateLoadBalancerNodePorts"] != false);
    let range = &settings.node_ports;
    let mut mine: HashSet<(u64, String)> = HashSet::new();
    let mut ports = new["spec"]["ports"].as_array().cloned().unwrap_or_default();
    for (index, port) in ports.iter_mut().enumerate() {
        let asked = port["nodePort"].as_u64().unwrap_or(0);
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        if asked != 0 && service_type != "ClusterIP" {
            let refused = |why: String| {
                invalid(
                    kind,
                    new,
                    &format!("spec.ports[{index}].nodePort"),
                    format!("Invalid value: {asked}: {why}"),
                )
            };
            if !u16::try_from(asked).is_ok_and(|p| range.contains(&p)) {
                return Err(refused(format!(
                    "provided port is not in the valid range. The range of valid ports is {}-{}",
                    range.start(),
                    range.end()
                )));
            }
            if held.port_taken(asked, &protocol) || !mine.insert((asked, protocol)) {
                return Err(refused("provided port is already allocated".into()));
            }
        }
    }
    for port in &mut ports {
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        if wanted && port["nodePort"].as_u64().unwrap_or(0) == 0 {
            let free = free_port(range, held, &mine, &protocol)
                .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
            mine.insert((free, protocol));
            port["nodePort"] = free.into();
        }
    }
    if new["spec"]["ports"].is_array() {
        new["spec"]["ports"] = ports.into();
    }
    health_port(range, kind, held, &mine, balanced, new)
}

fn free_port(
    range: &std::ops::RangeInclusive<u16>,
    held: &Held<'_>,
    mine: &HashSet<(u64, String)>,
    protocol: &str,
) -> Option<u64> {
    // A port is free when no protocol uses it, so that two ports of one service may share it
    // only where its author says so.
    let free = |port: &u16| {
        let port = u64::from(*port);
        ["TCP", "UDP", "SCTP", protocol]
            .iter()
            .all(|p| !held.port_taken(port, p) && !mine.contains(&(port, (*p).to_owned())))
    };
    (0..TRIES)
        .map(|_| rand::random_range(range.clone()))
        .find(free)
        .or_else(|| range.clone().find(free))
        .map(u64::from)
}

fn health_port(
    range: &std::ops::RangeInclusive<u16>,
    kind: &Kind,
    held: &Held<'_>,
    mine: &HashSet<(u64, String)>,
    balanced: bool,
    new: &mut Object,
) -> Result<(), Status> {
    if !balanced || text(new, "externalTrafficPolicy") != "Local" {
        remove(new, "healthCheckNodePort");
        return Ok(());
    }
    let asked = new["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0);
    if asked == 0 {
        let free = free_port(range, held, mine, "TCP").ok_or_else(|| {
            Status::internal("failed to allocate a HealthCheck NodePort: range is full")
        })?;
        new["spec"]["healthCheckNodePort"] = free.into();
    } else if held.port_taken(asked, "TCP") {
        return Err(invalid(
            kind,
            new,
            "spec.healthCheckNodePort",
            format!("Invalid value: {asked}: provided port is already allocated"),
        ));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_start_of_the_range() {
        let range: IpNet = "10.96.0.0/12".parse().unwrap();
        assert_eq!(nth(&range, 1).to_string(), "10.96.0.1");
        assert_eq!(extent(&range), (1 << 20, 256));
        let small: IpNet = "10.0.0.0/28".parse().unwrap();
        assert_eq!(extent(&small), (16, 8));
        let six: IpNet = "fd00:10:96::/112".parse().unwrap();
        assert_eq!(nth(&six, 10).to_string(), "fd00:10:96::a");
    }

    #[test]
    fn an_update_keeps_addresses_and_ports_it_does_not_name() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}, {"port": 81, "protocol": "TCP"}]}});
        inherit(&old, &mut new);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
        assert!(new["spec"]["ports"][1]["nodePort"].is_null());
    }
}
