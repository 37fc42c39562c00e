//! Who talks to the API server, and the kubeconfig each starts from.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certs::Pair;

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

/// The kubeconfig's text. Every value is ours or base64: nothing needs quoting.
pub fn render(cluster: &str, identity: &Identity, ca: &str, pair: &Pair) -> String {
    let Identity { server, user, .. } = identity;
    let ca = STANDARD.encode(ca);
    let certificate = STANDARD.encode(&pair.certificate);
    let key = STANDARD.encode(&pair.key);
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

/// Writes a file that only its owner reads, whole or not at all.
pub fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        at("make", folder, fs::create_dir_all(folder))?;
    }
    let new = path.with_added_extension("new");
    let mut options = fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(0o600);
    let mut file = at("open", &new, options.open(&new))?;
    at("write", &new, file.write_all(text.as_bytes()))?;
    at("rename", path, fs::rename(&new, path))
}
