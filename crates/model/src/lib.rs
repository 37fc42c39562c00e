//! A cluster's network as plain values.
//!
//! Nothing here does I/O, knows tokio, kube or netlink: values in, values out.

pub mod cluster;
pub mod config;
pub mod labels;
pub mod policy;
pub mod pool;
pub mod selector;
pub mod service;

pub use cluster::{Change, Changed, Cluster, ContainerPort, Node, Pod};
pub use config::{Config, ConfigError, Document, ServicesConfig};
pub use labels::Labels;
pub use policy::{ClusterPolicy, Direction, Namespace, NetworkPolicy};
pub use pool::{AddressRange, Judged, Pool};
pub use selector::LabelSelector;
pub use service::{
    Endpoint, EndpointSlice, Key, LoadBalancerAddress, Protocol, Service, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};
