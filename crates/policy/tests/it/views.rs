//! What each node knew and knows, for whoever judges what happens while that changes.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use model::{Cluster, Key, Protocol};
use policy::{End, Locals, Question, explain};

/// What a node knew at one time.
#[derive(Clone)]
pub struct View {
    pub cluster: Cluster,
    pub locals: Locals,
}

impl View {
    /// Who has an address, as the node sees it: of its own pods what is attached counts.
    fn end(&self, node: &str, ip: IpAddr) -> End {
        let mut locals = self.locals.values();
        match locals.find(|local| local.ips.contains(&ip)) {
            Some(local) => End {
                ip,
                pod: Some(local.pod.clone()),
                node: Some(node.to_owned()),
            },
            None => End::at(&self.cluster, ip),
        }
    }
}

/// What one node knew, in order.
pub struct Node {
    name: &'static str,
    views: RwLock<Vec<View>>,
    /// Index of the view that is in force.
    done: AtomicUsize,
    /// Index of the view that is coming into force.
    begun: AtomicUsize,
}

impl Node {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            views: RwLock::default(),
            done: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
        }
    }

    /// From now on this may come into force.
    pub fn begin(&self, view: View) {
        let mut views = self.views.write().unwrap_or_else(PoisonError::into_inner);
        views.push(view);
        self.begun.store(views.len() - 1, Ordering::SeqCst);
    }

    /// From now on nothing older is in force.
    pub fn finish(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        self.done.store(begun, Ordering::SeqCst);
    }

    fn any(&self, since: usize, allows: impl Fn(&View) -> bool) -> bool {
        let views = self.views.read().unwrap_or_else(PoisonError::into_inner);
        let until = self.begun.load(Ordering::SeqCst);
        views[since..=until].iter().any(allows)
    }
}

/// Both nodes.
pub struct Views(pub [Node; 2]);

/// A time before which something is not judged.
#[derive(Clone, Copy, Debug)]
pub struct Since([usize; 2]);

/// A connection that was seen: whose client, by which address, to which server.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Index of its node, and which pod it is.
    pub from: (usize, Key),
    pub from_ip: IpAddr,
    /// Index of its node; whichever pod has the address.
    pub to: usize,
    pub to_ip: IpAddr,
    pub port: (Protocol, u16),
}

impl Views {
    pub fn new() -> Self {
        Self([Node::new("node1"), Node::new("node2")])
    }

    /// Now.
    pub fn now(&self) -> Since {
        let [first, second] = &self.0;
        Since([first, second].map(|node| node.done.load(Ordering::SeqCst)))
    }

    /// Whether what was let through since then may have been: the client's node allows it out in
    /// one of the states that were in force, and the server's node in.
    pub fn may(&self, since: Since, seen: &Seen) -> bool {
        let ask = |node: &Node, view: &View| Question {
            from: view.end(node.name, seen.from_ip),
            to: view.end(node.name, seen.to_ip),
            port: Some(seen.port),
        };
        let (from, pod) = &seen.from;
        let out = &self.0[*from];
        let out = out.any(since.0[*from], |view| {
            let question = ask(out, view);
            let same = question.from.pod.as_ref() == Some(pod);
            same && explain(&view.cluster, &question).egress.allowed
        });
        let into = &self.0[seen.to];
        let into = into.any(since.0[seen.to], |view| {
            let question = ask(into, view);
            let there = view.locals.values();
            let mut there = there.filter(|local| local.ips.contains(&seen.to_ip));
            there.next().is_some() && explain(&view.cluster, &question).ingress.allowed
        });
        out && into
    }
}
