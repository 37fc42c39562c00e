//! Questions on their way through, and those who wait for others.

use std::cell::Cell;

use super::stale::stale;
use super::*;
use crate::query::{Failure, Outcome};

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().unwrap()
}

#[test]
fn equal_questions_are_asked_once() {
    runtime().block_on(async {
        let cache = cache(|_| {});
        let asked = Cell::new(0);
        let (go, wait) = watch::channel(false);
        let one = async |text: &str| {
            let query = query(text, Type::A, Instant::now());
            let next = async |_: &Query| {
                asked.set(asked.get() + 1);
                wait.clone().wait_for(|go| *go).await.unwrap();
                Ok(Outcome::Answer(found(vec![a("a.test", 60)])))
            };
            cache
                .answer(&query, next, |_| panic!("nothing to renew"))
                .await
        };
        let all = futures::future::join4(one("a.test"), one("A.test"), one("a.TEST"), async {
            tokio::task::yield_now().await;
            go.send(true).unwrap();
        });
        let (first, second, third, ()) = all.await;
        assert_eq!(asked.get(), 1);
        assert_eq!(first.clone().unwrap(), second.unwrap_by(first.clone()));
        let Ok(Outcome::Answer(third)) = third else {
            panic!("{third:?}")
        };
        assert!(third.answers[0].name.is_exactly(&name("a.TEST")));
    });
}

/// Compares answers but for who gave them.
trait SameAnswer {
    fn unwrap_by(self, other: Result<Outcome, Failure>) -> Outcome;
}

impl SameAnswer for Result<Outcome, Failure> {
    fn unwrap_by(self, other: Result<Outcome, Failure>) -> Outcome {
        match (self, other) {
            (Ok(Outcome::Answer(mut mine)), Ok(Outcome::Answer(other))) => {
                mine.by = other.by;
                Outcome::Answer(mine)
            }
            (mine, _) => mine.unwrap(),
        }
    }
}

#[test]
fn who_waits_asks_when_the_first_goes_away() {
    runtime().block_on(async {
        let cache = cache(|_| {});
        let query = query("a.test", Type::A, Instant::now());
        let never = async |_: &Query| std::future::pending().await;
        let soon = async |_: &Query| Ok(Outcome::Answer(found(vec![a("a.test", 60)])));
        let mut first = Box::pin(cache.answer(&query, never, |_| {}));
        let second = cache.answer(&query, soon, |_| {});
        assert!(futures::poll!(&mut first).is_pending());
        let mut second = Box::pin(second);
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        assert!(matches!(second.await, Ok(Outcome::Answer(a)) if a.answers.len() == 1));
    });
}

#[test]
fn a_failure_is_told_once_and_kept() {
    runtime().block_on(async {
        let cache = cache(|_| {});
        let query = query("a.test", Type::A, Instant::now());
        let failure = Failure {
            rcode: Rcode::SERVFAIL,
            text: "read udp: i/o timeout".into(),
            by: "forward",
        };
        let fails = async |_: &Query| Err(failure.clone());
        assert_eq!(
            cache.answer(&query, fails, |_| {}).await,
            Err(failure.clone())
        );
        let never = async |_: &Query| panic!("asked again at once");
        let again = cache.answer(&query, never, |_| {}).await;
        assert!(matches!(again, Ok(Outcome::Answer(a)) if a.rcode == Rcode::SERVFAIL));
    });
}

#[test]
fn verified_within_a_time() {
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime(), async {
        let verify = Refresh::Verify(Some(Duration::from_millis(20)));
        let cache = cache(|o| o.serve_stale = Some(stale(verify)));
        let start = Instant::now();
        let (old, new) = (found(vec![a("a.test", 60)]), found(vec![a("a.test", 50)]));
        ask(&cache, &query("a.test", Type::A, start), &old);
        let question = query("a.test", Type::A, start + seconds(100));
        let unused = async |_: &Query| panic!("asked in the foreground");
        let run = |wait: u64, answer: &Answer| {
            let answer = answer.clone();
            move |renewal: Renewal| {
                tokio::task::spawn_local(renewal.run(async move |_: &Query| {
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                    Ok(Outcome::Answer(answer))
                }));
            }
        };
        let outcome = cache.answer(&question, unused, run(3_600_000, &new)).await;
        assert!(
            matches!(outcome, Ok(Outcome::Answer(a)) if a.answers[0].ttl == 0),
            "stale"
        );
        // Who comes while that goes on does not wait.
        let panics = |_| panic!("two renewals");
        let outcome = cache.answer(&question, unused, panics).await;
        assert!(
            matches!(outcome, Ok(Outcome::Answer(a)) if a.answers[0].ttl == 0),
            "stale"
        );

        let other = query("b.test", Type::A, start + seconds(100));
        ask(
            &cache,
            &query("b.test", Type::A, start),
            &found(vec![a("b.test", 60)]),
        );
        let outcome = cache
            .answer(&other, unused, run(0, &found(vec![a("b.test", 50)])))
            .await;
        assert!(
            matches!(outcome, Ok(Outcome::Answer(a)) if a.answers[0].ttl == 50),
            "fresh"
        );
    });
}
