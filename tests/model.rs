//! The plan's model of HAProxy against the table that was measured on real ones, which the live test `transitions` holds
//! against the HAProxy versions that are there.

use haproxy_server::model::state::{AdminFlags, AdminState, OperationalState, operational_after};
use transition_table::{State, Table};

#[allow(dead_code, reason = "the live tests use more of it")]
#[path = "support/transition_table.rs"]
mod transition_table;

const VERSIONS: [(u32, u32); 4] = [(2, 2), (2, 6), (3, 0), (3, 2)];

/// What the model says becomes of a server; nothing where the table has an operational state that there is not.
fn predicted(before: State, wanted: AdminState) -> Option<State> {
    let flags = AdminFlags(before.admin);
    let operational = OperationalState::from_number(before.op)?;
    let after = flags.after(wanted);
    let op = match operational_after((flags, operational), after, None) {
        OperationalState::Stopped => 0,
        OperationalState::Starting => 1,
        OperationalState::Running => 2,
        OperationalState::Stopping => 3,
    };
    Some(State { admin: after.0, op })
}

#[test]
fn the_model_predicts_every_transition() {
    let text = include_str!("cases/transitions.txt");
    let table = Table::parse(text).expect("the table is well formed");
    let mut compared = 0;
    let mut wrong = Vec::new();
    for (row, command, cell) in table.cells() {
        let wanted = match command {
            "ready" | "enable" => AdminState::Ready,
            "drain" => AdminState::Drain,
            "maint" | "disable" => AdminState::Maint,
            _ => continue,
        };
        for version in VERSIONS {
            let measured = cell.on(version).expect("every version is measured").at_once;
            let mut model = predicted(row.before, wanted).expect("one of four operational states");
            // HAProxy does not show that a server has slowstart, with which it starts instead of running.
            if row.start.contains("slow") && model.op == 2 && row.before.op == 0 {
                model.op = 1;
            }
            compared += 1;
            if model != measured {
                wrong.push(format!("{} {command} on {version:?}: {model}, measured {measured}", row.start));
            }
        }
    }
    assert!(compared >= 52 * 5 * VERSIONS.len(), "only {compared} transitions were compared");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn weights_and_checks_leave_the_administrative_state_alone() {
    let table = Table::parse(include_str!("cases/transitions.txt")).expect("the table is well formed");
    for (row, command, cell) in table.cells() {
        if matches!(command, "w0" | "w10" | "enH" | "disH" | "enA" | "disA") {
            for version in VERSIONS {
                let measured = cell.on(version).expect("every version is measured").at_once;
                assert_eq!(measured.admin, row.before.admin, "{} {command}", row.start);
            }
        }
    }
}
