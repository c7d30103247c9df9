# Copyright: (c) 2026, the haproxy_server authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hands the task to the program haproxy_server on the target.

The options are checked here, then one command runs there, with the request on its standard input. The target needs no
Python. What the options mean, and whether they go together, is the program's to say.
"""

from __future__ import annotations

import difflib
import json
import os
import re

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.text.converters import to_text
from ansible.module_utils.errors import UnsupportedError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

# The oldest version of the program that knows all of these options.
OLDEST_PROGRAM = "1.0.0"

# The version of the program that this collection was made for and tested with.
PROGRAM = "1.0.0"

STATES = ["ready", "drain", "maint", "enabled", "enable", "disabled", "disable"]
SWITCH = ["enabled", "disabled"]

# Without defaults: what a task does not say is not sent, and the program's own default holds.
ARGUMENT_SPEC = dict(
    server=dict(type="list", elements="str", aliases=["host"]),
    state=dict(type="str", choices=STATES + ["restore"]),
    backend=dict(type="list", elements="str"),
    address=dict(type="list", elements="str"),
    instances=dict(type="list", elements="raw", aliases=["socket"]),
    ignore_instances=dict(type="list", elements="str"),
    weight=dict(type="str"),
    health=dict(type="str", choices=SWITCH),
    agent=dict(type="str", choices=SWITCH),
    drain=dict(
        type="dict",
        options=dict(
            timeout=dict(type="float"),
            stable=dict(type="float"),
            on_timeout=dict(type="str", choices=["fail", "rollback", "maint", "shutdown"]),
        ),
    ),
    shutdown_sessions=dict(type="dict", options=dict(over=dict(type="float"))),
    wait=dict(
        type="dict",
        options=dict(
            timeout=dict(type="float"),
            stable=dict(type="float"),
            via=dict(type="str", choices=["drain", "ready"]),
            need=dict(type="str", choices=["all", "any"]),
        ),
    ),
    old_processes=dict(type="str", choices=["count", "wait"]),
    guard=dict(type="dict", options=dict(min_available=dict(type="str", required=True))),
    expect=dict(
        type="dict",
        options=dict(
            admin_state=dict(type="str", choices=STATES),
            operational_state=dict(type="str", choices=["stopped", "starting", "running", "stopping"]),
        ),
    ),
    on_failure=dict(type="str", choices=["keep", "rollback"]),
    state_file=dict(type="raw"),
    owner=dict(type="str"),
    reason=dict(type="str"),
    expires=dict(type="str"),
    ignore_owner=dict(type="bool"),
    on_owned=dict(type="str", choices=["fail", "skip"]),
    lock_timeout=dict(type="float"),
    syslog=dict(type="bool"),
    on_missing=dict(type="str", choices=["fail", "fail_each", "elsewhere_ok", "ignore"]),
    on_unreachable=dict(type="str", choices=["fail", "skip"]),
    timeout=dict(type="float"),
    deadline=dict(type="float"),
    executable=dict(type="str"),
    executables=dict(type="path"),
)

# Built once, in the process that the workers are forked from.
VALIDATOR = ArgumentSpecValidator(ARGUMENT_SPEC)

# Where the program is looked for as well, since 'secure_path' of sudo leaves one or the other out.
FOLDERS = ["/usr/bin", "/usr/local/bin"]

# Not part of the request.
OWN_OPTIONS = ("executable", "executables")

# Names from elsewhere that mean something else here, or nothing.
REFUSED = dict(
    fail_on_not_found="A server that is found nowhere fails the task; see 'on_missing' for other ways.",
    wait_interval="Write 'wait: {timeout: SECONDS}', or 'drain: {timeout: SECONDS}' for sessions.",
    wait_retries="Write 'wait: {timeout: SECONDS}', or 'drain: {timeout: SECONDS}' for sessions.",
    dry_run="Write 'check_mode: true' beside the module, or run the playbook with --check.",
    diff="Write 'diff: true' beside the module, or run the playbook with --diff.",
)


class BadTask(Exception):
    """The task cannot be run as it is written; the text says why."""


class ActionModule(ActionBase):
    """Runs haproxy_server on the target."""

    # The options that this module has.
    options = tuple(ARGUMENT_SPEC)

    def run(self, tmp=None, task_vars=None):
        if self._task.async_val:
            return failure(
                "haproxy_server does not run with 'async', which needs Python on the target: leave it out, and bound the "
                "task by the 'timeout' of 'drain' and 'wait'. Hosts are worked on at once as far as 'forks' reach, and "
                "'ServerAliveInterval' of SSH keeps a long task's connection. The bare program in 'library/' takes 'async'."
            )
        result = super().run(tmp, task_vars)
        del tmp
        try:
            options = checked(self._task.args, self._task.action, self.options)
            request = request_of(options)
            if self._task.check_mode:
                request["dry_run"] = True
            if self._task.diff:
                request["diff"] = True
            data = encoded(request)
            output = self._run_program(options, data)
            result.update(result_of(output))
            note_version(result)
        except BadTask as error:
            return failure(str(error))
        if "diff" in result:
            # What stands above a difference.
            result["diff"]["before_header"] = result["diff"]["after_header"] = ", ".join(request.get("server", ["all"]))
        if self._display.verbosity >= 3:
            result["invocation"] = dict(module_args=request)
        return result

    def _run_program(self, options, data):
        """Runs the installed program; only where there is none that will do, one that is sent."""
        name = options.get("executable") or "haproxy_server"
        places = [name] if "/" in name else [name] + ["%s/%s" % (folder, name) for folder in FOLDERS]
        for installed in places:
            output = self._execute(installed, data)
            if not is_missing(output):
                break
        if is_missing(output):
            problem = "there is no command '%s' on the target" % name
            if len(places) > 1:
                problem += ", neither in PATH nor in %s" % " or ".join(FOLDERS)
        elif is_bad_request(output):
            # It may be the task that is wrong, or the program that is too old for it. Nothing was changed.
            version = self._version(installed)
            if version is None or numbers(version) >= numbers(OLDEST_PROGRAM):
                return output
            problem = "'%s' on the target is version %s, and %s is needed" % (installed, version, OLDEST_PROGRAM)
        else:
            return output
        architecture = self._architecture()
        source = self._executable_for(architecture, options.get("executables"), problem)
        self._display.v("haproxy_server: %s; sending %s" % (problem, source), host=self._play_context.remote_addr)
        return self._execute(self._sent(source), data)

    def _execute(self, program, data):
        """Runs a program on the target with the request on its standard input, or else in a file."""
        command = self._command(program)
        if self._passes_stdin():
            output = self._low_level(command, in_data=data)
            if not self._wants_tty(output):
                return output
        path = self._remote_path("request.json")
        self._transfer_data(path, data)
        self._fixup_perms2([self._connection._shell.tmpdir, path])
        return self._low_level("%s %s" % (command, self._connection._shell.quote(path)))

    def _low_level(self, command, **how):
        """Runs a command on the target.

        On the controller itself it needs neither the second shell nor the 'sleep' that Ansible adds for SSH.
        """
        if self._connection.transport == "local":
            how["executable"] = False
        return self._low_level_execute_command(command, **how)

    def _command(self, program):
        words = [self._compute_environment_string(), self._connection._shell.quote(program)]
        if self._connection.transport == "local":
            # In place of the shell.
            words.insert(1, "exec")
        return " ".join(word for word in words if word)

    def _passes_stdin(self):
        """Tells whether connection and become hand standard input on to the program."""
        connection, become = self._connection, self._connection.become
        if not connection.has_pipelining:
            return False
        # Before ansible-core 2.19 only the name tells that su cannot.
        if become and (become.name == "su" or not getattr(become, "pipelining", True)):
            return False
        # On the controller itself, a password is typed at a terminal of its own, in place of standard input.
        typed = connection.transport == "local" and become and self.get_become_option("become_pass")
        return not typed or bool(self.get_connection_option("pipelining"))

    def _wants_tty(self, output):
        """Tells whether become has refused to run anything without a terminal (requiretty of sudo)."""
        return bool(
            self._connection.become
            and output["rc"] != 0
            and report_of(output) is None
            and "tty" in output["stderr"].lower()
        )

    def _version(self, program):
        output = self._low_level(self._command(program) + " --version")
        words = output["stdout"].split()
        return printable(words[-1]) if output["rc"] == 0 and words else None

    def _architecture(self):
        output = self._low_level("uname -m", sudoable=False)
        words = output["stdout"].split()
        # It becomes a part of a path.
        if output["rc"] != 0 or not words or not re.match(r"\w+\Z", words[-1], re.ASCII):
            raise BadTask("'uname -m' does not tell the target's architecture: %s" % said(output))
        return words[-1]

    def _executable_for(self, architecture, folder, problem):
        """The program for an architecture, on the controller."""
        name = os.path.join(architecture, "haproxy_server")
        if folder:
            try:
                return self._find_needle("files", os.path.join(folder, name))
            except AnsibleError:
                source = os.path.join(folder, name)
        else:
            collection = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
            source = os.path.join(collection, "roles", "install", "files", name)
            if os.path.isfile(source):
                return source
        raise BadTask(
            "%s, and there is none at %s to be sent: install haproxy_server %s or later on the target, or put the one "
            "for %s there" % (problem, source, OLDEST_PROGRAM, architecture)
        )

    def _sent(self, source):
        path = self._remote_path("haproxy_server")
        self._transfer_file(source, path)
        self._fixup_perms2([self._connection._shell.tmpdir, path])
        return path

    def _remote_path(self, name):
        """A path in the task's temporary folder, which the end of the task removes."""
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        return shell.join_path(shell.tmpdir, name)


def failure(sentence):
    return dict(failed=True, changed=False, msg=sentence)


def checked(arguments, action, known):
    """The options of the task in their types, without those that it leaves out."""
    arguments = given(arguments)
    for name in arguments:
        if name in ARGUMENT_SPEC and name not in known:
            raise BadTask("'%s' is not an option of %s, which changes nothing: use haproxy_server" % (name, action))
    for name, advice in REFUSED.items():
        if name in arguments:
            raise BadTask("'%s' is not an option of haproxy_server. %s" % (name, advice))
    for name, option in ARGUMENT_SPEC.items():
        for alias in option.get("aliases", []):
            if name in arguments and alias in arguments:
                raise BadTask("'%s' and '%s' are the same option: give one of them" % (name, alias))
    for name in ("health", "agent"):
        if flag(arguments.get(name)) is not None:
            raise BadTask(
                "'%s' is not a switch, as it is in community.general.haproxy: write '%s: disabled' to pause the "
                "checks, '%s: enabled' to resume them, or leave it out" % (name, name, name)
            )
    for name in ("drain", "shutdown_sessions", "wait"):
        wanted = flag(arguments.get(name))
        if wanted is not None:
            arguments[name] = {} if wanted else None
    arguments = given(arguments)

    outcome = VALIDATOR.validate(arguments)
    if outcome.errors.errors:
        sentence = outcome.errors.msg
        if isinstance(outcome.errors[0], UnsupportedError):
            sentence = "Unsupported parameters for (%s) module: %s%s" % (action, sentence, nearest(sentence))
        raise BadTask(sentence)
    # Not the aliases, which stand beside the names that they were taken for.
    return given(dict((name, outcome.validated_parameters.get(name)) for name in ARGUMENT_SPEC))


def nearest(sentence):
    """A hint at the option that is meant, where one is near the first that is not known."""
    *parents, name = sentence.split(". ")[0].split(", ")[0].split(".")
    options = ARGUMENT_SPEC
    for parent in parents:
        options = options.get(parent, {}).get("options", {})
    close = difflib.get_close_matches(name, options, 1)
    return " Did you mean '%s'?" % ".".join(parents + close) if close else ""


def request_of(options):
    return dict((name, value) for name, value in options.items() if name not in OWN_OPTIONS)


def given(value):
    """The same without what is null, at any depth: null is the same as leaving it out."""
    if isinstance(value, dict):
        return dict((name, given(each)) for name, each in value.items() if each is not None)
    if isinstance(value, list):
        return [given(each) for each in value if each is not None]
    return value


def flag(value):
    """A boolean in any of Ansible's spellings; None for what is none."""
    try:
        return boolean(value)
    except TypeError:
        return None


def encoded(request):
    try:
        return json.dumps(request, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise BadTask("an option has a value that JSON does not have: %s" % error) from error


def report_of(output):
    """The report among what the target has printed; a login shell may say something before it."""
    for line in reversed(output["stdout_lines"]):
        try:
            report = json.loads(line[line.index("{"):])
        except ValueError:
            continue
        if isinstance(report, dict) and "failed" in report:
            return printable(report)
    return None


def is_missing(output):
    """Tells whether the shell has found no such program."""
    return output["rc"] == 127 and report_of(output) is None


def is_bad_request(output):
    report = report_of(output)
    return report is not None and (report.get("error") or {}).get("kind") == "bad_request"


def result_of(output):
    report = report_of(output)
    if report is None:
        raise BadTask("haproxy_server has given no report: %s" % said(output))
    # Salt's name for msg.
    report.pop("comment", None)
    return report


def note_version(result):
    """Warns where the target has another version of the program than the one that this collection was made for."""
    version = result.get("version", PROGRAM)
    if version != PROGRAM:
        result.setdefault("warnings", []).append(
            "the target has haproxy_server %s, and this collection was made for %s" % (version, PROGRAM)
        )


def said(output):
    """What a command has said, when that is not what it should have."""
    words = [output["stderr"].strip(), output["stdout"].strip()]
    return "; ".join(["exit code %s" % output["rc"]] + [printable(to_text(each)[:2000]) for each in words if each])


def printable(value):
    """Escapes what a terminal would obey in a target's words, at any depth: Ansible prints some of them as they are."""
    if isinstance(value, dict):
        return dict((printable(name), printable(each)) for name, each in value.items())
    if isinstance(value, list):
        return [printable(each) for each in value]
    if not isinstance(value, str) or value.isprintable():
        return value
    return "".join(sign if sign.isprintable() or sign == "\n" else "\\u{%x}" % ord(sign) for sign in value)


def numbers(version):
    return [int(each) for each in version.split("-")[0].split(".") if each.isdigit()]
