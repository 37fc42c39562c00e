//! The one-machine cluster: nodes as network namespaces, a kubelet for each, the
//! scheduler and the controllers. Every process here knows only the Kubernetes API
//! and a kubeconfig.

pub mod cluster;
pub mod controllers;
pub mod images;
pub mod kubelet;
pub mod paths;
pub mod resolver;
pub mod scheduler;
pub mod shim;
