//! A client from a kubeconfig, or from the pod's own service account.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use kube::{Client, Config};

use crate::Error;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection may stay silent. Watches are renewed more often than this
/// ([`crate::watch::RENEW`]), so that a connection whose other end vanished without a
/// word is given up and made anew.
const SILENCE: Duration = Duration::from_secs(75);

/// How to reach an API server, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// As the pod this runs in.
    Pod,
    /// As a kubeconfig says.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context; none is the current one.
        context: Option<String>,
    },
    /// At an address.
    Endpoint {
        /// Its URL.
        url: String,
        /// Files of a client's certificate and its key.
        certificate: Option<(String, String)>,
        /// File of the authority that the server's certificate is checked by.
        ca: Option<String>,
    },
}

/// A client of the cluster that `access` leads to.
pub async fn client_by(access: Access, component: &str) -> Result<Client, Error> {
    let config = match access {
        Access::Pod => config(None).await?,
        Access::Kubeconfig { file, context } => {
            let options = KubeConfigOptions {
                context,
                ..KubeConfigOptions::default()
            };
            let read = Kubeconfig::read_from(&file).map_err(bad(&file))?;
            Config::from_custom_kubeconfig(read, &options)
                .await
                .map_err(bad(&file))?
        }
        Access::Endpoint {
            url,
            certificate,
            ca,
        } => {
            let fail = |error: kube::config::KubeconfigError| Error::Client {
                url: url.clone(),
                cause: error.to_string(),
            };
            let config = endpoint(url.clone(), certificate, ca);
            Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
                .await
                .map_err(fail)?
        }
    };
    client_of(config, component)
}

/// What a kubeconfig would say of an address.
fn endpoint(url: String, certificate: Option<(String, String)>, ca: Option<String>) -> Kubeconfig {
    let name = || "endpoint".to_owned();
    let (client_certificate, client_key) = certificate.unzip();
    Kubeconfig {
        clusters: vec![NamedCluster {
            name: name(),
            cluster: Some(Cluster {
                server: Some(url),
                certificate_authority: ca,
                ..Cluster::default()
            }),
            other: Default::default(),
        }],
        auth_infos: vec![NamedAuthInfo {
            name: name(),
            auth_info: Some(AuthInfo {
                client_certificate,
                client_key,
                ..AuthInfo::default()
            }),
            other: Default::default(),
        }],
        contexts: vec![NamedContext {
            name: name(),
            context: Some(Context {
                cluster: name(),
                user: Some(name()),
                ..Context::default()
            }),
            other: Default::default(),
        }],
        current_context: Some(name()),
        ..Kubeconfig::default()
    }
}

fn bad(path: &Path) -> impl Fn(kube::config::KubeconfigError) -> Error {
    |error| Error::Kubeconfig {
        path: path.to_owned(),
        cause: error.to_string(),
    }
}

/// A client of the cluster that `kubeconfig` names, or of the cluster this pod runs in
/// where there is none. `component` is what the API server's log calls it, for example
/// `flatnet-agent`. It reconnects by itself; an idle or dead connection is dropped.
pub async fn client(kubeconfig: Option<&Path>, component: &str) -> Result<Client, Error> {
    client_of(config(kubeconfig).await?, component)
}

/// The same, from a configuration already read.
pub fn client_of(mut config: Config, component: &str) -> Result<Client, Error> {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENCE);
    config.write_timeout = Some(SILENCE);
    let agent = format!("{component}/{}", env!("CARGO_PKG_VERSION"));
    let url = config.cluster_url.to_string();
    let value = HeaderValue::try_from(agent).map_err(|error| Error::Client {
        url: url.clone(),
        cause: format!("component name {component:?}: {error}"),
    })?;
    config.headers.push((USER_AGENT, value));
    Client::try_from(config).map_err(|error| Error::Client {
        url,
        cause: crate::error::cause(&error),
    })
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config, Error> {
    let Some(path) = kubeconfig else {
        return Config::incluster().map_err(|error| Error::NoConfig(error.to_string()));
    };
    let file = Kubeconfig::read_from(path).map_err(bad(path))?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(bad(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_endpoint_is_reached_with_the_files_it_is_given() {
        let access = Access::Endpoint {
            url: "https://10.0.0.1:6443".into(),
            certificate: None,
            ca: Some("/nonexistent/ca.crt".into()),
        };
        let error = client_by(access, "test").await.err().unwrap().to_string();
        assert!(
            error.starts_with("client for https://10.0.0.1:6443: ")
                && error.contains("/nonexistent/ca.crt"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = client(Some(Path::new("/nonexistent/kubeconfig")), "test")
            .await
            .err()
            .map(|error| error.to_string())
            .unwrap();
        assert!(
            error.starts_with("kubeconfig /nonexistent/kubeconfig: "),
            "{error}"
        );
    }
}
