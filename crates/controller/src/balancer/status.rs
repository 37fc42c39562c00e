//! What statuses show, and what they are to show. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use model::Judged;
use serde_json::{Value, json};

use super::ask::addresses;
use super::plan::{Count, Outcome};

/// The condition of a Service that says which addresses it has, or why it has none. It also says
/// that the addresses are ours to take back.
pub(super) const CONDITION: &str = "flatnet.io/LoadBalancerAddress";

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub good: bool,
    pub reason: String,
    pub message: String,
}

/// What a Service's status says of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    pub ips: Vec<IpAddr>,
    pub condition: Option<Condition>,
}

impl Shown {
    /// What the status shows, and since when its condition has been so.
    pub(super) fn of(service: &Service) -> (Self, Option<Timestamp>) {
        let status = service.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let ours = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == CONDITION);
        let shown = Self {
            ips: addresses(service),
            condition: ours.map(|ours| Condition {
                good: ours.status == "True",
                reason: ours.reason.clone(),
                message: ours.message.clone(),
            }),
        };
        (shown, ours.map(|ours| ours.last_transition_time.0))
    }

    /// What the status is to show after this.
    pub(super) fn after(outcome: &Outcome) -> Self {
        let has: Vec<String> = outcome
            .addresses
            .iter()
            .map(|(ip, pool)| format!("{ip} of LoadBalancerPool {pool}"))
            .collect();
        let condition = match &outcome.problem {
            None => Condition {
                good: true,
                reason: "Assigned".to_owned(),
                message: has.join(", "),
            },
            Some(problem) => Condition {
                good: false,
                reason: "FailedAllocation".to_owned(),
                message: problem.clone(),
            },
        };
        Self {
            ips: outcome.addresses.iter().map(|(ip, _)| *ip).collect(),
            condition: Some(condition),
        }
    }

    /// The patch that makes a Service's status show this instead of `old`.
    pub(super) fn patch(
        &self,
        old: &Self,
        since: Option<Timestamp>,
        uid: Option<&str>,
        now: Timestamp,
    ) -> Value {
        let ingress: Vec<Value> = self
            .ips
            .iter()
            .map(|ip| json!({"ip": ip.to_string(), "ipMode": "VIP"}))
            .collect();
        let condition = match &self.condition {
            None => json!({"type": CONDITION, "$patch": "delete"}),
            Some(condition) => {
                let same = old.condition.as_ref().map(|old| old.good) == Some(condition.good);
                let since = since.filter(|_| same).unwrap_or(now);
                json!({"type": CONDITION, "status": truth(condition.good),
                    "reason": condition.reason, "message": condition.message,
                    "lastTransitionTime": seconds(since)})
            }
        };
        let ingress = if ingress.is_empty() {
            Value::Null
        } else {
            ingress.into()
        };
        json!({"metadata": {"uid": uid},
            "status": {"loadBalancer": {"ingress": ingress}, "conditions": [condition]}})
    }
}

/// The status of a pool beside what it shows now; None where that is the same.
pub(super) fn of_pool(
    judged: Option<(&Judged, Count)>,
    problem: Option<&str>,
    generation: Option<i64>,
    old: &Value,
    now: Timestamp,
) -> Option<Value> {
    let small = |number: u128| i64::try_from(number).unwrap_or(i64::MAX);
    let (good, reason, message) = match (problem, &judged) {
        (Some(problem), _) => (false, "Invalid", problem.to_owned()),
        (None, Some((judged, _))) => match judged.conflicts.as_slice() {
            [] => (true, "Accepted", accepted(judged)),
            conflicts => (false, "Overlap", conflicts.join("; ")),
        },
        (None, None) => return None,
    };
    let before = old["conditions"].as_array().into_iter().flatten();
    let mut before = before.filter(|condition| condition["type"] == "Accepted");
    let before = before.next().cloned().unwrap_or_default();
    let since = if before["status"] == truth(good) {
        before["lastTransitionTime"].clone()
    } else {
        seconds(now).into()
    };
    let mut status = json!({"conditions": [{"type": "Accepted", "status": truth(good),
        "reason": reason, "message": message, "observedGeneration": generation,
        "lastTransitionTime": since}]});
    if let Some((_, count)) = judged {
        status["capacity"] = small(count.capacity).into();
        status["assigned"] = small(count.assigned).into();
        status["available"] = small(count.capacity.saturating_sub(count.assigned)).into();
    }
    (status != *old).then_some(status)
}

fn accepted(judged: &Judged) -> String {
    let left_out: Vec<String> = judged
        .left_out
        .iter()
        .map(|(ip, node)| format!("{ip} is an address of Node {node} and left out"))
        .collect();
    left_out.join("; ")
}

fn truth(good: bool) -> &'static str {
    if good { "True" } else { "False" }
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
