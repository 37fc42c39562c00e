use super::super::state::{Backoff, PodFailure, Refused};
use super::*;
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn pod(spec: Value, status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "generation": 3},
        "spec": spec, "status": status}))
    .unwrap()
}

fn run(phase: Phase) -> Run {
    Run {
        attempts: 1,
        phase,
        started: true,
        ready: true,
        image: "nginx".to_owned(),
        ..Run::default()
    }
}

fn running() -> Run {
    run(Phase::Running {
        id: "c-0".to_owned(),
        started: at(10),
    })
}

fn end(code: i32, finished: i64) -> Ended {
    Ended {
        id: "c-0".to_owned(),
        code,
        signal: 0,
        reason: if code == 0 { "Completed" } else { "Error" }.to_owned(),
        message: String::new(),
        started: at(10),
        finished: at(finished),
    }
}

fn state(containers: &[(&str, Run)]) -> PodState {
    PodState {
        start: Some(at(5)),
        sandbox: Sandbox::Ready,
        ips: vec!["10.244.1.5".parse().unwrap()],
        containers: containers
            .iter()
            .map(|(name, run)| ((*name).to_owned(), run.clone()))
            .collect(),
        initialized: true,
        ..PodState::default()
    }
}

fn reported(pod: &Pod, state: &PodState, ending: bool) -> Value {
    let facts = Facts {
        host_ips: &["10.0.1.10".parse().unwrap()],
        image_id: &|image| format!("docker.io/library/{image}"),
        ending,
        now: at(100),
    };
    serde_json::to_value(status(pod, state, &facts)).unwrap()
}

fn one() -> Value {
    json!({"containers": [{"name": "c", "image": "nginx"}]})
}

/// Status, reason and message of a condition.
fn condition(status: &Value, type_: &str) -> (String, String, String) {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|c| c["type"] == type_).unwrap();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[test]
fn a_running_pod_is_reported_as_kubernetes_writes_it() {
    let status = reported(&pod(one(), json!({})), &state(&[("c", running())]), false);
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.244.1.5");
    assert_eq!(status["podIPs"], json!([{"ip": "10.244.1.5"}]));
    assert_eq!(status["hostIP"], "10.0.1.10");
    assert_eq!(status["hostIPs"], json!([{"ip": "10.0.1.10"}]));
    assert_eq!(status["startTime"], "1970-01-01T00:00:05Z");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["observedGeneration"], 3);
    assert_eq!(
        status["containerStatuses"],
        json!([{"name": "c", "image": "nginx", "imageID": "docker.io/library/nginx",
            "containerID": "flatnet://u1.c-0", "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": "1970-01-01T00:00:10Z"}}, "lastState": {}}])
    );
    for type_ in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&status, type_).0, "True", "{type_}");
    }
    let first = &status["conditions"][0];
    assert_eq!(first["observedGeneration"], 3);
    assert_eq!(first["lastTransitionTime"], "1970-01-01T00:01:40Z");
}

#[test]
fn a_pod_being_made_waits_with_the_right_reason() {
    let mut nothing = state(&[]);
    nothing.sandbox = Sandbox::Absent;
    nothing.initialized = false;
    let status = reported(&pod(one(), json!({})), &nothing, false);
    assert_eq!(status["phase"], "Pending");
    assert_eq!(
        status["containerStatuses"][0]["state"],
        json!({"waiting": {"reason": "ContainerCreating"}})
    );
    assert_eq!(status["containerStatuses"][0]["imageID"], "");
    assert_eq!(condition(&status, "PodReadyToStartContainers").0, "False");
    assert_eq!(
        condition(&status, "Ready"),
        (
            "False".into(),
            "ContainersNotReady".into(),
            "containers with unready status: [c]".into()
        )
    );
    let with_init = pod(
        json!({"initContainers": [{"name": "i", "image": "busybox"}], "containers": [{"name": "c", "image": "nginx"}]}),
        json!({}),
    );
    let status = reported(&with_init, &nothing, false);
    assert_eq!(
        status["containerStatuses"][0]["state"],
        json!({"waiting": {"reason": "PodInitializing"}})
    );
    assert_eq!(
        condition(&status, "Initialized"),
        (
            "False".into(),
            "ContainersNotInitialized".into(),
            "containers with incomplete status: [i]".into()
        )
    );
}

#[test]
fn a_crash_loop_is_told_with_its_delay() {
    let mut crashed = run(Phase::Ended(end(1, 99)));
    crashed.attempts = 3;
    crashed.backoff = Backoff::adopted(2, at(99));
    crashed.backoff_said = true;
    let status = reported(
        &pod(one(), json!({})),
        &state(&[("c", crashed.clone())]),
        false,
    );
    let container = &status["containerStatuses"][0];
    assert_eq!(
        container["state"]["waiting"],
        json!({"reason": "CrashLoopBackOff",
            "message": "back-off 20s restarting failed container=c pod=web_shop(u1)"})
    );
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 1);
    assert_eq!(
        container["lastState"]["terminated"]["containerID"],
        "flatnet://u1.c-0"
    );
    assert_eq!(container["restartCount"], 2);
    assert_eq!(status["phase"], "Running");
    // Before the back-off was said the end itself is shown.
    crashed.backoff_said = false;
    let status = reported(&pod(one(), json!({})), &state(&[("c", crashed)]), false);
    assert_eq!(
        status["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Error"
    );
}

#[test]
fn a_refused_container_waits_with_kubernetes_message() {
    let refused = Run {
        refused: Some(Refused {
            reason: "CreateContainerConfigError".to_owned(),
            message: "configmap \"x\" not found".to_owned(),
            retry_at: at(105),
        }),
        ..Run::default()
    };
    let status = reported(&pod(one(), json!({})), &state(&[("c", refused)]), false);
    assert_eq!(status["phase"], "Pending");
    assert_eq!(
        status["containerStatuses"][0]["state"]["waiting"],
        json!({"reason": "CreateContainerConfigError", "message": "configmap \"x\" not found"})
    );
}

#[test]
fn phases_follow_policy_and_exits() {
    let two = |policy: &str| {
        pod(
            json!({"restartPolicy": policy,
                "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}),
            json!({}),
        )
    };
    let done = |code| run(Phase::Ended(end(code, 50)));
    for (policy, a, b, want) in [
        ("Always", done(0), done(0), "Running"),
        ("OnFailure", done(0), done(0), "Succeeded"),
        ("OnFailure", done(0), done(1), "Running"),
        ("Never", done(0), done(0), "Succeeded"),
        ("Never", done(0), done(1), "Failed"),
        ("Never", done(1), running(), "Running"),
        ("Never", running(), Run::default(), "Pending"),
    ] {
        let state = state(&[("a", a), ("b", b)]);
        assert_eq!(
            reported(&two(policy), &state, false)["phase"],
            want,
            "{policy}"
        );
    }
    // A pod that ended once never runs again.
    let mut over = two("Always");
    over.status = serde_json::from_value(json!({"phase": "Succeeded"})).unwrap();
    assert_eq!(reported(&over, &state(&[]), false)["phase"], "Succeeded");
}

#[test]
fn the_end_of_a_deleted_pod_is_final() {
    let spec = json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    let pod = pod(spec, json!({}));
    let state = state(&[("a", run(Phase::Ended(end(0, 50))))]);
    let status = reported(&pod, &state, true);
    assert_eq!(status["phase"], "Failed");
    assert_eq!(
        status["containerStatuses"][1]["state"]["terminated"]["reason"],
        "ContainerStatusUnknown"
    );
    assert_eq!(
        condition(&status, "Ready"),
        ("False".into(), "PodFailed".into(), String::new())
    );
    assert_eq!(
        status["podIP"], "10.244.1.5",
        "the address stays in the status"
    );
}

#[test]
fn a_pod_that_is_not_taken_fails_with_the_reason() {
    let mut refused = PodState {
        start: Some(at(5)),
        ..PodState::default()
    };
    refused.failure = Some(PodFailure {
        reason: "OutOfpods".to_owned(),
        message: "Pod was rejected: full".to_owned(),
    });
    let status = reported(&pod(one(), json!({})), &refused, false);
    assert_eq!(status["phase"], "Failed");
    assert_eq!(status["reason"], "OutOfpods");
    assert!(status.get("containerStatuses").is_none());
}

#[test]
fn readiness_gates_and_times_of_old_conditions_count() {
    let spec = json!({"readinessGates": [{"conditionType": "example.org/lb"}],
        "containers": [{"name": "c", "image": "nginx"}]});
    let state = state(&[("c", running())]);
    let status = reported(&pod(spec.clone(), json!({})), &state, false);
    assert_eq!(
        condition(&status, "Ready"),
        (
            "False".into(),
            "ReadinessGatesNotReady".into(),
            "corresponding condition of pod readiness gate \"example.org/lb\" does not exist."
                .into()
        )
    );
    assert_eq!(condition(&status, "ContainersReady").0, "True");
    let known = json!({"conditions": [
        {"type": "example.org/lb", "status": "True"},
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"}]});
    let status = reported(&pod(spec, known), &state, false);
    assert_eq!(condition(&status, "Ready").0, "True");
    let conditions = status["conditions"].as_array().unwrap();
    let kept = conditions
        .iter()
        .find(|c| c["type"] == "ContainersReady")
        .unwrap();
    assert_eq!(kept["lastTransitionTime"], "1970-01-01T00:00:07Z");
    assert!(
        conditions.iter().any(|c| c["type"] == "example.org/lb"),
        "others' conditions stay"
    );
}

#[test]
fn readiness_and_startup_probes_show() {
    let mut starting = running();
    starting.started = false;
    starting.ready = true;
    let status = reported(&pod(one(), json!({})), &state(&[("c", starting)]), false);
    let container = &status["containerStatuses"][0];
    assert_eq!(
        (&container["started"], &container["ready"]),
        (&json!(false), &json!(false))
    );
    let mut unready = running();
    unready.ready = false;
    let status = reported(&pod(one(), json!({})), &state(&[("c", unready)]), false);
    assert_eq!(status["containerStatuses"][0]["started"], true);
    assert_eq!(
        condition(&status, "ContainersReady").1,
        "ContainersNotReady"
    );
}

#[test]
fn qos_classes() {
    for (resources, want) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
            "Burstable",
        ),
    ] {
        let pod = pod(
            json!({"containers": [{"name": "c", "resources": resources}]}),
            json!({}),
        );
        assert_eq!(qos_class(pod.spec.as_ref().unwrap()), want, "{resources}");
    }
}

#[test]
fn durations_are_written_as_go_writes_them() {
    for (seconds, want) in [(10, "10s"), (80, "1m20s"), (300, "5m0s")] {
        assert_eq!(go_duration(seconds), want);
    }
}

#[test]
fn a_pod_on_the_hosts_network_has_its_address_to_the_end() {
    let spec = json!({"hostNetwork": true, "restartPolicy": "Never",
        "containers": [{"name": "c"}]});
    let mut over = state(&[("c", run(Phase::Ended(end(0, 20))))]);
    over.sandbox = Sandbox::Absent;
    over.ips.clear();
    let status = reported(&pod(spec, json!({})), &over, false);
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(status["podIP"], "10.0.1.10");
}

/// The sandbox of a pod whose containers ended at once may be gone before its status is told.
#[test]
fn a_pod_has_succeeded_although_its_init_containers_are_forgotten() {
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "busybox"}],
        "containers": [{"name": "c", "image": "nginx"}],
    });
    let pod = pod(spec, json!({}));
    for (code, phase) in [(0, "Succeeded"), (1, "Failed")] {
        let mut state = state(&[("c", run(Phase::Ended(end(code, 20))))]);
        state.initialized = false;
        assert_eq!(reported(&pod, &state, false)["phase"], phase);
    }
}
