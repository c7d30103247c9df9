#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| haproxy_server::fuzzing::examine("servers_state", bytes));
