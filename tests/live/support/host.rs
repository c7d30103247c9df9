//! A command `haproxy_server` as a host of its own has it.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{Folder, Instance, Program, python};

/// A folder for `PATH` whose `haproxy_server` stands for a host with certain instances only.
///
/// Discovery would find the instances of other tests, too. So this one adds `instances` to a request that has none, and
/// gives the address for a name; all else is the program's. `instances` that are addresses or objects stay.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    folder: Folder,
}

impl Host {
    /// A host with these instances, as in `stage.instances()`.
    pub(crate) fn with<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> Self {
        let folder = Folder::new();
        let sockets: BTreeMap<&str, String> =
            instances.into_iter().map(|instance| (instance.name(), instance.address())).collect();
        let program = json!(Program::path());
        let script = SCRIPT.replace("PROGRAM", &program.to_string()).replace("SOCKETS", &json!(sockets).to_string());
        let script = script.replace("PYTHON", python());
        let source = folder.write("host.py", &script);
        let host = Self { folder };
        // By another process, for the same reason as in `copy_program`.
        let installed = Command::new("install").args(["-m", "755"]).arg(source).arg(host.command()).status();
        assert!(installed.expect("install").success(), "cannot install {}", host.command().display());
        host
    }

    /// The folder to put in front of `PATH`.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The command itself.
    pub(crate) fn command(&self) -> PathBuf {
        self.folder.join("haproxy_server")
    }

    /// `PATH` with this host's command first.
    pub(crate) fn path(&self) -> OsString {
        let mut path = self.folder.path().as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        path
    }
}

/// In words, in a file and on standard input alike; what is no request goes on as it is. The adapters run it a thousand times, so
/// that it imports little.
const SCRIPT: &str = r#"#!PYTHON -IS
import json, os, sys

program, sockets = PROGRAM, SOCKETS


def addresses(instances):
    if instances is None:
        return list(sockets.values())
    listed = instances.split(",") if isinstance(instances, str) else instances
    return [sockets.get(each, each) if isinstance(each, str) else each for each in listed]


words = sys.argv[1:]
files = [word for word in words if os.path.isfile(word)]
if any("=" in word for word in words):
    given = [word for word in words if word.startswith("instances=")]
    rest = [word for word in words if not word.startswith("instances=")]
    chosen = addresses(given[-1].partition("=")[2] if given else None)
    os.execv(program, [program, *rest, "instances=" + ",".join(chosen)])
if any(word in ("--help", "--version", "--schema") for word in words):
    os.execv(program, [program, *words])
text = open(files[0]).read() if files else sys.stdin.read()
if not text:
    os.execv(program, [program, *words, "instances=" + ",".join(sockets.values())])
try:
    request = json.loads(text)
    request["instances"] = addresses(request.get("instances"))
    text = json.dumps(request)
except (ValueError, TypeError, AttributeError):
    pass
options = [word for word in words if word not in files]
read, write = os.pipe()
text = text.encode()
if len(text) <= 65536:
    # A pipe holds this much, so that nobody has to feed it.
    os.write(write, text)
elif os.fork() == 0:
    os.close(read)
    with open(write, "wb") as pipe:
        pipe.write(text)
    os._exit(0)
os.close(write)
os.dup2(read, 0)
os.execv(program, [program, *options])
"#;
