//! A host of a test's own: namespaces in which only the processes that it starts can be seen.

use std::process::Command;

use nix::unistd::geteuid;

use super::{Program, skipped};

/// The program, run by a script as `"$@"` where only the processes of the script can be seen.
///
/// Nothing where that cannot be made.
pub(crate) fn alone(script: &str) -> Option<Program> {
    let unshare = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"];
    let works = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !geteuid().is_root() || !works.is_ok_and(|output| output.status.success()) {
        skipped("only root can make namespaces, with unshare");
        return None;
    }
    Some(Program::new().under(unshare.into_iter().chain(["bash", "-c", script, "bash"])))
}
