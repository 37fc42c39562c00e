//! The controllers a cluster needs: workloads, endpoints, node life cycle, namespaces, tokens.
