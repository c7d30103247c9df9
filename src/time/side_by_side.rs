//! Does the same thing with several instances at once, so that a run takes as long as its slowest instance.

use std::sync::Mutex;

use crate::model::error::{Error, ErrorKind, Result};

/// How many instances are handled at a time: most of the work is waiting for HAProxy, and starting a thread costs as
/// much as the answer of a small HAProxy.
const AT_ONCE: usize = 8;

/// Calls `work` with every item, several at a time, and returns the results in the order of the items.
pub fn side_by_side<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<Result<R>> {
    let items: Vec<T> = items.into_iter().collect();
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let threads = items.len().min(AT_ONCE);
    let queue = Mutex::new(items.into_iter().zip(&results));
    // Each thread takes the next item when it is done, so a slow instance does not hold up the others.
    let take = || queue.lock().ok()?.next();
    let run = || {
        while let Some((item, slot)) = take() {
            let result = work(item);
            if let Ok(mut slot) = slot.lock() {
                *slot = Some(result);
            }
        }
    };
    std::thread::scope(|scope| {
        // One of them is this thread. If no other can be started, it does all of the work.
        let start = |_| std::thread::Builder::new().spawn_scoped(scope, run).ok();
        let started: Vec<_> = (1..threads).filter_map(start).collect();
        run();
        for thread in started {
            // Whatever it has left undone has no result.
            let _ = thread.join();
        }
    });
    drop(queue);
    let result = |slot: Mutex<Option<R>>| slot.into_inner().ok().flatten();
    results.into_iter().map(|slot| result(slot).ok_or_else(|| internal("a thread has failed"))).collect()
}

fn internal(what: &str) -> Error {
    Error::new(ErrorKind::Internal, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_items() {
        let items: Vec<usize> = (0..150).collect();
        let doubled: Result<Vec<usize>> = side_by_side(&items, |item| item * 2).into_iter().collect();
        assert_eq!(doubled, Ok(items.iter().map(|item| item * 2).collect()));
    }
}
