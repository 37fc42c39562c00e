//! Actions become requests.

use api::Error;
use api::events::{Recorder, Severity};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Client, core::Status};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::action::{Action, Note, Plan, Step};
use super::store::Key;
use super::world::Kind;

/// What became known by an action.
#[derive(Debug)]
pub enum Learned {
    /// The object, as it was written.
    Written(Kind, Value),
    /// The object is gone for good.
    Ended(Kind, Key, String),
}

/// Executes plans for one controller.
#[derive(Clone)]
pub struct Executor {
    /// The API.
    pub client: Client,
    /// Events, in the controller's name.
    pub recorder: Recorder,
    /// Where to tell what became known.
    pub learned: mpsc::UnboundedSender<Learned>,
}

impl Executor {
    /// Does what the plan says; the first failure, if any.
    pub async fn run(&self, plan: Plan) -> Result<(), Error> {
        for step in plan.steps {
            match step {
                Step::One(action) => self.act(*action).await?,
                Step::Each(actions) => self.each(actions).await?,
                Step::SlowStart(actions) => self.slow_start(actions).await?,
            }
        }
        Ok(())
    }

    async fn each(&self, actions: Vec<Action>) -> Result<(), Error> {
        let all = actions.into_iter().map(|action| self.act(action));
        let results: Vec<Result<(), Error>> = futures::future::join_all(all).await;
        results.into_iter().collect()
    }

    async fn slow_start(&self, mut actions: Vec<Action>) -> Result<(), Error> {
        let mut batch = 1;
        while !actions.is_empty() {
            let rest = actions.split_off(batch.min(actions.len()));
            self.each(actions).await?;
            actions = rest;
            // Wide enough to keep two cores busy; wider only costs memory.
            batch = (batch * 2).min(16);
        }
        Ok(())
    }

    async fn act(&self, action: Action) -> Result<(), Error> {
        match action {
            Action::Create {
                kind,
                namespace,
                body,
                note,
            } => self.create(kind, &namespace, &body, note).await,
            Action::Patch {
                kind,
                key,
                sub,
                strategic,
                body,
            } => self.patch(kind, &key, sub, strategic, body).await,
            Action::Delete {
                kind,
                key,
                uid,
                grace,
                note,
            } => self.delete(kind, key, uid, grace, note).await,
            Action::Bind { key, uid, node } => self.bind(&key, &uid, &node).await,
            Action::Event {
                on,
                severity,
                reason,
                message,
            } => {
                self.recorder.record(on, severity, reason, message);
                Ok(())
            }
        }
    }

    async fn create(
        &self,
        kind: Kind,
        namespace: &str,
        body: &Value,
        note: Option<Note>,
    ) -> Result<(), Error> {
        let bytes = body.to_string().into_bytes();
        let request = Request::new(kind.path(namespace)).create(&PostParams::default(), bytes);
        match self.send(request).await {
            Ok(object) => {
                let name = object["metadata"]["name"].as_str().unwrap_or("");
                self.done(note, name);
                self.learn(kind, object);
                Ok(())
            }
            // Somebody (we, before a restart) made it already: the watch brings it.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => {
                self.failed(note, &error);
                Err(Error::request(format!(
                    "create {} in {namespace:?}",
                    kind.name()
                ))(error))
            }
        }
    }

    async fn patch(
        &self,
        kind: Kind,
        key: &Key,
        sub: &str,
        strategic: bool,
        body: Value,
    ) -> Result<(), Error> {
        let request = Request::new(kind.path(&key.namespace));
        let params = PatchParams::default();
        let patch = if strategic {
            Patch::Strategic(body)
        } else {
            Patch::Merge(body)
        };
        let request = if sub.is_empty() {
            request.patch(&key.name, &params, &patch)
        } else {
            request.patch_subresource(sub, &key.name, &params, &patch)
        };
        match self.send(request).await {
            Ok(object) => {
                self.learn(kind, object);
                Ok(())
            }
            // Gone meanwhile: the watch tells.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(Error::request(format!("write {}", label(kind, key)))(error)),
        }
    }

    async fn delete(
        &self,
        kind: Kind,
        key: Key,
        uid: String,
        grace: Option<u32>,
        note: Option<Note>,
    ) -> Result<(), Error> {
        let mut params = DeleteParams::background().preconditions(Preconditions {
            uid: Some(uid.clone()),
            resource_version: None,
        });
        params.grace_period_seconds = grace;
        let request = Request::new(kind.path(&key.namespace)).delete(&key.name, &params);
        match self.send(request).await {
            Ok(object) => {
                self.done(note, &key.name);
                if object["metadata"]["deletionTimestamp"].is_string() && grace != Some(0) {
                    self.learn(kind, object);
                } else {
                    self.tell(Learned::Ended(kind, key, uid));
                }
                Ok(())
            }
            // Gone, or another one of that name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.tell(Learned::Ended(kind, key, uid));
                Ok(())
            }
            Err(error) => {
                self.failed(note, &error);
                Err(Error::request(format!("delete {}", label(kind, &key)))(
                    error,
                ))
            }
        }
    }

    async fn bind(&self, key: &Key, uid: &str, node: &str) -> Result<(), Error> {
        let body = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": key.namespace, "name": key.name, "uid": uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let request = Request::new(Kind::Pod.path(&key.namespace)).create_subresource(
            "binding",
            &key.name,
            &PostParams::default(),
            body.to_string().into_bytes(),
        );
        self.send(request)
            .await
            .map_err(Error::request(format!("bind {}", label(Kind::Pod, key))))?;
        Ok(())
    }

    fn done(&self, note: Option<Note>, name: &str) {
        if let Some(note) = note
            && let Some((reason, text)) = note.done
        {
            self.recorder
                .normal(note.on, reason, format!("{text}{name}"));
        }
    }

    fn failed(&self, note: Option<Note>, error: &kube::Error) {
        let Some(note) = note else { return };
        // A namespace on its way out refuses everything: not worth an Event each time.
        if let kube::Error::Api(status) = error
            && is_terminating(status)
        {
            return;
        }
        let (reason, text) = note.failed;
        let message = format!("{text}{}", api::error::cause(error));
        self.recorder
            .record(note.on, Severity::Warning, reason, message);
    }

    async fn send(
        &self,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Value, kube::Error> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    fn learn(&self, kind: Kind, object: Value) {
        self.tell(Learned::Written(kind, object));
    }

    fn tell(&self, learned: Learned) {
        // The driver is gone only when everything ends.
        let _ = self.learned.send(learned);
    }
}

fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|c| c.reason == "NamespaceTerminating")
}

fn label(kind: Kind, key: &Key) -> String {
    if key.namespace.is_empty() {
        format!("{} {}", kind.name(), key.name)
    } else {
        format!("{} {}/{}", kind.name(), key.namespace, key.name)
    }
}
