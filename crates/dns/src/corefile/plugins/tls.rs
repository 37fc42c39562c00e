//! `tls`, and the options of that name in other plugins.

use crate::corefile::reader::{Reader, Result, quoted};

/// Certificates a client shows and trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Files of the client's certificate and key.
    pub certificate: Option<(String, String)>,
    /// The file of the authorities trusted; `None` is the system's.
    pub ca: Option<String>,
}

/// The certificate of listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// The file of the certificate.
    pub certificate: String,
    /// The file of its key.
    pub key: String,
    /// The file of the authorities of clients' certificates.
    pub ca: Option<String>,
    /// Whether clients show a certificate.
    pub client_auth: ClientAuth,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// No.
    #[default]
    None,
    /// They are asked for one, whatever it is.
    Request,
    /// They must, whatever it is.
    Require,
    /// If they do, it must be of an authority.
    VerifyIfGiven,
    /// They must, and it must be of an authority.
    RequireAndVerify,
}

impl ClientTls {
    /// Of the words of an option: `[CA]`, `CERT KEY`, `CERT KEY CA`.
    pub(super) fn new(reader: &Reader<'_>, args: &[&str]) -> Result<Self> {
        let file = |name: &str| reader.file(name);
        Ok(match args {
            [] => Self::default(),
            [ca] => Self {
                certificate: None,
                ca: Some(file(ca)),
            },
            [certificate, key] => Self {
                certificate: Some((file(certificate), file(key))),
                ca: None,
            },
            [certificate, key, ca] => Self {
                certificate: Some((file(certificate), file(key))),
                ca: Some(file(ca)),
            },
            more => {
                let found = quoted(more);
                let message = format!("tls takes [CA], CERT KEY or CERT KEY CA; found {found}");
                return Err(reader.error(message));
            }
        })
    }
}

pub(super) fn parse(reader: &mut Reader<'_>) -> Option<ServerTls> {
    let mut found = None;
    reader.each(|reader| {
        let args = reader.args();
        let (certificate, key, ca) = match args.as_slice() {
            [certificate, key] => (certificate, key, None),
            [certificate, key, ca] => (certificate, key, Some(reader.file(ca))),
            [] => {
                let message = "certificates by ACME are not supported; it takes CERT KEY [CA]";
                return Err(reader.error(message));
            }
            other => {
                let message = format!("it takes CERT KEY [CA]; found {}", quoted(other));
                return Err(reader.error(message));
            }
        };
        let mut tls = ServerTls {
            certificate: reader.file(certificate),
            key: reader.file(key),
            ca,
            client_auth: ClientAuth::default(),
        };
        reader.options(|reader, name| {
            match name {
                "client_auth" => tls.client_auth = client_auth(reader)?,
                "keylog" => {
                    reader.one_arg("a file")?;
                    reader.warn("keylog is without effect: keys of sessions are not written");
                }
                _ => return Err(reader.unknown_option(&["client_auth", "keylog"])),
            }
            Ok(())
        });
        found = Some(tls);
        Ok(())
    });
    found
}

fn client_auth(reader: &mut Reader<'_>) -> Result<ClientAuth> {
    const KNOWN: [&str; 5] = [
        "nocert",
        "request",
        "require",
        "verify_if_given",
        "require_and_verify",
    ];
    Ok(match reader.one_arg("a kind of authentication")? {
        "nocert" => ClientAuth::None,
        "request" => ClientAuth::Request,
        "require" => ClientAuth::Require,
        "verify_if_given" => ClientAuth::VerifyIfGiven,
        "require_and_verify" => ClientAuth::RequireAndVerify,
        other => return Err(reader.unknown_value("kind of authentication", other, &KNOWN)),
    })
}
