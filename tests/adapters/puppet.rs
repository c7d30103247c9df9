//! Puppet: the module under `modules/puppet/`, on each version of Puppet that is found, as `puppet::8::test`.

use crate::support::{Test, TestFn};

use site::Puppet;

/// Lists tests under their own names, for each version of Puppet.
macro_rules! on_each {
    ($($name:ident),+ $(,)?) => {
        vec![$(
            (Puppet::Seven, $crate::support::Test::on_each(concat!("7::", stringify!($name)), |haproxy| $name(haproxy, Puppet::Seven))),
            (Puppet::Eight, $crate::support::Test::on_each(concat!("8::", stringify!($name)), |haproxy| $name(haproxy, Puppet::Eight))),
        )+]
    };
}

/// Lists tests of what no version of Puppet does in its own way: the newest is enough for `make test`.
macro_rules! on_newest {
    ($($name:ident),+ $(,)?) => {{
        let mut tests = on_each![$($name),+];
        tests.retain(|(puppet, _)| crate::support::on_every_version() || puppet.is_newest());
        tests
    }};
}

mod bolt;
mod class;
mod documents;
mod examples;
mod manifests;
mod packaging;
mod site;

/// A test on one version of Puppet.
type On = (Puppet, Test);

pub(crate) fn tests() -> Vec<Test> {
    let found = Puppet::found();
    let all =
        [manifests::tests(), class::tests(), bolt::tests(), documents::tests(), packaging::tests(), examples::tests()]
            .concat();
    let missing: TestFn = |_| Err("there is no Puppet 7 or 8 to test on: run `make tools`".into());
    if found.is_empty() {
        return vec![Test::on_each("is_installed", missing)];
    }
    all.into_iter().filter(|(puppet, _)| found.contains(puppet)).map(|(_, test)| test).collect()
}
