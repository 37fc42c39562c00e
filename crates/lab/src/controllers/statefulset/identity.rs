//! Who a StatefulSet's pod is: its number, its name, its labels.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, PodTemplateSpec, Volume};
use kube::ResourceExt;

use crate::controllers::pods;
use crate::controllers::revision::HASH;

const NAME: &str = "statefulset.kubernetes.io/pod-name";
const INDEX: &str = "apps.kubernetes.io/pod-index";

/// The first number.
pub fn start(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|s| s.ordinals.as_ref());
    ordinals.and_then(|o| o.start).unwrap_or(0)
}

/// The number in a pod's name; None where it is not one of the set's.
pub fn ordinal(set: &StatefulSet, pod: &str) -> Option<i32> {
    let (name, number) = pod.rsplit_once('-')?;
    let canonical = number == "0" || !number.starts_with(['0', '+']);
    (name == set.name_any() && canonical).then(|| number.parse().ok())?
}

/// The pod of that number.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", set.name_any());
    let mut pod = pods::from_template(template, set);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(NAME.to_owned(), name.clone());
    labels.insert(INDEX.to_owned(), ordinal.to_string());
    labels.insert(HASH.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let set_spec = set.spec.clone().unwrap_or_default();
    spec.subdomain = set_spec.service_name.filter(|service| !service.is_empty());
    // There are no persistent volumes here: a claim lasts as long as its pod.
    for claim in set_spec.volume_claim_templates.iter().flatten() {
        let claim = claim.metadata.name.clone().unwrap_or_default();
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|volume| volume.name != claim);
        volumes.push(Volume {
            name: claim,
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
    }
    pod
}
