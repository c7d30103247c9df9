//! The warning that HAProxy's configuration does not load a state file.

use std::path::Path;

use crate::discover::{Loads, StateFileRules};
use crate::model::text::excerpt;

/// How many backends a warning names.
const NAMED: usize = 3;

/// Names the backends for which HAProxy would not load the state file, if any, in a sentence.
///
/// A backend that the configuration does not have is passed over.
#[must_use]
pub fn not_loaded<'a>(
    rules: &StateFileRules,
    path: &Path,
    backends: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let is_left_out = |name: &&str| rules.loads(path, name) == Loads::No;
    let mut left_out: Vec<&str> = backends.into_iter().filter(is_left_out).collect();
    left_out.sort_unstable();
    left_out.dedup();
    let named = left_out.iter().take(NAMED).map(|name| excerpt(name.as_bytes(), 200)).collect::<Vec<_>>().join(", ");
    let more = match left_out.len() {
        0 => return None,
        count @ ..=NAMED => {
            if count == 1 {
                "the backend ".to_owned() + &named
            } else {
                "the backends ".to_owned() + &named
            }
        }
        count => format!("the backends {named} and {} more", count - NAMED),
    };
    Some(format!(
        "a reload of HAProxy forgets what is set in {more}, because its configuration does not load the state file \
         {path} there; add 'server-state-file {path}' to its global section and 'load-server-state-from-file global' to \
         its defaults",
        path = path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_backends_are_named() {
        let sections = ["a", "b", "c", "d", "e"].map(|name| format!("backend {name}\n")).concat();
        let rules = StateFileRules::of(&[&sections]);
        let path = Path::new("/var/lib/haproxy/state");
        let warning = |names: &[&str]| not_loaded(&rules, path, names.iter().copied());
        let text = warning(&["e", "d", "c", "b", "a", "a", "not-there"]).unwrap();
        assert!(text.contains("the backends a, b, c and 2 more,") && text.contains("/var/lib/haproxy/state"), "{text}");
        assert!(warning(&["b", "a"]).unwrap().contains("the backends a, b,"));
        assert!(warning(&["a"]).unwrap().contains("the backend a,"));
        assert_eq!(warning(&["not-there"]), None);
    }
}
