//! The kubelet: pods of one node, from the API to running containers.
