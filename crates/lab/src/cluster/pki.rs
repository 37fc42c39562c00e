//! The cluster's authority and the kubeconfigs it signs.

use std::fs;
use std::path::Path;

use certs::{Authority, Pair};

use super::error::{Error, Result, at};
use super::kubeconfig::{self, Identity};
use super::plan::{NodePlan, Plan};
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

/// Writes every kubeconfig and certificate of the cluster that is not there yet.
pub fn issue(paths: &ClusterPaths, plan: &Plan) -> Result<()> {
    let authority = authority(paths)?;
    kubeconfigs(&paths.name, &authority, &plan.identities)?;
    plan.nodes
        .iter()
        .try_for_each(|node| of_node(paths, &authority, node))
}

/// Writes what one node starts from.
pub fn issue_node(paths: &ClusterPaths, node: &NodePlan) -> Result<()> {
    of_node(paths, &authority(paths)?, node)
}

fn of_node(paths: &ClusterPaths, authority: &Authority, node: &NodePlan) -> Result<()> {
    kubeconfigs(&paths.name, authority, &node.identities)?;
    let serving = &node.serving;
    if serving.certificate.exists() {
        return Ok(());
    }
    let pair = authority.server(
        &serving.user,
        Some("system:nodes"),
        &[&serving.host],
        &serving.addresses,
    );
    let pair = signed(pair)?;
    kubeconfig::write(&serving.key, &pair.key)?;
    kubeconfig::write(&serving.certificate, &pair.certificate)
}

fn kubeconfigs(cluster: &str, authority: &Authority, identities: &[Identity]) -> Result<()> {
    for identity in identities.iter().filter(|identity| !identity.file.exists()) {
        let pair = signed(authority.client(&identity.user, Some(&identity.group)))?;
        let text = kubeconfig::render(cluster, identity, authority.certificate(), &pair);
        kubeconfig::write(&identity.file, &text)?;
    }
    Ok(())
}
