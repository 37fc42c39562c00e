//! Upstreams that come and go.

use std::sync::atomic::AtomicBool;

use super::*;

fn quick_checks(servers: &[&Fake]) -> Options {
    let mut options = options(servers);
    options.health_check.interval = Duration::from_millis(10);
    options.read_timeout = Duration::from_millis(50);
    options
}

/// A server that is away as long as it is told to, for questions and checks alike: nobody has
/// to wait for it, as it answers with what nobody can use.
async fn fragile(away: &Arc<AtomicBool>) -> Fake {
    let away = Arc::clone(away);
    Fake::start(move |_, _| match away.load(Ordering::Relaxed) {
        true => vec![Say::Close],
        false => vec![Say::Address(1)],
    })
    .await
}

#[test]
fn who_is_down_is_not_asked_until_well() {
    run(async {
        let away = Arc::new(AtomicBool::new(true));
        let (first, second) = (
            fragile(&away).await,
            Fake::start(|_, _| vec![Say::Address(2)]).await,
        );
        let resources = Resources::default();
        let forwards = with(
            Options {
                force_tcp: true,
                ..quick_checks(&[&first, &second])
            },
            &resources,
        );
        assert_eq!(
            last(&ask(&forwards, &udp()).await.unwrap()),
            2,
            "the next one is asked"
        );
        let failed = OfFirst(&resources, &first);
        until("three failed checks", || failed.count() >= 3).await;
        let is_question =
            |(_, seen): &(bool, Message)| seen.question.as_ref().unwrap().kind == Type::A;
        let asked = || first.seen().iter().filter(|seen| is_question(seen)).count();
        let before = asked();
        for _ in 0..5 {
            assert_eq!(last(&ask(&forwards, &udp()).await.unwrap()), 2);
        }
        assert_eq!(asked(), before, "it is down");
        away.store(false, Ordering::Relaxed);
        for _ in 0..200 {
            if last(&ask(&forwards, &udp()).await.unwrap()) == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is never asked again");
    });
}

/// Failed checks of an upstream.
struct OfFirst<'a>(&'a Resources, &'a Fake);

impl OfFirst<'_> {
    fn count(&self) -> u64 {
        let upstream = metrics::OfUpstream {
            proxy_name: "forward",
            to: self.1.address.to_string(),
        };
        let family = &self.0.metrics.healthcheck_failures;
        family.get_or_create(&upstream).get()
    }
}

#[test]
fn nobody_is_well() {
    run(async {
        let away = Arc::new(AtomicBool::new(true));
        let fakes = [fragile(&away).await, fragile(&away).await];
        for failfast in [false, true] {
            let resources = Resources::default();
            let forwards = with(
                Options {
                    force_tcp: true,
                    failfast_all_unhealthy_upstreams: failfast,
                    ..quick_checks(&[&fakes[0], &fakes[1]])
                },
                &resources,
            );
            assert_eq!(ask(&forwards, &udp()).await.unwrap_err().text, "EOF");
            let failed = [
                OfFirst(&resources, &fakes[0]),
                OfFirst(&resources, &fakes[1]),
            ];
            until("both are down", || {
                failed.iter().all(|one| one.count() >= 3)
            })
            .await;
            let failure = ask(&forwards, &udp()).await.unwrap_err();
            let expected = if failfast {
                "no healthy proxies"
            } else {
                "EOF"
            };
            assert_eq!(
                failure.text, expected,
                "any of them is tried, unless failfast"
            );
            assert_eq!(resources.metrics.healthcheck_broken.get(), 1);
        }
    });
}

#[test]
fn who_answers_everything_but_checks_is_well() {
    run(async {
        let hiccup = Arc::new(AtomicBool::new(true));
        let told = Arc::clone(&hiccup);
        let fake = Fake::start(move |question, _| {
            let check = question.question.as_ref().unwrap().kind == Type::NS;
            match check || told.swap(false, Ordering::Relaxed) {
                true => vec![Say::Close],
                false => vec![Say::Address(1)],
            }
        })
        .await;
        let other = Fake::start(|_, _| vec![Say::Address(2)]).await;
        let forwards = forwards(Options {
            force_tcp: true,
            ..quick_checks(&[&fake, &other])
        });
        assert_eq!(
            last(&ask(&forwards, &udp()).await.unwrap()),
            2,
            "its one hiccup"
        );
        for _ in 0..20 {
            assert_eq!(last(&ask(&forwards, &udp()).await.unwrap()), 1);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn without_max_fails_nobody_is_checked() {
    run(async {
        let silent = Fake::start(|_, _| vec![Say::Close]).await;
        let forwards = forwards(Options {
            max_fails: 0,
            force_tcp: true,
            max_connect_attempts: Some(3),
            ..quick_checks(&[&silent])
        });
        ask(&forwards, &udp()).await.unwrap_err();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(silent.seen().len(), 3, "three attempts, and no check");
    });
}

#[test]
fn a_flapping_upstream_loses_no_question() {
    run(async {
        let count = Mutex::new(0);
        let flapping = Fake::start(move |_, _| {
            let mut count = count.lock().unwrap();
            *count += 1;
            if *count % 3 == 0 {
                vec![Say::Address(1)]
            } else {
                vec![Say::Close]
            }
        })
        .await;
        let steady = Fake::start(|_, _| vec![Say::Address(2)]).await;
        let forwards = forwards(Options {
            force_tcp: true,
            policy: Policy::RoundRobin,
            ..quick_checks(&[&flapping, &steady])
        });
        for _ in 0..50 {
            assert!(ask(&forwards, &udp()).await.is_ok());
        }
    });
}
