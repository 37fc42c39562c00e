//! The real kernel, in a network namespace.

use linux::{Host, NetNs, run_in};
use model::Changed;
use policy::Policies;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::worlds::{World, step};
use super::{HERE, reconcile, there, wanted};

/// Runs a test in a namespace of its own, as root.
fn in_namespace(test: &str, body: impl FnOnce(&mut Host) + Send) {
    if !testing::root(test) {
        return;
    }
    let netns = NetNs::anonymous().unwrap();
    run_in(&netns, || body(&mut Host::open().unwrap())).unwrap();
}

#[test]
fn the_kernel_has_what_was_rendered() {
    in_namespace("the_kernel_has_what_was_rendered", |host| {
        let mut runner = TestRunner::deterministic();
        let steps = proptest::collection::vec(step(), 400);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let mut world = World::default();
        let mut policies = Policies::new(HERE);
        for some in steps.chunks(5) {
            let mut changed = Changed::default();
            for step in some {
                world.take(step, &mut changed);
            }
            reconcile(&mut policies, host, &world.cluster, &changed, &world.locals);
            let have = there(host);
            assert_eq!(have, wanted(&policies, have.as_ref()));
        }
        let mut adopter = Policies::new(HERE);
        let nothing = Changed::default();
        let report = reconcile(&mut adopter, host, &world.cluster, &nothing, &world.locals);
        assert_eq!(report.changes, 0);
        assert_eq!(Policies::remove_all(host), vec![]);
        assert_eq!(there(host), None);
    });
}
