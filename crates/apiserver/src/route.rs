//! From an HTTP request to an answer: who asks, may they, and which verb is it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use objects::Status;

use crate::accept::{self, Form};
use crate::auth::{self, User};
use crate::context::Ctx;
use crate::discovery;
use crate::failure::Failure;
use crate::health;
use crate::output::{self, Answer};
use crate::rbac::{self, Attributes};
use crate::request::{self, Info, Query};
use crate::verbs::{Call, Reply, decode, delete, patch, pods, read, scale, watch, write};
use crate::{connect, nodes, reviews};

/// Largest body of a request.
const BODY: usize = 3 << 20;
/// A body must have arrived after this long.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Paths that anyone may read.
const OPEN: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

fn header(headers: &HeaderMap, name: header::HeaderName) -> &str {
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
    let served = ctx
        .registry
        .load()
        .find(&info.group, &info.version, &info.resource)
        .is_some_and(|k| info.subresource.is_empty() || k.subresource(&info.subresource).is_some());
    let code = answer.status().as_u16();
    ctx.metrics.answered(&info, served, code, started.elapsed());
    tracing::debug!(
        verb = info.verb,
        path = info.path,
        code = answer.status().as_u16(),
        ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered"
    );
    Ok(answer)
}

/// True for requests that may last as long as they like.
fn long(info: &Info) -> bool {
    info.verb == "watch" || connect::is_passed_on(&info.subresource)
}

async fn dispatch(
    ctx: &Ctx,
    certified: Option<User>,
    info: Info,
    query: Query,
    request: Request<Incoming>,
) -> Reply {
    let open = OPEN.iter().any(|p| {
        info.path == *p
            || info
                .path
                .strip_prefix(p)
                .is_some_and(|r| r.starts_with('/'))
    });
    if open && let Some(answer) = health::answer(ctx, &info.path, &query) {
        return Ok(answer);
    }
    let user = auth::user(ctx, certified, request.headers())?;
    let user = auth::impersonated(ctx, user, request.headers())?;
    let wanted = Attributes::of(&info);
    if !ctx.rbac.policy().allows(&user, &wanted) {
        return Err(rbac::refused(&user, &wanted).into());
    }
    nodes::check(ctx, &user, &wanted, &query)?;
    let _place = if long(&info) {
        None
    } else {
        let place = ctx.in_flight.try_acquire().map_err(|_| {
            Status::too_many_requests("The server is currently unable to handle the request: too many requests, please try again later.", 1)
        })?;
        Some(place)
    };
    if !info.is_resource {
        return plain(ctx, &info, &query, &request);
    }
    resource(ctx, user, info, query, request).await
}

/// Paths that are no resource.
fn plain(ctx: &Ctx, info: &Info, query: &Query, request: &Request<Incoming>) -> Reply {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Err(Status::method_not_on_path().into());
    }
    let pretty = output::pretty(query, header(request.headers(), header::USER_AGENT));
    if let Some(answer) = health::documents(ctx, &info.path) {
        return Ok(answer);
    }
    if info.path == "/openapi/v2" {
        return Ok(crate::openapi::version_two());
    }
    if info.path.starts_with("/openapi/v3") {
        return crate::openapi::answer(ctx, &info.path, query);
    }
    let form = accept::parse(header(request.headers(), header::ACCEPT))?;
    let found = discovery::answer(ctx, &info.path, form).ok_or_else(Status::no_such_path)?;
    let mut answer = output::value(200, &found, pretty);
    if found["kind"] == "APIGroupDiscoveryList" {
        // Clients look at the media type to tell the two forms apart.
        answer.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(
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
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(&format!("limit is {BODY}")))
        }
        Ok(Err(error)) => Err(Status::bad_request(format!("reading the body: {error}"))),
        Err(_) => Err(Status::timeout("the body did not arrive in time", 1)),
    }
}

async fn resource(
    ctx: &Ctx,
    user: User,
    mut info: Info,
    query: Query,
    request: Request<Incoming>,
) -> Reply {
    let kind = ctx
        .registry
        .load()
        .find(&info.group, &info.version, &info.resource)
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let subresource = info.subresource.as_str();
    if !subresource.is_empty() && kind.subresource(subresource).is_none() {
        return Err(Status::no_such_path().into());
    }
    if !kind.namespaced {
        if !info.namespace.is_empty() && info.resource != "namespaces" {
            return Err(Status::no_such_path().into());
        }
        info.namespace.clear();
    } else if info.namespace.is_empty() && (!info.name.is_empty() || info.verb == "create") {
        return Err(Status::method_not_on_path().into());
    }
    if connect::is_passed_on(subresource) {
        return connect::pass_on(ctx, &info, &query, request).await;
    }
    let call = call(ctx, user, info, query, kind, request).await?;
    let answer = verb(&call).await?;
    decode::warn(answer, deprecation(&call.kind).as_slice())
}

/// What clients of a kind are warned of.
fn deprecation(kind: &objects::Kind) -> Option<String> {
    if kind.group.is_empty() && kind.kind == "Endpoints" {
        return Some(
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into(),
        );
    }
    kind.custom.as_ref()?.deprecation.clone()
}

async fn call(
    ctx: &Ctx,
    user: User,
    info: Info,
    query: Query,
    kind: std::sync::Arc<objects::Kind>,
    request: Request<Incoming>,
) -> Result<Call, Status> {
    let headers = request.headers();
    let mut form = accept::parse(header(headers, header::ACCEPT))?;
    if form == Form::Discovery {
        form = Form::Json;
    }
    let user_agent = header(headers, header::USER_AGENT).to_owned();
    let media = header(headers, header::CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or_default();
    let content_type = media.trim().to_owned();
    let pretty = output::pretty(&query, &user_agent);
    let include = output::include(&query)?;
    let body = body(request).await?;
    let mut call = Call {
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
    if call.content_type == "application/vnd.kubernetes.protobuf" {
        call.body = crate::protobuf::to_json(&call.body)?.to_string().into();
        call.content_type = "application/json".into();
    }
    Ok(call)
}

async fn verb(call: &Call) -> Reply {
    let verb = call.info.verb.as_str();
    if !call.info.subresource.is_empty() {
        return subresource(call).await;
    }
    if !call.kind.stored() {
        return match (verb, call.kind.kind.as_str()) {
            ("create", "Binding") => pods::bind(call).await,
            ("create", _) => reviews::answer(call),
            _ => Err(refused_verb(call)),
        };
    }
    if !call.kind.verbs.contains(&verb) {
        return Err(refused_verb(call));
    }
    match verb {
        "get" => read::get(call),
        "list" => read::list(call),
        "watch" => watch::watch(call),
        "create" => write::create(call).await,
        "update" => write::update(call).await,
        "patch" => patch::patch(call).await,
        "delete" => delete::delete(call).await,
        _ => delete::collection(call).await,
    }
}

fn refused_verb(call: &Call) -> Failure {
    Status::method_not_allowed(&call.kind.group, &call.kind.plural, &call.info.verb).into()
}

async fn subresource(call: &Call) -> Reply {
    match (call.info.subresource.as_str(), call.info.verb.as_str()) {
        ("scale", _) => scale::scale(call).await,
        ("binding", "create") => pods::bind(call).await,
        ("eviction", "create") => pods::evict(call).await,
        ("token", "create") => reviews::request_token(call),
        ("status", "get") => read::get(call),
        ("status" | "finalize", "update") => write::update(call).await,
        ("status", "patch") => patch::patch(call).await,
        _ => Err(Status::method_not_on_path().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_and_streams_take_no_place_among_the_short() {
        let info = |verb: &str, sub: &str| Info {
            verb: verb.into(),
            subresource: sub.into(),
            ..Info::default()
        };
        assert!(long(&info("watch", "")) && long(&info("get", "log")));
        assert!(!long(&info("get", "status")));
    }
}
