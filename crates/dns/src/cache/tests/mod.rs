//! The cache as a whole: what is kept, for how long, within which bounds.

mod stale;
mod through;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::*;
use crate::corefile::plugins::{Prefetch, ServeStale};
use crate::query::Transport;
use crate::wire::{Class, Data, Edns, Question, Record, Soa, Type};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query(text: &str, kind: Type, now: Instant) -> Query {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 53));
    Query {
        id: 1,
        question: Question {
            name: name(text),
            kind,
            class: Class::IN,
        },
        recursion_desired: true,
        authentic: false,
        checking_disabled: false,
        edns: None,
        serial: None,
        client: nobody,
        server: nobody,
        transport: Transport::Udp,
        now,
    }
}

fn a(owner: &str, ttl: u32) -> Record {
    Record::new(name(owner), ttl, Data::A(Ipv4Addr::new(192, 0, 2, 1)))
}

fn cname(owner: &str, target: &str, ttl: u32) -> Record {
    Record::new(name(owner), ttl, Data::Cname(name(target)))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = Soa {
        primary: name("ns.test"),
        mailbox: name("root.test"),
        serial: 1,
        refresh: 1,
        retry: 1,
        expire: 1,
        minimum,
    };
    Record::new(name("test"), ttl, Data::Soa(Box::new(soa)))
}

fn found(records: Vec<Record>) -> Answer {
    Answer {
        answers: records,
        ..Answer::default()
    }
}

fn denied(rcode: Rcode, authorities: Vec<Record>) -> Answer {
    Answer {
        rcode,
        authorities,
        ..Answer::default()
    }
}

/// Asks, and answers itself where the cache has nothing.
fn ask(cache: &Arc<Cache>, query: &Query, upstream: &Answer) -> (bool, Answer) {
    match cache.look(query) {
        Look::Hit(answer) => (true, answer),
        Look::Early(answer, mut ticket) => {
            cache.keep(&mut ticket, upstream.clone(), true, query.now);
            (true, answer)
        }
        Look::Miss(mut ticket) => {
            let kept = cache.keep(&mut ticket, upstream.clone(), false, query.now);
            (false, kept.answer)
        }
        Look::Pass => (false, upstream.clone()),
        Look::Verify(entry, Verify::Ask(mut ticket)) => {
            let kept = cache.keep(&mut ticket, upstream.clone(), true, query.now);
            match kept.refreshed {
                true => (false, kept.answer),
                false => {
                    cache.rest(ticket.hash, query.now);
                    (true, cache.give_old(&entry, query))
                }
            }
        }
        other => panic!("{other:?}"),
    }
}

fn cache(change: impl FnOnce(&mut Options)) -> Arc<Cache> {
    let mut options = Options::default();
    change(&mut options);
    Arc::new(Cache::new(options, vec![name("cluster.local")]))
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// For how many whole seconds an answer is given out of the cache.
fn lasts(cache: &Arc<Cache>, question: &str, kind: Type, answer: &Answer) -> u64 {
    let start = Instant::now();
    assert!(!ask(cache, &query(question, kind, start), answer).0);
    let held = |at: &u64| {
        let later = query(question, kind, start + seconds(*at));
        match cache.look(&later) {
            Look::Hit(_) => true,
            Look::Miss(_) | Look::Pass => false,
            other => panic!("{other:?}"),
        }
    };
    (0..4000).find(|at| !held(at)).unwrap()
}

#[test]
fn how_long_what_is_kept() {
    let refers = Record::new(name("test"), 300, Data::Ns(name("ns.test")));
    let truncated = Answer {
        truncated: true,
        ..found(vec![a("a.test", 60)])
    };
    let live = Answer {
        live: true,
        ..found(vec![a("a.test", 60)])
    };
    let (nx, ok) = (Rcode::NXDOMAIN, Rcode::NOERROR);
    let table: Vec<(&str, Answer, u64)> = vec![
        ("its TTL", found(vec![a("a.test", 60)]), 60),
        (
            "the least TTL",
            found(vec![cname("a.test", "b.test", 20), a("b.test", 60)]),
            20,
        ),
        ("at most an hour", found(vec![a("a.test", 9999)]), 3600),
        ("at least MINTTL", found(vec![a("a.test", 0)]), 5),
        ("NXDOMAIN by SOA", denied(nx, vec![soa(300, 300)]), 300),
        ("SOA's minimum", denied(nx, vec![soa(300, 30)]), 30),
        ("NODATA", denied(ok, vec![soa(30, 300)]), 30),
        (
            "denials half an hour",
            denied(nx, vec![soa(9999, 9999)]),
            1800,
        ),
        ("NXDOMAIN without SOA", denied(nx, vec![]), 0),
        (
            "unfinished chain",
            found(vec![cname("a.test", "b.test", 60)]),
            0,
        ),
        ("SERVFAIL", denied(Rcode::SERVFAIL, vec![]), 5),
        ("NOTIMP", denied(Rcode::NOTIMP, vec![]), 5),
        ("REFUSED", denied(Rcode::REFUSED, vec![]), 0),
        ("a referral", denied(ok, vec![refers]), 5),
        ("nothing at all", denied(ok, vec![]), 5),
        ("truncated", truncated, 0),
        ("live", live, 0),
        (
            "two targets",
            found(vec![
                cname("a.test", "b.test", 60),
                cname("a.test", "c.test", 60),
                a("b.test", 60),
            ]),
            0,
        ),
        (
            "a circle",
            found(vec![
                cname("a.test", "b.test", 60),
                cname("b.test", "a.test", 60),
            ]),
            0,
        ),
        ("another name", found(vec![a("b.test", 60)]), 0),
    ];
    for (what, answer, expected) in table {
        assert_eq!(
            lasts(&cache(|_| {}), "a.test", Type::A, &answer),
            expected,
            "{what}"
        );
    }
    let nodata_behind_cname = Answer {
        authorities: vec![soa(40, 40)],
        ..found(vec![cname("a.test", "b.test", 60)])
    };
    assert_eq!(
        lasts(&cache(|_| {}), "a.test", Type::A, &nodata_behind_cname),
        40
    );
}

#[test]
fn what_options_say() {
    let yes = found(vec![a("a.test", 600)]);
    let no = denied(Rcode::NXDOMAIN, vec![soa(600, 600)]);
    let failure = denied(Rcode::SERVFAIL, vec![]);
    let last = |change: fn(&mut Options), answer: &Answer| {
        lasts(&cache(change), "a.test", Type::A, answer)
    };
    assert_eq!(last(|o| o.success.max_ttl = 30, &yes), 30);
    assert_eq!(last(|o| o.success.min_ttl = 700, &yes), 700);
    assert_eq!(last(|o| o.denial.max_ttl = 30, &no), 30);
    assert_eq!(last(|o| o.servfail = seconds(0), &failure), 0);
    assert_eq!(last(|o| o.servfail = seconds(60), &failure), 60);
    assert_eq!(last(|o| o.disable_success = vec![name("test")], &yes), 0);
    assert_eq!(last(|o| o.disable_success = vec![name("test")], &no), 600);
    assert_eq!(last(|o| o.disable_denial = vec![name(".")], &no), 0);
    assert_eq!(last(|o| o.zones = vec![name("example.org")], &yes), 0);
    assert_eq!(
        last(|o| o.zones = vec![name("org"), name("test")], &yes),
        600
    );
}

#[test]
fn cluster_names_are_not_looked_for() {
    let cache = cache(|_| {});
    let start = Instant::now();
    let question = query("a.ns.svc.Cluster.Local", Type::A, start);
    assert!(matches!(cache.look(&question), Look::Pass));
    assert_eq!(cache.figures(), Figures::default());
}

#[test]
fn the_answer_is_to_the_question() {
    let cache = cache(|_| {});
    let start = Instant::now();
    let mut upstream = found(vec![cname("a.test", "b.test", 60), a("b.test", 300)]);
    upstream.authentic = true;
    upstream.recursion_available = true;
    let mut first = query("a.test", Type::A, start);
    first.authentic = true;
    let (_, answer) = ask(&cache, &first, &upstream);
    assert!(
        answer.answers.iter().all(|r| r.ttl == 60),
        "the capped TTL at once: {answer:?}"
    );

    let (hit, answer) = ask(
        &cache,
        &query("A.tEst", Type::A, start + seconds(15)),
        &upstream,
    );
    assert!(hit);
    assert!(
        answer.answers[0].name.is_exactly(&name("A.tEst")),
        "asked letters"
    );
    assert!(
        answer.answers.iter().all(|r| r.ttl == 45),
        "counted down: {answer:?}"
    );
    assert!(
        answer.recursion_available && !answer.authentic,
        "AD only where understood"
    );
    assert!(ask(&cache, &first, &upstream).1.authentic);

    // Another type, DO and CD are other questions.
    let mut dnssec = query("a.test", Type::A, start);
    dnssec.edns = Some(Edns {
        dnssec_ok: true,
        ..Edns::default()
    });
    let mut unchecked = query("a.test", Type::A, start);
    unchecked.checking_disabled = true;
    let mut chaos = query("a.test", Type::A, start);
    chaos.question.class = Class::CH;
    for other in [dnssec, unchecked, chaos, query("a.test", Type::AAAA, start)] {
        assert!(matches!(cache.look(&other), Look::Miss(_)), "{other:?}");
    }
}

#[test]
fn keepttl_does_not_count_down() {
    let cache = cache(|o| o.keepttl = true);
    let start = Instant::now();
    let upstream = found(vec![a("a.test", 60)]);
    ask(&cache, &query("a.test", Type::A, start), &upstream);
    let (hit, answer) = ask(
        &cache,
        &query("a.test", Type::A, start + seconds(50)),
        &upstream,
    );
    assert_eq!((hit, answer.answers[0].ttl), (true, 60));
    assert!(
        !ask(
            &cache,
            &query("a.test", Type::A, start + seconds(60)),
            &upstream
        )
        .0
    );
}

#[test]
fn a_failure_hides_no_answer() {
    let cache = cache(|o| {
        o.prefetch = Some(Prefetch {
            amount: 1,
            duration: seconds(60),
            percentage: 90,
        });
    });
    let start = Instant::now();
    let at = |s| query("a.test", Type::A, start + seconds(s));
    ask(&cache, &at(0), &found(vec![a("a.test", 60)]));
    // The renewal fails; what is known holds on.
    let Look::Early(_, mut ticket) = cache.look(&at(10)) else {
        panic!("not renewed")
    };
    cache.keep(
        &mut ticket,
        denied(Rcode::SERVFAIL, vec![]),
        false,
        at(10).now,
    );
    assert!(matches!(cache.look(&at(11)), Look::Early(answer, _) if !answer.answers.is_empty()));
}

#[test]
fn prefetch_renews_what_is_asked_for_often() {
    let prefetch = Prefetch {
        amount: 3,
        duration: seconds(20),
        percentage: 20,
    };
    let cache = cache(|o| o.prefetch = Some(prefetch));
    let start = Instant::now();
    let at = |s| query("a.test", Type::A, start + seconds(s));
    let upstream = found(vec![a("a.test", 100)]);
    ask(&cache, &at(0), &upstream);
    for s in [40, 55, 70] {
        assert!(
            matches!(cache.look(&at(s)), Look::Hit(_)),
            "20 % are left at 80: {s}"
        );
    }
    let Look::Early(answer, mut ticket) = cache.look(&at(80)) else {
        panic!("the fourth hit without a pause")
    };
    assert_eq!(answer.answers[0].ttl, 20);
    assert!(
        matches!(cache.look(&at(81)), Look::Hit(_)),
        "one renewal at a time"
    );
    cache.keep(&mut ticket, upstream, false, at(81).now);
    assert!(matches!(cache.look(&at(82)), Look::Hit(answer) if answer.answers[0].ttl == 99));
    // The pause begins the count anew.
    assert!(matches!(cache.look(&at(170)), Look::Hit(_)));
    assert!(matches!(cache.look(&at(171)), Look::Hit(_)));
    assert!(matches!(cache.look(&at(172)), Look::Early(..)));
    assert_eq!(cache.figures().prefetch, 2);
}

/// What a naive cache without bounds would have.
#[derive(Default)]
struct Model(HashMap<(u8, u16), (Answer, u32, u64)>);

impl Model {
    /// The answer and whether it was there.
    fn ask(&mut self, key: (u8, u16), now: u64, upstream: &Answer, ttl: u32) -> (bool, Answer) {
        let with = |answer: &Answer, ttl: u32| {
            let mut answer = answer.clone();
            for record in answer.answers.iter_mut().chain(&mut answer.authorities) {
                record.ttl = ttl;
            }
            answer
        };
        if let Some((answer, ttl, stored)) = self.0.get(&key)
            && *stored + u64::from(*ttl) > now
        {
            return (true, with(answer, ttl - (now - stored) as u32));
        }
        if ttl > 0 {
            self.0.insert(key, (upstream.clone(), ttl, now));
        }
        (false, with(upstream, ttl))
    }
}

proptest! {
    #[test]
    fn as_a_naive_cache(
        steps in prop::collection::vec((0_u8..6, 0_usize..2, 0_u64..40, 0_u32..100, 0_u8..3), 1..200)
    ) {
        let cache = cache(|_| {});
        let (start, mut now) = (Instant::now(), 0);
        let mut model = Model::default();
        for (which, kind, pause, ttl, sort) in steps {
            now += pause;
            let kind = [Type::A, Type::AAAA][kind];
            let owner = format!("n{which}.test");
            let (upstream, ttl) = match sort {
                0 if kind == Type::A => (found(vec![a(&owner, ttl)]), ttl.max(5)),
                1 => (denied(Rcode::SERVFAIL, vec![]), 5),
                _ => (denied(Rcode::NXDOMAIN, vec![soa(ttl, 50)]), ttl.clamp(5, 50)),
            };
            let question = query(&owner, kind, start + seconds(now));
            let (hit, answer) = ask(&cache, &question, &upstream);
            let (expected_hit, expected) = model.ask((which, kind.0), now, &upstream, ttl);
            prop_assert_eq!(hit, expected_hit);
            prop_assert_eq!((answer.rcode, answer.answers, answer.authorities),
                (expected.rcode, expected.answers, expected.authorities));
        }
    }
}

#[test]
fn memory_is_bounded() {
    let cache = cache(|o| o.success.capacity = 6400);
    let now = Instant::now();
    // A megabyte of text would be 64 MB of such entries.
    let long: String = "x".repeat(10_000);
    for n in 0..20_000 {
        let owner = format!("n{n}.test");
        let data = if n % 2 == 0 { "short" } else { &long };
        let answer = found(vec![Record::new(name(&owner), 60, Data::text(data))]);
        ask(&cache, &query(&owner, Type::TXT, now), &answer);
    }
    let figures = cache.figures();
    assert!(figures.entries_success <= 6400, "{figures:?}");
    assert!(
        figures.bytes <= (SHARDS * 100 * BYTES_EACH) as u64,
        "{figures:?}"
    );
    assert!(
        figures.bytes > (SHARDS * 80 * BYTES_EACH) as u64,
        "the room is used: {figures:?}"
    );
    assert_eq!(figures.entries_success + figures.evictions_success, 20_000);
    // What alone is too large is not kept, and nothing goes for it.
    let huge = Record::new(name("huge.test"), 60, Data::text(&"x".repeat(200_000)));
    ask(
        &cache,
        &query("huge.test", Type::TXT, now),
        &found(vec![huge]),
    );
    assert_eq!(cache.figures().drops, 1);
    assert_eq!(cache.figures().entries_success, figures.entries_success);
}

#[test]
fn what_is_asked_for_stays() {
    let cache = cache(|o| o.success.capacity = 640);
    let now = Instant::now();
    let popular = query("popular.test", Type::A, now);
    ask(&cache, &popular, &found(vec![a("popular.test", 60)]));
    for n in 0..10_000 {
        let owner = format!("n{n}.test");
        ask(
            &cache,
            &query(&owner, Type::A, now),
            &found(vec![a(&owner, 60)]),
        );
        assert!(matches!(cache.look(&popular), Look::Hit(_)), "after {n}");
    }
    // Among what nobody asks for again, the newer stays.
    let newest = (9_900..10_000).filter(|n| {
        matches!(
            cache.look(&query(&format!("n{n}.test"), Type::A, now)),
            Look::Hit(_)
        )
    });
    assert!(newest.count() > 80);
}

#[test]
fn workers_side_by_side() {
    let cache = cache(|o| o.success.capacity = 64 * 4);
    let now = Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for n in 0..5_000 {
                    let owner = format!("n{}.test", (n * 7 + worker) % 500);
                    match cache.look(&query(&owner, Type::A, now)) {
                        Look::Hit(answer) => assert_eq!(answer.answers, [a(&owner, 60)]),
                        Look::Miss(mut ticket) => {
                            let answer = found(vec![a(&owner, 60)]);
                            cache.keep(&mut ticket, answer, false, now);
                        }
                        Look::Wait(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    let figures = cache.figures();
    assert_eq!(figures.requests, 20_000);
    assert_eq!(figures.hits_success + figures.misses, 20_000);
    assert!(
        cache
            .shards
            .iter()
            .all(|shard| lock(shard).flights.is_empty())
    );
}
