//! NetworkPolicies.

use serde_json::Value;

use super::address::{range, range_warnings};
use super::common::{
    Values, is_set, label_selector, label_selector_with, list, port, port_or_name, text,
};
use super::field::{Errors, Path};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const DIRECTIONS: &[(&str, &str)] = &[("ingress", "from"), ("egress", "to")];

/// What of a policy that is there already may stay as it is.
struct Before<'a> {
    values: Values,
    ranges: Vec<&'a str>,
}

impl<'a> Before<'a> {
    fn of(old: Option<&'a Value>) -> Self {
        let mut before = Self {
            values: Values::Checked,
            ranges: Vec::new(),
        };
        let Some(old) = old else {
            return before;
        };
        let mut wrong = Errors::new();
        label_selector(&mut wrong, &Path::root(""), &old["spec"]["podSelector"]);
        if !wrong.is_empty() {
            before.values = Values::Free;
        }
        for_blocks(&old["spec"], |_, block| {
            before.ranges.push(text(&block["cidr"]));
            before
                .ranges
                .extend(list(&block["except"]).iter().map(text));
        });
        before
    }
}

/// Each `ipBlock` with its path.
fn for_blocks<'a>(spec: &'a Value, mut each: impl FnMut(&Path<'_>, &'a Value)) {
    let path = Path::root("spec");
    for (direction, peers) in DIRECTIONS {
        let at = path.child(direction);
        for (i, rule) in list(&spec[*direction]).iter().enumerate() {
            let at = at.index(i);
            let at = at.child(peers);
            for (j, peer) in list(&rule[*peers]).iter().enumerate() {
                if is_set(&peer["ipBlock"]) {
                    each(&at.index(j).child("ipBlock"), &peer["ipBlock"]);
                }
            }
        }
    }
}

/// What is unusual about a policy that is taken all the same.
pub(super) fn warnings(object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for_blocks(&object["spec"], |path, block| {
        range_warnings(&path.child("cidr"), &block["cidr"], &mut warnings);
        let at = path.child("except");
        for (i, hole) in list(&block["except"]).iter().enumerate() {
            range_warnings(&at.index(i), hole, &mut warnings);
        }
    });
    warnings
}

pub(super) fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::root("spec");
    let before = Before::of(old);
    let selector = &spec["podSelector"];
    label_selector_with(errors, &path.child("podSelector"), selector, before.values);
    for (direction, peers) in DIRECTIONS {
        let rules = path.child(direction);
        for (i, rule) in list(&spec[*direction]).iter().enumerate() {
            let at = rules.index(i);
            let ports = at.child("ports");
            for (j, item) in list(&rule["ports"]).iter().enumerate() {
                policy_port(item, &ports.index(j), errors);
            }
            let peers_path = at.child(peers);
            for (j, item) in list(&rule[*peers]).iter().enumerate() {
                peer(item, &peers_path.index(j), &before, errors);
            }
        }
    }
    types(&spec["policyTypes"], &path.child("policyTypes"), errors);
}

fn types(value: &Value, path: &Path<'_>, errors: &mut Errors) {
    let types = list(value);
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        errors.invalid(path, value, why);
        return;
    }
    for (i, kind) in types.iter().enumerate() {
        if !["Ingress", "Egress"].contains(&text(kind)) {
            errors.not_supported(&path.index(i), kind, &["Ingress", "Egress"]);
        }
    }
}

fn policy_port(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    let protocol = &item["protocol"];
    if is_set(protocol) && !PROTOCOLS.contains(&text(protocol)) {
        errors.not_supported(&path.child("protocol"), protocol, PROTOCOLS);
    }
    let (first, last) = (&item["port"], &item["endPort"]);
    let at = path.child("endPort");
    if !is_set(first) {
        if is_set(last) {
            let why = "may not be specified when `port` is not specified";
            errors.invalid(&at, last, why);
        }
        return;
    }
    if is_set(last) {
        match first.as_i64() {
            None => {
                let why = "may not be specified when `port` is non-numeric";
                errors.invalid(&at, last, why);
            }
            Some(first) => {
                if last.as_i64().is_some_and(|last| last < first) {
                    let why = "must be greater than or equal to `port`";
                    errors.invalid(&at, &first.into(), why);
                }
                port(errors, &at, last);
            }
        }
    }
    port_or_name(errors, &path.child("port"), first);
}

fn peer(peer: &Value, path: &Path<'_>, before: &Before<'_>, errors: &mut Errors) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if is_set(&peer[field]) {
            count += 1;
            label_selector_with(errors, &path.child(field), &peer[field], before.values);
        }
    }
    if is_set(&peer["ipBlock"]) {
        count += 1;
        let at = path.child("ipBlock");
        ip_block(&peer["ipBlock"], &at, &before.ranges, errors);
    }
    if count == 0 {
        errors.required(path, "must specify a peer");
    } else if count > 1 && is_set(&peer["ipBlock"]) {
        errors.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Value, path: &Path<'_>, before: &[&str], errors: &mut Errors) {
    if text(&block["cidr"]).is_empty() {
        errors.required(&path.child("cidr"), "");
        return;
    }
    let Some(net) = range(errors, &path.child("cidr"), &block["cidr"], before) else {
        return;
    };
    let except = path.child("except");
    for (i, item) in list(&block["except"]).iter().enumerate() {
        let at = except.index(i);
        if let Some(hole) = range(errors, &at, item, before)
            && !net.strictly_contains(hole)
        {
            errors.invalid(&at, item, "must be a strict subset of `cidr`");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::validation::tests::{created, updated};

    fn policy(spec: Value) -> Value {
        json!({"metadata": {"name": "a", "namespace": "default"}, "spec": spec})
    }

    fn wrong(spec: Value) -> Vec<String> {
        created("networking.k8s.io", "NetworkPolicy", policy(spec))
    }

    fn changed(new: Value, old: Value) -> Vec<String> {
        updated(
            "networking.k8s.io",
            "NetworkPolicy",
            policy(new),
            policy(old),
        )
    }

    #[test]
    fn policies() {
        assert!(wrong(json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}]})).is_empty());
        assert_eq!(
            wrong(
                json!({"ingress": [{"from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}, "podSelector": {}}]}], "egress": [{"ports": [{"port": 90, "endPort": 80}]}], "policyTypes": ["In"]})
            ),
            [
                "spec.ingress[0].from[0]: Required value: must specify a peer",
                "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                "spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer",
                "spec.egress[0].ports[0].endPort: Invalid value: 90: must be greater than or equal to `port`",
                "spec.policyTypes[0]: Unsupported value: \"In\": supported values: \"Ingress\", \"Egress\""
            ]
        );
    }

    #[test]
    fn ports_and_selectors() {
        assert_eq!(
            wrong(
                json!({"podSelector": {"matchExpressions": [{"key": "a b", "operator": "In"}]},
                "ingress": [{"ports": [{"endPort": 8}, {"port": "http", "endPort": 8}, {"port": 0},
                    {"port": "80"}, {"protocol": "ICMP"}]}]})
            )
            .iter()
            .map(|sentence| sentence.split_inclusive(' ').take(5).collect::<String>())
            .collect::<Vec<_>>(),
            [
                "spec.podSelector.matchExpressions[0].values: Required value: must be ",
                "spec.podSelector.matchExpressions[0].key: Invalid value: \"a b\": ",
                "spec.ingress[0].ports[0].endPort: Invalid value: 8: may ",
                "spec.ingress[0].ports[1].endPort: Invalid value: 8: may ",
                "spec.ingress[0].ports[2].port: Invalid value: 0: must ",
                "spec.ingress[0].ports[3].port: Invalid value: \"80\": must ",
                "spec.ingress[0].ports[4].protocol: Unsupported value: \"ICMP\": supported ",
            ]
        );
    }

    #[test]
    fn what_an_old_policy_has_may_stay() {
        let block = |cidr: &str| json!({"egress": [{"to": [{"ipBlock": {"cidr": cidr}}]}]});
        assert!(changed(block("10.0.0.1/8"), block("10.0.0.1/8")).is_empty());
        assert_eq!(
            changed(block("10.0.0.2/8"), block("10.0.0.1/8")),
            [
                "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.2/8\": must not have bits set beyond the prefix length"
            ]
        );
        let selector = |value: &str| {
            json!({"podSelector": {"matchExpressions":
                [{"key": "a", "operator": "In", "values": [value]}]}})
        };
        assert_eq!(changed(selector("b c"), selector("b")).len(), 1);
        assert!(changed(selector("b c"), selector("d e")).is_empty());
    }
}
