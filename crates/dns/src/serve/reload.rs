//! Plugin `reload`: the Corefile is looked at now and then, and served anew when it says
//! something else.

use std::time::Duration;

use sha2::{Digest, Sha512};

use super::Served;
use crate::corefile::plugins::Reload;
use crate::corefile::{Corefile, Error};
use crate::metrics::VersionLabels;

impl Served {
    /// Serves until it is to stop, and whatever the Corefile says by then. It is looked at as
    /// often as the one that is served says, and no more once one does not say so.
    pub async fn run(
        mut self,
        corefile: Corefile,
        load: impl Fn() -> Result<Corefile, Vec<Error>>,
        stop: impl Future<Output = ()>,
    ) {
        let watching = self.watch(corefile, load);
        tokio::select! {
            () = watching => {}
            () = stop => {}
        }
        self.stop().await;
    }

    async fn watch(&mut self, corefile: Corefile, load: impl Fn() -> Result<Corefile, Vec<Error>>) {
        let mut every = interval(&corefile);
        let mut seen = digest(&corefile);
        if every.is_some() {
            self.say(&format!(
                "[INFO] plugin/reload: Running configuration SHA512 = {seen}"
            ));
        }
        loop {
            let Some(reload) = every else {
                // Nothing more is looked at.
                return std::future::pending().await;
            };
            tokio::time::sleep(jittered(reload, rand::random())).await;
            let corefile = match load() {
                Ok(corefile) => corefile,
                Err(errors) => {
                    for error in errors {
                        self.say(&format!(
                            "[WARNING] plugin/reload: Corefile parse failed: {error}"
                        ));
                    }
                    continue;
                }
            };
            let found = digest(&corefile);
            if found == seen {
                continue;
            }
            // What is wrong with it will be wrong the next time too.
            self.tell_version(&seen, &found);
            seen = found;
            self.say("[INFO] Reloading");
            match self.reload(&corefile).await {
                Ok(()) => {
                    every = interval(&corefile);
                    self.say(&format!(
                        "[INFO] plugin/reload: Running configuration SHA512 = {seen}"
                    ));
                    self.say("[INFO] Reloading complete");
                }
                Err(error) => {
                    self.metrics().reload_failures.inc();
                    self.say(&format!(
                        "[ERROR] plugin/reload: Corefile changed but reload failed: {error}"
                    ));
                }
            }
        }
    }

    fn tell_version(&self, before: &str, now: &str) {
        let labels = |value: &str| VersionLabels {
            hash: "sha512",
            value: value.to_owned(),
        };
        let version = &self.metrics().reload_version;
        version.remove(&labels(before));
        version.get_or_create(&labels(now)).set(1);
    }
}

fn interval(corefile: &Corefile) -> Option<Reload> {
    corefile
        .servers
        .iter()
        .find_map(|block| block.plugins.reload)
}

/// The interval, longer or shorter by up to half of the jitter: not all of a cluster's servers
/// reload at once.
fn jittered(reload: Reload, random: u32) -> Duration {
    let share = f64::from(random) / f64::from(u32::MAX);
    (reload.interval + reload.jitter.mul_f64(share)).saturating_sub(reload.jitter / 2)
}

/// What a Corefile says, with all that it imports and the environment put in.
fn digest(corefile: &Corefile) -> String {
    let digest = Sha512::digest(format!("{corefile:?}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_goes_both_ways() {
        let seconds = Duration::from_secs;
        let reload = Reload {
            interval: seconds(30),
            jitter: seconds(15),
        };
        assert_eq!(jittered(reload, 0), Duration::from_millis(22_500));
        assert_eq!(jittered(reload, u32::MAX), Duration::from_millis(37_500));
    }
}
