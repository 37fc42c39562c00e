//! Kinds that are questions, never stored: access reviews, token reviews and tokens.

use objects::validation::field::ErrorKind;
use objects::{Object, Status};
use serde_json::json;

use crate::auth::User;
use crate::failure;
use crate::output;
use crate::rbac::Attributes;
use crate::token::{Claims, ISSUER};
use crate::verbs::{Call, Reply, decode, meta};

/// Seconds of a token where none are asked for.
const HOUR: i64 = 3600;

fn text(value: &Object) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Object) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Object::as_str)
        .map(str::to_owned)
        .collect()
}

/// Answers a question posted to a kind that is not stored.
pub fn answer(call: &Call) -> Reply {
    let (mut review, _) = decode::body(call)?;
    crate::verbs::write::fit(call, &mut review)?;
    let policy = call.ctx.rbac.policy();
    let spec = review["spec"].clone();
    review["status"] = match call.kind.kind.as_str() {
        "SelfSubjectReview" => json!({"userInfo": info(&call.user)}),
        "TokenReview" => token(call, &spec),
        "SelfSubjectAccessReview" => access(policy.allows(&call.user, &attributes(&spec))),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let mut wanted = attributes(&spec);
            if call.kind.namespaced {
                wanted.namespace.clone_from(&call.info.namespace);
            }
            access(policy.allows(&subject(&spec), &wanted))
        }
        "SelfSubjectRulesReview" => {
            let namespace = text(&spec["namespace"]);
            let all = if call.user.is_master() {
                everything()
            } else {
                Vec::new()
            };
            let rules: Vec<Object> = policy
                .rules(&call.user, &namespace)
                .chain(&all)
                .map(crate::rbac::Rule::to_object)
                .collect();
            let (paths, resources): (Vec<_>, Vec<_>) = rules
                .into_iter()
                .partition(|r| r.get("nonResourceURLs").is_some());
            json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
        }
        _ => return Err(Status::method_not_on_path().into()),
    };
    meta::set(&mut review, "creationTimestamp", Object::Null);
    Ok(output::value(201, &review, call.pretty))
}

fn everything() -> Vec<crate::rbac::Rule> {
    let all = || vec!["*".to_owned()];
    vec![
        crate::rbac::Rule {
            verbs: all(),
            groups: all(),
            resources: all(),
            ..Default::default()
        },
        crate::rbac::Rule {
            verbs: all(),
            paths: all(),
            ..Default::default()
        },
    ]
}

fn info(user: &User) -> Object {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    for (name, value) in &user.extra {
        info["extra"][name] = json!([value]);
    }
    info
}

fn access(allowed: bool) -> Object {
    json!({"allowed": allowed})
}

fn attributes(spec: &Object) -> Attributes {
    let resource = &spec["resourceAttributes"];
    if resource.is_object() {
        return Attributes {
            verb: text(&resource["verb"]),
            group: text(&resource["group"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            namespace: text(&resource["namespace"]),
            name: text(&resource["name"]),
            path: String::new(),
        };
    }
    let other = &spec["nonResourceAttributes"];
    Attributes {
        verb: text(&other["verb"]),
        path: text(&other["path"]),
        ..Attributes::default()
    }
}

fn subject(spec: &Object) -> User {
    User {
        name: text(&spec["user"]),
        groups: strings(&spec["groups"]),
        ..User::default()
    }
}

fn token(call: &Call, spec: &Object) -> Object {
    let asked = strings(&spec["audiences"]);
    let audiences: Vec<&str> = if asked.is_empty() {
        vec![ISSUER]
    } else {
        asked.iter().map(String::as_str).collect()
    };
    let shown = spec["token"].as_str().unwrap_or_default();
    match call.ctx.tokens.user(&call.ctx.store, shown, &audiences) {
        Some((user, matched)) => {
            json!({"authenticated": true, "user": info(&user), "audiences": matched})
        }
        None => {
            json!({"user": {}, "error": "[invalid bearer token, service account token is not valid]"})
        }
    }
}

/// `serviceaccounts/NAME/token`.
pub fn request_token(call: &Call) -> Reply {
    let mut request = decode::any(call)?;
    let (store, info) = (&call.ctx.store, &call.info);
    let account = store
        .get(&format!(
            "/serviceaccounts/{}/{}",
            info.namespace, info.name
        ))
        .ok_or_else(|| call.not_found())?;
    let spec = request["spec"].clone();
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(HOUR);
    if seconds < 600 {
        let mut kind = (*call.kind).clone();
        kind.group = "authentication.k8s.io".into();
        kind.kind = "TokenRequest".into();
        return Err(failure::invalid(
            &kind,
            "",
            ErrorKind::Invalid,
            "spec.expirationSeconds",
            format!("Invalid value: {seconds}: may not specify a duration less than 10 minutes"),
        )
        .into());
    }
    let mut audiences = strings(&spec["audiences"]);
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let issued = jiff::Timestamp::now().as_second();
    let mut claims = Claims {
        namespace: info.namespace.clone(),
        account: info.name.clone(),
        uid: meta::get(account.slim(), "uid").to_owned(),
        audiences: audiences.clone(),
        issued,
        expires: issued + seconds,
        ..Claims::default()
    };
    bind(call, &spec["boundObjectRef"], &mut claims)?;
    let token = call.ctx.tokens.issue(&claims).map_err(Status::internal)?;
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["metadata"] = json!({"name": info.name, "namespace": info.namespace,
        "creationTimestamp": crate::context::text_of(issued)});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token,
        "expirationTimestamp": crate::context::text_of(claims.expires)});
    Ok(output::value(201, &request, call.pretty))
}

/// Binds the token to the pod or Secret named.
fn bind(call: &Call, reference: &Object, claims: &mut Claims) -> Result<(), Status> {
    if !reference.is_object() {
        return Ok(());
    }
    let name = text(&reference["name"]);
    let plural = match reference["kind"].as_str().unwrap_or_default() {
        "Pod" => "pods",
        "Secret" => "secrets",
        other => {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount \"{}\" to kind {other:?}: Pod and Secret are known",
                claims.account
            )));
        }
    };
    let entry = call
        .ctx
        .store
        .get(&format!("/{plural}/{}/{name}", claims.namespace))
        .ok_or_else(|| Status::not_found("", plural, &name))?;
    let object = entry.object();
    let uid = meta::get(&object, "uid").to_owned();
    let asked = text(&reference["uid"]);
    if !asked.is_empty() && asked != uid {
        return Err(Status::conflict(
            "",
            plural,
            &name,
            &format!(
                "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    if plural == "secrets" {
        claims.secret = Some((name, uid));
        return Ok(());
    }
    if object["spec"]["serviceAccountName"].as_str() != Some(&claims.account) {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            claims.account
        )));
    }
    let node = text(&object["spec"]["nodeName"]);
    if let Some(entry) = call.ctx.store.get(&format!("/nodes//{node}")) {
        claims.node = Some((node, meta::get(entry.slim(), "uid").to_owned()));
    }
    claims.pod = Some((name, uid));
    Ok(())
}
