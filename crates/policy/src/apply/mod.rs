//! What the plan asks for, to the kernel: the only I/O of policies.

mod inspect;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use linux::{Error, Event, Kernel};
use model::{Changed, Cluster};
use nft::{Family, Op};
use serde::Serialize;

pub use self::inspect::inspect;
use crate::plan::{Delta, Locals, NodeDns, Plan};
use crate::render::nftables::{Change, Generation, TABLE};

/// What came of one [`Policies::reconcile`]. Without errors the kernel judges every local pod as
/// the cluster's policies say.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the kernel refused; tried again by the next call.
    pub errors: Vec<Error>,
    /// How many changes the kernel made.
    pub changes: usize,
    /// How much there is.
    pub counts: Counts,
}

/// How much the policies of a node come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Addresses of pods here that some policy is about.
    pub subjects: usize,
    /// Lists of rules that they use.
    pub lists: usize,
    /// Sets that the rules look things up in.
    pub sets: usize,
    /// Elements of these sets.
    pub elements: usize,
}

/// The policies of one node: what they should be, and what is known to be in the kernel.
#[derive(Debug)]
pub struct Policies {
    plan: Plan,
    /// The kernel has what the plan says, as far as is known.
    current: bool,
    /// The last generation that was in force; none where no table was ever seen.
    generation: Option<Generation>,
}

impl Policies {
    /// The policies of the node called `node`; adopts what it finds at the first reconcile.
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            plan: Plan::new(node),
            current: false,
            generation: None,
        }
    }

    /// The last plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where this node answers questions for names itself; true where that is news, and a
    /// reconcile is due.
    pub fn set_resolver(&mut self, addresses: NodeDns) -> bool {
        let news = self.plan.set_resolver(addresses);
        if news {
            self.resync();
        }
        news
    }

    /// Takes note of a change in the kernel; true where [`Policies::reconcile`] is due because
    /// somebody else changed what belongs to policies.
    pub fn notice(&mut self, event: &Event) -> bool {
        let concerned = match event {
            Event::Lost => true,
            Event::Nftables { table, .. } => table == TABLE,
            _ => false,
        };
        let due = concerned && self.current;
        if due {
            self.resync();
        }
        due
    }

    /// Forgets what is known to be there: the next reconcile reads the kernel.
    pub fn resync(&mut self) {
        self.current = false;
    }

    /// Makes the kernel hold what the policies say about the pods that are here. `changed` names
    /// what differs from the last call; the first call takes the whole cluster. Local pods are
    /// compared with those of the last call.
    pub fn reconcile(
        &mut self,
        kernel: &mut dyn Kernel,
        cluster: &Cluster,
        changed: &Changed,
        locals: &Locals,
    ) -> Report {
        let before = !self.plan.subjects().is_empty();
        let delta = self.plan.update(cluster, changed, locals);
        let made = match (self.current, self.generation) {
            (true, Some(generation)) if before => self.step(kernel, &delta, generation),
            (true, _) if delta.is_empty() => Ok(0),
            _ => self.whole(kernel),
        };
        // Somebody else may have changed what was thought to be there, or was just read.
        let made = made.or_else(|_| self.whole(kernel));
        self.current = made.is_ok();
        let (changes, errors) = match made {
            Ok(changes) => (changes, Vec::new()),
            Err(error) => (0, vec![error]),
        };
        Report {
            errors,
            changes,
            counts: self.counts(),
        }
    }

    /// Removes everything: for `flatnet agent --cleanup`.
    pub fn remove_all(kernel: &mut dyn Kernel) -> Vec<Error> {
        let removed = match kernel.nft_owned(Family::Inet, TABLE, &|_| false) {
            Ok(Some(_)) => make(kernel, Change::removal()),
            Ok(None) => Ok(0),
            Err(error) => Err(error),
        };
        removed.err().into_iter().collect()
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            subjects: self.plan.subjects().len(),
            lists: self.plan.lists().len(),
            sets: self.plan.sets().len(),
            elements: self.plan.elements(),
        }
    }

    /// The kernel has the plan as it was.
    fn step(
        &mut self,
        kernel: &mut dyn Kernel,
        delta: &Delta,
        generation: Generation,
    ) -> Result<usize, Error> {
        if delta.is_empty() {
            return Ok(0);
        }
        if self.plan.subjects().is_empty() {
            return make(kernel, Change::removal());
        }
        let next = generation.next();
        self.generation = Some(next);
        make(kernel, Change::of(&self.plan, delta, generation, next))
    }

    /// Reads what is there, and changes what differs.
    fn whole(&mut self, kernel: &mut dyn Kernel) -> Result<usize, Error> {
        let have = kernel.nft_table(Family::Inet, TABLE)?;
        let last = self.generation.or(have.as_ref().and_then(Generation::read));
        let last = last.unwrap_or_else(|| Generation::of(random()));
        let (generation, change) = Change::whole(&self.plan, have.as_ref(), last);
        self.generation = generation.or(Some(last));
        make(kernel, change)
    }
}

/// A number nobody knows: connections that bear the mark of a table that is long gone must not be
/// taken for judged.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Makes a change; how many changes the kernel made.
fn make(kernel: &mut dyn Kernel, change: Change) -> Result<usize, Error> {
    let mut changes = 0;
    for transaction in change.transactions() {
        kernel.nft_apply(&transaction)?;
        let made = transaction.ops.iter().map(|op| match op {
            Op::AddElements(_, elements) => elements.len(),
            Op::DeleteElements(_, keys) | Op::DestroyElements(_, keys) => keys.len(),
            _ => 1,
        });
        changes += made.sum::<usize>();
    }
    Ok(changes)
}
