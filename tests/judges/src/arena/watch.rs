// SPDX-License-Identifier: GPL-2.0-only

//! A look between any two stores.

use std::cell::Cell as StdCell;
use std::ptr::NonNull;

/// How an item was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// [`Cell::init`]
    Init,
    /// [`Cell::set`]
    Set,
    /// [`Cell::publish`], whether it succeeded or not.
    Publish,
}

/// A point in an operation at which a test may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The item at `at` is about to be read. Only seen by [`watch_reads`].
    Read,
    /// The item at `at` is about to be written.
    Before(Store),
    /// The item at `at` was written.
    After(Store),
    /// A table at `at` was allocated.
    Alloc,
    /// The table at `at`, never reachable, is about to be freed.
    Free,
    /// Memory from `at` was cleaned.
    Cleaned,
    /// The table at `at` is about to become the top.
    BeforeTop,
    /// The table at `at` became the top, or did not because another was.
    AfterTop,
}

/// A [`Step`] and the address it is about.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What happens.
    pub step: Step,
    /// The address of the item or the table.
    pub at: u64,
}

type Hook = NonNull<dyn FnMut(Event)>;

std::thread_local! {
    static HOOK: StdCell<Option<Hook>> = const { StdCell::new(None) };
    static READS: StdCell<bool> = const { StdCell::new(false) };
}

/// As [`watch`], with the reads: what hardware does between two accesses to the same item may
/// matter, elsewhere it cannot.
pub fn watch_reads<R>(hook: &mut dyn FnMut(Event), body: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            READS.set(false);
        }
    }
    READS.set(true);
    let _reset = Reset;
    watch(hook, body)
}

/// Calls `hook` at every step that `body` makes in this thread.
pub fn watch<R>(hook: &mut dyn FnMut(Event), body: impl FnOnce() -> R) -> R {
    struct Reset(Option<Hook>);
    impl Drop for Reset {
        fn drop(&mut self) {
            HOOK.set(self.0);
        }
    }
    // SAFETY: Only the lifetime changes; `Reset` takes the pointer away before this function, and
    // with it the borrow of `hook`, ends.
    let hook: &'static mut dyn FnMut(Event) = unsafe { core::mem::transmute(hook) };
    let _reset = Reset(HOOK.replace(Some(NonNull::from(hook))));
    body()
}

#[inline]
pub(super) fn fire(step: Step, at: u64) {
    // Taken out while it runs, so that what it does itself is not watched.
    if let Some(mut hook) = HOOK.take() {
        // SAFETY: `watch` keeps it borrowed for as long as it is set, and it is not in use: it was
        // taken out.
        unsafe { hook.as_mut()(Event { step, at }) };
        HOOK.set(Some(hook));
    }
}

/// Whether reads are steps too.
#[inline]
pub(super) fn reads_are_watched() -> bool {
    READS.get()
}
