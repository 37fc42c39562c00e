//! Writing what a node knows of itself: annotations and conditions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::Error;

/// Makes `annotations` the whole of what field manager `manager` says on the node: those
/// it said before and no longer says are removed, everybody else's stay.
pub async fn node_annotations(
    client: &Client,
    manager: &str,
    node: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<(), Error> {
    let api: Api<Node> = Api::all(client.clone());
    let what = || format!("annotate Node {node}");
    // An apply would make the node where it does not exist.
    api.get_metadata(node)
        .await
        .map_err(Error::request(what()))?;
    let applied = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node, "annotations": annotations},
    });
    api.patch(
        node,
        &PatchParams::apply(manager).force(),
        &Patch::Apply(applied),
    )
    .await
    .map_err(Error::request(what()))?;
    Ok(())
}

/// Sets one condition of a node. Nothing is written where it already says the same.
pub async fn node_condition(
    client: &Client,
    node: &str,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
) -> Result<(), Error> {
    let api: Api<Node> = Api::all(client.clone());
    let what = || format!("set condition {kind} of Node {node}");
    let live = api.get(node).await.map_err(Error::request(what()))?;
    let old = live
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .and_then(|conditions| conditions.iter().find(|c| c.type_ == kind));
    let Some(new) = condition(old, kind, status, reason, message, Timestamp::now()) else {
        return Ok(());
    };
    let patch = json!({"status": {"conditions": [new]}});
    api.patch_status(node, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .map_err(Error::request(what()))?;
    Ok(())
}

/// The condition to write, or None where `old` already says it.
fn condition(
    old: Option<&NodeCondition>,
    kind: &str,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<NodeCondition> {
    let status = if status { "True" } else { "False" };
    let same_status = old.filter(|old| old.status == status);
    if same_status.is_some_and(|old| {
        old.reason.as_deref() == Some(reason) && old.message.as_deref() == Some(message)
    }) {
        return None;
    }
    let since = same_status.and_then(|old| old.last_transition_time.clone());
    Some(NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let say = |old, status, message, now| {
            condition(old, "NetworkUnavailable", status, "R", message, at(now))
        };
        let first = say(None, false, "up", 1).unwrap();
        assert_eq!(say(Some(&first), false, "up", 2), None);
        let second = say(Some(&first), false, "still up", 3).unwrap();
        assert_eq!(second.last_transition_time, Some(Time(at(1))));
        let third = say(Some(&second), true, "down", 4).unwrap();
        assert_eq!(third.last_transition_time, Some(Time(at(4))));
    }
}
