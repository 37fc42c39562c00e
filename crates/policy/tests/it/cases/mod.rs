//! Policies over every field and every combination that matters, in a world of three namespaces
//! with three pods each.

mod broken;
mod cluster;
mod parts;
mod rules;
mod whole;

use serde_json::Value as Json;

/// Some objects, and what they are about.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub objects: Vec<Json>,
    /// Whether an object is wrong, which must be told.
    pub broken: bool,
}

impl Case {
    fn new(name: impl Into<String>, objects: Vec<Json>) -> Self {
        Self {
            name: name.into(),
            objects,
            broken: false,
        }
    }
}

/// All, in groups that are tried apart.
pub fn groups() -> [(&'static str, Vec<Case>); 4] {
    let mut others = whole::cases();
    others.extend(broken::cases());
    [
        ("ingress", rules::cases("ingress")),
        ("egress", rules::cases("egress")),
        ("whole", others),
        ("cluster", cluster::cases()),
    ]
}
