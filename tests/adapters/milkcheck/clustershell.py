"""Runs the commands of a MilkCheck file through ClusterShell, as MilkCheck does, and shows them as it does.

    clustershell.py -c FOLDER [-n NODES | -x NODES] [-D "NAME=VALUE ..."]... [SERVICE...] ACTION

It is there for machines without MilkCheck: enough of it for the files of modules/milkcheck, and no dependencies between
services.
"""

import argparse
import pathlib
import re
import sys

import yaml
from ClusterShell.NodeSet import NodeSet
from ClusterShell.Task import task_self


class Scope:
    """What a name after a `%` means: in an action, else in its service, else in the group around it, else on top."""

    def __init__(self, parent, variables, **own):
        self.parent, self.own = parent, own
        self.variables = dict(variables)
        # Read once, where they stand: `%%` is what is left for where they are used.
        for name, value in variables.items():
            self.variables[name] = self.text(value)

    def value(self, name):
        if name in self.variables:
            return self.variables[name]
        if name.upper() in self.own:
            return self.own[name.upper()]
        if self.parent is None:
            sys.exit(f"Undefined variable '{name}'")
        return self.parent.value(name)

    def text(self, template):
        def one(match):
            sign, name = match.groups()
            if sign is None and name is None:
                sys.exit(f"Invalid placeholder in {template!r}")
            return "%" if sign else self.text(self.value(name))

        return re.sub(r"%(?:(%)|([A-Za-z_]\w*)|)", one, str(template))


def actions(scope, name, services, wanted, target=None):
    """Every action of the wanted name below a group, as its service, its nodes and its command."""
    for names, service in services.items():
        for each in NodeSet(names):
            full = f"{name}.{each}" if name else str(each)
            inner = Scope(scope, service.get("variables", {}), SERVICE=str(each))
            nodes = service.get("target", target)
            yield from actions(inner, full, service.get("services", {}), wanted, nodes)
            for aliases, action in service.get("actions", {}).items():
                for alias in NodeSet(aliases):
                    # All are read, so that a name that is not there is an error whatever was asked for.
                    own = Scope(inner, action.get("variables", {}), ACTION=str(alias))
                    command = own.text(action["cmd"])
                    if alias == wanted:
                        yield full, NodeSet(own.text(action.get("target", nodes))), command


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-c", dest="folder", required=True)
    parser.add_argument("-n", dest="only", type=NodeSet)
    parser.add_argument("-x", dest="without", type=NodeSet)
    parser.add_argument("-D", dest="defines", action="append", default=[])
    parser.add_argument("words", nargs="+")
    asked = parser.parse_args()
    *wanted, action = asked.words

    variables, services = {}, {}
    for file in pathlib.Path(asked.folder).glob("*.yaml"):
        document = yaml.safe_load(file.read_text())
        variables.update(document.get("variables", {}))
        services.update(document.get("services", {}))
    for define in " ".join(asked.defines).split():
        name, _, value = define.partition("=")
        variables[name] = value
    missing = [name for name in wanted if name not in services]
    if missing:
        print(f"Undefined service {missing}")
        return 9

    task, running = task_self(), []
    for name, nodes, command in actions(Scope(None, variables), "", services, action):
        if wanted and name.split(".")[0] not in wanted:
            continue
        nodes = nodes & asked.only if asked.only else nodes
        nodes = nodes - asked.without if asked.without else nodes
        if nodes:
            running.append((name, task.shell(command, nodes=nodes, stderr=False)))
    task.run()

    failed = False
    for name, worker in running:
        codes = [(code, NodeSet.fromlist(nodes)) for code, nodes in worker.iter_retcodes()]
        bad = NodeSet.fromlist(nodes for code, nodes in codes if code != 0)
        if bad:
            failed = True
            print(f"{action} {name} ran in 0.00 s")
            for buffer, nodes in worker.iter_buffers():
                nodes = NodeSet.fromlist(nodes) & bad
                for line in bytes(buffer).decode().splitlines() if nodes else []:
                    print(f" > {nodes}: {line}")
            for code, nodes in codes:
                if code != 0:
                    print(f" > {nodes} exited with {code}")
        print(f"{name} [{'ERROR' if bad else 'OK'}]")
    return 6 if failed else 0


sys.exit(main())
