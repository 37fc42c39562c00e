//! A client from a kubeconfig, or from the pod's own service account.

use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::Error;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection may stay silent. Watches are renewed more often than this
/// ([`crate::watch::RENEW`]), so that a connection whose other end vanished without a
/// word is given up and made anew.
const SILENCE: Duration = Duration::from_secs(75);

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
    let bad = |error: kube::config::KubeconfigError| Error::Kubeconfig {
        path: path.to_owned(),
        cause: error.to_string(),
    };
    let file = Kubeconfig::read_from(path).map_err(bad)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

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
