//! The plan as kube-proxy's iptables chains.
