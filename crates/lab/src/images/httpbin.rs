//! httpbin, the server that tells what it was asked: the endpoints that examples use.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::netexec::canonical;
use super::serve::{self, Answer, Asked};

/// The longest `/delay`.
const MAX_DELAY: f64 = 10.0;

/// Serves on port 80.
pub(super) fn main() -> i32 {
    serve::run(async {
        serve::http(80, serve::handler(answer)).await?;
        serve::log("[INFO] Listening at: http://0.0.0.0:80 (1)");
        Ok(())
    })
}

async fn answer(asked: Asked) -> Answer {
    let path = asked.uri.path().to_owned();
    let path = path.trim_start_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    let method = match first {
        "get" => Some(Method::GET),
        "post" => Some(Method::POST),
        "put" => Some(Method::PUT),
        "patch" => Some(Method::PATCH),
        "delete" => Some(Method::DELETE),
        _ => None,
    };
    match (first, method) {
        (_, Some(method)) if rest.is_empty() && method == asked.method => said(&asked, false),
        (_, Some(_)) if rest.is_empty() => {
            serve::text(StatusCode::METHOD_NOT_ALLOWED, HTML, "Method Not Allowed\n")
        }
        ("anything", _) => said(&asked, true),
        ("headers", _) => shown(json!({ "headers": headers(&asked) })),
        ("ip", _) => shown(json!({ "origin": origin(&asked) })),
        ("user-agent", _) => shown(json!({ "user-agent": asked.header("user-agent") })),
        ("status", _) => match rest.parse().ok().and_then(|n| StatusCode::from_u16(n).ok()) {
            Some(status) => serve::text(status, HTML, ""),
            None => serve::text(StatusCode::BAD_REQUEST, HTML, "Invalid status code"),
        },
        ("delay", _) => {
            let seconds = rest.parse::<f64>().unwrap_or(0.0).clamp(0.0, MAX_DELAY);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            said(&asked, false)
        }
        ("", _) => serve::text(StatusCode::OK, HTML, "<h1>httpbin</h1>\n"),
        _ => serve::text(StatusCode::NOT_FOUND, HTML, "<h1>Not Found</h1>\n"),
    }
}

const HTML: &str = "text/html; charset=utf-8";

/// The request as JSON, keys in httpbin's order, which is the alphabet's.
fn said(asked: &Asked, with_method: bool) -> Answer {
    let mut all = Map::new();
    all.insert(
        "args".into(),
        arguments(asked.uri.query().unwrap_or_default()),
    );
    if with_method || asked.method != Method::GET {
        let body = String::from_utf8_lossy(&asked.body).into_owned();
        let form = asked.header("content-type") == Some("application/x-www-form-urlencoded");
        let (data, form) = if form {
            ("", arguments(&body))
        } else {
            (body.as_str(), json!({}))
        };
        all.insert("data".into(), data.into());
        all.insert("files".into(), json!({}));
        all.insert("form".into(), form);
        all.insert("headers".into(), headers(asked));
        all.insert(
            "json".into(),
            serde_json::from_str(data).unwrap_or(Value::Null),
        );
    } else {
        all.insert("headers".into(), headers(asked));
    }
    if with_method {
        all.insert("method".into(), asked.method.as_str().into());
    }
    all.insert("origin".into(), origin(asked).into());
    let host = asked.header("host").unwrap_or_default();
    all.insert("url".into(), format!("http://{host}{}", asked.uri).into());
    shown(Value::Object(all))
}

fn shown(value: Value) -> Answer {
    serve::text(StatusCode::OK, "application/json", format!("{value:#}\n"))
}

fn headers(asked: &Asked) -> Value {
    let mut names: Vec<_> = asked.headers.keys().collect();
    names.sort_by_key(|n| n.as_str());
    let pairs = names.into_iter().map(|name| {
        let values = asked.headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|v| String::from_utf8_lossy(v.as_bytes()))
            .collect();
        (canonical(name.as_str()), Value::from(values.join(",")))
    });
    Value::Object(pairs.collect())
}

fn origin(asked: &Asked) -> String {
    let forwarded = asked.header("x-forwarded-for").map(str::to_owned);
    forwarded.unwrap_or_else(|| asked.peer.ip().to_string())
}

fn arguments(query: &str) -> Value {
    let pairs = query.split('&').filter(|p| !p.is_empty());
    let pairs = pairs.map(|p| p.split_once('=').unwrap_or((p, "")));
    Value::Object(
        pairs
            .map(|(n, v)| (serve::decode(n), serve::decode(v).into()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(method: Method, uri: &str, body: &'static str) -> (u16, Value) {
        let mut headers = http::HeaderMap::new();
        headers.insert("host", http::HeaderValue::from_static("httpbin"));
        headers.insert("user-agent", http::HeaderValue::from_static("test"));
        let answer = answer(Asked {
            method,
            uri: uri.parse().unwrap(),
            version: http::Version::HTTP_11,
            headers,
            body: body.into(),
            peer: "10.244.1.7:4000".parse().unwrap(),
            local: "10.244.2.3:80".parse().unwrap(),
        })
        .await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    #[tokio::test]
    async fn it_tells_what_it_was_asked() {
        let expected = json!({
            "args": { "a": "b c" },
            "headers": { "Host": "httpbin", "User-Agent": "test" },
            "origin": "10.244.1.7",
            "url": "http://httpbin/get?a=b+c",
        });
        assert_eq!(ask(Method::GET, "/get?a=b+c", "").await, (200, expected));
        let (_, said) = ask(Method::POST, "/anything/x", "{\"n\":1}").await;
        assert_eq!(said["json"], json!({ "n": 1 }));
        assert_eq!(said["method"], "POST");
        assert_eq!(ask(Method::GET, "/status/418", "").await.0, 418);
        assert_eq!(ask(Method::GET, "/post", "").await.0, 405);
        assert_eq!(
            ask(Method::GET, "/ip", "").await.1,
            json!({ "origin": "10.244.1.7" })
        );
        assert_eq!(ask(Method::GET, "/", "").await.0, 200);
        assert_eq!(ask(Method::GET, "/nothing", "").await.0, 404);
    }
}
