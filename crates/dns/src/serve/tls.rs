//! The certificate of listeners for TLS and HTTPS.

use std::fs::File;
use std::io::{self, BufReader};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
};

use crate::corefile::Scheme;
use crate::corefile::plugins::{ClientAuth, ServerTls};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// A file has nothing of what it is for.
    #[error("{path} holds no {what} in PEM form")]
    Empty {
        /// Which.
        path: String,
        /// What should be there.
        what: &'static str,
    },
    /// The key is not the certificate's, or an authority is none.
    #[error("certificate {path}: {error}")]
    Bad {
        /// Of the certificate or the authorities.
        path: String,
        /// Why.
        error: String,
    },
    /// Nobody to verify clients by.
    #[error("clients are to be verified, but plugin tls names no file of authorities")]
    NoAuthorities,
}

/// What a listener shows and asks for.
///
/// # Errors
/// Files that cannot be read or are not what they should be.
pub(super) fn config(options: &ServerTls, scheme: Scheme) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let bad = |path: &str, error: &dyn std::fmt::Display| TlsError::Bad {
        path: path.to_owned(),
        error: error.to_string(),
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(&options.certificate, &error))?;
    let builder = match verifier(options, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain = certificates(&options.certificate)?;
    let path = &options.key;
    let key = rustls_pemfile::private_key(&mut open(path)?)
        .map_err(|error| unreadable(path, error))?
        .ok_or_else(|| TlsError::Empty {
            path: path.clone(),
            what: "private key",
        })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| bad(&options.certificate, &error))?;
    if scheme == Scheme::Https {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok(Arc::new(config))
}

fn verifier(
    options: &ServerTls,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let anybody = |mandatory| -> Arc<dyn ClientCertVerifier> {
        Arc::new(Anybody {
            provider: Arc::clone(provider),
            mandatory,
        })
    };
    let optional = match options.client_auth {
        ClientAuth::None => return Ok(None),
        ClientAuth::Request => return Ok(Some(anybody(false))),
        ClientAuth::Require => return Ok(Some(anybody(true))),
        ClientAuth::VerifyIfGiven => true,
        ClientAuth::RequireAndVerify => false,
    };
    let path = options.ca.as_ref().ok_or(TlsError::NoAuthorities)?;
    let bad = |error: String| TlsError::Bad {
        path: path.clone(),
        error,
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(path)? {
        roots
            .add(authority)
            .map_err(|error| bad(error.to_string()))?;
    }
    let provider = Arc::clone(provider);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    let verifier = builder.build().map_err(|error| bad(error.to_string()))?;
    Ok(Some(verifier))
}

fn open(path: &str) -> Result<BufReader<File>, TlsError> {
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    Ok(BufReader::new(file))
}

fn unreadable(path: &str, error: io::Error) -> TlsError {
    TlsError::Read {
        path: path.to_owned(),
        error,
    }
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = rustls_pemfile::certs(&mut open(path)?).collect();
    let chain = chain.map_err(|error| unreadable(path, error))?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
            what: "certificate",
        });
    }
    Ok(chain)
}

/// Takes a client's certificate whoever signed it, as `request` and `require` say; that the
/// client has its key is checked all the same.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
    mandatory: bool,
}

impl ClientCertVerifier for Anybody {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
