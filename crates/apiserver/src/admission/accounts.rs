//! Secrets that hold a token of a service account for as long as both are there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use objects::{Object, Status};

use crate::context::Ctx;
use crate::token::{Claims, ISSUER};
use crate::verbs::meta;

const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// Seconds such a token is good for: as far ahead as a token may be asked for at all. It
/// ends earlier, with its account or its Secret.
const LIFETIME: i64 = 1 << 32;

/// Writes into a Secret of type `kubernetes.io/service-account-token` what is missing of
/// token, authority and namespace. One whose account is not there (yet), or is another one
/// than the Secret names, stays as it is.
pub fn fill(ctx: &Ctx, secret: &mut Object) -> Result<(), Status> {
    if secret["type"] != "kubernetes.io/service-account-token" {
        return Ok(());
    }
    let namespace = meta::get(secret, "namespace").to_owned();
    let account = secret["metadata"]["annotations"][NAME]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let key = format!("/serviceaccounts/{namespace}/{account}");
    let Some(entry) = ctx.store.get(&key) else {
        return Ok(());
    };
    let uid = meta::get(entry.slim(), "uid").to_owned();
    let named = secret["metadata"]["annotations"][UID].as_str();
    if meta::deleting(entry.slim()) || named.is_some_and(|named| named != uid) {
        return Ok(());
    }
    if secret["data"]["token"].is_null() {
        let issued = jiff::Timestamp::now().as_second();
        let bound = |field| meta::get(secret, field).to_owned();
        let claims = Claims {
            namespace: namespace.clone(),
            account,
            uid: uid.clone(),
            audiences: vec![ISSUER.to_owned()],
            secret: Some((bound("name"), bound("uid"))),
            issued,
            expires: issued + LIFETIME,
            ..Claims::default()
        };
        let token = ctx.tokens.issue(&claims).map_err(Status::internal)?;
        secret["data"]["token"] = STANDARD.encode(token).into();
    }
    for (field, text) in [("ca.crt", &ctx.settings.ca), ("namespace", &namespace)] {
        if secret["data"][field].is_null() {
            secret["data"][field] = STANDARD.encode(text).into();
        }
    }
    secret["metadata"]["annotations"][UID] = uid.into();
    Ok(())
}
