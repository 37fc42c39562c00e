//! Rows of the kinds of group apps.

use serde_json::Value;

use super::{NONE, age, count, labels, list, selector, text};

fn containers(object: &Value, row: &mut Vec<Value>) {
    let containers = list(&object["spec"]["template"]["spec"]["containers"]);
    for field in ["name", "image"] {
        let texts: Vec<&str> = containers.iter().map(|c| text(&c[field])).collect();
        row.push(texts.join(",").into());
    }
}

pub(super) fn cells(kind: &str, object: &Value, now: i64, row: &mut Vec<Value>) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = || {
        let (ready, wanted) = (count(&status["readyReplicas"]), count(&spec["replicas"]));
        Value::from(format!("{ready}/{wanted}"))
    };
    match kind {
        "Deployment" => {
            row.push(ready());
            row.push(count(&status["updatedReplicas"]).into());
            row.push(count(&status["availableReplicas"]).into());
            row.push(age(object, now));
            containers(object, row);
            row.push(selector(&spec["selector"]).into());
        }
        "ReplicaSet" => {
            row.push(count(&spec["replicas"]).into());
            row.push(count(&status["replicas"]).into());
            row.push(count(&status["readyReplicas"]).into());
            row.push(age(object, now));
            containers(object, row);
            row.push(selector(&spec["selector"]).into());
        }
        "StatefulSet" => {
            row.push(ready());
            row.push(age(object, now));
            containers(object, row);
        }
        "DaemonSet" => {
            for field in [
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ] {
                row.push(count(&status[field]).into());
            }
            row.push(labels(&spec["template"]["spec"]["nodeSelector"]).into());
            row.push(age(object, now));
            containers(object, row);
            row.push(selector(&spec["selector"]).into());
        }
        _ => {
            row.push(controller(object).into());
            row.push(object["revision"].clone());
            row.push(age(object, now));
        }
    }
}

fn controller(object: &Value) -> String {
    let owners = list(&object["metadata"]["ownerReferences"]);
    let Some(owner) = owners.iter().find(|o| o["controller"] == true) else {
        return NONE.to_owned();
    };
    let group = text(&owner["apiVersion"])
        .rsplit_once('/')
        .map_or("", |(g, _)| g);
    let kind = crate::status::qualified(group, text(&owner["kind"]));
    format!("{}/{}", kind.to_lowercase(), text(&owner["name"]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::line;

    #[test]
    fn workloads() {
        let template = json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}});
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"replicas": 3, "template": template, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2, "replicas": 3}});
        assert_eq!(
            line("Deployment", &object, 200),
            "web|2/3|3|2|3m20s|a,b|x,y|app=web"
        );
        assert_eq!(
            line("ReplicaSet", &object, 200),
            "web|3|3|2|3m20s|a,b|x,y|app=web"
        );
        assert_eq!(line("StatefulSet", &object, 200), "web|2/3|3m20s|a,b|x,y");
        assert_eq!(
            line("DaemonSet", &object, 200),
            "web|0|0|0|0|0|<none>|3m20s|a,b|x,y|app=web"
        );
    }
}
