//! Answers that are given although they are too old.

use super::*;

pub(super) fn stale(refresh: Refresh) -> ServeStale {
    ServeStale {
        duration: seconds(3600),
        refresh,
        ttl: 0,
        recheck: Duration::ZERO,
        prefer_positive: false,
    }
}

#[test]
fn stale_at_once() {
    let cache = cache(|o| o.serve_stale = Some(stale(Refresh::Immediate)));
    let start = Instant::now();
    let at = |s| query("a.test", Type::A, start + seconds(s));
    ask(&cache, &at(0), &found(vec![a("a.test", 60)]));
    let Look::Early(answer, mut ticket) = cache.look(&at(100)) else {
        panic!("stale, and asked for")
    };
    assert_eq!(answer.answers[0].ttl, 0);
    assert!(matches!(cache.look(&at(100)), Look::Hit(answer) if answer.answers[0].ttl == 0));
    // A failure does not take its place, a denial does.
    cache.keep(
        &mut ticket,
        denied(Rcode::SERVFAIL, vec![]),
        true,
        at(101).now,
    );
    let Look::Early(_, mut ticket) = cache.look(&at(3659)) else {
        panic!("still stale")
    };
    let denial = denied(Rcode::NXDOMAIN, vec![soa(60, 60)]);
    cache.keep(&mut ticket, denial, true, at(3659).now);
    assert!(matches!(cache.look(&at(3660)), Look::Hit(a) if a.rcode == Rcode::NXDOMAIN));
    assert!(
        matches!(cache.look(&at(3659 + 60 + 3600)), Look::Miss(_)),
        "too old even for that"
    );
    assert_eq!(cache.figures().served_stale, 3);
}

#[test]
fn stale_when_nothing_better_comes() {
    let cache = cache(|o| {
        o.serve_stale = Some(ServeStale {
            recheck: seconds(30),
            ttl: 7,
            ..stale(Refresh::Verify(None))
        });
    });
    let start = Instant::now();
    let at = |s| query("a.test", Type::A, start + seconds(s));
    let (old, new) = (found(vec![a("a.test", 60)]), found(vec![a("a.test", 50)]));
    ask(&cache, &at(0), &old);
    let (was_old, answer) = ask(&cache, &at(100), &denied(Rcode::SERVFAIL, vec![]));
    assert_eq!((was_old, answer.answers[0].ttl), (true, 7));
    assert!(
        matches!(cache.look(&at(120)), Look::Hit(_)),
        "left alone for 30 s"
    );
    let (was_old, answer) = ask(&cache, &at(130), &new);
    assert_eq!((was_old, answer.answers[0].ttl), (false, 50));
}

#[test]
fn stale_data_before_a_denial() {
    let cache = cache(|o| {
        o.serve_stale = Some(ServeStale {
            prefer_positive: true,
            ..stale(Refresh::Verify(None))
        });
    });
    let start = Instant::now();
    let at = |s| query("a.test", Type::A, start + seconds(s));
    ask(&cache, &at(0), &found(vec![a("a.test", 60)]));
    let denial = denied(Rcode::NXDOMAIN, vec![soa(600, 600)]);
    let (was_old, answer) = ask(&cache, &at(100), &denial);
    assert_eq!((was_old, answer.rcode), (true, Rcode::NOERROR));
    // Neither does what has no data take its place.
    let (was_old, answer) = ask(&cache, &at(110), &denied(Rcode::NOERROR, vec![]));
    assert_eq!((was_old, answer.answers.len()), (true, 1));
}
