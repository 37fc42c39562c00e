//! Building the shared tree of the built-in kinds from k8s-openapi's JSON schemas.

use std::collections::HashMap;

use k8s_openapi::api::{
    apps, authentication, authorization, autoscaling, coordination, core, discovery, events,
    networking, node, policy, rbac, scheduling,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::facts::{field_fact, is_atomic_map, is_atomic_type, key_default};
use super::{Builder, Field, ListType, Node, Scalar, Shape, Strategy, Tree};

/// One type that has a schema of its own: a served kind, or what a subresource takes.
pub(crate) struct Definition {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// The name OpenAPI gives the type.
    pub name: &'static str,
    generate: fn(&mut SchemaGenerator),
}

macro_rules! definitions {
    ($($group:literal $version:literal { $($name:literal $type:path),* $(,)? })*) => {
        &[$($(Definition {
            group: $group,
            version: $version,
            kind: kind_of($name),
            name: $name,
            generate: |g| { g.subschema_for::<$type>(); },
        }),*),*]
    };
}

/// `Pod` of `io.k8s.api.core.v1.Pod`.
const fn kind_of(name: &'static str) -> &'static str {
    let bytes = name.as_bytes();
    let mut i = bytes.len();
    while i > 0 && bytes[i - 1] != b'.' {
        i -= 1;
    }
    let (_, kind) = name.split_at(i);
    kind
}

#[rustfmt::skip]
pub(crate) const DEFINITIONS: &[Definition] = definitions! {
    "" "v1" {
        "io.k8s.api.core.v1.Binding" core::v1::Binding,
        "io.k8s.api.core.v1.ConfigMap" core::v1::ConfigMap,
        "io.k8s.api.core.v1.Endpoints" core::v1::Endpoints,
        "io.k8s.api.core.v1.Event" core::v1::Event,
        "io.k8s.api.core.v1.LimitRange" core::v1::LimitRange,
        "io.k8s.api.core.v1.Namespace" core::v1::Namespace,
        "io.k8s.api.core.v1.Node" core::v1::Node,
        "io.k8s.api.core.v1.Pod" core::v1::Pod,
        "io.k8s.api.core.v1.ResourceQuota" core::v1::ResourceQuota,
        "io.k8s.api.core.v1.Secret" core::v1::Secret,
        "io.k8s.api.core.v1.Service" core::v1::Service,
        "io.k8s.api.core.v1.ServiceAccount" core::v1::ServiceAccount,
        "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions" meta::v1::DeleteOptions,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Status" meta::v1::Status,
    }
    "apiextensions.k8s.io" "v1" {
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition" apiextensions::v1::CustomResourceDefinition,
    }
    "apps" "v1" {
        "io.k8s.api.apps.v1.ControllerRevision" apps::v1::ControllerRevision,
        "io.k8s.api.apps.v1.DaemonSet" apps::v1::DaemonSet,
        "io.k8s.api.apps.v1.Deployment" apps::v1::Deployment,
        "io.k8s.api.apps.v1.ReplicaSet" apps::v1::ReplicaSet,
        "io.k8s.api.apps.v1.StatefulSet" apps::v1::StatefulSet,
    }
    "authentication.k8s.io" "v1" {
        "io.k8s.api.authentication.v1.SelfSubjectReview" authentication::v1::SelfSubjectReview,
        "io.k8s.api.authentication.v1.TokenRequest" authentication::v1::TokenRequest,
        "io.k8s.api.authentication.v1.TokenReview" authentication::v1::TokenReview,
    }
    "authorization.k8s.io" "v1" {
        "io.k8s.api.authorization.v1.LocalSubjectAccessReview" authorization::v1::LocalSubjectAccessReview,
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview" authorization::v1::SelfSubjectAccessReview,
        "io.k8s.api.authorization.v1.SelfSubjectRulesReview" authorization::v1::SelfSubjectRulesReview,
        "io.k8s.api.authorization.v1.SubjectAccessReview" authorization::v1::SubjectAccessReview,
    }
    "autoscaling" "v1" {
        "io.k8s.api.autoscaling.v1.Scale" autoscaling::v1::Scale,
    }
    "coordination.k8s.io" "v1" {
        "io.k8s.api.coordination.v1.Lease" coordination::v1::Lease,
    }
    "discovery.k8s.io" "v1" {
        "io.k8s.api.discovery.v1.EndpointSlice" discovery::v1::EndpointSlice,
    }
    "events.k8s.io" "v1" {
        "io.k8s.api.events.v1.Event" events::v1::Event,
    }
    "networking.k8s.io" "v1" {
        "io.k8s.api.networking.v1.IPAddress" networking::v1::IPAddress,
        "io.k8s.api.networking.v1.Ingress" networking::v1::Ingress,
        "io.k8s.api.networking.v1.IngressClass" networking::v1::IngressClass,
        "io.k8s.api.networking.v1.NetworkPolicy" networking::v1::NetworkPolicy,
        "io.k8s.api.networking.v1.ServiceCIDR" networking::v1::ServiceCIDR,
    }
    "node.k8s.io" "v1" {
        "io.k8s.api.node.v1.RuntimeClass" node::v1::RuntimeClass,
    }
    "policy" "v1" {
        "io.k8s.api.policy.v1.Eviction" policy::v1::Eviction,
        "io.k8s.api.policy.v1.PodDisruptionBudget" policy::v1::PodDisruptionBudget,
    }
    "rbac.authorization.k8s.io" "v1" {
        "io.k8s.api.rbac.v1.ClusterRole" rbac::v1::ClusterRole,
        "io.k8s.api.rbac.v1.ClusterRoleBinding" rbac::v1::ClusterRoleBinding,
        "io.k8s.api.rbac.v1.Role" rbac::v1::Role,
        "io.k8s.api.rbac.v1.RoleBinding" rbac::v1::RoleBinding,
    }
    "scheduling.k8s.io" "v1" {
        "io.k8s.api.scheduling.v1.PriorityClass" scheduling::v1::PriorityClass,
    }
};

const REFERENCE: &str = "#/components/schemas/";
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Types that hold any JSON, whatever their schema says.
const ANY: &[&str] = &[
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
];

/// `core.v1.Pod` of `io.k8s.api.core.v1.Pod`: how the facts name types.
pub(crate) fn short_name(name: &str) -> &str {
    [
        "io.k8s.api.",
        "io.k8s.apimachinery.pkg.apis.",
        "io.k8s.apiextensions-apiserver.pkg.apis.",
    ]
    .iter()
    .find_map(|prefix| name.strip_prefix(prefix))
    .unwrap_or(name)
}

/// The JSON schemas of one definition and all it refers to, with descriptions. Large: not kept.
pub(crate) fn definitions(definition: &Definition) -> Map<String, Value> {
    let settings = SchemaSettings::default().with(|s| {
        s.definitions_path = "/components/schemas".into();
    });
    let mut generator = SchemaGenerator::new(settings);
    (definition.generate)(&mut generator);
    generator.take_definitions(false)
}

/// The tree of all built-in types and where each starts.
pub(crate) struct Builtin {
    pub tree: Tree,
    pub names: HashMap<Box<str>, u32>,
}

impl Builtin {
    pub fn build() -> Self {
        let mut builder = Builder::default();
        // Node 0 is what an unknown name resolves to.
        builder.push(Shape::Any { granular: false }.into());
        let mut types = Types {
            builder,
            names: HashMap::new(),
        };
        for definition in DEFINITIONS {
            let schemas = definitions(definition);
            types.reference(definition.name, &schemas);
        }
        types.names.shrink_to_fit();
        Self {
            tree: types.builder.finish(),
            names: types.names,
        }
    }
}

/// Adds ObjectMeta to a CRD's tree.
pub(super) fn object_meta(builder: &mut Builder) -> u32 {
    let config_map = DEFINITIONS.iter().find(|d| d.kind == "ConfigMap");
    let schemas = config_map.map(definitions).unwrap_or_default();
    let mut types = Types {
        builder: std::mem::take(builder),
        names: HashMap::new(),
    };
    let id = types.reference(OBJECT_META, &schemas);
    *builder = types.builder;
    id
}

struct Types {
    builder: Builder,
    names: HashMap<Box<str>, u32>,
}

impl Types {
    /// The node of a named type; made once, so types may refer to themselves.
    fn reference(&mut self, name: &str, schemas: &Map<String, Value>) -> u32 {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = self.builder.push(Shape::Any { granular: false }.into());
        self.names.insert(name.into(), id);
        if let Some(schema) = schemas.get(name)
            && !ANY.contains(&name)
        {
            let shape = match short_name(name) {
                "meta.v1.Time" => Shape::Scalar(Scalar::Time),
                "meta.v1.MicroTime" => Shape::Scalar(Scalar::MicroTime),
                "io.k8s.apimachinery.pkg.api.resource.Quantity" => Shape::Scalar(Scalar::Quantity),
                short => self.shape(short, schema, schemas),
            };
            self.builder.set(id, shape.into());
        }
        id
    }

    /// The node of a schema written in place.
    fn inline(&mut self, schema: &Value, schemas: &Map<String, Value>) -> u32 {
        if let Some(name) = schema["$ref"].as_str() {
            let name = name.strip_prefix(REFERENCE).unwrap_or(name);
            return self.reference(name, schemas);
        }
        let shape = self.shape("", schema, schemas);
        self.builder.push(shape.into())
    }

    fn shape(&mut self, owner: &str, schema: &Value, schemas: &Map<String, Value>) -> Shape {
        if schema["x-kubernetes-int-or-string"] == true {
            return Shape::Scalar(Scalar::IntOrString);
        }
        let format = schema["format"].as_str().unwrap_or_default();
        let scalar = match (schema["type"].as_str().unwrap_or_default(), format) {
            ("string", "byte") => Scalar::Bytes,
            ("string", _) => Scalar::String,
            ("integer", "int32") => Scalar::Int32,
            ("integer", _) => Scalar::Int64,
            ("number", _) => Scalar::Float,
            ("boolean", _) => Scalar::Bool,
            ("array", _) => {
                let items = self.inline(&schema["items"], schemas);
                let list = ListType::Atomic;
                return Shape::List { items, list };
            }
            _ => return self.object(owner, schema, schemas),
        };
        Shape::Scalar(scalar)
    }

    fn object(&mut self, owner: &str, schema: &Value, schemas: &Map<String, Value>) -> Shape {
        if let Some(properties) = schema["properties"].as_object() {
            let fields = properties.iter();
            let mut fields: Vec<Field> = fields
                .map(|(name, property)| self.field(owner, name, property, schemas))
                .collect();
            fields.sort_by(|a, b| a.name.cmp(&b.name));
            return Shape::Object {
                name: owner.rsplit('.').next().unwrap_or_default().into(),
                fields: fields.into(),
                atomic: is_atomic_type(owner),
                open: false,
            };
        }
        if schema["additionalProperties"].is_object() {
            let values = self.inline(&schema["additionalProperties"], schemas);
            let atomic = false;
            return Shape::Map { values, atomic };
        }
        if schema["type"] == "object" && !owner.is_empty() {
            // A struct without fields, as NodeConfigStatus could be; nothing is known in it.
            return Shape::Object {
                name: owner.rsplit('.').next().unwrap_or_default().into(),
                fields: Box::default(),
                atomic: false,
                open: false,
            };
        }
        Shape::Any { granular: false }
    }

    fn field(
        &mut self,
        owner: &str,
        name: &str,
        schema: &Value,
        all: &Map<String, Value>,
    ) -> Field {
        let node = self.inline(schema, all);
        let fact = field_fact(owner, name);
        let place = self.builder.tree.nodes.get_mut(node as usize);
        // Lists and maps are made for this field alone, so it may mark them.
        match (place, &fact) {
            (
                Some(Node {
                    shape: Shape::List { list, .. },
                    ..
                }),
                Some(fact),
            ) => {
                if let Some(kind) = &fact.list {
                    *list = kind.clone();
                }
            }
            (
                Some(Node {
                    shape: Shape::Map { atomic, .. },
                    ..
                }),
                _,
            ) => *atomic = is_atomic_map(owner, name),
            (
                Some(
                    node @ Node {
                        shape: Shape::Scalar(_),
                        ..
                    },
                ),
                _,
            ) => {
                if let Some(default) = key_default(owner, name) {
                    node.default = Some(default.into());
                }
            }
            _ => {}
        }
        Field {
            name: name.into(),
            node,
            strategy: fact.as_ref().map_or(Strategy::default(), |f| f.strategy),
            merge_key: fact.and_then(|f| f.merge_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    #[test]
    fn every_kind_has_a_schema() {
        for kind in crate::kind::builtin() {
            let root = kind.schema.root();
            assert!(root.field("metadata").is_some(), "{}", kind.kind);
        }
    }

    #[test]
    fn facts_name_real_fields() {
        let pod = Schema::builtin("", "v1", "Pod");
        let spec = pod.root().child("spec").unwrap();
        let containers = spec.child("containers").unwrap();
        let Shape::List { list, .. } = containers.shape() else {
            panic!()
        };
        assert_eq!(*list, ListType::Map(vec!["name".into()]));
        let ports = containers.items().unwrap().child("ports").unwrap();
        let protocol = ports.items().unwrap().child("protocol").unwrap();
        assert_eq!(protocol.node().default, Some("TCP".into()));
        let deployment = Schema::builtin("apps", "v1", "Deployment");
        let spec = deployment.root().child("spec").unwrap();
        assert!(spec.field("strategy").unwrap().strategy.retain_keys);
        let Shape::Object { atomic, .. } = spec.child("selector").unwrap().shape() else {
            panic!()
        };
        assert!(atomic);
    }

    #[test]
    fn the_tree_is_small() {
        let built = Builtin::build();
        assert!(built.tree.nodes.len() < 4000, "{}", built.tree.nodes.len());
    }
}
