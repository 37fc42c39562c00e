//! Discovery: which groups, versions and resources are served.

use std::collections::BTreeMap;

use objects::{Kind, Object};
use serde_json::{Map, json};

use crate::accept::Form;
use crate::context::Ctx;
use crate::registry::Registry;

/// Answers `/api`, `/apis`, `/api/v1`, `/apis/G` and `/apis/G/V`.
pub fn answer(ctx: &Ctx, path: &str, form: Form) -> Option<Object> {
    let registry = ctx.registry.load();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    match parts.as_slice() {
        [] => Some(
            json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"]}),
        ),
        ["api"] if form == Form::Discovery => Some(aggregated(&registry, true)),
        ["apis"] if form == Form::Discovery => Some(aggregated(&registry, false)),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Object> = groups(&registry).iter().map(|(g, v)| group(g, v)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["api", "v1"] => resources(&registry, "", "v1"),
        ["apis", name] => {
            let all = groups(&registry);
            let versions = all.get(*name)?;
            let mut found = group(name, versions);
            found["kind"] = "APIGroup".into();
            found["apiVersion"] = "v1".into();
            Some(found)
        }
        ["apis", group, version] => resources(&registry, group, version),
        _ => None,
    }
}

/// Versions by group (without core), the preferred one first.
fn groups(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for kind in registry.iter().filter(|k| !k.group.is_empty()) {
        let versions = groups.entry(kind.group.clone()).or_default();
        if !versions.contains(&kind.version) {
            versions.push(kind.version.clone());
        }
    }
    for versions in groups.values_mut() {
        versions.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.cmp(b)));
    }
    groups
}

/// Order of versions: `v2` over `v1` over `v1beta2` over `v1alpha1` over anything else.
pub fn rank(version: &str) -> (u8, u32, u32) {
    let split = |text: &str| -> Option<(u32, String)> {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        Some((digits.parse().ok()?, text[digits.len()..].to_owned()))
    };
    let Some((major, rest)) = version.strip_prefix('v').and_then(split) else {
        return (0, 0, 0);
    };
    if rest.is_empty() {
        return (3, major, 0);
    }
    for (name, level) in [("beta", 2), ("alpha", 1)] {
        if let Some((minor, rest)) = rest.strip_prefix(name).and_then(split)
            && rest.is_empty()
        {
            return (level, major, minor);
        }
    }
    (0, 0, 0)
}

fn group(name: &str, versions: &[String]) -> Object {
    let list: Vec<Object> = versions
        .iter()
        .map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v}))
        .collect();
    json!({"name": name, "versions": list, "preferredVersion": list.first()})
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Object> {
    let mut list = Vec::new();
    for kind in registry
        .iter()
        .filter(|k| k.group == group && k.version == version)
    {
        list.push(resource(kind));
        for name in &kind.subresources {
            list.push(subresource(kind, name));
        }
    }
    if list.is_empty() {
        return None;
    }
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    Some(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": list}),
    )
}

fn resource(kind: &Kind) -> Object {
    let mut found = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": kind.verbs,
    });
    if !kind.short_names.is_empty() {
        found["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        found["categories"] = json!(kind.categories);
    }
    found
}

fn subresource(kind: &Kind, name: &str) -> Object {
    let mut found = Map::new();
    found.insert("name".into(), format!("{}/{name}", kind.plural).into());
    found.insert("singularName".into(), "".into());
    found.insert("namespaced".into(), kind.namespaced.into());
    let mut of = kind.kind.as_str();
    let mut verbs: &[&str] = &[];
    if let Some(sub) = kind.subresource(name) {
        verbs = sub.verbs;
        if !sub.kind.is_empty() {
            of = sub.kind;
            found.insert("group".into(), sub.group.into());
            found.insert("version".into(), sub.version.into());
        }
    }
    found.insert("kind".into(), of.into());
    found.insert("verbs".into(), json!(verbs));
    Object::Object(found)
}

/// `APIGroupDiscoveryList` of the core group, or of all others.
fn aggregated(registry: &Registry, core: bool) -> Object {
    let names: BTreeMap<String, Vec<String>> = if core {
        BTreeMap::from([(String::new(), vec!["v1".to_owned()])])
    } else {
        groups(registry)
    };
    let items: Vec<Object> = names
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Object> = versions
                .iter()
                .map(|version| {
                    json!({"version": version, "freshness": "Current",
                        "resources": aggregated_resources(registry, group, version)})
                })
                .collect();
            let metadata = if group.is_empty() {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": group, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resources(registry: &Registry, group: &str, version: &str) -> Vec<Object> {
    registry
        .iter()
        .filter(|k| k.group == group && k.version == version)
        .map(|kind| {
            let subs: Vec<Object> = kind
                .subresources
                .iter()
                .map(|name| {
                    let flat = subresource(kind, name);
                    json!({"subresource": name, "verbs": flat["verbs"], "responseKind": {
                        "group": flat.get("group").cloned().unwrap_or_else(|| group.into()),
                        "version": flat.get("version").cloned().unwrap_or_else(|| version.into()),
                        "kind": flat["kind"]}})
                })
                .collect();
            let mut found = json!({
                "resource": kind.plural, "singularResource": kind.singular, "verbs": kind.verbs,
                "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                "responseKind": {"group": group, "version": version, "kind": kind.kind},
            });
            for (name, values) in [
                ("shortNames", &kind.short_names),
                ("categories", &kind.categories),
            ] {
                if !values.is_empty() {
                    found[name] = json!(values);
                }
            }
            if !subs.is_empty() {
                found["subresources"] = subs.into();
            }
            found
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_beta_and_alpha() {
        let mut versions = ["v1alpha1", "v1", "foo", "v2beta1", "v2", "v1beta3"];
        versions.sort_by_key(|v| std::cmp::Reverse(rank(v)));
        assert_eq!(
            versions,
            ["v2", "v1", "v2beta1", "v1beta3", "v1alpha1", "foo"]
        );
    }
}
