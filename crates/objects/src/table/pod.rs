//! The row of a Pod: readiness, the one word that says how it is, restarts.

use serde_json::Value;

use super::{age, ago, count, list, or_none, seconds, text};

/// A container's restarts and when the last one was.
#[derive(Default)]
struct Restarts<'a> {
    count: i64,
    last: Option<(i64, &'a Value)>,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += count(&status["restartCount"]);
        let finished = &status["lastState"]["terminated"]["finishedAt"];
        if let Some(at) = seconds(finished)
            && self.last.is_none_or(|(last, _)| last < at)
        {
            self.last = Some((at, finished));
        }
    }
}

/// A container that restarts on its own among the init containers: a sidecar.
fn is_sidecar(pod: &Value, name: &Value) -> bool {
    list(&pod["spec"]["initContainers"])
        .iter()
        .any(|c| c["name"] == *name && c["restartPolicy"] == "Always")
}

fn condition(pod: &Value, kind: &str) -> bool {
    list(&pod["status"]["conditions"])
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

/// The word for how a container ended.
fn ended(terminated: &Value) -> String {
    if !text(&terminated["reason"]).is_empty() {
        text(&terminated["reason"]).to_owned()
    } else if count(&terminated["signal"]) != 0 {
        format!("Signal:{}", count(&terminated["signal"]))
    } else {
        format!("ExitCode:{}", count(&terminated["exitCode"]))
    }
}

struct Summary<'a> {
    ready: i64,
    reason: String,
    restarts: Restarts<'a>,
}

/// What the init containers say; Some where one still holds the pod back.
fn initializing<'a>(
    pod: &'a Value,
    ready: &mut i64,
    sidecars: &mut Restarts<'a>,
) -> Option<(String, Restarts<'a>)> {
    let mut restarts = Restarts::default();
    let total = list(&pod["spec"]["initContainers"]).len();
    for (i, status) in list(&pod["status"]["initContainerStatuses"])
        .iter()
        .enumerate()
    {
        restarts.add(status);
        let sidecar = is_sidecar(pod, &status["name"]);
        if sidecar {
            sidecars.add(status);
        }
        let state = &status["state"];
        let terminated = &state["terminated"];
        if terminated.is_object() && count(&terminated["exitCode"]) == 0 {
            continue;
        }
        if sidecar && status["started"] == true {
            *ready += i64::from(status["ready"] == true);
            continue;
        }
        let waiting = text(&state["waiting"]["reason"]);
        let reason = if terminated.is_object() {
            format!("Init:{}", ended(terminated))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{total}")
        };
        return Some((reason, restarts));
    }
    None
}

fn running<'a>(
    pod: &'a Value,
    mut ready: i64,
    mut reason: String,
    mut restarts: Restarts<'a>,
) -> Summary<'a> {
    let (mut runs, mut failure) = (false, None);
    for status in list(&pod["status"]["containerStatuses"]).iter().rev() {
        restarts.add(status);
        let state = &status["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            reason = waiting.to_owned();
        } else if state["terminated"].is_object() {
            reason = ended(&state["terminated"]);
            if count(&state["terminated"]["exitCode"]) != 0 {
                failure = Some(reason.clone());
            }
        } else if status["ready"] == true && state["running"].is_object() {
            runs = true;
            ready += 1;
        }
    }
    if reason == "Completed" {
        if runs && condition(pod, "Ready") {
            reason = "Running".to_owned();
        } else if let Some(failure) = failure {
            reason = failure;
        } else if runs {
            reason = "NotReady".to_owned();
        }
    }
    Summary {
        ready,
        reason,
        restarts,
    }
}

fn summary(pod: &Value) -> Summary<'_> {
    let status = &pod["status"];
    let phase = text(&status["phase"]);
    let mut reason = match text(&status["reason"]) {
        "" => phase.to_owned(),
        reason => reason.to_owned(),
    };
    let gated = |c: &&Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    if list(&status["conditions"]).iter().any(|c| gated(&c)) {
        reason = "SchedulingGated".to_owned();
    }
    let (mut ready, mut sidecars) = (0, Restarts::default());
    let held = initializing(pod, &mut ready, &mut sidecars);
    let mut summary = match held {
        Some((reason, restarts)) if !condition(pod, "Initialized") => Summary {
            ready,
            reason,
            restarts,
        },
        held => {
            let reason = held.map_or(reason, |(reason, _)| reason);
            running(pod, ready, reason, sidecars)
        }
    };
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        if status["reason"] == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if phase != "Succeeded" && phase != "Failed" {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

pub(super) fn cells(pod: &Value, now: i64, row: &mut Vec<Value>) {
    let sidecars = list(&pod["spec"]["initContainers"])
        .iter()
        .filter(|c| c["restartPolicy"] == "Always");
    let total = list(&pod["spec"]["containers"]).len() + sidecars.count();
    let summary = summary(pod);
    row.push(format!("{}/{total}", summary.ready).into());
    row.push(summary.reason.into());
    let restarts = summary.restarts;
    row.push(match restarts.last {
        Some((_, at)) if restarts.count != 0 => {
            format!("{} ({} ago)", restarts.count, ago(at, now)).into()
        }
        _ => restarts.count.to_string().into(),
    });
    row.push(age(pod, now));
    row.push(or_none(&pod["status"]["podIPs"][0]["ip"]).into());
    row.push(or_none(&pod["spec"]["nodeName"]).into());
    row.push(or_none(&pod["status"]["nominatedNodeName"]).into());
    let gates = list(&pod["spec"]["readinessGates"]);
    row.push(if gates.is_empty() {
        super::NONE.into()
    } else {
        let met = gates
            .iter()
            .filter(|g| condition(pod, text(&g["conditionType"])));
        format!("{}/{}", met.count(), gates.len()).into()
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::line;

    #[test]
    fn how_a_pod_is() {
        let pod = |status: serde_json::Value, extra: serde_json::Value| {
            json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:00:00Z", "deletionTimestamp": extra},
                "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "j"}], "nodeName": "n"}, "status": status})
        };
        let row = |status| line("Pod", &pod(status, json!(null)), 60);
        assert_eq!(
            row(
                json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "state": {"running": {}}}]})
            ),
            "a|1/1|Running|0|60s|10.0.0.1|n|<none>|<none>"
        );
        assert!(row(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]})).starts_with("a|0/1|Init:0/2|0|"));
        assert!(row(json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:50Z"}}}]})).starts_with("a|0/1|Init:CrashLoopBackOff|2 (10s ago)|"));
        assert!(row(json!({"phase": "Running", "containerStatuses": [{"name": "c", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]})).starts_with("a|0/1|CrashLoopBackOff|3|"));
        assert!(row(json!({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]})).starts_with("a|0/1|ExitCode:3|0|"));
        assert!(row(json!({"phase": "Succeeded", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]})).starts_with("a|0/1|Completed|0|"));
        let ending = pod(json!({"phase": "Running"}), json!("1970-01-01T00:00:01Z"));
        assert!(line("Pod", &ending, 60).starts_with("a|0/1|Terminating|0|"));
    }
}
