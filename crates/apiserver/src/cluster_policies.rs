//! The definition of ClusterNetworkPolicy, which every cluster here has from the start.
//!
//! The API is that of the Network Policy API project (v0.2.0, with what is experimental in it);
//! fields, limits and rules are its own, so that what is accepted here is accepted elsewhere.

use objects::Object;
use serde_json::{Value, json};

/// Most rules of a direction, and most peers and protocols of a rule.
const MOST: u32 = 25;
const GROUP: &str = "policy.networking.k8s.io";

/// The CustomResourceDefinition.
pub fn definition() -> Object {
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("clusternetworkpolicies.{GROUP}"),
            "annotations": {
                // Groups below k8s.io must name who approved them.
                "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/network-policy-api/pull/347",
                format!("{GROUP}/bundle-version"): "v0.2.0",
                format!("{GROUP}/channel"): "experimental"}},
        "spec": {
            "group": GROUP,
            "scope": "Cluster",
            "names": {"kind": "ClusterNetworkPolicy", "listKind": "ClusterNetworkPolicyList",
                "plural": "clusternetworkpolicies", "singular": "clusternetworkpolicy",
                "shortNames": ["cnp"]},
            "versions": [{
                "name": "v1alpha2", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    column("Tier", "string", ".spec.tier"),
                    column("Priority", "string", ".spec.priority"),
                    column("Age", "date", ".metadata.creationTimestamp")],
                "schema": {"openAPIV3Schema": schema()}}]}})
}

fn schema() -> Value {
    json!({
        "type": "object",
        "description": "Rules of the cluster's administrators about who may talk to whom, before or after those of NetworkPolicies.",
        "required": ["metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec(),
            "status": status()}})
}

fn spec() -> Value {
    json!({
        "type": "object",
        "required": ["priority", "subject", "tier"],
        "properties": {
            "tier": {
                "type": "string", "enum": ["Admin", "Baseline"],
                "description": "When the policy is asked: Admin before NetworkPolicies, Baseline where none is about the pod."},
            "priority": {
                "type": "integer", "format": "int32", "minimum": 0, "maximum": 1000,
                "description": "Of the policies of a tier the one with the lowest number decides first."},
            "subject": described(one_of(json!({"namespaces": selector(), "pods": pods()})),
                "The pods it is about, never those of the host's network."),
            "ingress": rules("from", one_of(json!({"namespaces": selector(), "pods": pods()})), None,
                "What becomes of connections to these pods; the first rule that matches decides."),
            "egress": rules("to", egress_peer(), Some(json!([{
                "rule": "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.protocols) && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))",
                "message": "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for networks/nodes/domainNames"}])),
                "What becomes of connections from these pods; the first rule that matches decides.")}})
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

/// An object of which exactly one field is written.
fn one_of(properties: Value) -> Value {
    json!({"type": "object", "minProperties": 1, "maxProperties": 1, "properties": properties})
}

fn rules(peers: &str, peer: Value, checks: Option<Value>, description: &str) -> Value {
    let mut rule = json!({
        "type": "object",
        "required": ["action", peers],
        "properties": {
            "name": {"type": "string", "maxLength": 100,
                "description": "What the rule is called where it is reported."},
            "action": {"type": "string", "enum": ["Accept", "Deny", "Pass"],
                "description": "Accept and Deny decide; Pass leaves the rest of the tier out."},
            peers: {"type": "array", "minItems": 1, "maxItems": MOST, "items": peer,
                "description": "With whom; any of them."},
            "protocols": {"type": "array", "minItems": 1, "maxItems": MOST, "items": protocol(),
                "description": "On which ports; on all, and what has no ports, where not written."}}});
    if let Some(checks) = checks {
        rule["x-kubernetes-validations"] = checks;
    }
    json!({"type": "array", "maxItems": MOST, "items": rule, "description": description})
}

fn egress_peer() -> Value {
    let set = |items: Value, description: &str| {
        json!({"type": "array", "x-kubernetes-list-type": "set", "minItems": 1, "maxItems": MOST,
            "items": items, "description": description})
    };
    let name =
        r"([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?";
    one_of(json!({
        "namespaces": selector(),
        "pods": pods(),
        "nodes": described(selector(), "Nodes, by their addresses."),
        "networks": set(
            json!({"type": "string", "maxLength": 43, "x-kubernetes-validations": [
                {"rule": "isCIDR(self)", "message": "Invalid CIDR format provided"}]}),
            "Ranges of addresses, for example 10.0.0.0/8; whoever has them."),
        "domainNames": set(
            json!({"type": "string", "pattern": format!(r"^(\*\.)?{name}$")}),
            "Names of hosts, for example example.com or *.example.com; only to Accept.")}))
}

fn pods() -> Value {
    json!({"type": "object", "required": ["podSelector"],
        "properties": {"namespaceSelector": selector(), "podSelector": selector()}})
}

/// A label selector.
fn selector() -> Value {
    json!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string"},
                        "operator": {"type": "string"},
                        "values": {"type": "array", "x-kubernetes-list-type": "atomic",
                            "items": {"type": "string"}}}}}}})
}

fn protocol() -> Value {
    let number = json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535});
    let port = one_of(json!({
        "number": number,
        "range": {
            "type": "object",
            "required": ["end", "start"],
            "properties": {"start": number, "end": number},
            "x-kubernetes-validations": [
                {"rule": "self.start < self.end", "message": "Start port must be less than End port"}]}}));
    let of = json!({"type": "object", "minProperties": 1, "properties": {"destinationPort": port}});
    one_of(json!({"tcp": of, "udp": of, "sctp": of,
        "destinationNamedPort": {"type": "string",
            "description": "What the pod connected to calls its port."}}))
}

fn status() -> Value {
    let word = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])";
    let domain = r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?";
    json!({
        "type": "object",
        "required": ["conditions"],
        "properties": {"conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["lastTransitionTime", "message", "reason", "status", "type"],
                "properties": {
                    "lastTransitionTime": {"type": "string", "format": "date-time"},
                    "message": {"type": "string", "maxLength": 32768},
                    "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                    "reason": {"type": "string", "minLength": 1, "maxLength": 1024,
                        "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "type": {"type": "string", "maxLength": 316,
                        "pattern": format!("^{domain}{word}$")}}}}}})
}
