// SPDX-License-Identifier: GPL-2.0-only

//! Loom, in a way that explores all there is.
//!
//! Loom decides by the last access to an atomic which threads to swap. If that was a load of the
//! thread's own, it does not see that its store races with a load that another thread made before
//! (<https://github.com/tokio-rs/loom/issues/166>), and each of our compare-exchanges follows a
//! load. So a [`Word`] has a mark for each thread, which the thread stores to when it reads the
//! word, and others do when they are about to change what it has read. Nobody loads a mark, so it
//! orders nothing.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering as Std};
use std::sync::{Arc, Mutex};

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread::{self, JoinHandle};

loom::thread_local! {
    static ME: Cell<usize> = Cell::new(0);
}

std::thread_local! {
    static STARTED: Cell<usize> = const { Cell::new(0) };
}

/// Explores all executions of a model, and says how many there are.
pub(crate) fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_to(None, model);
}

/// Explores all executions in which threads are interrupted at most so often, where something else
/// than their waiting for others counts. `LOOM_MAX_PREEMPTIONS` sets another number.
pub(crate) fn explore_to(most: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicUsize::new(0));
    let count = runs.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(most);
    let most = builder.preemption_bound;
    builder.check(move || {
        count.fetch_add(1, Std::Relaxed);
        STARTED.set(0);
        model();
    });
    let (name, runs) = (std::thread::current(), runs.load(Std::Relaxed));
    let bound = most.map_or("all".into(), |most| format!("at most {most} preemptions"));
    println!(
        "{}: {runs} executions, {bound}",
        name.name().unwrap_or("model")
    );
}

/// What was seen in any execution.
#[derive(Clone)]
pub(crate) struct Seen<T>(Arc<Mutex<BTreeSet<T>>>);

impl<T: Ord + Clone> Seen<T> {
    pub(crate) fn new() -> Self {
        Seen(Arc::default())
    }

    pub(crate) fn add(&self, what: T) {
        self.0.lock().unwrap().insert(what);
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.0.lock().unwrap().iter().cloned().collect()
    }
}

/// Starts a thread of a model: the first one does, after all words were made.
pub(crate) fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let n = STARTED.get() + 1;
    STARTED.set(n);
    thread::spawn(move || {
        ME.with(|me| me.set(n));
        body()
    })
}

/// An atomic word.
pub(crate) struct Word {
    value: AtomicU64,
    marks: Box<[AtomicU64]>,
    /// The threads that have read it, bit n for thread n.
    readers: AtomicUsize,
}

impl Word {
    /// A word, 0, for a model of `threads` threads, the first one included.
    pub(crate) fn new(threads: usize) -> Word {
        Word {
            value: AtomicU64::new(0),
            marks: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            readers: AtomicUsize::new(0),
        }
    }

    fn reads(&self) {
        let me = ME.with(|me| me.get());
        self.marks[me].store(0, Ordering::Relaxed);
        self.readers.fetch_or(1 << me, Std::Relaxed);
    }

    fn writes(&self) {
        let me = ME.with(|me| me.get());
        for other in (0..self.marks.len()).filter(|&other| other != me) {
            if (self.readers.load(Std::Relaxed) >> other) & 1 == 1 {
                self.marks[other].store(0, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.reads();
        self.value.load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.writes();
        self.value.store(value, order);
    }

    /// Whether it was `old`; if not, what it is.
    pub(crate) fn replace(&self, old: u64, new: u64, order: Ordering) -> Result<(), u64> {
        self.writes();
        self.value
            .compare_exchange(old, new, order, Ordering::Relaxed)
            .map(|_| ())
    }

    pub(crate) fn set_bits(&self, bits: u64, order: Ordering) -> u64 {
        self.writes();
        self.value.fetch_or(bits, order)
    }

    pub(crate) fn at_least(&self, value: u64, order: Ordering) {
        self.writes();
        self.value.fetch_max(value, order);
    }
}

mod tests {
    use super::*;

    /// Two loads in one thread against a load and a compare-exchange in each of two: all
    /// results there are.
    #[test]
    fn loads_before_an_exchange_hide_nothing() {
        let seen = Seen::new();
        let results = seen.clone();
        explore(move || {
            let words = Arc::new([Word::new(3), Word::new(3)]);
            let writers = [1, 2].map(|n| {
                let words = words.clone();
                spawn(move || {
                    let word = &words[n - 1];
                    let value = word.load(Ordering::Relaxed);
                    word.replace(value, 7, Ordering::Relaxed).unwrap();
                })
            });
            let got = [0, 1].map(|n| words[n].load(Ordering::Relaxed));
            for writer in writers {
                writer.join().unwrap();
            }
            results.add(got);
        });
        assert_eq!(seen.all(), [[0, 0], [0, 7], [7, 0], [7, 7]]);
    }
}
