//! How fast the machine is for whoever else runs on it meanwhile.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two pieces of work.
const REST: Duration = Duration::from_millis(10);
/// How often something may be tried that is to be quick.
const TRIES: usize = 4;

/// Measures, while it lives, what a busy machine does to a thread that sleeps 10 ms and then has a
/// little to do, over and over. A figure that was set for an idle machine is held against that.
#[derive(Debug)]
pub struct Pace {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Sample>>>,
}

/// One piece of work.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Between when it was to begin and its end.
    took: Duration,
    /// Between its begin and its end.
    work: Duration,
}

/// What the machine did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// How many times as long as at best a piece of work took on average, the wait for a
    /// processor included. 1 on an idle machine.
    pub slower: f64,
    /// The longest that one piece took.
    pub worst: Duration,
}

impl Pace {
    /// From now on.
    pub fn measure() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !told.load(Ordering::Relaxed) || samples.is_empty() {
                let due = Instant::now() + REST;
                std::thread::sleep(REST);
                let begun = Instant::now();
                work();
                samples.push(Sample {
                    took: due.elapsed(),
                    work: begun.elapsed(),
                });
            }
            samples
        });
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// Until now.
    pub fn end(mut self) -> Measured {
        self.over.store(true, Ordering::Relaxed);
        let samples = self.thread.take().and_then(|thread| thread.join().ok());
        measured(&samples.unwrap_or_default())
    }
}

/// A promise on time, as an idle machine must keep it.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// It is to take no longer.
    pub figure: Duration,
    /// What of it is waiting, by design, which no machine makes longer,
    pub waits: Duration,
    /// and what has to be done, which a busy one does.
    pub work: Duration,
}

impl Figure {
    /// Holds against it how long something takes, measured by `once`, which does it. It has to be
    /// kept at one of a few tries: a single one may have met what no measure of the machine tells,
    /// such as work of the kernel that belongs to others.
    #[track_caller]
    pub fn hold(self, what: &str, mut once: impl FnMut() -> Duration) {
        let mut late = Vec::new();
        for _ in 0..TRIES {
            let pace = Pace::measure();
            let (took, pace) = (once(), pace.end());
            if took < pace.allows(self.figure, self.waits, self.work) {
                println!("{what}: {took:?}; {pace}");
                return;
            }
            late.push(format!("{took:?} while {pace}"));
        }
        panic!("{what} took {}", late.join(", "));
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slower, worst } = self;
        write!(
            f,
            "the machine was {slower:.1} times slower than idle, {worst:.0?} at worst"
        )
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Measured {
    /// How long something may take here that is to take at most `figure`: longer only where the
    /// machine was so busy that what by design waits for `waits`, and has `work` to do on an idle
    /// machine, took longer.
    pub fn allows(&self, figure: Duration, waits: Duration, work: Duration) -> Duration {
        figure.max(waits + work.mul_f64(self.slower) + self.worst)
    }
}

/// What takes about a millisecond of a processor.
fn work() {
    let mut number = 1_u64;
    for step in 0..100_000 {
        number = black_box(number.rotate_left(7) ^ step);
    }
}

fn measured(samples: &[Sample]) -> Measured {
    let best = samples.iter().map(|sample| sample.work).min();
    let worst = samples.iter().map(|sample| sample.took).max();
    let all: Duration = samples.iter().map(|sample| sample.took).sum();
    let best = best.unwrap_or_default().max(Duration::from_micros(1));
    let count = samples.len().max(1) as f64;
    Measured {
        slower: (all.as_secs_f64() / best.as_secs_f64() / count).max(1.0),
        worst: worst.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_kept_waiting_makes_the_machine_slow() {
        let sample = |took, work| Sample {
            took: Duration::from_millis(took),
            work: Duration::from_millis(work),
        };
        let idle = measured(&[sample(1, 1), sample(1, 1)]);
        assert_eq!((idle.slower, idle.worst), (1.0, Duration::from_millis(1)));
        let busy = measured(&[sample(1, 1), sample(9, 1), sample(20, 5)]);
        assert_eq!((busy.slower, busy.worst), (10.0, Duration::from_millis(20)));
        let [second, tenth] = [1000, 100].map(Duration::from_millis);
        let allowed = busy.allows(second + tenth, second, tenth);
        assert_eq!(allowed, Duration::from_millis(2020));
        assert_eq!(idle.allows(2 * second, second, tenth), 2 * second);
        assert!(Pace::measure().end().slower >= 1.0);
    }

    #[test]
    fn a_figure_is_to_be_kept_once() {
        let figure = Figure {
            figure: Duration::from_secs(3600),
            waits: Duration::ZERO,
            work: Duration::ZERO,
        };
        let mut tries = 0;
        figure.hold("it", || {
            tries += 1;
            Duration::from_secs(if tries < TRIES { 7200 } else { 1 })
        });
        assert_eq!(tries, TRIES);
        let never = || figure.hold("it", || Duration::from_secs(7200));
        assert!(std::panic::catch_unwind(never).is_err());
    }
}
