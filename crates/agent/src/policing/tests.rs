use std::net::IpAddr;

use linux::fake::Fake;
use model::{LabelSelector, Labels, NetworkPolicy, Pod};
use pods::PodRef;
use pods::cni::{Call, Command};
use tokio::sync::oneshot;

use super::*;
use crate::locals::{Attached, CniAnswer, Reply};
use crate::metrics::Metrics;

struct Lab {
    kernel: Fake,
    cluster: Cluster,
    metrics: Arc<Metrics>,
    pods: Handle,
    policing: Policing,
}

impl Lab {
    fn new() -> Self {
        let metrics = Arc::<Metrics>::default();
        let pods = Handle::default();
        let policing = Policing::new(
            "node1",
            pods.clone(),
            Arc::new(ProxyHealth::new(Duration::ZERO)),
            metrics.policy.clone(),
        );
        Self {
            kernel: Fake::host(&["10.0.1.10/24"]),
            cluster: Cluster::default(),
            metrics,
            pods,
            policing,
        }
    }

    fn take(&mut self, change: Change) -> bool {
        self.policing.take(&mut self.cluster, change).is_some()
    }

    fn reconcile(&mut self) -> Outcome {
        self.policing.reconcile(&mut self.kernel, &self.cluster)
    }

    /// The worker has attached a pod, so long ago.
    fn add(&mut self, name: &str, uid: &str, ago: Duration) -> oneshot::Receiver<CniAnswer> {
        let (answer, answered) = oneshot::channel();
        let pod = PodRef {
            namespace: "d".into(),
            name: name.into(),
            uid: uid.into(),
        };
        let reply = Reply {
            call: call(Command::Add, ""),
            begun: Instant::now(),
            metrics: self.metrics.clone(),
            answer,
        };
        let admission = Admission {
            key: key(name),
            pod: pod.clone(),
            since: Instant::now() - ago,
            result: None,
            reply,
        };
        let attached = Attached {
            pod,
            ips: vec![IP.into()],
            found: false,
        };
        self.pods
            .tell([(key(name), Some(attached))].into(), Some(admission));
        assert!(self.policing.attachments());
        answered
    }

    fn has(&self, line: &str) {
        let text = self.metrics.text();
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

const IP: [u8; 4] = [10, 244, 1, 2];

fn key(container: &str) -> Key {
    Key {
        container: container.into(),
        ifname: "eth0".into(),
    }
}

fn call(command: Command, args: &str) -> Call {
    Call {
        command,
        container_id: "c".into(),
        netns: String::new(),
        ifname: "eth0".into(),
        args: args.into(),
    }
}

fn pod(name: &str, uid: &str, node: &str) -> Change {
    Change::Pod(Arc::new(Pod {
        namespace: "d".into(),
        name: name.into(),
        uid: uid.into(),
        node: node.into(),
        ips: vec![IpAddr::from(IP)],
        host_network: false,
        labels: Labels::default(),
        ports: Vec::new(),
        created: 0,
        leaving: false,
    }))
}

fn policy(namespace: &str) -> Change {
    Change::Policy(Arc::new(NetworkPolicy {
        namespace: namespace.into(),
        name: "closed".into(),
        uid: "p".into(),
        pods: LabelSelector::default(),
        ingress: Some(Vec::new()),
        ..NetworkPolicy::default()
    }))
}

#[test]
fn an_add_is_answered_when_the_pod_is_known_or_no_policy_asks_who_it_is() {
    let mut lab = Lab::new();
    lab.take(policy("other"));
    let mut nobody_asks = lab.add("a", "1", Duration::ZERO);
    assert!(lab.reconcile().again.is_none());
    assert!(nobody_asks.try_recv().unwrap().is_ok());

    lab.take(policy("d"));
    let mut asked = lab.add("b", "1", Duration::ZERO);
    let outcome = lab.reconcile();
    assert!(
        outcome
            .again
            .is_some_and(|again| again <= admission::PATIENCE)
    );
    assert!(asked.try_recv().is_err());
    // The pod that had its name before.
    lab.take(pod("b", "0", "node1"));
    lab.reconcile();
    assert!(asked.try_recv().is_err());
    lab.take(pod("b", "1", "node1"));
    lab.reconcile();
    assert!(asked.try_recv().unwrap().is_ok());
    lab.has("flatnet_policy_unknown_pods_total 0");
    lab.has("flatnet_policy_pod_start_wait_seconds_count 2");
    lab.has("flatnet_policy_policies{kind=\"NetworkPolicy\"} 2");
    lab.has("flatnet_policy_pods 2");
}

#[test]
fn an_add_waits_no_longer_than_it_may() {
    let mut lab = Lab::new();
    lab.take(policy("d"));
    let mut late = lab.add("a", "1", admission::PATIENCE);
    lab.reconcile();
    assert!(late.try_recv().unwrap().is_ok());
    lab.has("flatnet_policy_unknown_pods_total 1");
}

#[test]
fn a_pod_that_went_is_not_admitted() {
    let mut lab = Lab::new();
    lab.take(policy("d"));
    let mut waits = lab.add("a", "1", Duration::ZERO);
    lab.reconcile();
    lab.pods.tell([(key("a"), None)].into(), None);
    lab.policing.attachments();
    let refused = lab.reconcile().refused;
    assert_eq!(refused.len(), 1);
    assert!(waits.try_recv().is_err(), "the worker answers");
    lab.has("flatnet_policy_pods 0");
}

#[test]
fn pods_of_kubernetes_are_attached_once_policies_are_in_force() {
    let mut lab = Lab::new();
    let named = "IgnoreUnknown=1;K8S_POD_NAMESPACE=d;K8S_POD_NAME=a";
    let code = |pods: &Handle, command, args| Some(pods.refusal(&call(command, args))?.code);
    assert_eq!(code(&lab.pods, Command::Add, named), Some(11));
    assert_eq!(code(&lab.pods, Command::Status, ""), Some(50));
    for (command, args) in [
        (Command::Add, ""),
        (Command::Del, named),
        (Command::Check, named),
        (Command::Gc, ""),
    ] {
        assert_eq!(code(&lab.pods, command, args), None, "{command:?}");
    }
    lab.reconcile();
    assert_eq!(code(&lab.pods, Command::Add, named), None);
    assert_eq!(code(&lab.pods, Command::Status, ""), None);
}

#[test]
fn a_pod_whose_name_is_lost_is_known_by_its_address() {
    let mut lab = Lab::new();
    let found = Attached {
        pod: PodRef::default(),
        ips: vec![IP.into()],
        found: true,
    };
    let nameless = Attached {
        found: false,
        ips: vec![[10, 244, 1, 3].into()],
        ..found.clone()
    };
    lab.pods.tell(
        [(key("f"), Some(found)), (key("n"), Some(nameless))].into(),
        None,
    );
    lab.policing.attachments();
    lab.reconcile();
    assert!(lab.policing.locals.is_empty());
    lab.take(pod("elsewhere", "1", "node2"));
    lab.reconcile();
    assert!(lab.policing.locals.is_empty());
    lab.take(Change::PodGone("d".into(), "elsewhere".into()));
    lab.take(pod("a", "1", "node1"));
    lab.reconcile();
    let names: Vec<&str> = (lab.policing.locals.values())
        .map(|local| local.pod.1.as_str())
        .collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn problems_are_counted_by_object() {
    let mut lab = Lab::new();
    lab.policing.understood("NetworkPolicy d/a", false);
    lab.policing.understood("ClusterNetworkPolicy c", false);
    lab.policing.understood("Service d/a", false);
    lab.has("flatnet_policy_problems 2");
    lab.policing.understood("NetworkPolicy d/a", true);
    lab.has("flatnet_policy_problems 1");
}
