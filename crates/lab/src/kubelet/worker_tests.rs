use super::super::state::{Backoff, Ended, Refused};
use super::*;
use serde_json::json;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn pod(spec: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn deleted(spec: serde_json::Value, grace: i64) -> Pod {
    let mut pod = pod(spec);
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

fn running(name: &str) -> (String, Run) {
    let run = Run {
        attempts: 1,
        phase: Phase::Running {
            id: format!("{name}-0"),
            started: at(0),
        },
        started: true,
        ready: true,
        image: "i".to_owned(),
        ..Run::default()
    };
    (name.to_owned(), run)
}

fn ended(name: &str, code: i32, finished: i64) -> (String, Run) {
    let (name, mut run) = running(name);
    run.phase = Phase::Ended(Ended {
        id: format!("{name}-0"),
        code,
        signal: 0,
        reason: "Error".to_owned(),
        message: String::new(),
        started: at(0),
        finished: at(finished),
    });
    (name, run)
}

fn state(containers: impl IntoIterator<Item = (String, Run)>) -> PodState {
    PodState {
        start: Some(at(0)),
        sandbox: Sandbox::Ready,
        containers: containers.into_iter().collect(),
        ..PodState::default()
    }
}

fn decide(pod: &Pod, state: &PodState, now: i64) -> Step {
    next(&Wanted { pod, gone: false }, state, at(now))
}

fn start(name: &str) -> Action {
    Action::Start {
        name: name.to_owned(),
    }
}

fn one() -> serde_json::Value {
    json!({"containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn the_sandbox_comes_first() {
    let pod = pod(one());
    let mut state = PodState::default();
    assert_eq!(decide(&pod, &state, 1).actions, [Action::StartSandbox]);
    state.sandbox = Sandbox::Failed { retry_at: at(5) };
    let step = decide(&pod, &state, 1);
    assert_eq!((step.actions, step.wake), (vec![], Some(at(5))));
    assert_eq!(decide(&pod, &state, 5).actions, [Action::StartSandbox]);
    state.sandbox = Sandbox::Lost;
    assert_eq!(decide(&pod, &state, 1).actions, [Action::StopSandbox]);
    state.sandbox = Sandbox::Ready;
    assert_eq!(decide(&pod, &state, 1).actions, [start("a")]);
}

#[test]
fn init_containers_run_one_after_another() {
    let pod = pod(json!({
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}));
    assert_eq!(decide(&pod, &state([]), 1).actions, [start("i1")]);
    assert_eq!(decide(&pod, &state([running("i1")]), 1).actions, []);
    assert_eq!(
        decide(&pod, &state([ended("i1", 0, 1)]), 1).actions,
        [start("i2")]
    );
    let through = state([ended("i1", 0, 1), ended("i2", 0, 1)]);
    assert_eq!(decide(&pod, &through, 1).actions, [start("a"), start("b")]);
    // A failed one is tried again, the ones after it wait.
    assert_eq!(
        decide(&pod, &state([ended("i1", 1, 1)]), 1).actions,
        [start("i1")]
    );
}

#[test]
fn a_sidecar_must_have_started_and_is_kept_running() {
    let pod = pod(json!({
        "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}, {"name": "i1", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]}));
    assert_eq!(decide(&pod, &state([]), 1).actions, [start("s")]);
    let (name, mut starting) = running("s");
    starting.started = false;
    assert_eq!(decide(&pod, &state([(name, starting)]), 1).actions, []);
    assert_eq!(
        decide(&pod, &state([running("s")]), 1).actions,
        [start("i1")]
    );
    // Once the pod is initialized a sidecar that ends holds nobody back.
    let mut later = state([ended("s", 0, 1), ended("i1", 0, 1), running("a")]);
    later.initialized = true;
    assert_eq!(decide(&pod, &later, 1).actions, [start("s")]);
}

#[test]
fn restart_policies_decide_who_comes_back() {
    for (policy, code, again) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let pod = pod(json!({"restartPolicy": policy,
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}));
        let step = decide(&pod, &state([ended("a", code, 1), running("b")]), 1);
        let want = if again { vec![start("a")] } else { vec![] };
        assert_eq!(step.actions, want, "{policy} {code}");
    }
}

#[test]
fn a_crashing_container_waits_and_says_so_once() {
    let pod = pod(one());
    let (name, mut run) = ended("a", 1, 100);
    run.backoff = Backoff::adopted(1, at(100));
    let mut state = state([(name, run)]);
    let step = decide(&pod, &state, 101);
    assert_eq!(
        step.actions,
        [Action::SayBackOff {
            name: "a".to_owned()
        }]
    );
    assert_eq!(step.wake, Some(at(110)));
    state.run("a").backoff_said = true;
    let step = decide(&pod, &state, 101);
    assert_eq!((step.actions, step.wake), (vec![], Some(at(110))));
    assert_eq!(decide(&pod, &state, 110).actions, [start("a")]);
}

#[test]
fn a_refused_start_is_tried_again_later() {
    let pod = pod(one());
    let run = Run {
        refused: Some(Refused {
            reason: "CreateContainerConfigError".to_owned(),
            message: String::new(),
            retry_at: at(6),
        }),
        ..Run::default()
    };
    let state = state([("a".to_owned(), run)]);
    let step = decide(&pod, &state, 1);
    assert_eq!((step.actions, step.wake), (vec![], Some(at(6))));
    assert_eq!(decide(&pod, &state, 6).actions, [start("a")]);
}

#[test]
fn a_finished_pod_gives_its_sandbox_back() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "image": "i", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "image": "i"}]}));
    let mut state = state([running("s"), ended("a", 0, 1)]);
    state.initialized = true;
    let step = decide(&pod, &state, 1);
    assert!(matches!(&step.actions[..], [Action::Stop { name, grace: 30, .. }] if name == "s"));
    state.containers.extend([ended("s", 0, 2)]);
    assert_eq!(decide(&pod, &state, 2).actions, [Action::StopSandbox]);
    state.sandbox = Sandbox::Absent;
    assert_eq!(decide(&pod, &state, 2).actions, [], "it stays as it is");
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i1", "image": "i"}], "containers": [{"name": "a", "image": "i"}]}));
    assert_eq!(
        decide(&pod, &state([ended("i1", 1, 1)]), 1).actions,
        [Action::StopSandbox]
    );
}

#[test]
fn the_active_deadline_fails_the_pod() {
    let pod = pod(json!({"activeDeadlineSeconds": 5, "containers": [{"name": "a", "image": "i"}]}));
    let state = state([running("a")]);
    assert_eq!(decide(&pod, &state, 1).wake, Some(at(5)));
    let step = decide(&pod, &state, 5);
    let [Action::Fail(failure)] = &step.actions[..] else {
        panic!("{step:?}")
    };
    assert_eq!(failure.reason, "DeadlineExceeded");
}

#[test]
fn a_deleted_pod_is_stopped_step_by_step() {
    let pod = deleted(one(), 30);
    let mut state = state([running("a")]);
    let step = decide(&pod, &state, 1);
    let stop = Action::Stop {
        name: "a".to_owned(),
        grace: 30,
        message: "Stopping container a".to_owned(),
    };
    assert_eq!(step.actions, [stop]);
    let name = || "a".to_owned();
    let mut kill = Kill {
        since: at(1),
        deadline: at(31),
        stage: KillStage::Hook,
    };
    for (stage, now, want, wake) in [
        (KillStage::Hook, 2, None, Some(at(31))),
        (
            KillStage::HookDone,
            2,
            Some(Action::Term { name: name() }),
            None,
        ),
        (
            KillStage::Hook,
            31,
            Some(Action::Term { name: name() }),
            None,
        ),
        (KillStage::Term, 3, None, Some(at(31))),
        (
            KillStage::Term,
            31,
            Some(Action::Kill { name: name() }),
            None,
        ),
        (KillStage::Killed, 32, None, None),
    ] {
        kill.stage = stage;
        state.run("a").kill = Some(kill.clone());
        let step = decide(&pod, &state, now);
        assert_eq!(step.actions, Vec::from_iter(want), "{stage:?} at {now}");
        assert_eq!(step.wake, wake, "{stage:?} at {now}");
    }
    state.containers.extend([ended("a", 143, 5)]);
    assert_eq!(decide(&pod, &state, 5).actions, [Action::StopSandbox]);
    state.sandbox = Sandbox::Absent;
    assert_eq!(decide(&pod, &state, 5).actions, [Action::Finish]);
}

#[test]
fn a_shorter_grace_period_is_followed() {
    let pod = deleted(one(), 0);
    let mut state = state([running("a")]);
    state.run("a").kill = Some(Kill {
        since: at(1),
        deadline: at(31),
        stage: KillStage::Term,
    });
    let shorten = Action::Shorten {
        name: "a".to_owned(),
        deadline: at(1),
    };
    assert_eq!(decide(&pod, &state, 2).actions, [shorten]);
}

#[test]
fn a_pod_gone_from_the_api_is_killed_at_once() {
    let pod = pod(one());
    let wanted = Wanted {
        pod: &pod,
        gone: true,
    };
    let step = next(&wanted, &state([running("a")]), at(1));
    assert!(matches!(&step.actions[..], [Action::Stop { grace: 0, .. }]));
    assert_eq!(
        next(&wanted, &PodState::default(), at(1)).actions,
        [Action::Finish]
    );
}

#[test]
fn sidecars_end_after_the_others_last_one_first() {
    let pod = deleted(
        json!({"initContainers": [{"name": "s1", "image": "i", "restartPolicy": "Always"},
                {"name": "s2", "image": "i", "restartPolicy": "Always"}],
            "containers": [{"name": "a", "image": "i"}]}),
        30,
    );
    let stopped = |state: &PodState| -> Vec<String> {
        let actions = decide(&pod, state, 1).actions;
        let name = |action| match action {
            Action::Stop { name, .. } => Some(name),
            _ => None,
        };
        actions.into_iter().filter_map(name).collect()
    };
    assert_eq!(
        stopped(&state([running("s1"), running("s2"), running("a")])),
        ["a"]
    );
    assert_eq!(
        stopped(&state([running("s1"), running("s2"), ended("a", 0, 1)])),
        ["s2"]
    );
    assert_eq!(
        stopped(&state([running("s1"), ended("s2", 0, 1), ended("a", 0, 1)])),
        ["s1"]
    );
}

#[test]
fn a_probe_or_a_new_image_stops_a_container() {
    let pod = pod(one());
    let mut probed = state([running("a")]);
    probed.run("a").must_stop = Some((
        "Container a failed liveness probe, will be restarted".to_owned(),
        Some(3),
    ));
    let step = decide(&pod, &probed, 1);
    assert!(
        matches!(&step.actions[..], [Action::Stop { grace: 3, message, .. }] if message.contains("liveness"))
    );
    let mut changed = state([running("a")]);
    changed.run("a").image = "old".to_owned();
    let step = decide(&pod, &changed, 1);
    assert!(matches!(&step.actions[..], [Action::Stop { message, .. }]
        if message == "Container a definition changed, will be restarted"));
}

#[test]
fn after_a_hook_there_is_time_to_end() {
    let kill = Kill {
        since: at(0),
        deadline: at(30),
        stage: KillStage::Hook,
    };
    assert_eq!(deadline_after_term(&kill, at(30)), at(32));
    assert_eq!(deadline_after_term(&kill, at(3)), at(30));
    let at_once = Kill {
        since: at(0),
        deadline: at(0),
        stage: KillStage::HookDone,
    };
    assert_eq!(
        deadline_after_term(&at_once, at(0)),
        at(0),
        "no grace, no delay"
    );
}
