{#- Installs the program. README.md says more.

      salt 'lb*' state.apply haproxy_server.install

    In the pillar, `haproxy_server:install` may have:

      version       the version that it must have afterwards
      source        where it comes from; salt://haproxy_server/files/ARCHITECTURE/haproxy_server by default
      source_hash   its checksum for each architecture (the grain cpuarch), as sha256=...; for sources outside of the master
      package       the name of a package to install instead
      path          where it is installed; /usr/bin/haproxy_server by default
-#}
{%- set install = pillar.get('haproxy_server', {}).get('install', {}) -%}
{%- set path = install.get('path', '/usr/bin/haproxy_server') -%}
{%- set source = install.get('source', 'salt://haproxy_server/files/' ~ grains['cpuarch'] ~ '/haproxy_server') -%}
{%- set hash = install.get('source_hash', {}).get(grains['cpuarch']) -%}

the program haproxy_server:
{%- if install.get('package') %}
  pkg.installed:
    - name: {{ install['package'] | json }}
{%- else %}
  file.managed:
    - name: {{ path | json }}
    - source: {{ source | json }}
{%- if hash %}
    - source_hash: {{ hash | json }}
{%- endif %}
    - user: root
    - group: root
    - mode: '0755'
{%- endif %}

{%- if install.get('version') %}
{%- set check = path ~ " --version | grep -qxF 'haproxy_server " ~ install['version'] ~ "'" %}

# Fails where it is another version.
the version of haproxy_server:
  cmd.run:
    - name: {{ check | json }}
    - unless: {{ check | json }}
    - require:
      - id: the program haproxy_server
{%- endif %}
