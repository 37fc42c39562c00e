//! What a backend does for [`super::Services`], whichever form its rules have.

use std::fmt::Debug;

use linux::{Error, Event, Kernel};

use crate::plan::{Delta, Plan, PortId};

/// What a backend did.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// How many changes the kernel made.
    pub changes: usize,
    /// What went wrong as a whole: what is in the kernel is not known, so the next call is a
    /// [`Backend::sync`].
    pub errors: Vec<Error>,
    /// Ports that the kernel refuses though all others work, and why. Kept by the backend and
    /// told by each call until the port changes or goes.
    pub refused: Vec<(PortId, Error)>,
}

impl From<Error> for Done {
    fn from(error: Error) -> Self {
        Self {
            errors: vec![error],
            ..Self::default()
        }
    }
}

/// One way to bring a plan into the kernel. At every moment of every call each packet has a way:
/// the new is there before the old is gone.
pub(crate) trait Backend: Debug {
    /// Makes the kernel as the plan wants it, whatever is there: reads, and changes only what
    /// differs. The first call after a start, after an error, when settings changed, when
    /// somebody else changed the rules.
    fn sync(&mut self, kernel: &mut dyn Kernel, plan: &Plan) -> Done;

    /// Makes the kernel follow a change of the plan without reading: there is what the calls
    /// before made. `plan` is the plan after the change.
    fn update(&mut self, kernel: &mut dyn Kernel, plan: &Plan, delta: &Delta) -> Done;

    /// Takes away everything that is this backend's, also what another process left there.
    fn remove(&mut self, kernel: &mut dyn Kernel) -> Done;

    /// Whether an event tells that somebody else changed what this backend made.
    fn concerns(&self, event: &Event) -> bool;
}
