{#- Works on servers, batch by batch: takes them out of service on all load balancers, applies states to them, and puts
    them back. Servers that are out before, and not by the plan's owner, are left alone. Run it on the master; README.md
    says more.

      salt-run state.orch haproxy_server.rolling_maintenance pillar="$(tr '\n' ' ' <plan.json)" test=True

    In the pillar, `rolling_maintenance` is the plan:

      load_balancers   the minions with HAProxy and haproxy_server, as a compound target
      servers          names in HAProxy, each with the id of its minion, in the order of the work
      batch            how many of them at a time; 1 by default
      sls              what is applied to their minions while they are out of service
      take_out         more fields of the request that takes them out, besides `drain: true`
      put_back         more fields of the request that puts them back, besides `wait: true`
-#}
{%- set plan = pillar['rolling_maintenance'] -%}
{%- set take_out = dict({'drain': true}, **plan.get('take_out', {})) -%}
{%- set put_back = dict({'wait': true}, **plan.get('put_back', {})) -%}
{%- set expected = {'expect': take_out['expect']} if take_out.get('expect') else {} -%}

{#- A server that is out already may be in other hands, whether or not they have recorded an owner. What cannot be asked here
    fails in the dry runs. -#}
{%- set asked = {'server': plan['servers'].keys() | list, 'on_missing': 'ignore'} -%}
{%- for field in ('backend', 'address', 'instances', 'ignore_instances', 'on_unreachable', 'timeout') if field in take_out -%}
{%- do asked.update({field: take_out[field]}) -%}
{%- endfor -%}
{%- set seen = salt['saltutil.cmd'](plan['load_balancers'], 'haproxy_server.status', tgt_type='compound', kwarg=asked) -%}
{%- set alone = {} -%}
{%- for minion, answer in seen | dictsort if answer.get('ret') is mapping -%}
{%- for server in answer['ret'].get('servers', []) if server['before']['admin_state'] != 'ready' -%}
{%- set owner = server.get('owner') -%}
{%- if owner is none or owner != put_back.get('owner') -%}
{%- do alone.update({server['server']: 'on ' ~ minion ~ ', ' ~ server['instance'] ~ ' has ' ~ server['backend'] ~ '/' ~
    server['server'] ~ ' in ' ~ server['before']['admin_state'] ~ (' by ' ~ owner if owner else '') ~
    (' (' ~ server['reason'] ~ ')' if server.get('reason') else '')}) -%}
{%- endif -%}
{%- endfor -%}
{%- endfor -%}

{%- macro on_load_balancers(servers, state, fields) %}
  salt.state:
    - tgt: {{ plan['load_balancers'] | json }}
    - tgt_type: compound
    - sls: haproxy_server.apply
    - pillar:
        haproxy_server:
          request: {{ dict(fields, server=servers, state=state) | json }}
    # Waits for other state runs there, and a failure does not keep the servers from coming back.
    - queue: true
    - failhard: false
{%- endmacro -%}

{%- for server, where in alone | dictsort %}

{{ server }} is left alone:
  test.show_notification:
    - text: {{ where | json }}
{%- endfor %}

{%- set batches = plan['servers'].items() | rejectattr(0, 'in', alone) | batch(plan.get('batch', 1)) | list -%}
{%- for batch in batches %}
{%- set servers = batch | map('first') | list %}
{%- set title = servers | join(', ') %}
{%- set previous = batches[loop.index0 - 1] | map('first') | join(', ') %}

# Dry runs on all load balancers: where one would refuse either, nothing is changed on any. A server that is out already needs
# no change to be taken out, so that only the way back meets a state that is not expected.
{{ title }} can come back:
  {{- on_load_balancers(servers, 'ready', dict(put_back, **expected)) }}
    - test: true
{%- if not loop.first %}
    - require:
      - salt: work on {{ previous }}
      - salt: {{ previous }} back in service
{%- endif %}

{{ title }} can be taken out:
  {{- on_load_balancers(servers, 'maint', take_out) }}
    - test: true
    - require:
      - salt: {{ title }} can come back

{{ title }} out of service:
  {{- on_load_balancers(servers, 'maint', take_out) }}
    - require:
      - salt: {{ title }} can be taken out

work on {{ title }}:
  salt.state:
    - tgt: {{ batch | map('last') | list | json }}
    - tgt_type: list
    - sls: {{ plan['sls'] | json }}
    - queue: true
    - failhard: false
    - require:
      - salt: {{ title }} out of service

# Not for the work alone: Salt goes on after a failure, so that they come back in any case.
{{ title }} back in service:
  {{- on_load_balancers(servers, 'ready', put_back) }}
    - require:
      - salt: {{ title }} can be taken out
{%- endfor %}
