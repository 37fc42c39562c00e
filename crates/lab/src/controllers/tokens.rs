//! Secrets of type `kubernetes.io/service-account-token` are removed with their account.
//! Their tokens are filled in by the API server, which alone can sign them.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

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
        // One without a UID was never filled: its account may still be on its way.
        let (Some(name), Some(uid)) = (
            secret.annotations().get(NAME),
            secret.annotations().get(UID),
        ) else {
            return plan;
        };
        let account = world.service_accounts.get(&key.namespace, name);
        if account.is_none_or(|account| account.metadata.uid.as_ref() != Some(uid)) {
            plan.push(Action::delete(
                Kind::Secret,
                key,
                &secret.uid().unwrap_or_default(),
            ));
        }
        plan
    }
}
