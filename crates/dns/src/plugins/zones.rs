//! The zones that a plugin is for.

use crate::wire::Name;

/// Zones, in the order of the Corefile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones(Vec<Name>);

impl Zones {
    /// These.
    pub fn new(zones: &[Name]) -> Self {
        Self(zones.to_vec())
    }

    /// The longest one that has the name.
    pub fn matching(&self, name: &Name) -> Option<&Name> {
        let within = self.0.iter().filter(|zone| name.is_within(zone));
        within.max_by_key(|zone| zone.as_bytes().len())
    }

    /// Whether one of them has the name.
    pub fn contain(&self, name: &Name) -> bool {
        self.0.iter().any(|zone| name.is_within(zone))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }
}
