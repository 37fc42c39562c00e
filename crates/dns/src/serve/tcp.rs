//! Questions over connections: TCP, and TLS above it.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::desk::{Ask, Desk, Line, Step};
use super::lifeline::{Closing, Guest, Guests};
use super::places::Place;
use super::site::Answers;

/// Questions of one connection that are in flight at once; then no more are read.
const PIPELINE: usize = 64;
/// The longest question that is taken: nothing that can be asked takes so much.
const LONGEST: usize = 16 << 10;
/// Answers that wait for the client to take them; then no more questions are read.
const WAITING: usize = 64 << 10;

/// Answers the questions of a connection until it ends: the client closes it or leaves it idle,
/// the listener is to be closed, or the place is needed for others. Answers come in the order
/// in which they are known (RFC 7766, section 6.2.1.1).
pub(super) async fn serve<A: Answers, S: AsyncRead + AsyncWrite>(
    stream: S,
    line: Line,
    desk: Rc<Desk<A>>,
    guests: Guests,
    place: Place,
    mut closing: Closing,
) -> io::Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let (mut inbox, mut outbox) = (BytesMut::new(), Outbox::default());
    let mut flights = FuturesUnordered::new();
    let mut open = true;
    let limits = desk.how().limits;
    let mut left = limits.questions.unwrap_or(u32::MAX);
    let idle = tokio::time::sleep(limits.first);
    tokio::pin!(idle);
    loop {
        let mut progress = false;
        desk.refresh();
        while flights.len() < PIPELINE
            && outbox.bytes.len() < WAITING
            && left > 0
            && let Some(message) = next(&mut inbox)?
        {
            progress = true;
            left -= u32::from(limits.questions.is_some());
            match begin(&message, line, &desk, &guests) {
                Begun::Known(bytes) => outbox.bytes.extend_from_slice(&bytes),
                Begun::Later(flight) => flights.push(flight),
            }
        }
        open &= left > 0;
        let busy = !flights.is_empty() || outbox.is_waiting();
        if !open && !busy {
            return write.shutdown().await;
        }
        place.seen(busy);
        if progress {
            idle.as_mut()
                .reset(tokio::time::Instant::now() + limits.idle);
        }
        let room = flights.len() < PIPELINE && outbox.bytes.len() < WAITING;
        let waiting = outbox.is_waiting();
        let sent = tokio::select! {
            got = read.read_buf(&mut inbox), if open && room => {
                open = got? > 0;
                false
            }
            Some(reply) = flights.next(), if !flights.is_empty() => {
                outbox.bytes.extend_from_slice(&reply);
                true
            }
            sent = outbox.send(&mut write), if waiting => {
                sent?;
                true
            }
            () = &mut idle => return Ok(()),
            () = place.evicted() => return Ok(()),
            () = closing.wait(), if open => {
                open = false;
                false
            }
        };
        if sent {
            idle.as_mut()
                .reset(tokio::time::Instant::now() + limits.idle);
        }
    }
}

/// The next whole message, if one has arrived. Room grows with what arrives, never by what a
/// length promises.
fn next(inbox: &mut BytesMut) -> io::Result<Option<BytesMut>> {
    let Some(length) = inbox.first_chunk() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes(*length));
    if length > LONGEST {
        return Err(io::Error::other("a question of more than 16 KiB"));
    }
    if inbox.len() < 2 + length {
        return Ok(None);
    }
    inbox.advance(2);
    Ok(Some(inbox.split_to(length)))
}

/// Bytes on their way to the client.
#[derive(Default)]
struct Outbox {
    bytes: BytesMut,
    /// Taken over by the stream, but perhaps not on the wire yet.
    unflushed: bool,
}

impl Outbox {
    fn is_waiting(&self) -> bool {
        self.unflushed || !self.bytes.is_empty()
    }

    /// Sends some. May be given up at any point and begun again.
    async fn send(&mut self, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.bytes.is_empty() {
            write.flush().await?;
            self.unflushed = false;
        } else {
            write.write_buf(&mut self.bytes).await?;
            self.unflushed = true;
        }
        Ok(())
    }
}

/// What became of a question so far.
pub(super) enum Begun<F> {
    /// The answer, framed for its transport; empty where there is none.
    Known(Vec<u8>),
    /// It will be known.
    Later(Pin<Box<F>>),
}

/// Begins to answer a message. Most answers are known at once.
pub(super) fn begin<A: Answers>(
    message: &[u8],
    line: Line,
    desk: &Rc<Desk<A>>,
    guests: &Guests,
) -> Begun<impl Future<Output = Vec<u8>> + use<A>> {
    let now = Instant::now();
    let ask = match desk.read(message, line, now) {
        Step::Nothing => return Begun::Known(Vec::new()),
        Step::Reply(bytes) => return Begun::Known(desk.take(bytes, <[u8]>::to_vec)),
        Step::Ask(ask) => ask,
    };
    let Some(guest) = guests.enter() else {
        let bytes = desk.overloaded(message, line.transport);
        return Begun::Known(desk.take(bytes, <[u8]>::to_vec));
    };
    let mut answer = Box::pin(answered(Rc::clone(desk), ask, now, guest));
    let mut context = Context::from_waker(Waker::noop());
    match answer.as_mut().poll(&mut context) {
        Poll::Ready(bytes) => Begun::Known(bytes),
        Poll::Pending => Begun::Later(answer),
    }
}

async fn answered<A: Answers>(
    desk: Rc<Desk<A>>,
    ask: Ask<A>,
    asked: Instant,
    _guest: Guest,
) -> Vec<u8> {
    let reply = Rc::clone(&desk).answer(ask).await;
    reply.tally.took(asked.elapsed());
    desk.take(reply.bytes, <[u8]>::to_vec)
}
