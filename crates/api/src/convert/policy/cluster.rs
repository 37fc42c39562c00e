//! ClusterNetworkPolicies as [`model`] values.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use model::policy::{Action, ClusterRule, Namespaces, Peer, PortMatch, PortNumbers, Rule, Tier};
use model::{ClusterPolicy, LabelSelector};
use serde::Deserialize;
use serde_json::Value as Json;

use super::field::{Object, Path, Problems, Told, choice, list, object, text, word};
use super::parts::{PROTOCOLS, port, port_name, range};
use super::selector::selector;
use crate::convert::slim::{Converted, Kind, Meta, Text, Value};

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
#[doc(hidden)]
pub struct RawClusterPolicy<'a> {
    metadata: Meta<'a>,
    #[serde(default)]
    spec: Json,
}

impl Kind for ClusterPolicy {
    const KIND: &'static str = "ClusterNetworkPolicy";
    const GROUP: &'static str = "policy.networking.k8s.io";
    const VERSION: &'static str = "v1alpha2";
    const PLURAL: &'static str = "clusternetworkpolicies";
    type Raw<'de> = RawClusterPolicy<'de>;

    fn convert(raw: RawClusterPolicy<'_>) -> (ObjectMeta, Converted<Self>) {
        let place = raw.metadata.place();
        let mut problems = Problems::default();
        let mut policy = policy(&raw.spec, &mut problems);
        policy.name = raw.metadata.name.owned();
        policy.uid = raw.metadata.uid.map(Text::owned).unwrap_or_default();
        let converted = Converted {
            value: Value::Is(Arc::new(policy)),
            problems: problems.0,
        };
        (place, converted)
    }
}

const TIERS: &[(&str, Tier)] = &[("Admin", Tier::Admin), ("Baseline", Tier::Baseline)];

const ACTIONS: &[(&str, Action)] = &[
    ("Accept", Action::Accept),
    ("Deny", Action::Deny),
    ("Pass", Action::Pass),
];

/// What is written in `spec`. Where it is not known when the policy is asked, or for whom, only
/// what it denies is left, first of all and for every pod.
fn policy(spec: &Json, problems: &mut Problems) -> ClusterPolicy {
    let at = Path::SPEC;
    let spec = object(spec, &at, problems).unwrap_or_default();
    // What such a field means nobody knows; the others say what they say.
    let fields = ["tier", "priority", "subject", "ingress", "egress"];
    let _ = spec.only(&at, &fields, problems);
    let tier = word(spec.get("tier"), &at.field("tier"), TIERS, problems);
    let priority = priority(spec.get("priority"), &at.field("priority"), problems);
    let subject = subject(spec.get("subject"), &at.field("subject"), problems);
    let known = tier.is_ok() && priority.is_ok() && subject.is_ok();
    let mut about = |name, direction: &Peers| {
        let mut rules = rules(spec.get(name), &at.field(name), direction, problems);
        for rule in rules
            .iter_mut()
            .filter(|rule| !known && rule.action != Action::Deny)
        {
            rule.rule = nothing();
        }
        rules
    };
    let ingress = about("ingress", &INGRESS);
    let egress = about("egress", &EGRESS);
    let (namespaces, pods) = subject.unwrap_or_default();
    ClusterPolicy {
        name: String::new(),
        uid: String::new(),
        tier: if known {
            tier.unwrap_or(Tier::Admin)
        } else {
            Tier::Admin
        },
        priority: if known {
            priority.unwrap_or_default()
        } else {
            0
        },
        namespaces,
        pods,
        ingress,
        egress,
    }
}

fn priority(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<u16, Told> {
    let number = value.as_i64().and_then(|number| u16::try_from(number).ok());
    match number.filter(|number| *number <= 1000) {
        Some(number) => Ok(number),
        None if value.is_null() => problems.tell(at, "is missing: choose 0 to 1000"),
        None => problems.tell(at, format!("{value} is out of range: choose 0 to 1000")),
    }
}

type Selectors = (LabelSelector, LabelSelector);

/// Of which namespaces, and which of their pods.
fn subject(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<Selectors, Told> {
    let written = object(value, at, problems)?;
    match one_of(written, at, &["namespaces", "pods"], problems)? {
        ("pods", value) => pods(value, &at.field("pods"), problems),
        (_, value) => {
            let namespaces = selector(value, &at.field("namespaces"), problems)?;
            Ok((namespaces, LabelSelector::default()))
        }
    }
}

fn pods(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<Selectors, Told> {
    let written = object(value, at, problems)?;
    let names = ["namespaceSelector", "podSelector"];
    written.only(at, &names, problems)?;
    let mut read = |name| selector(written.get(name), &at.field(name), problems);
    Ok((read(names[0])?, read(names[1])?))
}

/// The one field that is written.
fn one_of<'v>(
    written: Object<'v>,
    at: &Path<'_>,
    fields: &[&'static str],
    problems: &mut Problems,
) -> Result<(&'static str, &'v Json), Told> {
    written.only(at, fields, problems)?;
    let mut there = fields.iter().filter(|name| written.has(name));
    match (there.next(), there.next()) {
        (Some(name), None) => Ok((name, written.get(name))),
        (None, _) => problems.tell(at, format!("is empty: write {}", choice(fields))),
        (Some(_), Some(other)) => {
            let cause = format!("is one too many: write only one of {}", choice(fields));
            problems.tell(&at.field(other), cause)
        }
    }
}

/// Who may be the peer of a direction.
struct Peers {
    field: &'static str,
    kinds: &'static [&'static str],
}

const INGRESS: Peers = Peers {
    field: "from",
    kinds: &["namespaces", "pods"],
};

const EGRESS: Peers = Peers {
    field: "to",
    kinds: &["namespaces", "pods", "nodes", "networks", "domainNames"],
};

/// Matches nothing.
fn nothing() -> Rule {
    Rule {
        peers: Some(Vec::new()),
        ports: Some(Vec::new()),
    }
}

fn rules(
    value: &Json,
    at: &Path<'_>,
    direction: &Peers,
    problems: &mut Problems,
) -> Vec<ClusterRule> {
    let Ok(items) = list(value, at, problems) else {
        return vec![closing(String::new(), Action::Deny)];
    };
    let items = items.iter().enumerate();
    items
        .map(|(index, item)| rule(item, &at.index(index), direction, problems))
        .collect()
}

/// A rule of which it is not known what it matches: it accepts nothing, or denies everything.
/// Passing is closed by denying, for who is passed may be accepted next.
fn closing(name: String, action: Action) -> ClusterRule {
    let (action, rule) = match action {
        Action::Accept => (Action::Accept, nothing()),
        Action::Deny | Action::Pass => (Action::Deny, Rule::default()),
    };
    ClusterRule { name, action, rule }
}

fn rule(value: &Json, at: &Path<'_>, direction: &Peers, problems: &mut Problems) -> ClusterRule {
    let Ok(written) = object(value, at, problems) else {
        return closing(String::new(), Action::Deny);
    };
    let name = text(written.get("name"), &at.field("name"), problems);
    let name = name.unwrap_or_default().to_owned();
    let at_action = at.field("action");
    let action = word(written.get("action"), &at_action, ACTIONS, problems);
    let action = action.unwrap_or(Action::Deny);
    let fields = ["name", "action", direction.field, "protocols"];
    if written.only(at, &fields, problems).is_err() {
        return closing(name, action);
    }
    let value = written.get(direction.field);
    let (peers, all_peers) = peers(value, &at.field(direction.field), direction, problems);
    let value = written.get("protocols");
    let (ports, all_ports) = match value {
        Json::Null => (None, true),
        value => {
            let (ports, all) = ports(value, &at.field("protocols"), problems);
            (Some(ports), all)
        }
    };
    // Of an Accept rule what is understood is left. Of the others it may be only a part of what
    // was meant, and Pass is closed as above.
    let closed = action != Action::Accept && !(all_peers && all_ports);
    ClusterRule {
        name,
        action: if closed { Action::Deny } else { action },
        rule: Rule {
            peers: Some(peers).filter(|_| all_peers || !closed),
            ports: ports.filter(|_| all_ports || !closed),
        },
    }
}

/// Those that can be understood, and whether these are all.
fn peers(
    value: &Json,
    at: &Path<'_>,
    direction: &Peers,
    problems: &mut Problems,
) -> (Vec<Peer>, bool) {
    let mut found = Vec::new();
    let mut read = |item: &Json, at: &Path<'_>, problems: &mut Problems| {
        peer(item, at, direction, &mut found, problems)
    };
    let all = each(value, at, problems, &mut read);
    found.shrink_to_fit();
    (found, all)
}

fn ports(value: &Json, at: &Path<'_>, problems: &mut Problems) -> (Vec<PortMatch>, bool) {
    let mut found = Vec::new();
    let mut read = |item: &Json, at: &Path<'_>, problems: &mut Problems| {
        found.push(protocol(item, at, problems)?);
        Ok(())
    };
    let all = each(value, at, problems, &mut read);
    found.shrink_to_fit();
    (found, all)
}

/// Reads each item of a list that must not be empty; true where all are understood.
fn each(
    value: &Json,
    at: &Path<'_>,
    problems: &mut Problems,
    read: &mut dyn FnMut(&Json, &Path<'_>, &mut Problems) -> Result<(), Told>,
) -> bool {
    let Ok(items) = list(value, at, problems) else {
        return false;
    };
    if items.is_empty() {
        return problems
            .tell::<()>(at, "is empty: write at least one")
            .is_ok();
    }
    let mut all = true;
    for (index, item) in items.iter().enumerate() {
        all &= read(item, &at.index(index), problems).is_ok();
    }
    all
}

fn peer(
    value: &Json,
    at: &Path<'_>,
    direction: &Peers,
    found: &mut Vec<Peer>,
    problems: &mut Problems,
) -> Result<(), Told> {
    let written = object(value, at, problems)?;
    let (kind, value) = one_of(written, at, direction.kinds, problems)?;
    let at = at.field(kind);
    match kind {
        "namespaces" => found.push(Peer::Pods {
            namespaces: Namespaces::Selected(selector(value, &at, problems)?),
            pods: LabelSelector::default(),
        }),
        "pods" => {
            let (namespaces, pods) = pods(value, &at, problems)?;
            let namespaces = Namespaces::Selected(namespaces);
            found.push(Peer::Pods { namespaces, pods });
        }
        "nodes" => found.push(Peer::Nodes(selector(value, &at, problems)?)),
        "networks" => {
            let mut read = |item: &Json, at: &Path<'_>, problems: &mut Problems| {
                let net = range(item, at, problems)?;
                let except = Vec::new();
                found.push(Peer::Block { net, except });
                Ok(())
            };
            return each(value, &at, problems, &mut read)
                .then_some(())
                .ok_or(Told);
        }
        _ => {
            let cause = "is not served yet and matches nobody; write the addresses in networks";
            return problems.tell(&at, cause);
        }
    }
    Ok(())
}

fn protocol(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<PortMatch, Told> {
    let written = object(value, at, problems)?;
    let kinds = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let (kind, value) = one_of(written, at, &kinds, problems)?;
    let at = at.field(kind);
    let protocol = PROTOCOLS
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(kind));
    let Some((_, protocol)) = protocol else {
        let name = text(value, &at, problems)?;
        port_name(name, &at, problems)?;
        return Ok(PortMatch {
            protocol: None,
            port: PortNumbers::Named(name.to_owned()),
        });
    };
    let written = object(value, &at, problems)?;
    let (name, value) = one_of(written, &at, &["destinationPort"], problems)?;
    Ok(PortMatch {
        protocol: Some(*protocol),
        port: numbers(value, &at.field(name), problems)?,
    })
}

fn numbers(value: &Json, at: &Path<'_>, problems: &mut Problems) -> Result<PortNumbers, Told> {
    let written = object(value, at, problems)?;
    let (kind, value) = one_of(written, at, &["number", "range"], problems)?;
    let at = at.field(kind);
    if kind == "number" {
        let number = port(value, &at, problems)?;
        return Ok(PortNumbers::Range(number, number));
    }
    let written = object(value, &at, problems)?;
    written.only(&at, &["start", "end"], problems)?;
    let start = port(written.get("start"), &at.field("start"), problems)?;
    let end = port(written.get("end"), &at.field("end"), problems)?;
    if end < start {
        return problems.tell(
            &at.field("end"),
            format!("{end} is less than start {start}"),
        );
    }
    Ok(PortNumbers::Range(start, end))
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
