//! Listening: TLS, HTTP/1.1 and HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::auth;
use crate::context::Ctx;
use crate::route;
use certs::{Pair, PkiError};

/// A handshake must be done after this long.
const HANDSHAKE: Duration = Duration::from_secs(10);

fn bad(what: &str, cause: impl std::fmt::Display) -> PkiError {
    PkiError::Certificate {
        what: what.to_owned(),
        cause: cause.to_string(),
    }
}

/// The certificates of a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    rustls_pemfile::certs(&mut pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| bad("certificate", e))
}

/// The key of a PEM text.
pub fn key(pem: &str) -> Result<PrivateKeyDer<'static>, PkiError> {
    rustls_pemfile::private_key(&mut pem.as_bytes())
        .map_err(|e| bad("private key", e))?
        .ok_or_else(|| bad("private key", "the PEM text holds none"))
}

/// The store of an authority's certificate.
pub fn roots(ca: &str) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|e| bad("ca.crt", e))?;
    }
    Ok(roots)
}

/// TLS that asks for a client certificate and goes on without one (a token may follow).
pub fn tls(pair: &Pair, ca: &str) -> Result<TlsAcceptor, PkiError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| bad("ca.crt", e))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad("TLS", e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&pair.certificate)?, key(&pair.key)?)
        .map_err(|e| bad("server certificate", e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until `stop` turns true.
pub async fn listen(
    ctx: Ctx,
    listener: TcpListener,
    tls: TlsAcceptor,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // Beyond the limit a connection is closed at once: its client tries again.
                let Ok(place) = ctx.connections.clone().try_acquire_owned() else {
                    continue;
                };
                let serving = connection(ctx.clone(), stream, tls.clone(), stop.clone());
                tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors: those in use must end first.
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    ctx: Ctx,
    stream: TcpStream,
    tls: TlsAcceptor,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else {
        return;
    };
    let user = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|certificate| auth::of_certificate(certificate));
    let service = service_fn(move |request| route::handle(ctx.clone(), user.clone(), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(60))
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1000)
        .keep_alive_interval(Duration::from_secs(30));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        done = serving.as_mut() => if let Err(error) = done {
            tracing::debug!(%error, "connection ended");
        },
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
