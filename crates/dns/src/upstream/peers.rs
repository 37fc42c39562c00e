//! Other servers of the cluster, asked where the upstreams have no answer.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::server::{Common, Server};

/// Other servers of the cluster, as they are just now. Whoever knows them sets them; all of a
/// server's `forward`s may have the same.
#[derive(Debug, Default)]
pub struct Peers(ArcSwap<Vec<SocketAddr>>);

impl Peers {
    /// These, and no others.
    pub fn set(&self, mut addresses: Vec<SocketAddr>) {
        addresses.sort_unstable();
        addresses.dedup();
        if **self.0.load() != addresses {
            self.0.store(Arc::new(addresses));
        }
    }
}

/// The peers as one `forward` asks them: with sockets and health of their own.
#[derive(Debug)]
pub(super) struct Asked {
    peers: Arc<Peers>,
    common: Common,
    servers: ArcSwap<Vec<Arc<Server>>>,
}

impl Asked {
    pub(super) fn new(peers: Arc<Peers>, common: Common) -> Self {
        Self {
            peers,
            common,
            servers: ArcSwap::default(),
        }
    }

    /// Those to be asked for a question of this client. None where it is one of them: it may
    /// have asked because it was asked. Nor for what the server asks itself, to see where its
    /// upstreams lead.
    pub(super) fn for_client(&self, client: SocketAddr) -> Option<Arc<Vec<Arc<Server>>>> {
        let addresses = self.peers.0.load();
        let asks_itself = client.ip().is_unspecified();
        if asks_itself
            || addresses.is_empty()
            || addresses.iter().any(|peer| peer.ip() == client.ip())
        {
            return None;
        }
        let servers = self.servers.load_full();
        if servers
            .iter()
            .map(|server| server.address)
            .eq(addresses.iter().copied())
        {
            return Some(servers);
        }
        let as_before = |address: SocketAddr| {
            let known = servers.iter().find(|server| server.address == address);
            let new = || Arc::new(Server::new(address, None, self.common.clone()));
            known.cloned().unwrap_or_else(new)
        };
        let now: Arc<Vec<_>> = Arc::new(addresses.iter().copied().map(as_before).collect());
        self.servers.store(Arc::clone(&now));
        Some(now)
    }
}
