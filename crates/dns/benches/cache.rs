//! What a hit in the cache costs.
//!
//! `cargo bench -p dns --bench cache`: the whole way of a question, answer included, by one
//! thread and by two, which ask for the same name or for many. Counted is the time that the
//! threads worked: others may be at work on this machine.

#![expect(clippy::unwrap_used, reason = "a bench's failure is a panic")]

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use dns::cache::Cache;
use dns::corefile::plugins::Cache as Options;
use dns::query::{Answer, Failure, Outcome, Query, Transport};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

use dns::wire::{Class, Data, Name, Question, Record, Type};

const NAMES: usize = 1_000;
const HITS: usize = 1_000_000;
const ROUNDS: usize = 7;

fn main() {
    for (what, records) in [("one A record", 1), ("a CNAME and three A records", 4)] {
        let cache = Arc::new(Cache::new(Options::default(), vec![name("cluster.local")]));
        let queries: Vec<Query> = (0..NAMES).map(query).collect();
        for query in &queries {
            ask(&cache, query, Some(answer(query, records)));
        }
        for (names, queries) in [("1 name", &queries[..1]), ("1,000 names", &queries[..])] {
            for threads in [1, 2] {
                let took = median(|| hits(&cache, queries, threads));
                println!("hit, {what}, {names}, {threads} threads: {took:.0?} each");
            }
        }
    }
    let cache = Arc::new(Cache::new(Options::default(), vec![name("cluster.local")]));
    let query = of(name("web.shop.svc.cluster.local"));
    let took = median(|| {
        let start = worked();
        for _ in 0..HITS {
            ask(&cache, black_box(&query), Some(Answer::default()));
        }
        (worked() - start) / HITS as u32
    });
    println!("past the cache, a cluster's name: {took:.0?}");
}

/// The time of one hit in each of so many threads.
fn hits(cache: &Arc<Cache>, queries: &[Query], threads: usize) -> Duration {
    let times = std::thread::scope(|scope| {
        let one = |thread: usize| {
            scope.spawn(move || {
                let start = worked();
                for n in 0..HITS {
                    let at = (n + thread * queries.len() / 2) % queries.len();
                    ask(cache, black_box(&queries[at]), None);
                }
                worked() - start
            })
        };
        let running: Vec<_> = (0..threads).map(one).collect();
        let times = running.into_iter().map(|thread| thread.join().unwrap());
        times.sum::<Duration>()
    });
    times / (HITS * threads) as u32
}

/// How long this thread has worked.
fn worked() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = |t: TimeVal| Duration::from_micros(t.num_microseconds() as u64);
    time(usage.user_time()) + time(usage.system_time())
}

/// The whole way; what is below answers at once, or is not there.
fn ask(cache: &Arc<Cache>, query: &Query, below: Option<Answer>) {
    let next = async |_: &Query| -> Result<Outcome, Failure> {
        Ok(Outcome::Answer(below.expect("an answer out of the cache")))
    };
    let answer = pin!(cache.answer(query, next, |_| {}));
    let answer = answer.poll(&mut Context::from_waker(Waker::noop()));
    assert!(black_box(answer).is_ready());
}

fn median(mut work: impl FnMut() -> Duration) -> Duration {
    let mut all: Vec<Duration> = (0..ROUNDS).map(|_| work()).collect();
    all.sort();
    all[ROUNDS / 2]
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn query(n: usize) -> Query {
    of(name(&format!("host-{n}.example.org")))
}

fn of(name: Name) -> Query {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 53));
    Query {
        id: 1,
        question: Question {
            name,
            kind: Type::A,
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
        now: Instant::now(),
    }
}

fn answer(query: &Query, records: usize) -> Answer {
    let asked = query.question.name.clone();
    let address = |owner: &Name, n: usize| {
        let ip = Ipv4Addr::new(192, 0, 2, n as u8);
        Record::new(owner.clone(), 3600, Data::A(ip))
    };
    if records == 1 {
        return Answer {
            answers: vec![address(&asked, 1)],
            ..Answer::default()
        };
    }
    let target = name("balanced.eu-central-1.example.net");
    let alias = Record::new(asked, 3600, Data::Cname(target.clone()));
    let rest = (1..records).map(|n| address(&target, n));
    Answer {
        answers: std::iter::once(alias).chain(rest).collect(),
        ..Answer::default()
    }
}
