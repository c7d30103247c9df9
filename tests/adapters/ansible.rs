//! Ansible: the collection under `modules/ansible/`.

use crate::support::Test;

mod become_and_ssh;
mod collection;
mod controller;
mod install_role;
mod page;
mod rolling;
mod sshd;
mod task;

pub(crate) fn tests() -> Vec<Test> {
    [
        become_and_ssh::tests(),
        collection::tests(),
        install_role::tests(),
        page::tests(),
        rolling::tests(),
        task::tests(),
    ]
    .concat()
}
