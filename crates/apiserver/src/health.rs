//! `/healthz`, `/livez`, `/readyz`, `/version`: open to anyone.

use objects::Object;
use serde_json::json;

use crate::context::Ctx;
use crate::output::{self, Answer};
use crate::request::Query;
use crate::token::ISSUER;

/// The Kubernetes release whose API is served.
pub const GIT_VERSION: &str = "v1.36.0+flatnet";

/// What `/version` says.
pub fn version() -> Object {
    json!({
        "major": "1", "minor": "36", "gitVersion": GIT_VERSION, "gitCommit": "",
        "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "rustc",
        "compiler": "rustc", "platform": format!("linux/{}", architecture()),
    })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The checks behind the health paths.
const CHECKS: [&str; 3] = ["ping", "log", "etcd"];

/// OpenID discovery and metrics.
pub fn documents(ctx: &Ctx, path: &str) -> Option<Answer> {
    match path {
        "/metrics" => Some(output::typed(
            200,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ctx.metrics.text(ctx),
        )),
        "/openid/v1/jwks" => Some(output::value(200, &ctx.tokens.jwks(), false)),
        "/.well-known/openid-configuration" => {
            let document = json!({
                "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
                "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            });
            Some(output::value(200, &document, false))
        }
        _ => None,
    }
}

/// Answers a health path or `/version`; None for any other.
pub fn answer(ctx: &Ctx, path: &str, query: &Query) -> Option<Answer> {
    let _ = ctx;
    let path = path.trim_end_matches('/');
    if path == "/version" {
        return Some(output::value(200, &version(), true));
    }
    let name = ["/healthz", "/livez", "/readyz"]
        .into_iter()
        .find(|n| path == *n)?;
    if !query.has("verbose") {
        return Some(output::typed(200, "text/plain; charset=utf-8", "ok"));
    }
    let mut text: String = CHECKS.iter().map(|c| format!("[+]{c} ok\n")).collect();
    text.push_str(&format!("{} check passed\n", name.trim_start_matches('/')));
    Some(output::typed(200, "text/plain; charset=utf-8", text))
}
