//! Who talks to the API server, and the kubeconfig each starts from.

use std::path::PathBuf;

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
