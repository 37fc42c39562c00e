//! Secrets of type `kubernetes.io/service-account-token`. The API server, which alone can
//! sign tokens, fills them in as they are written; here one that came before its account
//! is written once more when the account is there, and one whose account went is removed.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;

use super::action::{Action, Plan};
use super::driver::Controller;
use super::store::Key;
use super::world::{Changed, Kind, World};

const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

/// The token controller.
pub struct Tokens;

impl Controller for Tokens {
    fn name(&self) -> &'static str {
        "tokens-controller"
    }

    fn affected(&mut self, world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        match changed {
            Changed::Secret(change) => {
                if let Some(secret) = &change.new {
                    mark(Key::of(secret.as_ref()));
                }
            }
            Changed::ServiceAccount(change) => {
                let Some(account) = change.any() else { return };
                let namespace = account.namespace().unwrap_or_default();
                for secret in world.secrets.within(&namespace) {
                    if secret.annotations().get(NAME) == account.metadata.name.as_ref() {
                        mark(Key::of(secret.as_ref()));
                    }
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(secret) = world.secrets.at(key) else {
            return plan;
        };
        let Some(name) = secret.annotations().get(NAME) else {
            return plan;
        };
        let account = world.service_accounts.get(&key.namespace, name);
        let account = account.and_then(|account| account.metadata.uid.as_ref());
        let own = secret.uid().unwrap_or_default();
        match (secret.annotations().get(UID), account) {
            // Never filled, as its account was still on its way.
            (None, Some(uid)) => plan.push(Action::patch(
                Kind::Secret,
                key,
                json!({"metadata": {"uid": own, "annotations": {UID: uid}}}),
            )),
            (Some(uid), account) if account != Some(uid) => {
                plan.push(Action::delete(Kind::Secret, key, &own));
            }
            _ => {}
        }
        plan
    }
}
