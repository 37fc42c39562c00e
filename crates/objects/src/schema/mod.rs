//! Structural schemas: one small tree a kind, from k8s-openapi for the built-in
//! kinds and from the CRD for others.
//!
//! All built-in kinds share one arena, so a Pod's template is held once however
//! many kinds embed it. Descriptions are not kept: OpenAPI makes them when asked.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::Object;

mod builtin;
mod cel;
mod custom;
mod decode;
mod facts;
mod fill;
mod formats;
mod rules;

pub(crate) use builtin::{DEFINITIONS, definitions, short_name};
pub(crate) use cel::is_known;
pub use decode::Decoded;
pub(crate) use facts::{field_fact, is_always_there, is_atomic_map, is_atomic_type};
pub(crate) use fill::keys_of;

/// How a list merges (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Replaced whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Items found by these keys.
    Map(Vec<String>),
}

/// The JSON value a leaf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    String,
    Int32,
    Int64,
    Float,
    Bool,
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    Bytes,
}

/// How strategic merge treats a field (`x-kubernetes-patch-strategy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub name: Box<str>,
    pub node: u32,
    pub strategy: Strategy,
    pub merge_key: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) enum Shape {
    Object {
        /// Go's name of the struct, for decoding errors.
        name: Box<str>,
        /// Sorted by name.
        fields: Box<[Field]>,
        atomic: bool,
        /// Unknown fields are kept (`x-kubernetes-preserve-unknown-fields`).
        open: bool,
    },
    Map {
        values: u32,
        atomic: bool,
    },
    List {
        items: u32,
        list: ListType,
    },
    Scalar(Scalar),
    /// Any JSON: `granular` merges its objects field by field, otherwise it is one leaf.
    Any {
        granular: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Node {
    pub shape: Shape,
    /// null is a value (CRDs only).
    pub nullable: bool,
    pub default: Option<Value>,
}

impl From<Shape> for Node {
    fn from(shape: Shape) -> Self {
        Self {
            shape,
            nullable: false,
            default: None,
        }
    }
}

/// Nodes that refer to each other by index.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

static BUILTIN: LazyLock<builtin::Builtin> = LazyLock::new(builtin::Builtin::build);

/// The structural schema of one kind.
#[derive(Clone, Debug)]
pub struct Schema(Source);

#[derive(Clone, Debug)]
enum Source {
    Builtin(&'static str),
    Custom(Arc<custom::Custom>),
}

impl Schema {
    /// The schema of a built-in kind, by the name OpenAPI gives its type.
    pub(crate) fn builtin(group: &str, version: &str, kind: &str) -> Self {
        let found = DEFINITIONS
            .iter()
            .find(|d| d.group == group && d.version == version && d.kind == kind);
        Self(Source::Builtin(found.map_or("", |d| d.name)))
    }

    /// The schema of a CRD version, from its `openAPIV3Schema`.
    pub fn custom(schema: &Object, status_subresource: bool) -> Self {
        let custom = custom::Custom::compile(schema, status_subresource);
        Self(Source::Custom(Arc::new(custom)))
    }

    /// True where `status` is written through its subresource only.
    pub(crate) fn has_status_subresource(&self) -> bool {
        match &self.0 {
            Source::Builtin(_) => self.root().field("status").is_some(),
            Source::Custom(custom) => custom.status_subresource,
        }
    }

    /// True for the schema of a CRD.
    pub fn is_custom(&self) -> bool {
        matches!(self.0, Source::Custom(_))
    }

    /// The `openAPIV3Schema` of a CRD as it was written.
    pub(crate) fn openapi(&self) -> Option<Value> {
        match &self.0 {
            Source::Custom(custom) => Some(custom.openapi()),
            Source::Builtin(_) => None,
        }
    }

    pub(crate) fn root(&self) -> View<'_> {
        match &self.0 {
            Source::Builtin(name) => {
                let builtin = &*BUILTIN;
                View {
                    tree: &builtin.tree,
                    id: builtin.names.get(*name).copied().unwrap_or(0),
                }
            }
            Source::Custom(custom) => View {
                tree: &custom.tree,
                id: custom.root,
            },
        }
    }
}

/// One node seen in its tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    tree: &'a Tree,
    id: u32,
}

impl<'a> View<'a> {
    pub fn node(self) -> &'a Node {
        // Ids are made by the builder of the same tree; 0 is always there.
        &self.tree.nodes[self.id as usize]
    }

    pub fn shape(self) -> &'a Shape {
        &self.node().shape
    }

    pub fn at(self, id: u32) -> View<'a> {
        View {
            tree: self.tree,
            id,
        }
    }

    /// The field of a struct.
    pub fn field(self, name: &str) -> Option<&'a Field> {
        let Shape::Object { fields, .. } = self.shape() else {
            return None;
        };
        let index = fields.binary_search_by(|f| (*f.name).cmp(name)).ok()?;
        Some(&fields[index])
    }

    /// The node of a struct's field or a map's value.
    pub fn child(self, name: &str) -> Option<View<'a>> {
        match self.shape() {
            Shape::Object { .. } => self.field(name).map(|f| self.at(f.node)),
            Shape::Map { values, .. } => Some(self.at(*values)),
            Shape::Any { .. } => Some(self),
            _ => None,
        }
    }

    /// The node of a list's items.
    pub fn items(self) -> Option<View<'a>> {
        match self.shape() {
            Shape::List { items, .. } => Some(self.at(*items)),
            Shape::Any { .. } => Some(self),
            _ => None,
        }
    }
}

/// Grows a [`Tree`].
#[derive(Debug, Default)]
pub(crate) struct Builder {
    tree: Tree,
}

impl Builder {
    pub fn push(&mut self, node: Node) -> u32 {
        let id = u32::try_from(self.tree.nodes.len()).unwrap_or(u32::MAX);
        self.tree.nodes.push(node);
        id
    }

    pub fn set(&mut self, id: u32, node: Node) {
        if let Some(place) = self.tree.nodes.get_mut(id as usize) {
            *place = node;
        }
    }

    pub fn finish(mut self) -> Tree {
        self.tree.nodes.shrink_to_fit();
        self.tree
    }
}
