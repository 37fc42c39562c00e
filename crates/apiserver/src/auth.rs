//! Who asks: client certificates and bearer tokens.

use http::{HeaderMap, header};
use objects::Status;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::context::Ctx;
use crate::rbac::{self, Attributes};
use crate::token::ISSUER;

/// Somebody who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// uid, for service accounts.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else is known, for example the pod of a token.
    pub extra: Vec<(String, String)>,
}

impl User {
    /// True for cluster administrators by group.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == "system:masters")
    }
}

/// Who sends a request: by certificate, else by bearer token. Anybody else is refused.
pub fn user(ctx: &Ctx, certified: Option<User>, headers: &HeaderMap) -> Result<User, Status> {
    if let Some(user) = certified {
        return Ok(user);
    }
    headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| {
            v.strip_prefix("Bearer ")
                .or_else(|| v.strip_prefix("bearer "))
        })
        .and_then(|token| ctx.tokens.user(&ctx.store, token.trim(), &[ISSUER]))
        .map(|(user, _)| user)
        .ok_or_else(|| Status::unauthorized(""))
}

/// The user that an allowed `Impersonate-User` names, else the same.
pub fn impersonated(ctx: &Ctx, user: User, headers: &HeaderMap) -> Result<User, Status> {
    let values = |name: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let Some(name) = values("impersonate-user").into_iter().next() else {
        return match values("impersonate-group").as_slice() {
            [] => Ok(user),
            _ => Err(Status::bad_request(
                "requested groups without impersonating a user",
            )),
        };
    };
    let policy = ctx.rbac.policy();
    let may = |resource: &str, namespace: &str, name: &str| {
        let wanted = Attributes {
            verb: "impersonate".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        };
        if policy.allows(&user, &wanted) {
            Ok(())
        } else {
            Err(rbac::refused(&user, &wanted))
        }
    };
    let mut groups = values("impersonate-group");
    for group in &groups {
        may("groups", "", group)?;
    }
    match name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
    {
        Some((namespace, account)) => {
            may("serviceaccounts", namespace, account)?;
            if groups.is_empty() {
                groups = vec![
                    "system:serviceaccounts".into(),
                    format!("system:serviceaccounts:{namespace}"),
                ];
            }
        }
        None => may("users", "", &name)?,
    }
    groups.push("system:authenticated".into());
    Ok(User {
        name,
        groups,
        ..User::default()
    })
}

/// The user of a client certificate that TLS has verified.
pub fn of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
        .map(str::to_owned)
        .collect();
    groups.push("system:authenticated".into());
    Some(User {
        name,
        groups,
        ..User::default()
    })
}
