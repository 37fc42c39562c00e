//! binding and eviction.

use objects::{Object, Status};
use serde_json::json;

use super::delete::{self, delete_object};
use super::{Call, Reply, decode, meta, write};
use crate::context;
use crate::output;

/// `pods/NAME/binding` (and `bindings`): a scheduler gives a pod to a node.
pub async fn bind(call: &Call) -> Reply {
    let binding = decode::any(call)?;
    let node = binding["target"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let target = binding["target"]["kind"].as_str().unwrap_or("Node");
    if node.is_empty() || !(target.is_empty() || target == "Node") {
        return Err(Status::bad_request("a Binding needs target.kind Node and target.name").into());
    }
    let name = if call.info.name.is_empty() {
        meta::get(&binding, "name")
    } else {
        &call.info.name
    };
    let uid = meta::get(&binding, "uid").to_owned();
    let pods = call
        .ctx
        .registry
        .load()
        .find("", "v1", "pods")
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let mut options = call.options()?;
    options.subresource = "binding".into();
    let conflict = |cause: String| Status::conflict("", "pods/binding", name, &cause);
    write::replace(
        &call.ctx,
        &pods,
        &call.info.namespace,
        name,
        &options,
        |old| {
            let mut pod = old
                .ok_or_else(|| Status::not_found("", "pods", name))?
                .clone();
            if !uid.is_empty() && uid != meta::get(&pod, "uid") {
                return Err(
                    Status::uid_mismatch("", "pods", name, &uid, meta::get(&pod, "uid")).into(),
                );
            }
            if meta::deleting(&pod) {
                return Err(conflict(format!(
                    "pod {name} is being deleted, cannot be assigned to a host"
                ))
                .into());
            }
            let assigned = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if !assigned.is_empty() {
                return Err(conflict(format!(
                    "pod {name} is already assigned to node {assigned:?}"
                ))
                .into());
            }
            if pod["spec"]["schedulingGates"]
                .as_array()
                .is_some_and(|g| !g.is_empty())
            {
                return Err(
                    conflict(format!("pod {name} has non-empty .spec.schedulingGates")).into(),
                );
            }
            pod["spec"]["nodeName"] = node.clone().into();
            if let Some(notes) = binding["metadata"]["annotations"].as_object() {
                for (key, value) in notes {
                    pod["metadata"]["annotations"][key] = value.clone();
                }
            }
            scheduled(&mut pod);
            Ok(pod)
        },
    )
    .await?;
    Ok(output::value(201, &Status::success(201), call.pretty))
}

fn scheduled(pod: &mut Object) {
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": context::now_text()});
    match meta::array_mut(pod, &["status", "conditions"]) {
        Some(list) => {
            list.retain(|c| c["type"] != "PodScheduled");
            list.push(condition);
        }
        None => pod["status"]["conditions"] = json!([condition]),
    }
}

/// `pods/NAME/eviction`: a deletion that budgets may refuse.
pub async fn evict(call: &Call) -> Reply {
    let eviction = decode::any(call)?;
    let body = eviction["deleteOptions"].clone();
    let inner = Call {
        ctx: call.ctx.clone(),
        info: call.info.clone(),
        query: call.query.clone(),
        kind: call.kind.clone(),
        user: call.user.clone(),
        form: call.form,
        include: call.include,
        pretty: call.pretty,
        content_type: "application/json".into(),
        user_agent: call.user_agent.clone(),
        body: if body.is_null() {
            bytes::Bytes::new()
        } else {
            body.to_string().into()
        },
    };
    let options = delete::options(&inner)?;
    within_budget(call)?;
    delete_object(
        &call.ctx,
        &call.kind,
        &call.info.namespace,
        &call.info.name,
        &options,
    )
    .await?;
    Ok(output::value(201, &Status::success(201), call.pretty))
}

/// Refuses where a PodDisruptionBudget of the pod's namespace allows no disruption now.
fn within_budget(call: &Call) -> Result<(), Status> {
    let store = &call.ctx.store;
    let key = format!("/pods/{}/{}", call.info.namespace, call.info.name);
    let pod = store.get(&key).ok_or_else(|| call.not_found())?;
    let budgets = store.list(&format!(
        "policy/poddisruptionbudgets/{}/",
        call.info.namespace
    ));
    for (_, entry) in budgets.items {
        let budget = entry.object();
        let covers = objects::selector::LabelSelector::from_object(&budget["spec"]["selector"])
            .is_ok_and(|s| s.matches(pod.slim()));
        let status = &budget["status"];
        let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
        if covers && status.is_object() && allowed <= 0 {
            return Err(Status::disruption_budget(
                meta::get(&budget, "name"),
                status["desiredHealthy"].as_i64().unwrap_or(0),
                status["currentHealthy"].as_i64().unwrap_or(0),
            ));
        }
    }
    Ok(())
}
