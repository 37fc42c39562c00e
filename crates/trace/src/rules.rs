//! The rules that a packet meets on its way through a Service, by the names they have in the
//! kernel: what to look for in `nft list table inet flatnet` or `iptables -t nat -S`.

use model::config::ServicesMode;
use services::{Answer, Backend, Plan, Question};

/// The chains and maps of one node, in their order; up to the chosen endpoint where there is one.
pub(crate) fn of(
    mode: ServicesMode,
    _plan: &Plan,
    question: &Question,
    answer: &Answer,
    _chosen: Option<&Backend>,
) -> Vec<String> {
    match mode {
        ServicesMode::Nftables => {
            let map = match &answer.frontend {
                Some((_, frontend)) if frontend.ip.is_none() => "@services-nodeports",
                Some(_) => "@services-ips",
                None => "@services-cluster-ips",
            };
            let six = if question.destination.is_ipv6() {
                "6"
            } else {
                ""
            };
            vec!["services-dispatch".into(), format!("{map}{six}")]
        }
        ServicesMode::Iptables => vec!["KUBE-SERVICES".into()],
    }
}

/// The rule that gives a packet the node's address.
pub(crate) fn masquerade(mode: ServicesMode) -> &'static str {
    match mode {
        ServicesMode::Nftables => "nft table flatnet: services-postrouting",
        ServicesMode::Iptables => "KUBE-MARK-MASQ, KUBE-POSTROUTING",
    }
}
