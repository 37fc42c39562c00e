//! Defaults of Deployments, ReplicaSets, StatefulSets and DaemonSets.

use serde_json::{Value, json};

use super::pod::pod_spec;
use super::{items, object_in, set};

fn template(spec: &mut Value) {
    let template = object_in(spec, "template");
    object_in(template, "metadata");
    pod_spec(object_in(template, "spec"));
}

fn number(object: &mut Value, field: &str, default: i64) {
    if object[field].is_null() {
        object[field] = default.into();
    }
}

pub(super) fn deployment(object: &mut Value) {
    let spec = object_in(object, "spec");
    number(spec, "replicas", 1);
    number(spec, "revisionHistoryLimit", 10);
    number(spec, "progressDeadlineSeconds", 600);
    let strategy = object_in(spec, "strategy");
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
    template(spec);
    object_in(object, "status");
}

pub(super) fn replica_set(object: &mut Value) {
    let spec = object_in(object, "spec");
    number(spec, "replicas", 1);
    template(spec);
    number(object_in(object, "status"), "replicas", 0);
}

pub(super) fn stateful_set(object: &mut Value) {
    let spec = object_in(object, "spec");
    number(spec, "replicas", 1);
    number(spec, "revisionHistoryLimit", 10);
    set(spec, "podManagementPolicy", "OrderedReady");
    let strategy = object_in(spec, "updateStrategy");
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        number(object_in(strategy, "rollingUpdate"), "partition", 0);
    }
    let retention = object_in(spec, "persistentVolumeClaimRetentionPolicy");
    set(retention, "whenDeleted", "Retain");
    set(retention, "whenScaled", "Retain");
    for claim in items(spec, "volumeClaimTemplates") {
        set(claim, "apiVersion", "v1");
        set(claim, "kind", "PersistentVolumeClaim");
        set(object_in(claim, "spec"), "volumeMode", "Filesystem");
        set(object_in(claim, "status"), "phase", "Pending");
    }
    template(spec);
    let status = object_in(object, "status");
    number(status, "replicas", 0);
    number(status, "availableReplicas", 0);
}

pub(super) fn daemon_set(object: &mut Value) {
    let spec = object_in(object, "spec");
    number(spec, "revisionHistoryLimit", 10);
    let strategy = object_in(spec, "updateStrategy");
    set(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set(rolling, "maxUnavailable", json!(1));
        set(rolling, "maxSurge", json!(0));
    }
    template(spec);
    let status = object_in(object, "status");
    for field in [
        "currentNumberScheduled",
        "desiredNumberScheduled",
        "numberMisscheduled",
        "numberReady",
    ] {
        number(status, field, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::tests::filled;

    #[test]
    fn a_deployment_rolls_a_quarter_at_a_time() {
        let object = filled(
            "apps",
            "Deployment",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}}),
        );
        insta::assert_json_snapshot!(object);
    }

    #[test]
    fn the_other_workloads() {
        let set = filled("apps", "StatefulSet", json!({"spec": {}}));
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        let set = filled("apps", "DaemonSet", json!({"spec": {}}));
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        let set = filled("apps", "ReplicaSet", json!({"spec": {"replicas": 0}}));
        assert_eq!(set["spec"]["replicas"], 0);
    }
}
