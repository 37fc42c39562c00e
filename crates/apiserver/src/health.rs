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
    let path = path.trim_end_matches('/');
    if path == "/version" {
        return Some(output::value(200, &version(), true));
    }
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let name = parts
        .next()
        .filter(|n| matches!(*n, "healthz" | "livez" | "readyz"))?;
    let only = parts.next();
    let checks: Vec<&str> = CHECKS
        .into_iter()
        .filter(|c| only.is_none_or(|o| o == *c))
        .collect();
    if checks.is_empty() {
        return None;
    }
    // A process that lives but cannot store is alive and not ready.
    let bad = |check: &str| check == "etcd" && name != "livez" && ctx.store.failing();
    let failed = checks.iter().any(|c| bad(c));
    let code = if failed { 500 } else { 200 };
    if !failed && !query.has("verbose") {
        return Some(output::typed(code, "text/plain; charset=utf-8", "ok"));
    }
    let lines = checks.iter().map(|check| {
        if bad(check) {
            format!("[-]{check} failed: reason withheld\n")
        } else {
            format!("[+]{check} ok\n")
        }
    });
    let mut text: String = lines.collect();
    text.push_str(&format!(
        "{name} check {}\n",
        if failed { "failed" } else { "passed" }
    ));
    Some(output::typed(code, "text/plain; charset=utf-8", text))
}
