//! Deployments, ReplicaSets, StatefulSets and DaemonSets.

use serde_json::Value;

use super::common::{
    amount, at_most_all, immutable, int_or_percent, is_set, label_selector, list, map, name,
    non_negative, same, text, word,
};
use super::field::{Errors, Path};
use super::{names, pod};
use crate::selector::LabelSelector;

pub(super) fn check(kind: &str, object: &Value, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::root("spec");
    if kind == "StatefulSet" {
        stateful_set(spec, &path, errors);
    }
    if kind != "DaemonSet" {
        non_negative(errors, &path.child("replicas"), &spec["replicas"]);
    }
    if kind == "ReplicaSet" {
        non_negative(
            errors,
            &path.child("minReadySeconds"),
            &spec["minReadySeconds"],
        );
    }
    selector(kind, spec, &path, errors);
    if kind == "Deployment" {
        deployment(spec, &path, errors);
    }
    if kind != "ReplicaSet" {
        non_negative(
            errors,
            &path.child("minReadySeconds"),
            &spec["minReadySeconds"],
        );
        let at = path.child("revisionHistoryLimit");
        non_negative(errors, &at, &spec["revisionHistoryLimit"]);
    }
    if kind == "DaemonSet" {
        daemon_strategy(
            &spec["updateStrategy"],
            &path.child("updateStrategy"),
            errors,
        );
    }
}

fn selector(kind: &str, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("selector");
    let selector = &spec["selector"];
    if !is_set(selector) {
        // A DaemonSet's missing selector shows in its template's labels only.
        if kind != "DaemonSet" {
            errors.required(&at, "");
        }
    } else {
        label_selector(errors, &at, selector);
        let empty = map(&selector["matchLabels"]).next().is_none()
            && list(&selector["matchExpressions"]).is_empty();
        if empty {
            // ReplicaSets say deployment too, upstream.
            let word = match kind {
                "StatefulSet" => "statefulset",
                "DaemonSet" => "daemonset",
                _ => "deployment",
            };
            let why = format!("empty selector is invalid for {word}");
            errors.invalid_shown(&at, shown_selector(selector), &why);
        }
    }
    let template = &spec["template"];
    let template_path = path.child("template");
    match LabelSelector::from_object(selector) {
        Err(_) if kind == "DaemonSet" => {}
        Err(_) => {
            errors.invalid_shown(&at, shown_selector(selector), "invalid label selector");
            return;
        }
        Ok(selector) => {
            let labels = &template["metadata"]["labels"];
            if !selector.matches_labels(labels) {
                let meta = template_path.child("metadata");
                let why = "`selector` does not match template `labels`";
                errors.invalid(&meta.child("labels"), labels, why);
            }
        }
    }
    pod::template(template, &template_path, errors);
    let spec_path = template_path.child("spec");
    let policy = &template["spec"]["restartPolicy"];
    if policy != "Always" {
        errors.not_supported(&spec_path.child("restartPolicy"), policy, &["Always"]);
    }
    if is_set(&template["spec"]["activeDeadlineSeconds"]) {
        let kind = if kind == "Deployment" {
            "ReplicaSet"
        } else {
            kind
        };
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&spec_path.child("activeDeadlineSeconds"), &why);
    }
}

/// A selector as Go writes it: labels before expressions, nothing that is empty.
fn shown_selector(selector: &Value) -> String {
    let mut parts = Vec::new();
    if map(&selector["matchLabels"]).next().is_some() {
        parts.push(format!(r#""matchLabels":{}"#, selector["matchLabels"]));
    }
    if !list(&selector["matchExpressions"]).is_empty() {
        let expressions = list(&selector["matchExpressions"]).iter().map(|e| {
            let values = match list(&e["values"]) {
                [] => String::new(),
                _ => format!(r#","values":{}"#, e["values"]),
            };
            format!(
                r#"{{"key":{},"operator":{}{values}}}"#,
                e["key"], e["operator"]
            )
        });
        let expressions: Vec<String> = expressions.collect();
        parts.push(format!(r#""matchExpressions":[{}]"#, expressions.join(",")));
    }
    format!("{{{}}}", parts.join(","))
}

/// A strategy as Go writes its internal form.
fn shown_strategy(strategy: &Value) -> String {
    let rolling = &strategy["rollingUpdate"];
    let count = |field: &str| match &rolling[field] {
        Value::Null => Value::from(0),
        value => value.clone(),
    };
    let rolling = if is_set(rolling) {
        let (down, up) = (count("maxUnavailable"), count("maxSurge"));
        format!(r#"{{"MaxUnavailable":{down},"MaxSurge":{up}}}"#)
    } else {
        "null".to_owned()
    };
    let kind = Value::from(text(&strategy["type"]));
    format!(r#"{{"Type":{kind},"RollingUpdate":{rolling}}}"#)
}

fn deployment(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let strategy = &spec["strategy"];
    let at = path.child("strategy");
    let rolling = &strategy["rollingUpdate"];
    let rolling_path = at.child("rollingUpdate");
    match text(&strategy["type"]) {
        "Recreate" if is_set(rolling) => {
            let why = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&rolling_path, why);
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let (down, up) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let down_path = rolling_path.child("maxUnavailable");
            int_or_percent(errors, &down_path, down);
            int_or_percent(errors, &rolling_path.child("maxSurge"), up);
            if amount(down) == 0 && amount(up) == 0 {
                errors.invalid(&down_path, down, "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(errors, &down_path, down);
        }
        _ => errors.not_supported_shown(
            &at,
            shown_strategy(strategy),
            &["Recreate", "RollingUpdate"],
        ),
    }
    let deadline = &spec["progressDeadlineSeconds"];
    let at = path.child("progressDeadlineSeconds");
    non_negative(errors, &at, deadline);
    let ready = spec["minReadySeconds"].as_i64().unwrap_or_default();
    if deadline.as_i64().is_some_and(|d| d <= ready) {
        errors.invalid(&at, deadline, "must be greater than minReadySeconds");
    }
}

fn stateful_set(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let management = &spec["podManagementPolicy"];
    let at = path.child("podManagementPolicy");
    match text(management) {
        "" => errors.required(&at, ""),
        "OrderedReady" | "Parallel" => {}
        _ => errors.invalid(&at, management, "must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = &spec["updateStrategy"];
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("updateStrategy");
    match text(&strategy["type"]) {
        "" => errors.required(&at, ""),
        "OnDelete" if is_set(rolling) => {
            let why = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid(&at.child("rollingUpdate"), rolling, why);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = at.child("rollingUpdate");
            non_negative(errors, &at.child("partition"), &rolling["partition"]);
        }
        _ => errors.invalid(&at, strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    if !text(&spec["serviceName"]).is_empty() {
        name(
            errors,
            &path.child("serviceName"),
            &spec["serviceName"],
            names::dns1123_label,
        );
    }
    let at = path.child("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        let policy = &spec["persistentVolumeClaimRetentionPolicy"][field];
        if is_set(policy) {
            word(errors, &at.child(field), policy, &["Delete", "Retain"]);
        }
    }
    let at = path.child("ordinals.start");
    non_negative(errors, &at, &spec["ordinals"]["start"]);
}

fn daemon_strategy(strategy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" => {
            let at = path.child("rollingUpdate");
            let (down, up) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            for (field, value) in [("maxUnavailable", down), ("maxSurge", up)] {
                int_or_percent(errors, &at.child(field), value);
                at_most_all(errors, &at.child(field), value);
            }
            match (amount(down) != 0, amount(up) != 0) {
                (true, true) => {
                    let why = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&at.child("maxSurge"), up, why);
                }
                (false, false) => {
                    errors.required(
                        &at.child("maxUnavailable"),
                        "cannot be 0 when maxSurge is 0",
                    );
                }
                _ => {}
            }
        }
        _ => errors.not_supported_shown(
            path,
            shown_strategy(strategy),
            &["RollingUpdate", "OnDelete"],
        ),
    }
}

/// What may change in a StatefulSet's spec.
const STATEFUL_FIELDS: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn update(kind: &str, new: &Value, old: &Value, errors: &mut Errors) {
    check(kind, new, errors);
    let path = Path::root("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    if kind != "StatefulSet" {
        immutable(
            errors,
            &path.child("selector"),
            &new["selector"],
            &old["selector"],
        );
        return;
    }
    let mut munged = new.clone();
    for field in STATEFUL_FIELDS {
        munged[*field] = old[*field].clone();
    }
    if !same(&munged, old) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.forbidden(&path, why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::tests::{created, updated};

    fn deployment(spec: Value) -> Value {
        json!({"metadata": {"name": "web", "namespace": "default"}, "spec": spec})
    }

    fn good() -> Value {
        json!({"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}})
    }

    #[test]
    fn deployments() {
        assert!(created("apps", "Deployment", deployment(good())).is_empty());
        assert_eq!(
            created("apps", "Deployment", deployment(json!({}))),
            [
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                "spec.template.spec.containers: Required value"
            ]
        );
        let mut other = good();
        other["selector"]["matchLabels"]["app"] = "db".into();
        other["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}});
        assert_eq!(
            created("apps", "Deployment", deployment(other.clone())),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"
            ]
        );
        let mut changed = good();
        changed["selector"]["matchLabels"]["x"] = "y".into();
        changed["template"]["metadata"]["labels"]["x"] = "y".into();
        assert_eq!(
            updated(
                "apps",
                "Deployment",
                deployment(changed),
                deployment(good())
            ),
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"x\":\"y\"}}: field is immutable"
            ]
        );
    }

    #[test]
    fn stateful_sets_change_little() {
        let mut old = good();
        old["serviceName"] = "web".into();
        let mut new = old.clone();
        new["replicas"] = 3.into();
        assert!(
            updated(
                "apps",
                "StatefulSet",
                deployment(new.clone()),
                deployment(old.clone())
            )
            .is_empty()
        );
        new["serviceName"] = "other".into();
        let wrong = updated("apps", "StatefulSet", deployment(new), deployment(old));
        assert!(wrong[0].starts_with(
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas'"
        ));
    }
}
