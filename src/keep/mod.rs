//! What stays on the host after a run: [locks](lock), [owners](owner) and HAProxy's [state file](state_file).
//!
//! The [audit] is what its system log keeps. Locks and owners are in one [folder]. The state file is HAProxy's own, where its configuration says.

pub mod audit;
pub mod exclusion;
pub mod folder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub mod lock;
pub mod owner;
pub mod ownership;
pub mod persist;
mod replace;
pub mod shared;
pub mod state_file;
mod walk;
