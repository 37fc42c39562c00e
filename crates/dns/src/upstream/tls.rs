//! TLS towards upstreams.

use std::fs::File;
use std::io::{self, BufReader};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::corefile::plugins::ClientTls;

/// Where systems have the certificates of the authorities they trust.
const SYSTEM: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How connections with TLS are made.
///
/// # Errors
/// A file that cannot be read, or is not what it has to be.
pub(super) fn config(options: &ClientTls) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(options.ca.as_deref())?);
    let config = match &options.certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{certificate}: {error}"))?,
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|error| format!("{path}: {error}"))?;
        }
        return Ok(roots);
    }
    let named = std::env::var("SSL_CERT_FILE").ok();
    let paths = named.as_deref().into_iter().chain(SYSTEM);
    for path in paths {
        if let Ok(found) = certificates(path) {
            // Some systems have one or the other that is too old for anybody.
            roots.add_parsable_certificates(found);
            break;
        }
    }
    Ok(roots)
}

fn open(path: &str) -> Result<BufReader<File>, String> {
    let opened = File::open(path).map_err(|error| format!("open {path}: {error}"))?;
    Ok(BufReader::new(opened))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: io::Result<Vec<_>> = rustls_pemfile::certs(&mut open(path)?).collect();
    let found = read.map_err(|error| format!("{path}: {error}"))?;
    if found.is_empty() {
        return Err(format!("{path}: no certificate in it"));
    }
    Ok(found)
}

fn private_key(path: &str) -> Result<PrivateKeyDer<'static>, String> {
    let read = rustls_pemfile::private_key(&mut open(path)?);
    let found = read.map_err(|error| format!("{path}: {error}"))?;
    found.ok_or_else(|| format!("{path}: no private key in it"))
}
