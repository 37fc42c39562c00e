//! What a cluster's authority signs: certificates and the kubeconfigs everybody starts from.

use certs::{Pki, PkiError, write_private};

use super::error::{Error, Result};
use super::kubeconfig::Identity;
use super::plan::{NodePlan, Plan};
use crate::paths::ClusterPaths;

fn signed<T>(result: std::result::Result<T, PkiError>) -> Result<T> {
    result.map_err(|error| Error::kernel("sign", error))
}

/// Writes every kubeconfig and certificate of the cluster that is not there yet.
pub fn issue(paths: &ClusterPaths, plan: &Plan) -> Result<()> {
    let pki = signed(Pki::open(&paths.apiserver()))?;
    signed(kubeconfigs(&paths.name, &pki, &plan.identities))?;
    plan.nodes
        .iter()
        .try_for_each(|node| signed(of_node(paths, &pki, node)))
}

/// Writes what one node starts from.
pub fn issue_node(paths: &ClusterPaths, node: &NodePlan) -> Result<()> {
    let pki = signed(Pki::open(&paths.apiserver()))?;
    signed(of_node(paths, &pki, node))
}

fn of_node(paths: &ClusterPaths, pki: &Pki, node: &NodePlan) -> std::result::Result<(), PkiError> {
    kubeconfigs(&paths.name, pki, &node.identities)?;
    let serving = &node.serving;
    if serving.certificate.exists() {
        return Ok(());
    }
    let pair = pki.authority.server(
        &serving.user,
        Some("system:nodes"),
        &[&serving.host],
        &serving.addresses,
    )?;
    write_private(&serving.key, &pair.key)?;
    write_private(&serving.certificate, &pair.certificate)
}

fn kubeconfigs(
    cluster: &str,
    pki: &Pki,
    identities: &[Identity],
) -> std::result::Result<(), PkiError> {
    for identity in identities.iter().filter(|identity| !identity.file.exists()) {
        let Identity {
            user,
            group,
            server,
            file,
        } = identity;
        let text = pki.kubeconfig(cluster, server, user, Some(group))?;
        write_private(file, &text)?;
    }
    Ok(())
}
