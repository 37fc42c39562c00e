//! Rows of Services, endpoints and the networking kinds.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{NONE, age, count, labels, list, or_none, selector, text};

fn balancer(status: &Value) -> String {
    let addresses: BTreeSet<&str> = list(&status["loadBalancer"]["ingress"])
        .iter()
        .map(|i| match text(&i["ip"]) {
            "" => text(&i["hostname"]),
            ip => ip,
        })
        .filter(|a| !a.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let mut addresses: Vec<&str> = list(&spec["externalIPs"]).iter().map(text).collect();
    match text(&spec["type"]) {
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        "LoadBalancer" => {
            let given = balancer(&service["status"]);
            if !given.is_empty() {
                addresses.insert(0, &given);
            }
            if addresses.is_empty() {
                "<pending>".to_owned()
            } else {
                addresses.join(",")
            }
        }
        "ClusterIP" | "NodePort" if addresses.is_empty() => NONE.to_owned(),
        "ClusterIP" | "NodePort" => addresses.join(","),
        _ => "<unknown>".to_owned(),
    }
}

fn service_port(port: &Value) -> String {
    let (number, node, protocol) = (
        count(&port["port"]),
        count(&port["nodePort"]),
        text(&port["protocol"]),
    );
    if node > 0 {
        format!("{number}:{node}/{protocol}")
    } else {
        format!("{number}/{protocol}")
    }
}

pub(super) fn service(object: &Value, now: i64, row: &mut Vec<Value>) {
    let spec = &object["spec"];
    row.push(text(&spec["type"]).into());
    row.push(or_none(&spec["clusterIPs"][0]).into());
    row.push(external(object).into());
    let ports: Vec<String> = list(&spec["ports"]).iter().map(service_port).collect();
    row.push(if ports.is_empty() {
        NONE.into()
    } else {
        ports.join(",").into()
    });
    row.push(age(object, now));
    row.push(labels(&spec["selector"]).into());
}

/// The first three, and how many more there are.
fn few(all: &[String], empty: &str) -> String {
    match all {
        [] => empty.to_owned(),
        [first @ .., _] if first.len() >= 3 => {
            format!("{} + {} more...", all[..3].join(","), all.len() - 3)
        }
        _ => all.join(","),
    }
}

pub(super) fn endpoints(object: &Value, now: i64, row: &mut Vec<Value>) {
    let subsets = list(&object["subsets"]);
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = || list(&subset["addresses"]).iter().map(|a| text(&a["ip"]));
        let ports = list(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let number = count(&port["port"]);
            all.extend(addresses().map(|ip| {
                if ip.contains(':') {
                    format!("[{ip}]:{number}")
                } else {
                    format!("{ip}:{number}")
                }
            }));
        }
    }
    let empty = if subsets.is_empty() { NONE } else { "" };
    row.push(few(&all, empty).into());
    row.push(age(object, now));
}

pub(super) fn endpoint_slice(object: &Value, now: i64, row: &mut Vec<Value>) {
    row.push(text(&object["addressType"]).into());
    let ports = list(&object["ports"]).iter().map(|p| {
        if p["port"].is_i64() {
            count(&p["port"]).to_string()
        } else if p["name"].is_string() {
            text(&p["name"]).to_owned()
        } else {
            "*".to_owned()
        }
    });
    row.push(few(&ports.collect::<Vec<_>>(), "<unset>").into());
    let addresses = list(&object["endpoints"]).iter();
    let addresses: Vec<String> = addresses
        .flat_map(|e| list(&e["addresses"]))
        .map(|a| text(a).to_owned())
        .collect();
    row.push(few(&addresses, "<unset>").into());
    row.push(age(object, now));
}

fn hosts(rules: &[Value]) -> String {
    let named: Vec<&str> = rules
        .iter()
        .map(|r| text(&r["host"]))
        .filter(|h| !h.is_empty())
        .collect();
    // Rules without a host count too once three are shown, as upstream counts them.
    let third = rules
        .iter()
        .enumerate()
        .filter(|(_, r)| !text(&r["host"]).is_empty())
        .nth(2)
        .map(|(i, _)| i);
    match third {
        _ if named.is_empty() => "*".to_owned(),
        Some(third) if third + 1 < rules.len() => {
            format!("{} + {} more...", named[..3].join(","), rules.len() - 3)
        }
        _ => named.join(","),
    }
}

fn ingress(object: &Value, row: &mut Vec<Value>) {
    let spec = &object["spec"];
    let class = match &spec["ingressClassName"] {
        Value::String(class) => class.clone(),
        _ => NONE.to_owned(),
    };
    row.push(class.into());
    row.push(hosts(list(&spec["rules"])).into());
    row.push(balancer(&object["status"]).into());
    let tls = !list(&spec["tls"]).is_empty();
    row.push(if tls { "80, 443" } else { "80" }.into());
}

fn ingress_class(object: &Value, row: &mut Vec<Value>) {
    let default = &object["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"];
    if default == "true" {
        row[0] = format!("{} (default)", text(&object["metadata"]["name"])).into();
    }
    row.push(text(&object["spec"]["controller"]).into());
    let parameters = &object["spec"]["parameters"];
    row.push(if parameters.is_object() {
        let kind =
            crate::status::qualified(text(&parameters["apiGroup"]), text(&parameters["kind"]));
        format!("{kind}/{}", text(&parameters["name"])).into()
    } else {
        NONE.into()
    });
}

fn parent(reference: &Value) -> String {
    if !reference.is_object() {
        return NONE.to_owned();
    }
    let resource =
        crate::status::qualified(text(&reference["group"]), text(&reference["resource"]));
    let parts = [
        resource.to_lowercase(),
        text(&reference["namespace"]).to_owned(),
        text(&reference["name"]).to_owned(),
    ];
    let parts: Vec<String> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    parts.join("/")
}

pub(super) fn networking(kind: &str, object: &Value, now: i64, row: &mut Vec<Value>) {
    let spec = &object["spec"];
    match kind {
        "Ingress" => ingress(object, row),
        "IngressClass" => ingress_class(object, row),
        "NetworkPolicy" => {
            let empty = serde_json::json!({});
            let pods = spec.get("podSelector").unwrap_or(&empty);
            row.push(selector(pods).into());
        }
        "IPAddress" => row.push(parent(&spec["parentRef"]).into()),
        _ => {
            let cidrs: Vec<&str> = list(&spec["cidrs"]).iter().map(text).collect();
            row.push(cidrs.join(",").into());
        }
    }
    row.push(age(object, now));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::table::tests::line;

    #[test]
    fn services_and_endpoints() {
        let service = json!({"metadata": {"name": "web", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"type": "LoadBalancer", "clusterIPs": ["10.96.0.5"], "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}], "selector": {"app": "web"}}});
        assert_eq!(
            line("Service", &service, 5),
            "web|LoadBalancer|10.96.0.5|<pending>|80:30080/TCP,53/UDP|5s|app=web"
        );
        let addresses: Vec<_> = (1..=4)
            .map(|i| json!({"ip": format!("10.0.0.{i}")}))
            .collect();
        let endpoints = json!({"metadata": {"name": "web"}, "subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(
            line("Endpoints", &endpoints, 5),
            "web|10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more...|<unknown>"
        );
        let slice = json!({"metadata": {"name": "web-x"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(
            line("EndpointSlice", &slice, 5),
            "web-x|IPv4|<unset>|10.0.0.1|<unknown>"
        );
    }

    #[test]
    fn ingresses_and_policies() {
        let ingress = json!({"metadata": {"name": "i"}, "spec": {"ingressClassName": "nginx", "tls": [{}],
            "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}]}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        assert_eq!(
            line("Ingress", &ingress, 0),
            "i|nginx|a,b,c + 1 more...|1.2.3.4|80, 443|<unknown>"
        );
        assert_eq!(
            line(
                "NetworkPolicy",
                &json!({"metadata": {"name": "p"}, "spec": {"podSelector": {}}}),
                0
            ),
            "p|<none>|<unknown>"
        );
    }
}
