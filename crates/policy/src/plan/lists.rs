//! The lists that pods use.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::attached::World;
use super::list::{List, ListId, Target};
use super::sets::Sets;
use super::update::Delta;

/// All that are used, and by how many: addresses, and other lists.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists(BTreeMap<ListId, (Arc<List>, usize)>);

impl Lists {
    /// All of them.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &Arc<List>> {
        self.0.values().map(|(list, _)| list)
    }

    /// A target more is used.
    pub fn acquire(
        &mut self,
        target: &Target,
        sets: &mut Sets,
        world: &World<'_>,
        delta: &mut Delta,
    ) {
        let Some(list) = target.list() else {
            return;
        };
        if let Some((_, uses)) = self.0.get_mut(&list.id()) {
            *uses += 1;
            return;
        }
        self.0.insert(list.id(), (Arc::clone(list), 1));
        delta.new_lists.insert(list.id(), Arc::clone(list));
        for set in list.sets() {
            if sets.acquire(&set, world) {
                delta.new_sets.insert(set.id(), set);
            }
        }
        for other in list.lists() {
            self.acquire(&Target::List(Arc::clone(other)), sets, world, delta);
        }
    }

    /// A target less is used.
    pub fn release(&mut self, target: &Target, sets: &mut Sets, delta: &mut Delta) {
        let Some(list) = target.list() else {
            return;
        };
        match self.0.get_mut(&list.id()) {
            Some((_, uses)) if *uses > 1 => {
                *uses -= 1;
                return;
            }
            _ => self.0.remove(&list.id()),
        };
        delta.gone_lists.insert(list.id(), Arc::clone(list));
        for set in list.sets() {
            if sets.release(&set) {
                delta.moved.remove(&set.id());
                delta.gone_sets.insert(set.id(), set);
            }
        }
        for other in list.lists() {
            self.release(&Target::List(Arc::clone(other)), sets, delta);
        }
    }
}
