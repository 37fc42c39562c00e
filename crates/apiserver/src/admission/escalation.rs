//! Nobody gives away rights they do not have.

use objects::{Kind, Object, Status};

use crate::auth::User;
use crate::context::Ctx;
use crate::rbac::{self, Attributes, Policy, Rule};
use crate::verbs::meta;
use crate::verbs::write::Options;

/// Refuses a role or binding that grants more than its author may do.
pub fn check(ctx: &Ctx, kind: &Kind, object: &Object, options: &Options) -> Result<(), Status> {
    let Some(user) = options.user.as_ref().filter(|u| !u.is_master()) else {
        return Ok(());
    };
    let policy = ctx.rbac.policy();
    let namespace = meta::get(object, "namespace");
    let name = meta::get(object, "name");
    let (verb, granted, of) = if kind.kind.ends_with("Binding") {
        let reference = &object["roleRef"];
        let place = if reference["kind"] == "Role" {
            namespace
        } else {
            ""
        };
        let role = reference["name"].as_str().unwrap_or_default();
        let rules = policy
            .role(place, role)
            .map(<[Rule]>::to_vec)
            .unwrap_or_default();
        let plural = if reference["kind"] == "Role" {
            "roles"
        } else {
            "clusterroles"
        };
        ("bind", rules, (plural, role))
    } else {
        (
            "escalate",
            rbac::rules(object),
            (kind.plural.as_str(), name),
        )
    };
    let allowed = Attributes {
        verb: verb.into(),
        group: kind.group.clone(),
        resource: of.0.into(),
        namespace: namespace.into(),
        name: of.1.into(),
        ..Attributes::default()
    };
    if policy.allows(user, &allowed) || granted.iter().all(|r| covered(&policy, user, namespace, r))
    {
        return Ok(());
    }
    let cause = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held",
        user.name, user.groups
    );
    Err(Status::forbidden(&kind.group, &kind.plural, name, &cause))
}

/// True where the user's own rules allow everything `rule` does.
fn covered(policy: &Policy, user: &User, namespace: &str, rule: &Rule) -> bool {
    let mine: Vec<&Rule> = policy.rules(user, namespace).collect();
    let within = |mine: &[String], wanted: &str| mine.iter().any(|m| m == "*" || m == wanted);
    let paths = rule.paths.iter().all(|path| {
        rule.verbs.iter().all(|verb| {
            mine.iter().any(|m| {
                within(&m.verbs, verb)
                    && m.paths.iter().any(|p| {
                        p == "*"
                            || p == path
                            || p.strip_suffix('*').is_some_and(|s| path.starts_with(s))
                    })
            })
        })
    });
    let names: Vec<Option<&String>> = if rule.names.is_empty() {
        vec![None]
    } else {
        rule.names.iter().map(Some).collect()
    };
    let each = |verb: &String, group: &String, resource: &String, name: Option<&String>| {
        mine.iter().any(|m| {
            within(&m.verbs, verb)
                && within(&m.groups, group)
                && within(&m.resources, resource)
                && (m.names.is_empty() || name.is_some_and(|n| m.names.contains(n)))
        })
    };
    paths
        && rule.verbs.iter().all(|v| {
            rule.groups.iter().all(|g| {
                rule.resources
                    .iter()
                    .all(|r| names.iter().all(|n| each(v, g, r, *n)))
            })
        })
}
