//! The plan, what it renders to, and how a kernel follows it.

mod costs;
mod faults;
mod kernel;
mod names;
mod oracle;
mod small;
mod steps;
mod text;
mod worlds;

use linux::Kernel;
use linux::fake::Fake;
use model::{Changed, Cluster};
use nft::{Compiled, Family};
use policy::render::nftables::{TABLE, compiled, generation};
use policy::{Locals, Policies, Report};

/// The node that is looked at.
pub const HERE: &str = "node1";

/// The table that is there.
pub fn there(kernel: &mut dyn Kernel) -> Option<Compiled> {
    kernel.nft_table(Family::Inet, TABLE).unwrap()
}

/// What the plan asks for, in the generation that is there.
pub fn wanted(policies: &Policies, have: Option<&Compiled>) -> Option<Compiled> {
    let generation = have.and_then(generation).unwrap_or(1);
    compiled(policies.plan(), generation)
}

/// A reconcile that must succeed.
pub fn reconcile(
    policies: &mut Policies,
    kernel: &mut dyn Kernel,
    cluster: &Cluster,
    changed: &Changed,
    locals: &Locals,
) -> Report {
    let report = policies.reconcile(kernel, cluster, changed, locals);
    assert_eq!(report.errors, vec![]);
    report
}

/// A kernel in memory and who drives it.
#[derive(Debug)]
pub struct Station {
    pub fake: Fake,
    pub policies: Policies,
}

impl Station {
    pub fn new() -> Self {
        Self {
            fake: Fake::default(),
            policies: Policies::new(HERE),
        }
    }

    /// Takes a change, and checks that the kernel has what the plan says.
    pub fn follow(&mut self, cluster: &Cluster, changed: &Changed, locals: &Locals) -> Report {
        let report = reconcile(&mut self.policies, &mut self.fake, cluster, changed, locals);
        let have = there(&mut self.fake);
        assert_eq!(have, wanted(&self.policies, have.as_ref()));
        report
    }
}
