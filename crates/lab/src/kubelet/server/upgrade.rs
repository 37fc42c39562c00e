//! Leaving HTTP: which protocol a client asks for, and the answer that begins it.

use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Answer, full, text};

/// The protocol a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A WebSocket with this subprotocol; none where the client named none.
    WebSocket(Option<String>),
    /// SPDY/3.1 with this stream protocol.
    Spdy(String),
}

/// What a client asked for among what is offered, best first; the error is the answer.
pub fn choose(
    headers: &HeaderMap,
    websocket: &[&str],
    spdy: &[&str],
) -> Result<Protocol, Box<Answer>> {
    let bad = |status, message: String| Err(Box::new(text(status, message)));
    let wanted = words(headers, "upgrade");
    if wanted
        .iter()
        .any(|word| word.eq_ignore_ascii_case("websocket"))
    {
        let asked = words(headers, "sec-websocket-protocol");
        if asked.is_empty() {
            return Ok(Protocol::WebSocket(None));
        }
        return match websocket
            .iter()
            .find(|offer| asked.iter().any(|word| word == *offer))
        {
            Some(offer) => Ok(Protocol::WebSocket(Some((*offer).to_owned()))),
            None => bad(
                StatusCode::FORBIDDEN,
                format!(
                    "unable to upgrade: unknown subprotocols {asked:?}, use one of {websocket:?}\n"
                ),
            ),
        };
    }
    if wanted
        .iter()
        .any(|word| word.eq_ignore_ascii_case("SPDY/3.1"))
    {
        let asked = words(headers, "x-stream-protocol-version");
        return match spdy
            .iter()
            .find(|offer| asked.iter().any(|word| word == *offer))
        {
            Some(offer) => Ok(Protocol::Spdy((*offer).to_owned())),
            None => bad(
                StatusCode::FORBIDDEN,
                format!(
                    "unable to upgrade: unable to negotiate protocol: client supports {asked:?}, server supports {spdy:?}\n"
                ),
            ),
        };
    }
    bad(
        StatusCode::BAD_REQUEST,
        "you must specify at least 1 of stdin, stdout, stderr over an upgraded connection: unable to upgrade: missing upgrade headers in request\n".to_owned(),
    )
}

/// The comma-separated words of every header of a name.
fn words(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// The answer that switches protocols, and the connection once it has.
pub fn accept(
    mut request: Request<Incoming>,
    protocol: &Protocol,
) -> Result<(Answer, OnUpgrade), Box<Answer>> {
    let mut answer = Response::new(full(""));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let bad = |message: &'static str| Box::new(text(StatusCode::BAD_REQUEST, message));
    match protocol {
        Protocol::WebSocket(subprotocol) => {
            let key = request.headers().get("sec-websocket-key");
            let key = key.ok_or_else(|| bad("missing Sec-WebSocket-Key\n"))?;
            let accept = derive_accept_key(key.as_bytes());
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            set(headers, "sec-websocket-accept", &accept)
                .ok_or_else(|| bad("bad Sec-WebSocket-Key\n"))?;
            if let Some(name) = subprotocol {
                set(headers, "sec-websocket-protocol", name)
                    .ok_or_else(|| bad("bad protocol\n"))?;
            }
        }
        Protocol::Spdy(name) => {
            headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            set(headers, "x-stream-protocol-version", name).ok_or_else(|| bad("bad protocol\n"))?;
        }
    }
    let upgrade = hyper::upgrade::on(&mut request);
    Ok((answer, upgrade))
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Option<()> {
    headers.insert(name, HeaderValue::from_str(value).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn the_best_common_protocol_is_chosen() {
        let websocket = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
        let spdy = ["v4.channel.k8s.io"];
        let kubectl = headers(&[
            ("upgrade", "websocket"),
            (
                "sec-websocket-protocol",
                "v4.channel.k8s.io, v5.channel.k8s.io",
            ),
        ]);
        let chosen = choose(&kubectl, &websocket, &spdy);
        assert_eq!(
            chosen.unwrap(),
            Protocol::WebSocket(Some("v5.channel.k8s.io".to_owned()))
        );
        let old = headers(&[
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
        ]);
        assert_eq!(
            choose(&old, &websocket, &spdy).unwrap(),
            Protocol::Spdy("v4.channel.k8s.io".to_owned())
        );
        let foreign = headers(&[("upgrade", "websocket"), ("sec-websocket-protocol", "mqtt")]);
        assert_eq!(
            choose(&foreign, &websocket, &spdy).unwrap_err().status(),
            403
        );
        assert_eq!(
            choose(&headers(&[]), &websocket, &spdy)
                .unwrap_err()
                .status(),
            400
        );
    }
}
