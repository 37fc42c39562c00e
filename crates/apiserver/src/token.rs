//! Service-account tokens: JWTs signed with the cluster's own key.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use objects::Object;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::auth::User;
use crate::store::Store;
use certs::{Pair, PkiError};

/// `iss` of every token, and the audience of this server.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// Seconds a token of a deleted pod or account still counts.
const LEEWAY: i64 = 60;

/// Signs and checks tokens.
pub struct Tokens {
    signer: EncodingKey,
    verifier: DecodingKey,
    id: String,
    /// The public key as a JWK.
    jwk: Object,
}

/// Whom a token is for.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Namespace of the account.
    pub namespace: String,
    /// Name of the account.
    pub account: String,
    /// uid of the account.
    pub uid: String,
    /// `aud`.
    pub audiences: Vec<String>,
    /// Bound pod: name and uid.
    pub pod: Option<(String, String)>,
    /// Node of the bound pod: name and uid.
    pub node: Option<(String, String)>,
    /// Bound Secret: name and uid.
    pub secret: Option<(String, String)>,
    /// Issued at, seconds.
    pub issued: i64,
    /// Expires, seconds.
    pub expires: i64,
}

impl Tokens {
    /// From the key pair of the cluster.
    pub fn new(pair: &Pair) -> Result<Self, PkiError> {
        let bad = |e: jsonwebtoken::errors::Error| PkiError::Certificate {
            what: "sa.key".into(),
            cause: e.to_string(),
        };
        let der = rustls_pemfile::read_one(&mut pair.certificate.as_bytes());
        let point = match der {
            Ok(Some(rustls_pemfile::Item::SubjectPublicKeyInfo(info))) if info.len() >= 65 => {
                info[info.len() - 64..].to_vec()
            }
            _ => {
                return Err(PkiError::Certificate {
                    what: "sa.crt".into(),
                    cause: "this is no P-256 public key".into(),
                });
            }
        };
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(&point));
        let jwk = json!({"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(&point[..32]), "y": URL_SAFE_NO_PAD.encode(&point[32..])});
        Ok(Self {
            signer: EncodingKey::from_ec_pem(pair.key.as_bytes()).map_err(bad)?,
            verifier: DecodingKey::from_ec_pem(pair.certificate.as_bytes()).map_err(bad)?,
            id,
            jwk,
        })
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Object {
        json!({"keys": [self.jwk]})
    }

    /// A signed token.
    pub fn issue(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        let reference = |pair: &(String, String)| json!({"name": pair.0, "uid": pair.1});
        let mut kubernetes = json!({
            "namespace": claims.namespace,
            "serviceaccount": {"name": claims.account, "uid": claims.uid},
        });
        for (name, bound) in [
            ("pod", &claims.pod),
            ("node", &claims.node),
            ("secret", &claims.secret),
        ] {
            if let Some(bound) = bound {
                kubernetes[name] = reference(bound);
            }
        }
        let body = json!({
            "iss": ISSUER, "aud": claims.audiences, "iat": claims.issued, "nbf": claims.issued,
            "exp": claims.expires, "jti": crate::context::uid(),
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.account),
            "kubernetes.io": kubernetes,
        });
        let header = Header {
            kid: Some(self.id.clone()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, &body, &self.signer)
    }

    /// Who shows `token` to one of `audiences`, and which of them it is for.
    pub fn user(
        &self,
        store: &Store,
        token: &str,
        audiences: &[&str],
    ) -> Option<(User, Vec<String>)> {
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(audiences);
        rules.validate_nbf = true;
        rules.leeway = 10;
        let claims = jsonwebtoken::decode::<Object>(token, &self.verifier, &rules)
            .ok()?
            .claims;
        let of = &claims["kubernetes.io"];
        let text = |value: &Object| value.as_str().unwrap_or_default().to_owned();
        let namespace = text(&of["namespace"]);
        let name = text(&of["serviceaccount"]["name"]);
        let uid = text(&of["serviceaccount"]["uid"]);
        let now = jiff::Timestamp::now().as_second();
        let lives = |plural: &str, name: &Object, uid: &Object| {
            alive(store, plural, &namespace, &text(name), &text(uid), now)
        };
        if !alive(store, "serviceaccounts", &namespace, &name, &uid, now) {
            return None;
        }
        let mut extra = vec![(
            "authentication.kubernetes.io/credential-id".to_owned(),
            format!("JTI={}", text(&claims["jti"])),
        )];
        for (what, plural) in [("pod", "pods"), ("secret", "secrets")] {
            let bound = &of[what];
            if bound.is_object() {
                if !lives(plural, &bound["name"], &bound["uid"]) {
                    return None;
                }
                if what == "pod" {
                    extra.push((
                        "authentication.kubernetes.io/pod-name".into(),
                        text(&bound["name"]),
                    ));
                    extra.push((
                        "authentication.kubernetes.io/pod-uid".into(),
                        text(&bound["uid"]),
                    ));
                }
            }
        }
        if of["node"].is_object() {
            extra.push((
                "authentication.kubernetes.io/node-name".into(),
                text(&of["node"]["name"]),
            ));
            extra.push((
                "authentication.kubernetes.io/node-uid".into(),
                text(&of["node"]["uid"]),
            ));
        }
        let meant: Vec<String> = match &claims["aud"] {
            Object::Array(list) => list
                .iter()
                .filter_map(Object::as_str)
                .map(str::to_owned)
                .collect(),
            one => vec![text(one)],
        };
        let matched = meant
            .into_iter()
            .filter(|a| audiences.contains(&a.as_str()))
            .collect();
        let user = User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            uid,
            groups: vec![
                "system:serviceaccounts".into(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".into(),
            ],
            extra,
        };
        Some((user, matched))
    }
}

/// True where the object is the same one and not long gone.
fn alive(store: &Store, plural: &str, namespace: &str, name: &str, uid: &str, now: i64) -> bool {
    let Some(entry) = store.get(&format!("/{plural}/{namespace}/{name}")) else {
        return false;
    };
    let metadata = &entry.slim()["metadata"];
    let deleted = metadata["deletionTimestamp"]
        .as_str()
        .and_then(|t| t.parse::<jiff::Timestamp>().ok())
        .map_or(i64::MAX, |t| t.as_second());
    metadata["uid"] == uid && deleted.saturating_add(LEEWAY) > now
}
