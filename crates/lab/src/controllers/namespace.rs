//! Every namespace has its default ServiceAccount and the cluster's certificate authority.

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::action::{Action, Plan};
use super::driver::Controller;
use super::store::Key;
use super::world::{Changed, Kind, World};

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const ROOT_CA_KEY: &str = "ca.crt";

/// The namespace controller.
pub struct Namespaces {
    /// The authority's certificate, PEM; None where the kubeconfig names none.
    pub root_ca: Option<String>,
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn affected(&mut self, _world: &World, changed: &Changed, mark: &mut dyn FnMut(Key)) {
        let namespace = match changed {
            Changed::Namespace(change) => change.any().and_then(|o| o.metadata.name.clone()),
            Changed::ServiceAccount(change) => {
                gone(change.new.is_none(), change.any().map(|o| &o.metadata))
            }
            Changed::ConfigMap(change) => change.any().and_then(|o| o.metadata.namespace.clone()),
            _ => None,
        };
        if let Some(name) = namespace {
            mark(Key::new("", &name));
        }
    }

    fn plan(&mut self, world: &World, key: &Key, _now: Timestamp) -> Plan {
        plan(world, &key.name, self.root_ca.as_deref())
    }
}

fn gone(is_gone: bool, meta: Option<&ObjectMeta>) -> Option<String> {
    meta.filter(|_| is_gone)
        .and_then(|meta| meta.namespace.clone())
}

/// What the namespace lacks.
pub fn plan(world: &World, namespace: &str, root_ca: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    let live = world.namespaces.get("", namespace);
    if live.is_none_or(|live| live.metadata.deletion_timestamp.is_some()) {
        return plan;
    }
    let meta = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    };
    if world.service_accounts.get(namespace, ACCOUNT).is_none() {
        let account = ServiceAccount {
            metadata: meta(ACCOUNT),
            ..ServiceAccount::default()
        };
        plan.push(Action::create(Kind::ServiceAccount, namespace, &account));
    }
    let Some(ca) = root_ca else { return plan };
    match world.config_maps.get(namespace, ROOT_CA) {
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    annotations: Some(
                        [(
                            "kubernetes.io/description".to_owned(),
                            "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.".to_owned(),
                        )]
                        .into(),
                    ),
                    ..meta(ROOT_CA)
                },
                data: Some([(ROOT_CA_KEY.to_owned(), ca.to_owned())].into()),
                ..ConfigMap::default()
            };
            plan.push(Action::create(Kind::ConfigMap, namespace, &map));
        }
        Some(map) => {
            let have = map.data.as_ref().and_then(|data| data.get(ROOT_CA_KEY));
            if have.map(String::as_str) != Some(ca) {
                let patch = json!({"data": {ROOT_CA_KEY: ca}});
                let key = Key::new(namespace, ROOT_CA);
                plan.push(Action::patch(Kind::ConfigMap, &key, patch));
            }
        }
    }
    plan
}
