//! The collection as a whole: its documentation, its parts, and what the field's own checkers say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::controller::{Controller, VERSIONS, without_settings};
use super::page::copy_collection;
use crate::described::{choices, compare, marked, request_schema, wrapped};
use crate::support::{Haproxy, Test, TestResult, repository, tests};
use crate::tool::{installed, run, tool};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        options_are_those_of_the_request,
        options_and_schema_agree,
        results_are_those_of_the_report,
        a_query_is_documented_alike,
        it_is_built_and_installed,
        its_variables_are_documented,
        linters_are_content,
        the_importer_is_content,
        sanity_tests_pass,
    ]
}

fn schema(name: &str) -> Value {
    let text = fs::read_to_string(repository().join("schema").join(name)).expect("a schema");
    serde_json::from_str(&text).expect("JSON")
}

/// Follows references, and takes the one of several forms that is not null or an omitted value.
fn resolved<'a>(schema: &'a Value, node: &'a Value) -> &'a Value {
    if let Some(name) = node["$ref"].as_str() {
        return resolved(schema, schema.pointer(name.trim_start_matches('#')).expect("a definition"));
    }
    match node["anyOf"].as_array() {
        Some(forms) if forms[0]["$ref"].is_string() => {
            let objects = forms.iter().map(|form| resolved(schema, form)).find(|form| form["properties"].is_object());
            objects.unwrap_or_else(|| resolved(schema, &forms[0]))
        }
        _ => node,
    }
}

/// The words of an enumeration.
fn words(node: &Value) -> BTreeSet<String> {
    let forms = node["oneOf"].as_array().into_iter().flatten();
    forms.flat_map(|form| strings(&form["enum"])).collect()
}

pub(super) fn documentation() -> Value {
    documentation_of("lbops.haproxy.haproxy_server")
}

fn documentation_of(module: &str) -> Value {
    let controller = Controller::new("newest", "/usr/bin:/bin");
    let ran = run(controller.command("ansible-doc").args(["-j", module])).ended_with(0);
    let all: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}", ran.out));
    all[module].clone()
}

/// The specification by which the action plugin checks a task.
fn specification() -> Value {
    const PRINT: &str = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['ARGUMENT_SPEC']))";
    let plugin = repository().join("modules/ansible/plugins/action/haproxy_server.py");
    let controller = Controller::new("newest", "/usr/bin:/bin");
    let ran = run(controller.command("python").args(["-c", PRINT]).arg(plugin)).ended_with(0);
    serde_json::from_str(&ran.out).expect("JSON")
}

fn strings(value: &Value) -> BTreeSet<String> {
    value.as_array().into_iter().flatten().map(|each| each.as_str().expect("text").to_owned()).collect()
}

fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn options_are_those_of_the_request(_: &Haproxy) -> TestResult {
    // Ansible has words of its own for these, which are no options.
    let keywords = set(&["dry_run", "diff"]);
    // And these are about the program, not for it.
    let own = set(&["executable", "executables"]);
    let request = schema("request.schema.json");
    let documented = documentation()["doc"]["options"].clone();
    let specified = specification();

    let fields: BTreeSet<String> = keys(&request["properties"]).difference(&keywords).cloned().collect();
    let options: BTreeSet<String> = keys(&documented).difference(&own).cloned().collect();
    assert_eq!(options, fields, "the options are not the fields of the request");
    assert_eq!(keys(&specified), keys(&documented), "the plugin takes other options than are documented");

    for (name, option) in documented.as_object().expect("options") {
        same_option(name, option, &specified[name]);
        if own.contains(name) {
            continue;
        }
        let field = &request["properties"][name];
        let form = resolved(&request, field);
        assert_eq!(strings(&option["choices"]), words(form), "choices of {name}");
        assert_eq!(keys(&option["suboptions"]), keys(&form["properties"]), "keys of {name}");
        for (key, suboption) in option["suboptions"].as_object().into_iter().flatten() {
            let form = &form["properties"][key];
            assert_eq!(suboption["default"].as_f64(), form["default"].as_f64(), "default of {name}.{key}");
            assert_eq!(suboption["default"].as_str(), form["default"].as_str(), "default of {name}.{key}");
            let choices = words(resolved(&request, form));
            assert_eq!(strings(&suboption["choices"]), choices, "choices of {name}.{key}");
        }
        // The schema says the default of a field in words: "60 by default", "`keep` by default".
        let said = field["description"].as_str().expect("a description");
        let words: Vec<&str> = said.split_whitespace().collect();
        let default = words.windows(3).find(|three| three[1] == "by" && three[2].starts_with("default"));
        let default = default.map(|three| three[0].trim_matches('`')).filter(|word| {
            word.parse::<f64>().is_ok()
                || (option["type"] == "bool" && ["true", "false"].contains(word))
                || strings(&option["choices"]).contains(*word)
        });
        let documented = match &option["default"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        assert_eq!(documented.as_deref(), default, "default of {name}, which the schema describes as: {said}");
    }
    Ok(())
}

/// The columns of a line in a documentation.
const WIDTH: usize = 120;

/// The options of the query, which has the descriptions in the fragment as well.
const OF_THE_QUERY: [&str; 10] = [
    "server",
    "guard",
    "on_unreachable",
    "backend",
    "address",
    "instances",
    "ignore_instances",
    "on_missing",
    "timeout",
    "deadline",
];

/// The schema's words in Ansible's markup.
fn in_ansible(text: &str, options: &BTreeSet<String>, values: &BTreeSet<String>) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("this host", "the target");
    // Some words are the names of an option and of something else, such as a state or a kind of error.
    let is_ambiguous = |code: &str| options.contains(code) && (values.contains(code) || code == "timeout");
    marked(&text.replace('…', "..."), |code| match code.split_once(": ") {
        _ if is_ambiguous(code) => format!("C({code})"),
        _ if options.contains(code) => format!("O({code})"),
        Some((option, value)) if options.contains(option) => format!("O({option}={value})"),
        _ if values.contains(code) => format!("V({code})"),
        _ => format!("C({code})"),
    })
}

/// Where the description of an option stands, which is so far to the right, from this place on.
fn described(source: &str, from: usize, indent: usize, name: &str) -> std::ops::Range<usize> {
    let head = format!("\n{0}{name}:\n{0}  description:\n", " ".repeat(indent));
    let at = source[from..].find(&head).unwrap_or_else(|| panic!("{name} has no description"));
    let start = from + at + head.len();
    let is_of_it = |line: &&str| line.starts_with(&" ".repeat(indent + 4));
    start..start + source[start..].split_inclusive('\n').take_while(is_of_it).map(str::len).sum::<usize>()
}

/// The descriptions are the schema's. Those of the query's own options are about a query, and its own.
fn options_and_schema_agree(_: &Haproxy) -> TestResult {
    let schema = request_schema();
    let definitions = schema["$defs"].as_object().expect("definitions").values();
    let values = definitions.flat_map(words).collect::<BTreeSet<String>>();
    let fields = keys(&schema["properties"]);
    let folder = repository().join("modules/ansible/plugins");
    let mut seen = BTreeSet::from(["dry_run".to_owned(), "diff".to_owned()]);
    for (file, options) in
        [("modules/haproxy_server.py", fields.clone()), ("doc_fragments/request.py", set(&OF_THE_QUERY))]
    {
        let path = folder.join(file);
        let mut source = fs::read_to_string(&path)?;
        let options = options.difference(&set(&["dry_run", "diff"])).cloned().collect();
        let item = |text: &str, indent: usize| {
            let lines = wrapped(&" ".repeat(indent + 2), &in_ansible(text, &options, &values), WIDTH);
            format!("{}- >-\n{}\n", " ".repeat(indent), lines.join("\n"))
        };
        let description = |field: &Value, indent: usize| {
            let mut text = item(field["description"].as_str().expect("a description"), indent);
            for (words, meaning) in choices(resolved(&schema, field)) {
                text.push_str(&item(
                    &format!("V({}): {}", words[0], meaning.trim_end_matches(" The default.")),
                    indent,
                ));
            }
            text
        };
        for name in &fields {
            if !source.contains(&format!("\n  {name}:\n    description:\n")) {
                continue;
            }
            let field = &schema["properties"][name];
            let place = described(&source, 0, 2, name);
            let from = place.start;
            compare(&mut source, place, &description(field, 6), name);
            seen.insert(name.clone());
            for (key, part) in resolved(&schema, field)["properties"].as_object().into_iter().flatten() {
                let place = described(&source, from, 6, key);
                compare(&mut source, place, &description(part, 10), &format!("{name}.{key}"));
            }
        }
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            fs::write(&path, source)?;
        }
    }
    assert_eq!(seen, fields, "not every option has a description");
    Ok(())
}

/// An option is documented as the plugin takes it; defaults are the program's, so that the plugin has none.
fn same_option(name: &str, documented: &Value, specified: &Value) {
    for key in ["type", "elements", "choices", "aliases"] {
        assert_eq!(documented[key], specified[key], "{key} of {name}");
    }
    assert_eq!(documented["required"].as_bool().unwrap_or(false), specified["required"].as_bool().unwrap_or(false));
    assert!(specified["default"].is_null(), "{name} would be sent although the task does not say it");
    assert_eq!(keys(&documented["suboptions"]), keys(&specified["options"]), "keys of {name}");
    for (key, suboption) in documented["suboptions"].as_object().into_iter().flatten() {
        same_option(&format!("{name}.{key}"), suboption, &specified["options"][key]);
    }
}

/// A query has the options that are no change, and results of the same names.
fn a_query_is_documented_alike(_: &Haproxy) -> TestResult {
    const PRINT: &str = "import json, ansible_collections.lbops.haproxy.plugins.action.haproxy_server_info as info\n\
                         print(json.dumps(info.ActionModule.options))";
    let controller = Controller::new("newest", "/usr/bin:/bin");
    let mut command = controller.command("python");
    command.env("PYTHONPATH", controller.folder.join("collections")).args(["-c", PRINT]);
    let known: Value = serde_json::from_str(&run(&mut command).ended_with(0).out)?;
    let (change, query) = (documentation(), documentation_of("lbops.haproxy.haproxy_server_info"));
    assert_eq!(keys(&query["doc"]["options"]), strings(&known), "the plugin takes other options than are documented");
    for (name, option) in query["doc"]["options"].as_object().ok_or("options")? {
        for key in ["type", "elements", "choices", "aliases", "default"] {
            assert_eq!(option[key], change["doc"]["options"][name][key], "{key} of {name}");
        }
    }
    for (place, except) in [
        ("", vec!["changed", "dry_run", "state", "diff"]),
        ("/servers/contains", vec!["changed", "failed", "before", "commands", "rolled_back", "new_sessions", "error"]),
        ("/instances/contains", vec!["changed", "failed", "state_file", "state_files", "error"]),
        ("/servers/contains/after/contains", vec![]),
        ("/error/contains", vec![]),
    ] {
        let of = |documentation: &Value| keys(documentation["return"].pointer(place).unwrap_or(&Value::Null));
        let expected: BTreeSet<String> = of(&change).difference(&set(&except)).cloned().collect();
        assert_eq!(of(&query), expected, "{place}");
    }
    Ok(())
}

fn results_are_those_of_the_report(_: &Haproxy) -> TestResult {
    let report = schema("report.schema.json");
    let returned = documentation()["return"].clone();
    // For Bolt and for Salt.
    let others = set(&["_error", "comment"]);
    let fields: BTreeSet<String> = keys(&report["properties"]).difference(&others).cloned().collect();
    // Every module has `failed`.
    let mut results = keys(&returned);
    results.insert("failed".to_owned());
    assert_eq!(results, fields, "the results are not the fields of the report");

    let mut diff = keys(&report["$defs"]["Diff"]["properties"]);
    diff.extend(set(&["before_header", "after_header"]));
    let contained = BTreeMap::from([
        ("/servers", keys(&report["$defs"]["ServerReport"]["properties"])),
        ("/servers/contains/before", keys(&report["$defs"]["StateReport"]["properties"])),
        ("/servers/contains/after", keys(&report["$defs"]["StateReport"]["properties"])),
        ("/servers/contains/error", keys(&report["$defs"]["ErrorReport"]["properties"])),
        ("/instances", keys(&report["$defs"]["InstanceReport"]["properties"])),
        ("/instances/contains/state_file", keys(&report["$defs"]["StateFileReport"]["properties"])),
        ("/instances/contains/state_files", keys(&report["$defs"]["BackendStateFileReport"]["properties"])),
        ("/instances/contains/error", keys(&report["$defs"]["ErrorReport"]["properties"])),
        ("/error", keys(&report["$defs"]["ErrorReport"]["properties"])),
        ("/diff", diff),
    ]);
    for (place, fields) in contained {
        let contains =
            returned.pointer(place).unwrap_or_else(|| panic!("{place} is not documented"))["contains"].clone();
        assert_eq!(keys(&contains), fields, "{place}");
    }
    Ok(())
}

fn it_is_built_and_installed(_: &Haproxy) -> TestResult {
    for version in VERSIONS {
        let controller = Controller::without_collection(version, "/usr/bin:/bin");
        let source = controller.folder.join("source");
        copy_collection(&source)?;
        let programs = source.join("roles/install/files").join(std::env::consts::ARCH);
        fs::create_dir_all(&programs)?;
        // The real one is large where it was built for tests.
        let stand_in = "#!/bin/sh\necho '{\"changed\": false, \"failed\": false, \"msg\": \"packed\"}'\n";
        fs::write(programs.join("haproxy_server"), stand_in)?;
        let mut build = controller.command("ansible-galaxy");
        run(build.args(["collection", "build"]).arg(source)).ended_with(0);
        let mut install = controller.command("ansible-galaxy");
        let place = controller.folder.join("collections");
        run(install.args(["collection", "install", "lbops-haproxy-1.0.0.tar.gz", "-p"]).arg(&place)).ended_with(0);

        let ran = run(controller.command("ansible-doc").args(["-l", "lbops.haproxy"])).ended_with(0);
        assert!(ran.out.contains("lbops.haproxy.haproxy_server"), "{}", ran.out);
        for (role, variable) in [("rolling_maintenance", "rolling_maintenance_tasks"), ("install", "install_version")] {
            let mut command = controller.command("ansible-doc");
            let ran = run(command.args(["-t", "role", &format!("lbops.haproxy.{role}")])).ended_with(0);
            assert!(ran.out.contains(variable), "{}", ran.out);
        }
        let module = run(controller.command("ansible-doc").args(["lbops.haproxy.haproxy_server"])).ended_with(0);
        assert!(module.out.contains("EXAMPLES:") && module.out.contains("RETURN VALUES:"), "{}", module.out);
        let installed = place.join("ansible_collections/lbops/haproxy");
        for (path, expected) in
            [("COPYING", true), ("CHANGELOG.rst", true), ("playbooks/rolling_maintenance.yml", true)]
        {
            assert_eq!(installed.join(path).exists(), expected, "{path}");
        }
        let packed =
            run(tool("tar").arg("-tzf").arg(controller.folder.join("lbops-haproxy-1.0.0.tar.gz"))).ended_with(0);
        let hidden = packed.out.lines().find(|path| path.split('/').any(|part| part.starts_with('.')));
        assert_eq!(hidden, None, "a file that nobody sees");
        // The program that was packed with it is the one that is sent.
        let tasks = "- lbops.haproxy.haproxy_server: \n  register: sent\n  \
                     failed_when: sent is failed or sent.msg != 'packed'\n";
        let ran = controller.local(tasks, &["-v"]).ended_with(0);
        assert!(ran.out.contains(&format!("sending {}", place.display())), "{}", ran.out);
    }
    Ok(())
}

/// The variables of a role are the same in its defaults, in its specification and on the page.
fn its_variables_are_documented(_: &Haproxy) -> TestResult {
    variables_are_documented("install", &[], "modules/ansible/roles/install/README.md")?;
    variables_are_documented("rolling_maintenance", &["rolling_maintenance_tasks"], "modules/ansible/README.md")
}

fn variables_are_documented(role: &str, required: &[&str], page: &str) -> TestResult {
    const PRINT: &str =
        "import json, sys, yaml; print(json.dumps([yaml.safe_load(open(path)) for path in sys.argv[1:]]))";
    let prefix = format!("| `{role}_");
    let role_folder = repository().join("modules/ansible/roles").join(role);
    let controller = Controller::without_collection("newest", "/usr/bin:/bin");
    let mut command = controller.command("python");
    command.args(["-c", PRINT]);
    command.arg(role_folder.join("defaults/main.yml")).arg(role_folder.join("meta/argument_specs.yml"));
    let read: Value = serde_json::from_str(&run(&mut command).ended_with(0).out)?;
    let (defaults, options) = (&read[0], &read[1]["argument_specs"]["main"]["options"]);
    let required = set(required);
    let named: BTreeSet<String> = keys(defaults).union(&required).cloned().collect();
    assert_eq!(keys(options), named, "the specification is not about the variables");
    for (name, option) in options.as_object().expect("options") {
        assert_eq!(option["required"].as_bool().unwrap_or(false), required.contains(name), "{name}");
        if !option["default"].is_null() {
            assert_eq!(option["default"], defaults[name], "default of {name}");
        }
    }
    let page = fs::read_to_string(repository().join(page))?;
    let rows = page.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once('`'));
    let rows: BTreeSet<String> = rows.map(|(name, _)| format!("{role}_{name}")).collect();
    assert_eq!(rows, named, "the page is not about the variables");
    Ok(())
}

/// A copy of the collection in a tree as the checkers want it, and a command of an environment in it.
fn checker(controller: &Controller, environment: &str, program: &str) -> Result<Command, Box<dyn std::error::Error>> {
    let tree = controller.folder.join("collections/ansible_collections/lbops/haproxy");
    copy_collection(&tree)?;
    let binaries = installed("ansible").join(environment).join("bin");
    let mut command = tool(binaries.join(program));
    without_settings(&mut command)
        .current_dir(tree)
        .env("HOME", installed("ansible").join("home"))
        .env("PATH", format!("{}:/usr/bin:/bin", binaries.display()))
        .env("ANSIBLE_COLLECTIONS_PATH", controller.folder.join("collections"));
    Ok(command)
}

fn linters_are_content(_: &Haproxy) -> TestResult {
    let controller = Controller::without_collection("newest", "/usr/bin:/bin");
    let mut lint = checker(&controller, "lint", "ansible-lint")?;
    let ran = run(lint.args(["--offline", "--strict", "--nocolor"])).ended_with(0);
    assert!(ran.err.contains("Passed: 0 failure(s), 0 warning(s)"), "{}{}", ran.out, ran.err);
    let controller = Controller::without_collection("newest", "/usr/bin:/bin");
    let mut changelog = checker(&controller, "lint", "antsibull-changelog")?;
    run(changelog.arg("lint")).ended_with(0);
    let config = fs::read_to_string(repository().join("modules/ansible/.ansible-lint"))?;
    assert!(!config.contains("skip_list") && !config.contains("warn_list"), "something is ignored: {config}");
    Ok(())
}

/// What Galaxy runs on each upload.
fn the_importer_is_content(_: &Haproxy) -> TestResult {
    let controller = Controller::without_collection("newest", "/usr/bin:/bin");
    copy_collection(&controller.folder.join("source"))?;
    run(controller.command("ansible-galaxy").args(["collection", "build", "source"])).ended_with(0);
    let packed =
        run(tool("tar").arg("-tzf").arg(controller.folder.join("lbops-haproxy-1.0.0.tar.gz"))).ended_with(0).out;
    assert!(!packed.contains("roles/install/files/"), "Galaxy wants no program in a collection: {packed}");
    let programs = installed("galaxy/venv/bin");
    let mut command = tool(programs.join("python"));
    without_settings(&mut command).current_dir(controller.folder.path()).env("HOME", controller.folder.path());
    command.env("PATH", format!("{}:/usr/bin:/bin", programs.display()));
    let ran = run(command.args(["-m", "galaxy_importer.main", "lbops-haproxy-1.0.0.tar.gz"])).ended_with(0);
    assert!((ran.out.clone() + &ran.err).contains("Importer processing completed successfully"), "{ran:?}");
    Ok(())
}

fn sanity_tests_pass(_: &Haproxy) -> TestResult {
    let controller = Controller::without_collection("newest", "/usr/bin:/bin");
    let mut python = controller.command("python");
    let version = run(python.args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])).ended_with(0).out;
    let mut sanity = checker(&controller, "newest", "ansible-test")?;
    let ran = run(sanity.args(["sanity", "--requirements", "--python", version.trim()])).ended_with(0);
    let said = ran.out + &ran.err;
    for test in ["validate-modules", "pylint", "pep8", "import", "runtime-metadata", "yamllint"] {
        assert!(said.contains(&format!("Running sanity test \"{test}\"")), "{test} was not run: {said}");
    }
    assert!(!repository().join("modules/ansible/tests/sanity").exists(), "something is ignored");
    Ok(())
}
