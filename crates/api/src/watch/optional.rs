//! A watch of a kind that the API server may not have.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::known::{Known, Part, SlimChange, Slims};
use super::slim_settings;
use crate::Backoff;
use crate::convert::Slim;
use crate::pool::is_undefined;

/// How often it is looked for while it is not there.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// One try to watch it.
type Watch<T> = BoxStream<'static, watcher::Result<Event<Slim<T>>>>;

struct Optional<T: SlimChange> {
    api: Api<Slim<T>>,
    watch: Watch<T>,
    known: Known<Slim<T>, Slims<T>>,
    backoff: Backoff,
    /// Before the next step.
    wait: Duration,
    /// The same while it is not there.
    absent: Duration,
}

/// All objects of the kind; none where it is not defined. It is found when it is defined later.
pub(super) fn part<T: SlimChange>(client: &Client) -> BoxStream<'static, Part> {
    looked_for::<T>(client, LOOK_AGAIN)
}

/// The same, looked for so often while it is not there.
pub(super) fn looked_for<T: SlimChange>(
    client: &Client,
    absent: Duration,
) -> BoxStream<'static, Part> {
    let api = Api::all(client.clone());
    let start = Optional::<T> {
        watch: watch(&api),
        api,
        known: Known::new(Slims::default()),
        backoff: Backoff::reconnect(),
        wait: Duration::ZERO,
        absent,
    };
    let parts = stream::unfold(start, |mut state| async {
        let parts = state.step().await;
        Some((stream::iter(parts), state))
    });
    parts.flatten().boxed()
}

fn watch<T: SlimChange>(api: &Api<Slim<T>>) -> Watch<T> {
    watcher::watcher(api.clone(), slim_settings()).boxed()
}

impl<T: SlimChange> Optional<T> {
    async fn step(&mut self) -> Vec<Part> {
        if !self.wait.is_zero() {
            tokio::time::sleep(self.wait).await;
        }
        match self.watch.next().await {
            Some(Err(error)) if is_undefined(&error) => {
                // What was known went with the definition. Should it come back, a list is due.
                self.watch = watch(&self.api);
                self.wait = self.absent;
                self.backoff.reset();
                let mut parts = self.known.take(Ok(Event::Init));
                parts.extend(self.known.take(Ok(Event::InitDone)));
                parts
            }
            Some(Err(error)) => {
                self.wait = self.backoff.wait();
                self.known.take(Err(error))
            }
            Some(Ok(event)) => {
                self.wait = Duration::ZERO;
                self.backoff.reset();
                self.known.take(Ok(event))
            }
            None => {
                self.watch = watch(&self.api);
                self.wait = self.backoff.wait();
                Vec::new()
            }
        }
    }
}
