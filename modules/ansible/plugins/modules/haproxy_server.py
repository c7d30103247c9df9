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
      - >-
        The servers: names, C(backend/server), or patterns with C(*), C(?) and C([...]) on each side of at most one
        C(/); a string (commas separate several) or a list. Names are case-sensitive. A change requires this or
        O(address); a status without both covers all servers.
    type: list
    elements: str
    aliases: [host]
  state:
    description:
      - >-
        The requested administrative state. V(ready) takes traffic, C(drain) takes only the traffic of persistence
        clients, V(maint) takes none. V(restore) puts each server back to the state and weight that it had before it was
        taken out, if that was recorded (with O(owner), O(reason) or O(expires)); any other server is left alone, with a
        warning. It is a step towards service like V(ready). Also accepted: V(enabled) and V(enable) for V(ready),
        V(disabled) and V(disable) for V(maint). Spare slots of a C(server-template) (without an address) that only a
        pattern matches are left alone by V(ready) and C(drain), with a warning; named ones fail with
        C(unreachable_state). Unchanged by default.
      - >-
        V(ready): In service.
      - >-
        V(drain): Takes no new traffic except from persistence clients.
      - >-
        V(maint): In maintenance: takes no traffic.
      - >-
        V(restore): What each server was, with its weight, before it was taken out.
    type: str
    choices: [ready, drain, maint, enabled, enable, disabled, disable, restore]
  weight:
    description:
      - >-
        The requested weight: a number from 0 to 256, or a percentage of the configured weight, such as C("50%"). Like
        the state, it is set only if it differs. A server with weight 0 takes no new traffic except from persistence
        clients. A percentage that rounds down to 0 fails with C(unreachable_state), unless it is C("0%"). Unchanged by
        default.
    type: str
  health:
    description:
      - >-
        Whether the servers' health checks run: V(enabled) resumes them, V(disabled) pauses them. A server without one
        is left as it is, with a warning. Unchanged by default.
      - >-
        V(enabled): They run.
      - >-
        V(disabled): They are paused.
    type: str
    choices: [enabled, disabled]
  agent:
    description:
      - >-
        Whether the servers' agent checks run: V(enabled) resumes them, V(disabled) pauses them, so that an agent cannot
        override the state. A server without one is left as it is, with a warning. Unchanged by default.
      - >-
        V(enabled): They run.
      - >-
        V(disabled): They are paused.
    type: str
    choices: [enabled, disabled]
  drain:
    description:
      - >-
        With O(state=maint): drains the servers first, in all backends of all instances at once and under one deadline;
        each goes to maint as soon as it has no session and no queued request left (C(scur) and C(qcur) of C(show stat),
        which do not count idle keep-alive connections), no session has begun on it since the previous poll (C(stot)),
        and both have held for C(stable) seconds. Sessions on processes from before a reload count if a master CLI shows
        them. A server that is down goes there at once, one that is in maint stays there. C(true) means 300 s, V(fail)
        and 0 s. Off by default.
    type: dict
    suboptions:
      timeout:
        description:
          - >-
            The longest wait for sessions to end, in seconds; from 0 (they are polled twice) to 86400.
        type: float
        default: 300
      stable:
        description:
          - >-
            How long a server must have had no session, old or new, in seconds; from 0 to 86400.
        type: float
        default: 0
      on_timeout:
        description:
          - >-
            What happens to servers that still have sessions then.
          - >-
            V(fail): They stay in drain, and the run fails.
          - >-
            V(rollback): They are rolled back, and so is everything else that the run has changed; the run fails.
          - >-
            V(maint): They go to maint, with a warning; their sessions continue.
          - >-
            V(shutdown): They go to maint and their sessions are ended, with a warning.
        type: str
        choices: [fail, rollback, maint, shutdown]
        default: fail
  shutdown_sessions:
    description:
      - >-
        With O(state=maint): ends the sessions that are left after the change, again and again until none is left. Fails
        with C(not_drained) when the time is up: that of C(drain), otherwise of C(wait), otherwise C(timeout). Clients
        see their connections cut; with C({"over": SECONDS}) they are ended evenly over that time, so that their clients
        do not all reconnect at once. C(false) by default.
    type: dict
    suboptions:
      over:
        description:
          - >-
            The time over which the sessions are ended evenly, in seconds; from 0 (all at once) to 86400.
        type: float
        default: 0
  wait:
    description:
      - >-
        Waits for the effect of O(state), or of O(weight=0). With V(ready), a server that leaves maint goes through
        drain, where HAProxy checks it without giving it new traffic, and becomes ready once a check has passed; then it
        must take traffic: its weight is above 0 and slowstart is over. If a passed check cannot be seen (C(fall 1),
        C(init-state fully-up), an agent check alone), it must stay up for 5 s instead. A server without a check, or
        with a paused one, becomes ready at once. After C(drain), V(maint) and O(weight=0), waits until no session is
        left. Fails with C(not_up) or C(not_drained). C(true) means 60 s. Off by default.
    type: dict
    suboptions:
      timeout:
        description:
          - >-
            The longest wait, in seconds; from 0 to 86400.
        type: float
        default: 60
      stable:
        description:
          - >-
            After V(ready): how long a server must take traffic without interruption, in seconds; from 0 to 86400.
        type: float
        default: 0
      via:
        description:
          - >-
            With V(ready): the state in which a server that leaves maint is checked first.
          - >-
            V(drain): Drain: HAProxy checks it and gives it no new traffic; it becomes ready once a check has passed
            since it left maint. The default. A server without checks becomes ready at once.
          - >-
            V(ready): Ready: clients may find out that it does not work before a check does.
        type: str
        choices: [drain, ready]
        default: drain
      need:
        description:
          - >-
            With V(ready): in how many of its matched backends a server must take traffic.
          - >-
            V(all): In each of them.
          - >-
            V(any): In at least one on each instance, as with a primary and its replicas; in the others it becomes ready
            once a check has failed there, or when the time is up: before that, HAProxy would give it the traffic of a
            role that it may not have.
        type: str
        choices: [all, any]
        default: all
  old_processes:
    description:
      - >-
        With C(drain), or with C(wait) after C(drain) and V(maint): how processes from before a reload that still run
        count. V(count) by default.
      - >-
        V(count): Their sessions count if they can be seen; otherwise they are a warning.
      - >-
        V(wait): No server is free until they have ended, within the time of C(drain) or C(wait).
    type: str
    choices: [count, wait]
    default: count
  guard:
    description:
      - >-
        Refuses, before anything is sent anywhere, a change that lowers the number of usable servers of a backend below
        this. Usable servers take traffic: they are ready, running or starting, with a weight above 0, in a backend that
        is neither V(disabled) nor unpublished. Backup servers count as HAProxy uses them: only if no other server is
        usable, and then as one. Servers that track a changed one count as they would be after the change. Needs the
        lock that keeps other runs out. In a status, the report's C(ok) then means that every matched backend keeps at
        least that many servers in traffic, and the text form lists only servers of backends that do not. No guard by
        default.
    type: dict
    suboptions:
      min_available:
        description:
          - >-
            The fewest usable servers of a backend: a number from 0 to 1000000, or a percentage from C("0%") to
            C("100%") of its servers that the configuration neither disables nor marks C(backup), spare slots aside,
            rounded up.
        type: str
        required: true
  expect:
    description:
      - >-
        Refuses as C(expectation_failed), before anything is sent anywhere, a change of a server that is in another
        state than this. Servers that need no change may be in any state, so a second run passes. No expectation by
        default.
    type: dict
    suboptions:
      admin_state:
        description:
          - >-
            The effective administrative state of every server that is changed. Any by default.
          - >-
            V(ready): In service.
          - >-
            V(drain): Takes no new traffic except from persistence clients.
          - >-
            V(maint): In maintenance: takes no traffic.
        type: str
        choices: [ready, drain, maint, enabled, enable, disabled, disable]
      operational_state:
        description:
          - >-
            The operational state of every server that is changed. Any by default.
          - >-
            V(stopped): Takes no traffic: it is down, or in maintenance.
          - >-
            V(starting): Takes a growing share of traffic: C(slowstart) is in progress.
          - >-
            V(running): Takes traffic.
          - >-
            V(stopping): Takes only the traffic of its persistence clients: its check answers 404.
        type: str
        choices: [stopped, starting, running, stopping]
  on_failure:
    description:
      - >-
        What happens to the changes of this run when a later part of it fails, or when a signal ends it. Whatever
        somebody else has changed in the meantime is left alone. V(keep) by default.
      - >-
        V(keep): They are kept.
      - >-
        V(rollback): They are rolled back, in reverse order.
    type: str
    choices: [keep, rollback]
    default: keep
  state_file:
    description:
      - >-
        Keeps HAProxy's server-state file in step with the state of the servers, so that it survives a reload: the
        absolute path of the file (for a single instance), or an object of names and paths. A name is C(instance), for
        all rows of that instance, or C(instance/backend), for the rows of one backend (C(load-server-state-from-file
        local)); each file may be given only once. The rows of the matched servers are compared even if HAProxy needs no
        command; a difference is written and counts as C(changed). The configuration must load the file
        (C(server-state-file) and C(load-server-state-from-file)). None by default.
    type: raw
  owner:
    description:
      - >-
        Who takes the server out, or puts it back: recorded on the target with C(drain) and V(maint); V(ready) and
        V(restore) are refused (C(owned)) if another owner is recorded, or any owner if this is missing. At most 200
        characters. None by default.
    type: str
  reason:
    description:
      - >-
        Why the server is taken out: recorded with C(drain) and V(maint), and shown in a status. At most 200 characters.
        None by default.
    type: str
  expires:
    description:
      - >-
        With C(drain) and V(maint): until when the server is meant to be out, as an RFC 3339 time with its offset, or
        C(+) and a duration in units of s, m, h, d and w; in the future, at most a hundred years ahead. After that,
        V(ready) is no longer refused and a status says C(expired), but nothing puts the server back automatically. No
        expiry by default: the record counts as long as the server stays in that state.
    type: str
  ignore_owner:
    description:
      - >-
        With O(state=ready), V(restore) or C(drain): puts a server back, or from maint to drain, although another owner
        is recorded. C(false) by default.
    type: bool
    default: false
  on_owned:
    description:
      - >-
        With O(state=ready), V(restore) or C(drain): what happens to servers that another owner has taken out. V(fail)
        by default.
      - >-
        V(fail): The whole run is refused (C(owned)), and nothing is changed anywhere.
      - >-
        V(skip): They are left alone, with a warning; the others are managed. For runs that repeat by themselves.
    type: str
    choices: [fail, skip]
    default: fail
  lock_timeout:
    description:
      - >-
        The longest wait for another run that changes servers of the same HAProxy, in seconds; from 0 (one attempt) to
        86400, 60 by default. Fails with C(locked). It starts again each time that the lock is retaken after a wait.
    type: float
    default: 60
  syslog:
    description:
      - >-
        Whether each change of a server is written to the system log (C(/dev/log)) as well: one line with the instance,
        the server, the states before and after, owner, reason and calling user. A host without a system log is fine.
        C(true) by default.
    type: bool
    default: true
  on_unreachable:
    description:
      - >-
        What an instance that does not answer means. V(fail) by default.
      - >-
        V(fail): An error, and nothing is changed anywhere.
      - >-
        V(skip): A warning; the other instances are managed.
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
