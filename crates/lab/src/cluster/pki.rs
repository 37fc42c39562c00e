//! The cluster's authority and the kubeconfigs it signs.

use std::fs;
use std::path::Path;

use certs::{Authority, Pair};

use super::error::{Error, Result, at};
use super::kubeconfig::{self, Identity};
use crate::paths::ClusterPaths;

fn signed<T>(result: std::result::Result<T, certs::Error>) -> Result<T> {
    result.map_err(|error| Error::kernel("sign", error))
}

/// The authority in the cluster's folder, made where there is none.
pub fn authority(paths: &ClusterPaths) -> Result<Authority> {
    let (crt, key) = (paths.pki().join("ca.crt"), paths.pki().join("ca.key"));
    let read = |path: &Path| at("read", path, fs::read_to_string(path));
    // The key is written first: a certificate says that both are whole.
    let pair = if crt.exists() {
        Pair {
            certificate: read(&crt)?,
            key: read(&key)?,
        }
    } else {
        let pair = signed(Authority::create("kubernetes"))?;
        kubeconfig::write(&key, &pair.key)?;
        kubeconfig::write(&crt, &pair.certificate)?;
        pair
    };
    signed(Authority::load(&pair))
}

/// Writes the kubeconfigs that are not there yet.
pub fn kubeconfigs<'a>(
    cluster: &str,
    authority: &Authority,
    identities: impl Iterator<Item = &'a Identity>,
) -> Result<()> {
    for identity in identities.filter(|identity| !identity.file.exists()) {
        let pair = signed(authority.client(&identity.user, Some(&identity.group)))?;
        let text = kubeconfig::render(cluster, identity, authority.certificate(), &pair);
        kubeconfig::write(&identity.file, &text)?;
    }
    Ok(())
}
