//! Making and unmaking a cluster: namespaces, underlay, keys, processes.
