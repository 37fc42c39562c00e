//! NetworkPolicies as [`model`] values.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::policy::{Direction, Namespaces, Peer, PortMatch, PortNumbers, Rule};
use model::{NetworkPolicy, Protocol};
use serde::Deserialize;
use serde_json::Value as Json;

use super::field::{Object, Path, Problems, Told, list, object, word};
use super::parts::{PROTOCOLS, port, port_name, range};
use super::selector::selector;
use crate::convert::slim::{Converted, Kind, Meta, Text, Value};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[doc(hidden)]
pub struct RawPolicy<'a> {
    metadata: Meta<'a>,
    #[serde(default)]
    spec: Json,
}

impl Kind for NetworkPolicy {
    const KIND: &'static str = "NetworkPolicy";
    const GROUP: &'static str = "networking.k8s.io";
    const PLURAL: &'static str = "networkpolicies";
    type Raw<'de> = RawPolicy<'de>;

    fn convert(raw: RawPolicy<'_>) -> (ObjectMeta, Converted<Self>) {
        let place = raw.metadata.place();
        let mut problems = Problems::default();
        let mut policy = policy(&raw.spec, &mut problems);
        policy.namespace = raw.metadata.namespace.owned();
        policy.name = raw.metadata.name.owned();
        policy.uid = raw.metadata.uid.map(Text::owned).unwrap_or_default();
        let converted = Converted {
            value: Value::Is(Arc::new(policy)),
            problems: problems.0,
        };
        (place, converted)
    }
}

/// Matches nothing.
fn nothing() -> Rule {
    Rule {
        peers: Some(Vec::new()),
        ports: Some(Vec::new()),
    }
}

/// What is written in `spec`. A broken selector stands for every pod of the namespace, broken
/// types for both, broken rules, peers and ports for nothing that could be let through.
fn policy(spec: &Json, problems: &mut Problems) -> NetworkPolicy {
    let at = Path::SPEC;
    let Ok(spec) = object(spec, &at, problems) else {
        return NetworkPolicy {
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            ..NetworkPolicy::default()
        };
    };
    // What such a field means nobody knows; the others say what they say.
    let fields = ["podSelector", "ingress", "egress", "policyTypes"];
    let _ = spec.only(&at, &fields, problems);
    let pods = selector(spec.get("podSelector"), &at.field("podSelector"), problems);
    let types = types(spec, &at, problems);
    let mut about = |direction: Direction, peers| {
        types.contains(&direction).then(|| {
            let name = direction.word();
            rules(spec.get(name), &at.field(name), peers, problems)
        })
    };
    NetworkPolicy {
        pods: pods.unwrap_or_default(),
        ingress: about(Direction::Ingress, "from"),
        egress: about(Direction::Egress, "to"),
        ..NetworkPolicy::default()
    }
}

const TYPES: &[(&str, Direction)] = &[
    ("Ingress", Direction::Ingress),
    ("Egress", Direction::Egress),
];

/// What the policy is about.
fn types(spec: Object<'_>, at: &Path<'_>, problems: &mut Problems) -> Vec<Direction> {
    let at = at.field("policyTypes");
    let written = list(spec.get("policyTypes"), &at, problems).and_then(|items| {
        let items = items.iter().enumerate();
        items
            .map(|(index, item)| word(item, &at.index(index), TYPES, problems))
            .collect::<Result<Vec<Direction>, Told>>()
    });
    match written {
        Err(Told) => Direction::ALL.to_vec(),
        Ok(types) if !types.is_empty() => types,
        // The API server's default: egress counts where there is a rule of it.
        Ok(_) => match spec.get("egress") {
            Json::Null => vec![Direction::Ingress],
            Json::Array(rules) if rules.is_empty() => vec![Direction::Ingress],
            _ => Direction::ALL.to_vec(),
        },
    }
}

fn rules(value: &Json, at: &Path<'_>, peers: &str, problems: &mut Problems) -> Vec<Rule> {
    let items = list(value, at, problems).unwrap_or_default();
    let items = items.iter().enumerate();
    items
        .map(|(index, item)| {
            let rule = rule(item, &at.index(index), peers, problems);
            rule.unwrap_or_else(|Told| nothing())
        })
        .collect()
}

fn rule(value: &Json, at: &Path<'_>, peers: &str, problems: &mut Problems) -> Result<Rule, Told> {
    let written = object(value, at, problems)?;
    written.only(at, &[peers, "ports"], problems)?;
    Ok(Rule {
        peers: parts(written.get(peers), &at.field(peers), problems, peer),
        ports: parts(
            written.get("ports"),
            &at.field("ports"),
            problems,
            port_match,
        ),
    })
}

/// Those items that can be understood; none where nothing is written, which stands for all.
fn parts<T>(
    value: &Json,
    at: &Path<'_>,
    problems: &mut Problems,
    read: impl Fn(&Json, &Path<'_>, &mut Problems) -> Result<T, Told>,
) -> Option<Vec<T>> {
    let Ok(items) = list(value, at, problems) else {
        return Some(Vec::new());
    };
    let mut found = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        found.extend(read(item, &at.index(index), problems));
    }
    (!items.is_empty()).then_some(found)
}

fn peer(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<Peer, Told> {
    let written = object(value, at, problems)?;
    let [pods, namespaces, block] = ["podSelector", "namespaceSelector", "ipBlock"];
    written.only(at, &[pods, namespaces, block], problems)?;
    let selects = written.has(pods) || written.has(namespaces);
    match (written.has(block), selects) {
        (false, false) => problems.tell(
            at,
            "names nobody: write podSelector, namespaceSelector or ipBlock",
        ),
        (true, true) => problems.tell(
            &at.field(block),
            "goes with no selector: write two peers where either may match",
        ),
        (true, false) => ip_block(written.get(block), &at.field(block), problems),
        (false, true) => Ok(Peer::Pods {
            pods: selector(written.get(pods), &at.field(pods), problems)?,
            namespaces: if written.has(namespaces) {
                let at = at.field(namespaces);
                Namespaces::Selected(selector(written.get(namespaces), &at, problems)?)
            } else {
                Namespaces::Own
            },
        }),
    }
}

fn ip_block(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<Peer, Told> {
    let written = object(value, at, problems)?;
    written.only(at, &["cidr", "except"], problems)?;
    let net = range(written.get("cidr"), &at.field("cidr"), problems)?;
    let at = at.field("except");
    let mut except = Vec::new();
    for (index, item) in list(written.get("except"), &at, problems)?
        .iter()
        .enumerate()
    {
        let at = at.index(index);
        let one = range(item, &at, problems)?;
        if !net.contains(&one) {
            return problems.tell(&at, format!("{one} is not within {net}"));
        }
        except.push(one);
    }
    except.shrink_to_fit();
    Ok(Peer::Block { net, except })
}

fn port_match(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<PortMatch, Told> {
    let written = object(value, at, problems)?;
    written.only(at, &["protocol", "port", "endPort"], problems)?;
    let protocol = match written.get("protocol") {
        Json::Null => Protocol::Tcp,
        value => word(value, &at.field("protocol"), PROTOCOLS, problems)?,
    };
    let end = written.get("endPort");
    let at_end = at.field("endPort");
    let port = match written.get("port") {
        Json::Null if end.is_null() => PortNumbers::Any,
        Json::Null => {
            return problems.tell(&at_end, "goes with port only: write the first port there");
        }
        Json::String(name) => {
            port_name(name, &at.field("port"), problems)?;
            if !end.is_null() {
                let cause = "goes with a number in port, not with a name";
                return problems.tell(&at_end, cause);
            }
            PortNumbers::Named(name.clone())
        }
        first => {
            let first = port(first, &at.field("port"), problems)?;
            let last = match end {
                Json::Null => first,
                last => port(last, &at_end, problems)?,
            };
            if last < first {
                return problems.tell(&at_end, format!("{last} is less than port {first}"));
            }
            PortNumbers::Range(first, last)
        }
    };
    Ok(PortMatch {
        protocol: Some(protocol),
        port,
    })
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
