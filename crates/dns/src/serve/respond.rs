//! What a server answers to bytes, without sockets.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;

use super::desk::{Desk, Line, Shared, Step};
use super::site::Answers;
use crate::metrics::Metrics;
use crate::query::Transport;

/// Answers messages one by one, with all that a listener does to them.
pub struct Respond<A> {
    desk: Rc<Desk<A>>,
}

impl<A> std::fmt::Debug for Respond<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Respond").finish_non_exhaustive()
    }
}

impl<A: Answers> Respond<A> {
    /// With these server blocks.
    pub fn new(answers: Arc<A>) -> Self {
        let shared = Shared {
            server: "dns://:53".to_owned(),
            answers: ArcSwap::new(answers),
            metrics: Arc::new(Metrics::default()),
            cookies: Arc::default(),
            how: ArcSwap::default(),
        };
        Self {
            desk: Rc::new(Desk::new(Arc::new(shared), 0)),
        }
    }

    /// Appends the response to a message, with its length before it if it goes over a
    /// connection; nothing where there is none.
    pub async fn respond(
        &self,
        message: &[u8],
        client: SocketAddr,
        server: SocketAddr,
        transport: Transport,
        out: &mut Vec<u8>,
    ) {
        let line = Line {
            client,
            server,
            transport,
        };
        let bytes = match self.desk.read(message, line, Instant::now()) {
            Step::Nothing => return,
            Step::Reply(bytes) => bytes,
            Step::Ask(ask) => Rc::clone(&self.desk).answer(ask).await.bytes,
        };
        self.desk.take(bytes, |bytes| out.extend_from_slice(bytes));
    }
}
