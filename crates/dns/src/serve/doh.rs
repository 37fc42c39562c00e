//! DNS over HTTPS (RFC 8484).

use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;

use super::desk::{Desk, Line};
use super::lifeline::{Closing, Guests};
use super::places::Place;
use super::site::Answers;
use super::tcp::{Begun, begin};
use crate::wire::{Message, Rcode};

const PATH: &str = "/dns-query";
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/dns-message");
/// The longest question that is taken.
const LONGEST: usize = 16 << 10;
/// How long a request's head and body may take to arrive, and a connection may be idle.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers requests of a connection until it ends.
pub(super) async fn serve<A: Answers, S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    line: Line,
    desk: Rc<Desk<A>>,
    guests: Guests,
    place: Place,
    mut closing: Closing,
) -> io::Result<()> {
    let place = Rc::new(place);
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        let (desk, guests, place) = (Rc::clone(&desk), guests.clone(), Rc::clone(&place));
        async move {
            place.seen(true);
            let (status, response) = respond(request, line, &desk, &guests).await;
            place.seen(false);
            desk.count_https(status.as_u16());
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = Builder::new(Local);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(32 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(desk.how().limits.streams)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.evicted() => return Ok(()),
        () = closing.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

/// Runs what a connection needs beside itself on the worker's own thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

type Answered = (StatusCode, Response<Full<Bytes>>);

async fn respond<A: Answers>(
    request: Request<Incoming>,
    line: Line,
    desk: &Rc<Desk<A>>,
    guests: &Guests,
) -> Answered {
    if request.uri().path() != PATH {
        return plain(StatusCode::NOT_FOUND, "");
    }
    let kind = request.headers().get(CONTENT_TYPE);
    if request.method() == Method::POST && kind.is_some_and(|kind| *kind != MEDIA_TYPE) {
        return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "");
    }
    let Ok(Some(message)) = tokio::time::timeout(PATIENCE, question(request)).await else {
        return plain(StatusCode::BAD_REQUEST, "invalid request\n");
    };
    desk.refresh();
    let answer = match begin(&message, line, desk, guests) {
        Begun::Known(answer) => answer,
        Begun::Later(answer) => answer.await,
    };
    if answer.is_empty() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "No response\n");
    }
    let age = age(&answer);
    let mut response = Response::new(Full::new(Bytes::from(answer)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, MEDIA_TYPE);
    if let Ok(value) = HeaderValue::try_from(format!("max-age={age}")) {
        headers.insert(CACHE_CONTROL, value);
    }
    (StatusCode::OK, response)
}

fn plain(status: StatusCode, text: &'static str) -> Answered {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    (status, response)
}

/// The message that a request carries, if it is one.
async fn question(request: Request<Incoming>) -> Option<Bytes> {
    match *request.method() {
        Method::GET => {
            let mut fields = request.uri().query()?.split('&');
            let text = fields.find_map(|field| field.strip_prefix("dns="))?;
            let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
            (bytes.len() <= LONGEST).then(|| bytes.into())
        }
        Method::POST => {
            let body = Limited::new(request.into_body(), LONGEST).collect().await;
            Some(body.ok()?.to_bytes())
        }
        _ => None,
    }
}

/// So many seconds an answer without records may be kept by others, as failures are.
const NOTHING: u32 = 5;
/// And any answer at most.
const LONG: u32 = 3600;

/// How long an answer may be kept (RFC 8484, section 5.1): as long as the shortest-lived of its
/// records.
fn age(answer: &[u8]) -> u32 {
    let Ok(message) = Message::parse(answer) else {
        return 0;
    };
    if ![Rcode::NOERROR, Rcode::NXDOMAIN].contains(&message.header.rcode) {
        return NOTHING;
    }
    let sections = [&message.answers, &message.authorities, &message.additionals];
    let ttls = sections.into_iter().flatten().map(|record| record.ttl);
    ttls.min().map_or(NOTHING, |ttl| ttl.min(LONG))
}
