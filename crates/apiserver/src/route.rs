//! From an HTTP request to an answer.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use objects::Status;

use crate::accept;
use crate::auth::User;
use crate::context::Ctx;
use crate::discovery;
use crate::failure::{self, Failure};
use crate::health;
use crate::output::{self, Answer};
use crate::request::{self, Info, Query};
use crate::verbs::{Call, Reply, delete, patch, read, watch, write};

/// Largest body of a request.
const BODY: usize = 3 << 20;
/// A body must have arrived after this long.
const BODY_TIME: Duration = Duration::from_secs(60);

fn header<'a>(headers: &'a HeaderMap, name: header::HeaderName) -> &'a str {
    headers
        .get(name)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
}

/// Answers one request of `certified` (the user of the client certificate, if any).
pub async fn handle(
    ctx: Ctx,
    certified: Option<User>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let started = Instant::now();
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = request::parse(request.method().as_str(), request.uri().path(), &query);
    let answer = match dispatch(&ctx, certified, info.clone(), query, request).await {
        Ok(answer) => answer,
        Err(Failure(status)) => output::failed(&status),
    };
    tracing::debug!(
        verb = info.verb,
        path = info.path,
        code = answer.status().as_u16(),
        ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    Ok(answer)
}

async fn dispatch(
    ctx: &Ctx,
    certified: Option<User>,
    info: Info,
    query: Query,
    request: Request<Incoming>,
) -> Reply {
    let user = certified.unwrap_or_else(User::anonymous);
    if !info.is_resource {
        return plain(ctx, &user, &info, &query, &request);
    }
    if user.name == "system:anonymous" {
        return Err(Status::unauthorized("").into());
    }
    resource(ctx, user, info, query, request).await
}

/// Paths that are no resource.
fn plain(ctx: &Ctx, user: &User, info: &Info, query: &Query, request: &Request<Incoming>) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Status::method_not_on_path().into());
    }
    if let Some(answer) = health::answer(ctx, &info.path, query) {
        return Ok(answer);
    }
    if user.name == "system:anonymous" {
        return Err(Status::unauthorized("").into());
    }
    let form = accept::parse(header(request.headers(), header::ACCEPT))?;
    let found = discovery::answer(ctx, &info.path, form).ok_or_else(Status::no_such_path)?;
    let pretty = output::pretty(query, header(request.headers(), header::USER_AGENT));
    let mut answer = output::value(200, &found, pretty);
    if found["kind"] == "APIGroupDiscoveryList" {
        // Clients look at the media type to tell the two forms apart.
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static(
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            ),
        );
    }
    Ok(answer)
}

async fn body(request: Request<Incoming>) -> Result<bytes::Bytes, Status> {
    let limited = Limited::new(request.into_body(), BODY);
    match tokio::time::timeout(BODY_TIME, limited.collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(failure::status(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {BODY}"),
        )),
        Ok(Err(error)) => Err(Status::bad_request(format!("reading the body: {error}"))),
        Err(_) => Err(failure::status(
            408,
            "Timeout",
            "the body did not arrive in time",
        )),
    }
}

async fn resource(
    ctx: &Ctx,
    user: User,
    info: Info,
    query: Query,
    request: Request<Incoming>,
) -> Reply {
    let kind = ctx
        .registry
        .load()
        .find(&info.group, &info.version, &info.resource)
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let headers = request.headers();
    let mut form = accept::parse(header(headers, header::ACCEPT))?;
    if form == accept::Form::Discovery {
        form = accept::Form::Json;
    }
    let user_agent = header(headers, header::USER_AGENT).to_owned();
    let media = header(headers, header::CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or_default();
    let content_type = media.trim().to_owned();
    let pretty = output::pretty(&query, &user_agent);
    let include = output::include(&query)?;
    if !kind.namespaced && !info.namespace.is_empty() && info.resource != "namespaces" {
        return Err(Status::no_such_path().into());
    }
    let mut info = info;
    if !kind.namespaced {
        info.namespace.clear();
    }
    let body = body(request).await?;
    let call = Call {
        ctx: ctx.clone(),
        info,
        query,
        kind,
        user,
        form,
        include,
        pretty,
        content_type,
        user_agent,
        body,
    };
    if call.kind.namespaced && call.info.namespace.is_empty() && !call.info.name.is_empty() {
        return Err(Status::no_such_path().into());
    }
    verb(&call).await
}

async fn verb(call: &Call) -> Reply {
    let subresource = call.info.subresource.as_str();
    if !subresource.is_empty() && !call.kind.subresources.iter().any(|s| s == subresource) {
        return Err(Status::no_such_path().into());
    }
    match call.info.verb.as_str() {
        "get" => read::get(call),
        "list" => read::list(call),
        "watch" => watch::watch(call),
        "create" => write::create(call).await,
        "update" => write::update(call).await,
        "patch" => patch::patch(call).await,
        "delete" => delete::delete(call).await,
        "deletecollection" => delete::collection(call).await,
        _ => Err(Status::method_not_on_path().into()),
    }
}
