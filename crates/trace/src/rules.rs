//! The rules that a packet meets on its way through a Service, by the names they have in the
//! kernel: what to look for in `nft list table inet flatnet` or `iptables -t nat -S`.

use model::config::ServicesMode;
use services::render::{iptables, nftables};
use services::{Answer, Backend, Plan, Question};

/// The chains and maps of one node, in their order; up to the chosen endpoint where there is one.
pub(crate) fn of(
    mode: ServicesMode,
    plan: &Plan,
    question: &Question,
    answer: &Answer,
    chosen: Option<&Backend>,
) -> Vec<String> {
    let v6 = question.destination.is_ipv6();
    let met = answer.frontend.as_ref().and_then(|(name, frontend)| {
        let port = plan.ports().get(&(name.clone(), v6))?;
        Some((port, frontend))
    });
    match (mode, met) {
        (ServicesMode::Nftables, Some((port, frontend))) => {
            nftables::way(port, frontend, question.origin)
        }
        (ServicesMode::Iptables, Some((port, frontend))) => {
            iptables::way(port, frontend, question.origin, chosen)
        }
        (ServicesMode::Nftables, None) => vec!["services-dispatch".into()],
        (ServicesMode::Iptables, None) => vec!["no chain has a rule for it".into()],
    }
}

/// The rule that gives a packet the node's address.
pub(crate) fn masquerade(mode: ServicesMode) -> &'static str {
    match mode {
        ServicesMode::Nftables => "nft table flatnet: services-postrouting",
        ServicesMode::Iptables => "KUBE-MARK-MASQ, KUBE-POSTROUTING",
    }
}
