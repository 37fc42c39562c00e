//! `tls`, and the options of that name in other plugins.

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
