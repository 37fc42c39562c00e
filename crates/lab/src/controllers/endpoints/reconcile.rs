//! Slices as they should be against slices as they are, with as few writes as possible.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::TRIGGER;
use crate::controllers::action::Action;
use crate::controllers::store::Key;
use crate::controllers::world::Kind;

/// Endpoints in one slice at most.
const MAX: usize = 100;

/// What all slices of one owner share.
pub struct Common {
    /// Namespace.
    pub namespace: String,
    /// Beginning of their names.
    pub prefix: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Owner.
    pub owner: OwnerReference,
    /// Value of the trigger-time annotation.
    pub trigger: Option<String>,
}

/// Endpoints that share ports and an address family.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// `IPv4` or `IPv6`.
    pub address_type: &'static str,
    /// Ports, sorted.
    pub ports: Vec<EndpointPort>,
    /// Endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// Sorts ports so that two lists of the same ports are equal.
pub fn sort_ports(ports: &mut [EndpointPort]) {
    ports.sort_by(|a, b| (&a.name, &a.protocol, a.port).cmp(&(&b.name, &b.protocol, b.port)));
}

fn identity(endpoint: &Endpoint) -> (String, String) {
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|t| t.uid.clone()).unwrap_or_default();
    (uid, endpoint.addresses.first().cloned().unwrap_or_default())
}

/// What to write so that `existing` slices become `groups`. A slice keeps the endpoints it
/// has as long as they stay; new ones fill gaps of slices that are written anyway, then
/// the fullest slice that has room for them, then new slices.
pub fn plan(common: &Common, groups: Vec<Group>, existing: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    let mut actions = Vec::new();
    for group in groups {
        let (mine, others) = left.into_iter().partition(|slice| belongs(slice, &group));
        left = others;
        actions.extend(fit(common, group, mine));
    }
    actions.extend(left.into_iter().map(delete));
    actions
}

fn belongs(slice: &EndpointSlice, group: &Group) -> bool {
    let mut ports = slice.ports.clone().unwrap_or_default();
    sort_ports(&mut ports);
    slice.address_type == group.address_type && ports == group.ports
}

struct Draft<'a> {
    slice: &'a Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn fit(common: &Common, group: Group, mine: Vec<&Arc<EndpointSlice>>) -> Vec<Action> {
    let mut wanted: BTreeMap<(String, String), Endpoint> = group
        .endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    let mut drafts: Vec<Draft<'_>> = mine
        .into_iter()
        .map(|slice| {
            let mut changed = !has_common(common, slice);
            let mut endpoints = Vec::new();
            for have in slice.endpoints.iter().flatten() {
                match wanted.remove(&identity(have)) {
                    Some(want) => {
                        changed |= want != *have;
                        endpoints.push(want);
                    }
                    None => changed = true,
                }
            }
            Draft {
                slice,
                endpoints,
                changed,
            }
        })
        .collect();
    let mut rest = wanted.into_values();
    for draft in drafts.iter_mut().filter(|draft| draft.changed) {
        let room = MAX.saturating_sub(draft.endpoints.len());
        draft.endpoints.extend(rest.by_ref().take(room));
    }
    let rest: Vec<Endpoint> = rest.collect();
    let tail = rest.len() % MAX;
    let roomy = drafts
        .iter_mut()
        .filter(|draft| !draft.changed && draft.endpoints.len() + tail <= MAX)
        .max_by_key(|draft| draft.endpoints.len());
    let mut rest = rest.into_iter().peekable();
    if tail > 0
        && let Some(draft) = roomy
    {
        draft.endpoints.extend(rest.by_ref().take(tail));
        draft.changed = true;
    }
    let mut actions = Vec::new();
    let mut kept = 0;
    for draft in drafts {
        if draft.endpoints.is_empty() && (kept > 0 || rest.peek().is_some()) {
            actions.push(delete(draft.slice));
            continue;
        }
        kept += 1;
        if draft.changed {
            actions.push(update(common, draft.slice, &draft.endpoints));
        }
    }
    while rest.peek().is_some() || kept == 0 {
        let endpoints: Vec<Endpoint> = rest.by_ref().take(MAX).collect();
        actions.push(create(common, group.address_type, &group.ports, endpoints));
        kept += 1;
    }
    actions
}

fn has_common(common: &Common, slice: &EndpointSlice) -> bool {
    *slice.labels() == common.labels
}

fn annotations(common: &Common) -> Option<BTreeMap<String, String>> {
    let time = common.trigger.clone()?;
    Some([(TRIGGER.to_owned(), time)].into())
}

fn create(
    common: &Common,
    address_type: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> Action {
    let slice = EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(common.prefix.clone()),
            namespace: Some(common.namespace.clone()),
            labels: Some(common.labels.clone()),
            annotations: annotations(common),
            owner_references: Some(vec![common.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(endpoints),
        ports: Some(ports.to_vec()),
    };
    Action::create(Kind::EndpointSlice, &common.namespace, &slice)
}

fn update(common: &Common, slice: &EndpointSlice, endpoints: &[Endpoint]) -> Action {
    let mut labels: Map<String, Value> = slice
        .labels()
        .keys()
        .map(|key| (key.clone(), Value::Null))
        .collect();
    labels.extend(common.labels.iter().map(|(k, v)| (k.clone(), json!(v))));
    let patch = json!({
        "metadata": {
            "resourceVersion": slice.metadata.resource_version,
            "labels": labels,
            "annotations": annotations(common),
        },
        "endpoints": endpoints,
    });
    Action::patch(Kind::EndpointSlice, &Key::of(slice), patch)
}

fn delete(slice: &Arc<EndpointSlice>) -> Action {
    let uid = slice.uid().unwrap_or_default();
    Action::delete(Kind::EndpointSlice, &Key::of(slice.as_ref()), &uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn common() -> Common {
        Common {
            namespace: "d".to_owned(),
            prefix: "web-".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            owner: OwnerReference::default(),
            trigger: None,
        }
    }

    fn group(numbers: impl Iterator<Item = usize>) -> Group {
        let endpoints = numbers.map(|n| Endpoint {
            addresses: vec![format!("10.{}.{}.{}", n / 65536, n / 256 % 256, n % 256)],
            ..Endpoint::default()
        });
        Group {
            address_type: "IPv4",
            ports: Vec::new(),
            endpoints: endpoints.collect(),
        }
    }

    /// The slices after the actions.
    fn act(slices: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>, serial: &mut usize) {
        for action in actions {
            match action {
                Action::Create { body, .. } => {
                    let mut slice: EndpointSlice = serde_json::from_value(body).unwrap();
                    *serial += 1;
                    slice.metadata.name = Some(format!("web-{serial}"));
                    slice.metadata.uid = Some(serial.to_string());
                    slices.push(Arc::new(slice));
                }
                Action::Patch { key, body, .. } => {
                    let slot = slices
                        .iter_mut()
                        .find(|s| s.name_any() == key.name)
                        .unwrap();
                    let mut slice = slot.as_ref().clone();
                    slice.endpoints = serde_json::from_value(body["endpoints"].clone()).unwrap();
                    *slot = Arc::new(slice);
                }
                Action::Delete { uid, .. } => slices.retain(|s| s.uid().as_ref() != Some(&uid)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn one_endpoint_more_is_one_write() {
        let (mut slices, mut serial) = (Vec::new(), 0);
        act(
            &mut slices,
            plan(&common(), vec![group(0..250)], &[]),
            &mut serial,
        );
        let sizes: Vec<usize> = slices
            .iter()
            .map(|s| s.endpoints.as_ref().unwrap().len())
            .collect();
        assert_eq!(sizes, [100, 100, 50]);
        let more = plan(&common(), vec![group(0..251)], &slices);
        assert!(
            matches!(more.as_slice(), [Action::Patch { .. }]),
            "{more:?}"
        );
        act(&mut slices, more, &mut serial);
        assert!(plan(&common(), vec![group(0..251)], &slices).is_empty());
    }

    #[test]
    fn a_service_without_endpoints_has_one_empty_slice() {
        let (mut slices, mut serial) = (Vec::new(), 0);
        for numbers in [0..0, 0..0, 0..3, 5..6, 0..0] {
            let actions = plan(&common(), vec![group(numbers)], &slices);
            act(&mut slices, actions, &mut serial);
            assert_eq!((slices.len(), serial), (1, 1));
        }
    }

    proptest! {
        #[test]
        fn slices_always_hold_exactly_what_is_wanted(
            steps in prop::collection::vec((0_usize..300, 0_usize..300), 1..12)
        ) {
            let (mut slices, mut serial) = (Vec::new(), 0);
            for (from, count) in steps {
                let want = group(from..from + count);
                let actions = plan(&common(), vec![want.clone()], &slices);
                act(&mut slices, actions, &mut serial);
                let mut have: Vec<Endpoint> =
                    slices.iter().flat_map(|s| s.endpoints.clone().unwrap()).collect();
                prop_assert!(slices.iter().all(|s| s.endpoints.as_ref().unwrap().len() <= MAX));
                let key = |e: &Endpoint| e.addresses.clone();
                have.sort_by_key(key);
                let mut wanted = want.endpoints.clone();
                wanted.sort_by_key(key);
                prop_assert_eq!(have, wanted);
                prop_assert!(plan(&common(), vec![want], &slices).is_empty());
            }
        }
    }
}
