#!/usr/bin/python
# Copyright: (c) 2026, the haproxy_server authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# The documentation only: the action plugin of this name does the work, so that the target needs no Python.

from __future__ import annotations

DOCUMENTATION = r"""
---
module: haproxy_server
short_description: Take HAProxy backend servers out of service, and put them back
version_added: 1.0.0
description:
  - Sets servers to C(ready), C(drain) or C(maint), and their weights and checks, in all backends of all HAProxy instances of
    the target, over their stats sockets.
  - Servers already in the requested state are left alone. Reported states are read back from HAProxy after the change.
  - Everything is planned on all instances of the target before anything is changed. A wrong name, an instance that does not
    answer or a missing right fails the task with nothing changed.
  - A task with none of O(state), O(weight), O(health) and O(agent) is a status, which changes nothing.
author:
  - The haproxy_server authors (@lbops)
requirements:
  - The program haproxy_server on the target. Where it is missing or too old, the one for the target's architecture is sent
    from the controller, if it is there (O(executables)). The target needs no Python.
  - HAProxy 2.2 or later with a stats socket of level C(admin) on the target.
extends_documentation_fragment:
  - action_common_attributes
  - action_common_attributes.conn
  - action_common_attributes.flow
  - lbops.haproxy.request
attributes:
  action:
    support: full
  async:
    support: none
    details: Asynchronous tasks need Python on the target. A task lasts as long as O(drain) and O(wait) say.
  become:
    support: full
  bypass_host_loop:
    support: none
  check_mode:
    support: full
    details: Plans and reports exactly what a run would do, and sends nothing that changes anything.
  connection:
    support: full
  delegation:
    support: full
  diff_mode:
    support: full
    details: A line for each server, before and after.
  platform:
    support: full
    platforms: linux
options:
  server:
    description:
      - The servers, as names, as C(backend/server), or as patterns of C(*), C(?) and C([...]) on each side of at most one
        C(/).
      - A change requires this or O(address). A status without both is about all servers.
    type: list
    elements: str
    aliases: [host]
  state:
    description:
      - The requested administrative state.
      - V(ready) takes traffic. V(drain) takes only the traffic of persistence clients. V(maint) takes none.
      - V(restore) puts each server back to the state and weight that it had before it was taken out, if that was recorded.
      - V(enabled) and V(enable) mean V(ready), V(disabled) and V(disable) mean V(maint).
    type: str
    choices: [ready, drain, maint, enabled, enable, disabled, disable, restore]
  weight:
    description:
      - The requested weight, from V(0) to V(256), or a percentage of the configured weight such as V(50%).
      - A server with weight V(0) takes no new traffic except from persistence clients. A percentage that rounds down to
        V(0) fails, unless it is V(0%).
    type: str
  health:
    description:
      - Whether the servers' health checks run. V(enabled) resumes them, V(disabled) pauses them. Unchanged by default.
      - A server without one is left as it is, with a warning.
    type: str
    choices: [enabled, disabled]
  agent:
    description:
      - Whether the servers' agent checks run. V(enabled) resumes them, V(disabled) pauses them, so that an agent cannot
        override the state. Unchanged by default.
      - A server without one is left as it is, with a warning.
    type: str
    choices: [enabled, disabled]
  drain:
    description:
      - With O(state=maint), drains the servers first, in all backends of all instances at once and under one deadline.
      - Each goes to C(maint) as soon as it has no session and no queued request left, and none has begun since the previous
        poll. Idle keep-alive connections do not count. A server that is down goes there at once, one that is in C(maint)
        stays there.
      - V(true) means the defaults of all its keys. Off by default.
    type: dict
    suboptions:
      timeout:
        description:
          - The longest wait for sessions to end, in seconds, from V(0) (they are polled twice) to V(86400).
        type: float
        default: 300
      stable:
        description:
          - How long a server must have had no session, old or new, in seconds, from V(0) to V(86400).
        type: float
        default: 0
      on_timeout:
        description:
          - What happens to servers that still have sessions then.
          - With V(fail) they stay in C(drain), and the task fails.
          - With V(rollback) they are rolled back, and so is everything else that the task has changed. The task fails.
          - With V(maint) they go to C(maint), with a warning, and their sessions continue.
          - With V(shutdown) they go to C(maint) and their sessions are ended, with a warning.
        type: str
        choices: [fail, rollback, maint, shutdown]
        default: fail
  shutdown_sessions:
    description:
      - With O(state=maint), ends the sessions that are left after the change, again and again until none is left. Fails when
        the time is up (that of O(drain), otherwise of O(wait), otherwise O(timeout)).
      - Clients see their connections cut.
      - V(true) means the default of its key. Off by default.
    type: dict
    suboptions:
      over:
        description:
          - The time over which the sessions are ended evenly, so that their clients do not all reconnect at once, in
            seconds, from V(0) (all at once) to V(86400).
        type: float
        default: 0
  wait:
    description:
      - Waits for the effect of O(state), or of O(weight=0).
      - With V(ready), a server that leaves C(maint) goes through C(drain), where HAProxy checks it without giving it new
        traffic, and becomes ready once a check has passed. Then it must take traffic, with a weight above 0 and slowstart
        over. A server without a check, or with a paused one, becomes ready at once.
      - After V(drain), V(maint), and a weight of V(0), waits until no session is left.
      - V(true) means the defaults of all its keys. Off by default.
    type: dict
    suboptions:
      timeout:
        description:
          - The longest wait, in seconds, from V(0) to V(86400).
        type: float
        default: 60
      stable:
        description:
          - After V(ready), how long a server must take traffic without interruption, in seconds, from V(0) to V(86400).
        type: float
        default: 0
      via:
        description:
          - With V(ready), the state in which a server that leaves C(maint) is checked first.
          - With V(drain) it gets no new traffic before a check has passed.
          - With V(ready) clients may find out that it does not work before a check does.
        type: str
        choices: [drain, ready]
        default: drain
      need:
        description:
          - With V(ready), in how many of its matched backends a server must take traffic.
          - With V(all) in each of them.
          - With V(any) in at least one on each instance, as with a primary and its replicas. In the others it becomes ready
            without being waited for.
        type: str
        choices: [all, any]
        default: all
  old_processes:
    description:
      - With O(drain), or with O(wait) after V(drain) and V(maint), how HAProxy processes from before a reload that still
        run count.
      - With V(count) their sessions count if they can be seen. Otherwise they are a warning.
      - With V(wait) no server is free until they have ended, within the time of O(drain) or O(wait).
    type: str
    choices: [count, wait]
    default: count
  guard:
    description:
      - Refuses, before anything is changed on the target, a change that lowers the number of usable servers of a backend
        below this.
      - Usable servers take traffic. They are ready, running or starting, with a weight above 0, in a backend that is neither
        disabled nor unpublished. Backup servers count only if no other server is usable, and then as one.
      - In a status, the returned C(ok) then means that every matched backend has at least that many.
    type: dict
    suboptions:
      min_available:
        description:
          - The fewest usable servers of a backend, as a number from V(0) to V(1000000), or as a percentage from V(0%) to
            V(100%) of its servers that the configuration neither disables nor marks C(backup), spare slots aside, rounded
            up.
        type: str
        required: true
  expect:
    description:
      - Refuses, before anything is changed on the target, a change of a server that is in another state than this.
      - Servers that need no change may be in any state, so a second run of the task passes.
    type: dict
    suboptions:
      admin_state:
        description:
          - The effective administrative state of every server that is changed. Any by default.
        type: str
        choices: [ready, drain, maint, enabled, enable, disabled, disable]
      operational_state:
        description:
          - The operational state of every server that is changed. Any by default.
          - V(stopped) takes no traffic. V(starting) takes a growing share of it. V(running) takes traffic. V(stopping)
            takes only the traffic of its persistence clients.
        type: str
        choices: [stopped, starting, running, stopping]
  on_failure:
    description:
      - What happens to the changes of the task on the target when a later part of it fails. With V(rollback) they are
        rolled back. Whatever somebody else has changed in the meantime is left alone.
    type: str
    choices: [keep, rollback]
    default: keep
  state_file:
    description:
      - Keeps HAProxy's server-state file in step with the state of the servers, so that it survives a reload.
      - The absolute path of the file on the target (for a single instance), or a dictionary of names and paths.
      - A name is C(instance), for all rows of that instance, or C(instance/backend), for the rows of one backend
        (C(load-server-state-from-file local)). Each file may be given only once.
      - Give it with every change. The configuration must load the file (C(server-state-file) and
        C(load-server-state-from-file)).
    type: raw
  owner:
    description:
      - Who takes the servers out, or puts them back, in at most 200 characters.
      - Recorded on the target with V(drain) and V(maint). V(ready) is refused if another owner is recorded, or any owner
        if this is missing.
    type: str
  reason:
    description:
      - Why the servers are taken out, in at most 200 characters. Recorded with V(drain) and V(maint), and shown in a status.
    type: str
  expires:
    description:
      - Until when the servers are meant to be out, with V(drain) and V(maint), as an RFC 3339 time with its offset, or as
        V(+2h) (units s, m, h, d and w).
      - After that, V(ready) is no longer refused. Nothing puts the servers back automatically.
    type: str
  ignore_owner:
    description:
      - With O(state=ready) or O(state=drain), puts servers back, or from C(maint) to C(drain), although another owner is
        recorded.
    type: bool
    default: false
  on_owned:
    description:
      - With O(state=ready) or O(state=drain), what happens to servers that another owner has taken out.
      - With V(fail) the task fails, and nothing is changed anywhere on the target.
      - With V(skip) they are left alone, with a warning, and the others are managed.
    type: str
    choices: [fail, skip]
    default: fail
  lock_timeout:
    description:
      - The longest wait for another run that changes servers of the same HAProxy, in seconds, from V(0) (one attempt) to
        V(86400).
    type: float
    default: 60
  syslog:
    description:
      - Whether each change of a server is written to the system log of the target as well, with the owner, the reason and
        the calling user.
    type: bool
    default: true
  on_unreachable:
    description:
      - What an instance that does not answer means. With V(fail) it is an error, and nothing is changed anywhere on the
        target. With V(skip) it is a warning, and the other instances are managed.
    type: str
    choices: [fail, skip]
    default: fail
seealso:
  - name: From community.general.haproxy
    description: Option by option, in the README of this collection.
    link: https://docs.ansible.com/ansible/latest/collections/community/general/haproxy_module.html
"""

EXAMPLES = r"""
- name: Take web1 out of service, in all backends of all instances
  lbops.haproxy.haproxy_server:
    server: web1
    state: maint
  become: true

- name: Let web1 finish its sessions first, and keep half of each backend in service
  lbops.haproxy.haproxy_server:
    server: web1
    state: maint
    drain:
      timeout: 300
      on_timeout: shutdown
    guard:
      min_available: 50%
    on_failure: rollback
    owner: alice
    reason: new disk
    expires: +2h
  become: true

- name: Put web1 back, and wait until it has taken traffic for 5 seconds
  lbops.haproxy.haproxy_server:
    server: web1
    state: ready
    wait:
      timeout: 120
      stable: 5
    owner: alice
  become: true

# A share is one of the configured weight, and is rounded down: 'weight 100' in the 'server' lines makes room for it.
# Of HAProxy's default, which is 1, 50% is 0.
- name: Give web2 and web3 half of their weight in one backend of one instance
  lbops.haproxy.haproxy_server:
    server: [web2, web3]
    backend: web
    instances: http
    weight: 50%
  become: true

- name: Give them their whole weight again
  lbops.haproxy.haproxy_server:
    server: [web2, web3]
    backend: web
    instances: http
    weight: 100%
  become: true

- name: Look at all servers of all instances
  lbops.haproxy.haproxy_server:
  become: true
  register: haproxy

- name: Name those that are not in service
  ansible.builtin.debug:
    msg: "{{ haproxy.servers | rejectattr('ok') | map(attribute='server') | unique }}"
"""

RETURN = r"""
changed:
  description: Whether the administrative state, the weight or the checks of a server or a server-state file was changed, or
    would be in check mode.
  returned: always
  type: bool
dry_run:
  description: Whether this was check mode, in which nothing is changed.
  returned: when the program has run
  type: bool
msg:
  description: What was done or what failed, in one sentence.
  returned: always
  type: str
  sample: "web1: maint in 1 of 1 backend on 1 of 3 instances"
state:
  description: The administrative state that was asked for.
  returned: with O(state)
  type: str
  sample: maint
ok:
  description: Whether every matched server takes traffic, spare slots aside. With O(guard), whether every matched backend
    keeps at least that many servers in traffic.
  returned: in a status
  type: bool
servers:
  description: Every matched server, instances as asked for, servers as HAProxy lists them.
  returned: when the program has run
  type: list
  elements: dict
  contains:
    instance:
      description: The instance that it is on.
      returned: always
      type: str
      sample: http
    backend:
      description: The backend that it is in.
      returned: always
      type: str
      sample: web
    server:
      description: The server.
      returned: always
      type: str
      sample: web1
    address:
      description: Its address and port, or V(-) where HAProxy knows none.
      returned: always
      type: str
      sample: 192.0.2.1:8080
    changed:
      description: Whether it was changed, or would be in check mode. V(false) if it was rolled back.
      returned: always
      type: bool
    failed:
      description: Whether it is not as wanted.
      returned: always
      type: bool
    before:
      description: How it was before the task.
      returned: always
      type: dict
      contains: &state
        admin_state:
          description: The effective administrative state, V(ready), V(drain) or V(maint).
          returned: always
          type: str
          sample: ready
        operational_state:
          description: What the checks make of it, V(stopped), V(starting), V(running) or V(stopping).
          returned: always
          type: str
          sample: running
        weight:
          description: The weight that is in force.
          returned: always
          type: int
          sample: 1
        configured_weight:
          description: The weight in the configuration, which a percentage refers to.
          returned: always
          type: int
          sample: 1
        reasons:
          description: What makes the administrative state what it is, V(forced), V(config), V(inherited) or V(dns).
          returned: always
          type: list
          elements: str
          sample: []
        admin_flags:
          description: HAProxy's own mask of administrative flags.
          returned: always
          type: int
          sample: 0
    after:
      description: How it was read back, or how it would be in check mode. V(null) where it could not be read back.
      returned: always
      type: dict
      contains: *state
    commands:
      description: The commands that were sent to HAProxy for it, or would be in check mode.
      returned: always
      type: list
      elements: str
      sample: ["set server web/web1 state maint"]
    rolled_back:
      description: Whether the task has rolled it back to what it was before.
      returned: where it has
      type: bool
    error:
      description: Why it is not as wanted.
      returned: where it failed
      type: dict
      contains: &error
        kind:
          description: What went wrong, as a stable word, as in V(guard_refused) or V(not_drained).
          returned: always
          type: str
          sample: not_drained
        msg:
          description: What happened, where, and what to do about it, in one sentence.
          returned: always
          type: str
        instance:
          description: The instance that it happened on.
          returned: where there is one
          type: str
        backend:
          description: The backend that it happened on.
          returned: where there is one
          type: str
        server:
          description: The server that it happened on.
          returned: where there is one
          type: str
        retryable:
          description: Whether the same task may succeed later by itself.
          returned: always
          type: bool
    sessions:
      description: Its sessions when they were last seen.
      returned: in a status, and where sessions were waited for
      type: int
    queue:
      description: The requests in its queue when they were last seen.
      returned: in a status, and where sessions were waited for
      type: int
    new_sessions:
      description: How many sessions began on it while it was draining.
      returned: after a drain or a wait, if any did
      type: int
    ok:
      description: Whether it takes traffic.
      returned: in a status
      type: bool
    not_ok:
      description: Why it takes no traffic, in a few words.
      returned: in a status, where it does not
      type: str
      sample: weight 0
    spare:
      description: Whether it is a slot of a C(server-template) without an address, which is no part of what is ok.
      returned: where it is
      type: bool
    check:
      description: What its last health check found, in HAProxy's words.
      returned: in a status, with checks
      type: str
      sample: L7OK
    tracks:
      description: The server that it tracks, as C(backend/server).
      returned: in a status, where it does
      type: str
    owner:
      description: Who has taken it out.
      returned: in a status, where that was recorded
      type: str
    reason:
      description: Why it was taken out.
      returned: in a status, where that was recorded
      type: str
    expires:
      description: Until when it was to be out.
      returned: in a status, where that was recorded
      type: str
    since:
      description: Since when it is out.
      returned: in a status, if that was recorded
      type: str
    expired:
      description: Whether that time is over.
      returned: in a status, with C(expires)
      type: bool
instances:
  description: Every instance that was asked.
  returned: when the program has run
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      returned: always
      type: str
      sample: http
    socket:
      description: The address of the socket that it was asked at, in HAProxy's notation.
      returned: always
      type: str
      sample: /run/haproxy/http.sock
    version:
      description: The version of its HAProxy.
      returned: where it answered
      type: str
      sample: 3.2.4
    pid:
      description: The id of the process that answered last.
      returned: where one did
      type: int
    changed:
      description: Whether a server on it or its server-state file was changed, or would be in check mode.
      returned: always
      type: bool
    failed:
      description: Whether it, or a server on it, failed.
      returned: always
      type: bool
    matched:
      description: How many of its servers matched.
      returned: always
      type: int
    old_processes:
      description: HAProxy processes from before a reload that still run, and ignore what is set now.
      returned: if there are any, in a status and with V(drain) or V(maint)
      type: list
      elements: dict
      contains:
        pid:
          description: The id of the process.
          returned: always
          type: int
        sessions:
          description: The sessions and queued requests that it still has for the matched servers. V(null) if they cannot be
            seen, because no master CLI leads to it.
          returned: always
          type: int
    state_file:
      description: Its server-state file.
      returned: with O(state_file)
      type: dict
      contains:
        path:
          description: Its path.
          returned: always
          type: str
        changed:
          description: Whether it was written, or would be in check mode.
          returned: always
          type: bool
    state_files:
      description: Its server-state files with the rows of one backend.
      returned: with such files in O(state_file)
      type: list
      elements: dict
      contains:
        backend:
          description: The backend whose rows are in it.
          returned: always
          type: str
        path:
          description: Its path.
          returned: always
          type: str
        changed:
          description: Whether it was written, or would be in check mode.
          returned: always
          type: bool
    error:
      description: Why it could not be managed.
      returned: where it failed
      type: dict
      contains: *error
warnings:
  description: What is worth knowing although it is no failure.
  returned: when the program has run
  type: list
  elements: str
contract:
  description: The version of the contract that the program keeps.
  returned: when the program has run
  type: int
version:
  description: The version of the program. A warning says so where it is not the one that this collection was made for.
  returned: when the program has run
  type: str
  sample: 1.0.0
diff:
  description: The servers before and after, a line each.
  returned: in diff mode
  type: dict
  contains:
    before:
      description: A line for each server, as it was.
      returned: always
      type: str
    after:
      description: A line for each server, as it is, or would be.
      returned: always
      type: str
    before_header:
      description: The servers that were asked for.
      returned: always
      type: str
    after_header:
      description: The same.
      returned: always
      type: str
error:
  description: The first failure.
  returned: when the program has run and failed
  type: dict
  contains: *error
"""
