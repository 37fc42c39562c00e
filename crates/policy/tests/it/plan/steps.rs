//! From one state to the next, through a kernel in memory.

use model::Changed;
use policy::plan::Plan;
use proptest::prelude::*;

use super::worlds::{Step, World, step};
use super::{HERE, Station, there, wanted};

/// Everything that a plan says.
fn content(plan: &Plan) -> impl PartialEq + std::fmt::Debug + use<> {
    let lists = plan.lists().map(|list| (list.id(), (**list).clone()));
    let sets = plan.sets().values();
    let sets = sets.map(|live| (live.set.id(), live.elements.clone()));
    (
        plan.subjects().clone(),
        lists
            .map(|(id, list)| (id, list.rules, list.end))
            .collect::<Vec<_>>(),
        sets.collect::<Vec<_>>(),
        plan.elements(),
    )
}

fn take(world: &mut World, steps: &[Step]) -> Changed {
    let mut changed = Changed::default();
    for step in steps {
        world.take(step, &mut changed);
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Following changes, however they are cut into pieces, ends where one whole look does, and
    /// the kernel has it at each step.
    #[test]
    fn changes_end_where_a_whole_look_does(
        steps in prop::collection::vec(step(), 4..40),
        at_once in 1_usize..6,
    ) {
        let mut world = World::default();
        let mut station = Station::new();
        for some in steps.chunks(at_once) {
            let changed = take(&mut world, some);
            station.follow(&world.cluster, &changed, &world.locals);
            let whole = Plan::of(HERE, &world.cluster, &world.locals);
            prop_assert_eq!(content(station.policies.plan()), content(&whole));
        }
        // The same again is no change.
        let changed = take(&mut world, &steps[steps.len() - 1..]);
        let report = station.follow(&world.cluster, &changed, &world.locals);
        prop_assert_eq!(report.changes, 0);
        // Nor is a new start.
        let mut other = Station::new();
        other.fake.nft = station.fake.nft.clone();
        let report = other.follow(&world.cluster, &Changed::default(), &world.locals);
        prop_assert_eq!(report.changes, 0);
        let have = there(&mut other.fake);
        prop_assert_eq!(have.clone(), wanted(&station.policies, have.as_ref()));
    }

    /// Whatever the order in which the node heard of the same objects.
    #[test]
    fn the_order_does_not_matter(
        (steps, shuffled) in prop::collection::vec(step(), 4..30)
            .prop_flat_map(|steps| (Just(steps.clone()), Just(steps).prop_shuffle())),
    ) {
        let mut world = World::default();
        take(&mut world, &steps);
        let whole = Plan::of(HERE, &world.cluster, &world.locals);
        // Others first, then these: each object is at last as in `world`.
        let mut other = World::default();
        let mut plan = Plan::new(HERE);
        for some in shuffled.chunks(3).chain(steps.chunks(2)) {
            let changed = take(&mut other, some);
            plan.update(&other.cluster, &changed, &other.locals);
        }
        if other.cluster == world.cluster && other.locals == world.locals {
            prop_assert_eq!(content(&plan), content(&whole));
        }
    }
}
