//! Who talks to the API server, and the kubeconfig each starts from.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{Result, at};

/// One identity: the names in its certificate and where its kubeconfig goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate's common name: the user.
    pub user: String,
    /// The certificate's organisation: the group.
    pub group: String,
    /// `https://ADDRESS:PORT` as this identity reaches the API server.
    pub server: String,
    /// The kubeconfig's path.
    pub file: PathBuf,
}

/// A certificate made for an identity, as PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The authority's certificate.
    pub ca: String,
    /// The client's certificate.
    pub certificate: String,
    /// The client's key.
    pub key: String,
}

/// The kubeconfig's text. Every value is ours or base64: nothing needs quoting.
pub fn render(cluster: &str, identity: &Identity, credentials: &Credentials) -> String {
    let Identity { server, user, .. } = identity;
    let ca = STANDARD.encode(&credentials.ca);
    let certificate = STANDARD.encode(&credentials.certificate);
    let key = STANDARD.encode(&credentials.key);
    format!(
        "apiVersion: v1
kind: Config
current-context: {cluster}
preferences: {{}}
clusters:
- name: {cluster}
  cluster:
    server: {server}
    certificate-authority-data: {ca}
contexts:
- name: {cluster}
  context:
    cluster: {cluster}
    user: \"{user}\"
users:
- name: \"{user}\"
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// Writes a kubeconfig so that only its owner reads it.
pub fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        at("make", folder, fs::create_dir_all(folder))?;
    }
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = at("open", path, options.open(path))?;
    at("write", path, file.write_all(text.as_bytes()))
}
