//! What goes wrong between flatnet and the Kubernetes API.

use std::path::PathBuf;

/// A failure with the object it happened on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {cause}; check that the file exists and names a cluster and a user", path = .path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Neither a kubeconfig nor a pod's own credentials.
    #[error("no kubeconfig given and not running in a pod: {0}; pass --kubeconfig FILE")]
    NoConfig(String),
    /// The client could not be made from good credentials.
    #[error("client for {url}: {cause}")]
    Client {
        /// The API server's address.
        url: String,
        /// What is wrong.
        cause: String,
    },
    /// A field of an object says something that cannot be understood.
    #[error("{object}: {field}: {cause}")]
    Field {
        /// Kind and name, for example `Node node1`.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A request failed.
    #[error("{what}: {}", cause(.source))]
    Request {
        /// What was tried, for example `patch Node node1`.
        what: String,
        /// How it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// A manifest cannot be read.
    #[error("{file}: document {document}: {cause}")]
    Manifest {
        /// The file's name.
        file: String,
        /// Which document of the file, counted from 1.
        document: usize,
        /// What is wrong with it.
        cause: String,
    },
    /// The cluster does not serve this kind.
    #[error(
        "{object}: the cluster does not serve {api_version} {kind}; apply its CustomResourceDefinition first"
    )]
    NoKind {
        /// Kind and name.
        object: String,
        /// The apiVersion asked for.
        api_version: String,
        /// The kind asked for.
        kind: String,
    },
}

impl Error {
    /// For `map_err`: a request for `what` failed.
    pub fn request(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Request {
            what,
            source: Box::new(source),
        }
    }

    /// The API's own answer, where the API answered at all.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// True where the object is not there (any more).
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// True where somebody else wrote first.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }
}

/// The API's message, or the innermost cause of a transport failure: the outer ones say
/// only that a request failed.
pub fn cause(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
