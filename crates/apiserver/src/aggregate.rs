//! ClusterRoles that gather the rules of others show what they gathered.

use objects::{Kind, Object};

use crate::context::Ctx;
use crate::failure::Failure;
use crate::rbac;
use crate::verbs::meta;
use crate::verbs::write::{self, Options};

const TOPIC: &str = "rbac.authorization.k8s.io/clusterroles";

/// Follows the ClusterRoles until the server ends.
pub async fn run(ctx: Ctx) {
    let mut changed = ctx.store.subscribe(TOPIC);
    loop {
        changed.mark_unchanged();
        if let Err(Failure(status)) = gather(&ctx).await {
            tracing::warn!(
                cause = status.message,
                "gathering the rules of ClusterRoles"
            );
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

async fn gather(ctx: &Ctx) -> Result<(), Failure> {
    let found = ctx
        .registry
        .load()
        .find("rbac.authorization.k8s.io", "v1", "clusterroles")
        .cloned();
    let Some(kind) = found else { return Ok(()) };
    let page = ctx.store.list(&format!("{TOPIC}/"));
    let roles: Vec<Object> = page.items.iter().map(|(_, entry)| entry.object()).collect();
    for role in roles.iter().filter(|r| r["aggregationRule"].is_object()) {
        let rules = union(role, &roles);
        if role["rules"] != rules {
            put(ctx, &kind, meta::get(role, "name"), &rules).await?;
        }
    }
    Ok(())
}

/// The rules of all roles that `role` gathers, each once.
fn union(role: &Object, roles: &[Object]) -> Object {
    let mut rules: Vec<Object> = Vec::new();
    for part in rbac::aggregated(role, roles) {
        for rule in part["rules"].as_array().into_iter().flatten() {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    rules.into()
}

async fn put(
    ctx: &Ctx,
    kind: &std::sync::Arc<Kind>,
    name: &str,
    rules: &Object,
) -> Result<(), Failure> {
    let options = Options {
        manager: "clusterrole-aggregation-controller".into(),
        ..Options::default()
    };
    write::replace(ctx, kind, "", name, &options, |old| {
        let mut new = old
            .cloned()
            .ok_or_else(|| objects::Status::not_found(&kind.group, &kind.plural, name))?;
        new["rules"] = rules.clone();
        Ok(new)
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_are_gathered_once_from_the_roles_a_label_selects() {
        let rule = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let part = |name: &str, label: &str| json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": [rule]});
        let role = json!({"metadata": {"name": "all"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "all"}}]}});
        let roles = [
            role.clone(),
            part("a", "all"),
            part("b", "all"),
            part("c", "none"),
        ];
        assert_eq!(union(&role, &roles), json!([rule]));
    }
}
