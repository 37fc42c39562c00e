//! What every cluster has from the start: namespaces, roles, and the way to this server.

use std::net::IpAddr;

use objects::{Object, Status};
use serde_json::json;

use crate::admission;
use crate::cluster_policies;
use crate::context::{self, Ctx};
use crate::failure::Failure;
use crate::registry;
use crate::roles;
use crate::verbs::meta;
use crate::verbs::write::{self, Options};

fn options() -> Options {
    Options {
        manager: "kube-apiserver".into(),
        ..Options::default()
    }
}

/// Creates the object if it is missing; with `renew`, also gives it this content.
async fn ensure(ctx: &Ctx, object: Object, renew: bool) -> Result<(), Failure> {
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let kind = ctx
        .registry
        .load()
        .of_object(&text("apiVersion"), &text("kind"))
        .cloned()
        .ok_or_else(|| Status::internal(format!("no kind {}", text("kind"))))?;
    let (namespace, name) = (
        meta::get(&object, "namespace").to_owned(),
        meta::get(&object, "name").to_owned(),
    );
    if ctx
        .store
        .get(&registry::key(&kind, &namespace, &name))
        .is_none()
    {
        return match write::create_object(ctx, &kind, object, &options()).await {
            Err(Failure(status)) if status.code != 409 => Err(Failure(status)),
            _ => Ok(()),
        };
    }
    if renew {
        write::replace(ctx, &kind, &namespace, &name, &options(), |old| {
            let mut new = old.cloned().unwrap_or(Object::Null);
            for (field, value) in object.as_object().into_iter().flatten() {
                if field != "metadata" {
                    new[field] = value.clone();
                }
            }
            Ok(new)
        })
        .await?;
    }
    Ok(())
}

/// Creates what is missing.
pub async fn run(ctx: &Ctx) -> Result<(), Failure> {
    admission::crds::refresh(ctx);
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"]
        .map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    // Side by side, so that one sync of the disk serves many.
    let namespaces = namespaces
        .into_iter()
        .map(|object| ensure(ctx, object, false));
    let roles = roles::all()
        .into_iter()
        .map(|object| ensure(ctx, object, true));
    futures::future::try_join(
        futures::future::try_join_all(namespaces),
        futures::future::try_join_all(roles),
    )
    .await?;
    for object in roles::of_namespaces() {
        ensure(ctx, object, true).await?;
    }
    // Who applies another release of it keeps that.
    ensure(ctx, cluster_policies::definition(), false).await?;
    service_range(ctx).await?;
    kubernetes(ctx).await
}

async fn service_range(ctx: &Ctx) -> Result<(), Failure> {
    let cidrs: Vec<String> = ctx
        .settings
        .service_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}});
    ensure(ctx, range, false).await?;
    let kind = ctx
        .registry
        .load()
        .find("networking.k8s.io", "v1", "servicecidrs")
        .cloned()
        .ok_or_else(Status::no_such_path)?;
    let options = Options {
        subresource: "status".into(),
        ..options()
    };
    write::replace(ctx, &kind, "", "kubernetes", &options, |old| {
        let mut new = old.cloned().ok_or_else(Status::no_such_path)?;
        if !new["status"]["conditions"].is_array() {
            new["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "",
                "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": context::now_text()}]});
        }
        Ok(new)
    })
    .await?;
    Ok(())
}

/// The Service `kubernetes`, its Endpoints and EndpointSlices.
pub async fn kubernetes(ctx: &Ctx) -> Result<(), Failure> {
    let settings = &ctx.settings;
    let metadata = json!({"name": "kubernetes", "namespace": "default",
        "labels": {"component": "apiserver", "provider": "kubernetes"}});
    if let Some(first) = settings
        .service_cidrs
        .first()
        .and_then(|c| c.hosts().next())
    {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"type": "ClusterIP", "clusterIP": first.to_string(), "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": settings.advertise_port}]}});
        ensure(ctx, service, false).await?;
    }
    for four in [true, false] {
        let addresses: Vec<&IpAddr> = settings
            .advertise
            .iter()
            .filter(|a| a.is_ipv4() == four)
            .collect();
        if addresses.is_empty() {
            continue;
        }
        let (name, family) = if four {
            ("kubernetes", "IPv4")
        } else {
            ("kubernetes-ipv6", "IPv6")
        };
        let port = json!({"name": "https", "port": settings.advertise_port, "protocol": "TCP"});
        let endpoints: Vec<Object> = addresses
            .iter()
            .map(|a| json!({"addresses": [a.to_string()], "conditions": {"ready": true}}))
            .collect();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": family, "endpoints": endpoints, "ports": [port]});
        ensure(ctx, slice, true).await?;
        if four {
            let ips: Vec<Object> = addresses
                .iter()
                .map(|a| json!({"ip": a.to_string()}))
                .collect();
            let endpoints = json!({"apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
                "subsets": [{"addresses": ips, "ports": [port]}]});
            ensure(ctx, endpoints, true).await?;
        }
    }
    Ok(())
}
