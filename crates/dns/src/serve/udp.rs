//! Questions in datagrams.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::spawn_local;

use super::desk::{Ask, Desk, Line, Reply, Step};
use super::lifeline::{Closing, Guest, Guests};
use super::packets::{BATCH, Inbox, Outbox};
use super::site::Answers;
use crate::query::Transport;

/// Answers what comes to a socket until it is to be closed; what has come by then is answered
/// still.
pub(super) async fn serve<A: Answers>(
    socket: UdpSocket,
    desk: Rc<Desk<A>>,
    guests: Guests,
    mut closing: Closing,
) -> io::Result<()> {
    let local = socket.local_addr()?;
    // Not to be told that there is room to send again: each answer that a client takes would
    // wake the worker.
    // SAFETY: the socket owns its descriptor, always gives the same one, and is closed only when
    // it is dropped with what is made of it here.
    let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    let socket = Rc::new(registered?);
    let mut counter = Counter {
        socket: Rc::clone(&socket),
        inbox: Inbox::new(local),
        outbox: Outbox::new(local),
        late: Rc::new(RefCell::new(Outbox::new(local))),
        desk,
        guests,
        start: Desk::answer,
        space: None,
    };
    loop {
        let mut ready = tokio::select! {
            ready = socket.readable() => ready?,
            () = closing.wait() => break,
        };
        while counter.batch() == BATCH {
            // Others have their turn, and what they wait for is looked at.
            tokio::task::yield_now().await;
        }
        // All that was there has been taken: the next datagram makes it ready again.
        ready.clear_ready();
    }
    while counter.batch() > 0 {}
    Ok(())
}

/// A socket and all it takes to answer there.
struct Counter<A, S, F> {
    socket: Rc<AsyncFd<UdpSocket>>,
    inbox: Inbox,
    outbox: Outbox,
    /// Of answers that were not known at once.
    late: Rc<RefCell<Outbox>>,
    desk: Rc<Desk<A>>,
    guests: Guests,
    /// Begins an answer.
    start: S,
    /// The place of an answer that was known at once, for the next one.
    space: Option<Pin<Box<F>>>,
}

impl<A, S, F> Counter<A, S, F>
where
    A: Answers,
    S: Fn(Rc<Desk<A>>, Ask<A>) -> F,
    F: Future<Output = Reply> + 'static,
{
    /// Receives what is there, and answers what can be answered at once; how much there was.
    fn batch(&mut self) -> usize {
        let received = match self.inbox.receive(self.socket.get_ref().as_fd()) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return 0,
            Err(error) => {
                // Of an earlier answer, whose receiver was not there any more.
                tracing::debug!(%error, "receiving a datagram");
                return 0;
            }
        };
        let now = Instant::now();
        self.desk.refresh();
        for index in 0..received {
            self.one(index, now);
        }
        let socket = self.socket.get_ref().as_fd();
        self.desk.with_out(|out| {
            self.outbox.send(socket, out);
            out.clear();
        });
        self.desk.batch_took(now.elapsed());
        received
    }

    fn one(&mut self, index: usize, now: Instant) {
        let Some((bytes, client, server)) = self.inbox.datagram(index) else {
            return;
        };
        let line = Line {
            client,
            server,
            transport: Transport::Udp,
        };
        let step = self.desk.read(bytes, line, now);
        let ask = match step {
            Step::Nothing => return,
            Step::Reply(bytes) => return self.outbox.push(bytes, client, server),
            Step::Ask(ask) => ask,
        };
        let answer = (self.start)(Rc::clone(&self.desk), ask);
        let mut answer = match self.space.take() {
            Some(mut space) => {
                space.set(answer);
                space
            }
            None => Box::pin(answer),
        };
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(reply) = answer.as_mut().poll(&mut context) {
            self.space = Some(answer);
            reply.tally.took_as_its_batch();
            if !reply.bytes.is_empty() {
                self.outbox.push(reply.bytes, client, server);
            }
            return;
        }
        match self.guests.enter() {
            Some(guest) => {
                let way = Way {
                    socket: Rc::clone(&self.socket),
                    outbox: Rc::clone(&self.late),
                    client,
                    server,
                    asked: now,
                };
                spawn_local(later(answer, Rc::clone(&self.desk), way, guest));
            }
            None => {
                let bytes = self.desk.overloaded(bytes, Transport::Udp);
                self.outbox.push(bytes, client, server);
            }
        }
    }
}

/// The way back of an answer that was not known at once.
struct Way {
    socket: Rc<AsyncFd<UdpSocket>>,
    outbox: Rc<RefCell<Outbox>>,
    client: SocketAddr,
    server: SocketAddr,
    asked: Instant,
}

async fn later<A: Answers, F: Future<Output = Reply>>(
    answer: Pin<Box<F>>,
    desk: Rc<Desk<A>>,
    way: Way,
    _guest: Guest,
) {
    let reply = answer.await;
    reply.tally.took(way.asked.elapsed());
    if reply.bytes.is_empty() {
        return;
    }
    desk.take(reply.bytes, |bytes| {
        let mut outbox = way.outbox.borrow_mut();
        outbox.push(0..bytes.len(), way.client, way.server);
        outbox.send(way.socket.get_ref().as_fd(), bytes);
    });
}
