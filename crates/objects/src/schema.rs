//! Structural schemas: one small tree a kind, from k8s-openapi for the built-in
//! kinds and from the CRD for others.

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

/// A node of a structural schema.
#[derive(Clone, Debug, Default)]
pub struct Schema {}
