//! MilkCheck: the services of `modules/milkcheck/haproxy.yaml`.

use crate::support::Test;

pub(crate) fn tests() -> Vec<Test> {
    Vec::new()
}
