//! Services as maps of nftables.

mod kernel;
mod oracle;
mod steps;
mod text;

use linux::Kernel;
use model::{Change, Changed, Cluster, Config};
use nft::Compiled;
use services::render::nftables::table;
use services::{Report, Services};

use crate::worlds::World;

/// Brings Services to the kernel.
pub fn reconcile(
    services: &mut Services,
    kernel: &mut dyn Kernel,
    cluster: &Cluster,
    changed: &Changed,
    config: &Config,
) -> Report {
    services.reconcile(kernel, cluster, changed, config)
}

/// Takes changes in and brings them to the kernel.
pub fn follow(
    services: &mut Services,
    kernel: &mut dyn Kernel,
    world: &mut World,
    changes: &[Change],
) -> Report {
    let mut changed = Changed::default();
    for change in changes {
        world.cluster.note(change.clone(), &mut changed);
    }
    reconcile(services, kernel, &world.cluster, &changed, &world.config)
}

/// What the kernel shall have.
pub fn wanted(services: &Services) -> Compiled {
    table(services.plan().unwrap()).compile()
}
