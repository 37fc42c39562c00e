//! Services as kube-proxy's iptables chains.

mod eval;
mod kernel;
mod oracle;
mod steps;
mod text;

use std::collections::BTreeSet;

use linux::Kernel;
use linux::fake::Fake;
use nft::IpFamily;
use services::plan::{Delta, Plan};
use services::render::iptables::{self, Context, Present};

/// The context of one family, with nothing special.
pub fn context<'a>(
    plan: &'a Plan,
    v6: bool,
    without: &'a BTreeSet<services::plan::PortId>,
) -> Context<'a> {
    Context {
        settings: plan.settings(),
        v6,
        liberal: false,
        large: false,
        legacy: false,
        without,
    }
}

fn family(v6: bool) -> IpFamily {
    if v6 { IpFamily::V6 } else { IpFamily::V4 }
}

/// The text that makes the kernel's tables of one family what the plan wants.
pub fn whole(fake: &mut Fake, plan: &Plan, v6: bool) -> String {
    let saved = fake.iptables_save(family(v6)).unwrap();
    let without = BTreeSet::new();
    iptables::whole(&context(plan, v6, &without), plan, &Present::parse(&saved))
}

/// Makes both families' tables what the plan wants.
pub fn write(fake: &mut Fake, plan: &Plan) {
    for v6 in [false, true] {
        let text = whole(fake, plan, v6);
        fake.iptables_restore(family(v6), &text).unwrap();
    }
}

/// Makes both families' tables follow a change.
pub fn follow(fake: &mut Fake, plan: &Plan, delta: &Delta) {
    let without = BTreeSet::new();
    for v6 in [false, true] {
        let text = iptables::change(&context(plan, v6, &without), plan, delta);
        fake.iptables_restore(family(v6), &text).unwrap();
    }
}
