//! Puppet: the module under `modules/puppet/`.

use crate::support::Test;

mod bolt;
mod documents;
mod examples;
mod manifests;
mod site;

pub(crate) fn tests() -> Vec<Test> {
    [manifests::tests(), bolt::tests(), documents::tests(), examples::tests()].concat()
}
