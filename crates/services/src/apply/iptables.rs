//! The plan to the kernel as kube-proxy's iptables chains.

use linux::{Event, Kernel};

use super::backend::{Backend, Done};
use crate::plan::{Delta, Plan};

/// What is known to be in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Iptables {}

impl Backend for Iptables {
    fn sync(&mut self, _kernel: &mut dyn Kernel, _plan: &Plan) -> Done {
        Done::default()
    }

    fn update(&mut self, _kernel: &mut dyn Kernel, _plan: &Plan, _delta: &Delta) -> Done {
        Done::default()
    }

    fn remove(&mut self, _kernel: &mut dyn Kernel) -> Done {
        Done::default()
    }

    fn concerns(&self, _event: &Event) -> bool {
        false
    }
}
