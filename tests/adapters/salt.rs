//! Salt: the modules, the orchestration and the page under `modules/salt/`, on each Salt that is installed.

use crate::support::{Test, tests};

use events::servers_that_go_out_and_come_back_are_events;
use extension::extension_comes_with_pip;
use fields::{every_field_is_documented, every_field_reaches_the_program, fields_and_schema_agree};
use functions::{functions_do_what_they_say, functions_fail_with_one_sentence};
use install_state::the_program_is_installed_once;
use orchestration::{page_shows_what_happens, servers_come_back_when_the_work_fails};
use states::{states_do_what_they_say, states_fail_with_one_sentence, watching_states_set_again};

mod events;
mod extension;
mod fields;
mod fleet;
mod functions;
mod install_state;
mod minion;
mod orchestration;
mod states;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        page_shows_what_happens,
        servers_come_back_when_the_work_fails,
        functions_do_what_they_say,
        functions_fail_with_one_sentence,
        states_do_what_they_say,
        states_fail_with_one_sentence,
        watching_states_set_again,
        every_field_reaches_the_program,
        every_field_is_documented,
        fields_and_schema_agree,
        extension_comes_with_pip,
        servers_that_go_out_and_come_back_are_events,
        the_program_is_installed_once,
    ]
}

/// Administrative mask and operational state in `show servers state`.
const READY: (u32, u32) = (0, 2);
const DRAIN: (u32, u32) = (8, 2);
const MAINT: (u32, u32) = (1, 0);
