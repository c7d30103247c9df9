# Copyright: (c) 2026, the haproxy_server authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options that a change and a query share."""

    DOCUMENTATION = r"""
options:
  backend:
    description:
      - The backends in which to find the servers, as names or patterns. All backends by default.
    type: list
    elements: str
  address:
    description:
      - The addresses in force of the servers, each as an IP address with or without a port, such as C(10.0.0.5),
        C(10.0.0.5:8080) or C([::1]:80). Any of them by default.
      - A server must match O(server) and O(backend) as well where these are given.
    type: list
    elements: str
  instances:
    description:
      - The HAProxy instances of the target, each as the name of a discovered one, as the address of a stats socket in
        HAProxy's notation (C(/path), C(unix@/path), C(abns@name), C(ipv4@127.0.0.1:9999), C(ipv6@[::1]:9999)), or as a
        dictionary of C(name) and C(socket).
      - All discovered instances by default.
    type: list
    elements: raw
    aliases: [socket]
  ignore_instances:
    description:
      - Instances of the target to leave alone on purpose, as names or patterns. Discovery skips them without a warning, even
        where it could not manage them.
      - It has no effect on instances that O(instances) names. None by default.
    type: list
    elements: str
  on_missing:
    description:
      - What a listed server or backend that matches nothing means.
      - With V(fail) it is an error if no selected instance has it, with V(fail_each) if any of them lacks it, and with
        V(elsewhere_ok) if no instance of the target has it, selected or not. With V(ignore) it is never an error.
    type: str
    choices: [fail, fail_each, elsewhere_ok, ignore]
    default: fail
  timeout:
    description:
      - The longest that one instance may take for one step in total, in seconds, more than V(0) and at most V(86400). The
        steps are connecting, observing, one batch of commands, reading back, and one poll.
    type: float
    default: 10
  deadline:
    description:
      - The longest that the whole run may take, in seconds, more than V(0) and at most V(86400).
      - When the time is over, nothing new is sent, what was sent is read back, and the task fails with the kind C(timeout).
    type: float
  executable:
    description:
      - The program on the target, as a path, or as a name that is looked up in C(PATH), then in C(/usr/bin) and
        C(/usr/local/bin).
    type: str
    default: haproxy_server
  executables:
    description:
      - A folder on the controller with the program for each architecture, as in C(x86_64/haproxy_server) or
        C(aarch64/haproxy_server), in the words of C(uname -m). It is looked up like the source of a copy.
      - Used only where O(executable) is missing on the target or too old. The program is sent for the task, and goes with it.
      - The folder C(roles/install/files) of this collection by default.
    type: path
"""
