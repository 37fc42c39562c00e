//! What answers at a listener.

use std::sync::Arc;

use crate::query::{Outcome, Query};
use crate::wire::Name;

/// What answers questions: the server blocks of a listener.
pub trait Answers: Send + Sync + 'static {
    /// The zones that are served.
    fn sites(&self) -> Vec<Site>;

    /// Which of them a question is for.
    fn route(&self, query: &Query) -> Option<usize>;

    /// Answers a question that is for a site. The size of a client's buffer may be bounded on
    /// the way.
    fn answer(self: &Arc<Self>, site: usize, query: &mut Query) -> impl Future<Output = Outcome>;
}

/// A zone of a server block, for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The zone.
    pub zone: Name,
    /// The name of its view, if it is one.
    pub view: String,
    /// The plugins that are enabled; its questions are counted if `prometheus` is.
    pub plugins: Vec<&'static str>,
}
