//! Does the same thing with several instances at once, so that a run takes as long as its slowest instance.

use crate::error::{Error, ErrorKind, Result};

/// How many instances are worked on at a time.
const AT_ONCE: usize = 64;

/// Calls `work` with every item, on a thread each but for the last, and returns the results in the order of the items.
pub fn side_by_side<T: Send, R: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<Result<R>> {
    let mut items: Vec<T> = items.into_iter().collect();
    let mut results = Vec::with_capacity(items.len());
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(AT_ONCE));
        results.extend(at_once(std::mem::replace(&mut items, rest), &work));
    }
    results
}

/// Works on all items at the same time.
fn at_once<T: Send, R: Send>(mut items: Vec<T>, work: &(impl Fn(T) -> R + Sync)) -> Vec<Result<R>> {
    let Some(last) = items.pop() else { return Vec::new() };
    std::thread::scope(|scope| {
        let start = |item| std::thread::Builder::new().spawn_scoped(scope, move || work(item));
        let threads: Vec<_> = items.into_iter().map(start).collect();
        let join = |thread: std::io::Result<std::thread::ScopedJoinHandle<'_, R>>| {
            let thread = thread.map_err(|error| internal(&format!("cannot start a thread: {error}")))?;
            thread.join().map_err(|_| internal("a thread has failed"))
        };
        let last = work(last);
        threads.into_iter().map(join).chain([Ok(last)]).collect()
    })
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
