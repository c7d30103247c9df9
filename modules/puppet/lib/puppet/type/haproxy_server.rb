# frozen_string_literal: true

require 'puppet/parameter/boolean'

# A resource is one request to the program `haproxy_server`, which decides what is in sync, makes the change and words the
# result. The type checks only the shape of the values, so that a typo fails the catalogue before anything runs.
Puppet::Type.newtype(:haproxy_server) do
  @doc = <<~DOC
    Takes HAProxy backend servers out of service (`maint`) and puts them back
    (`ready`), in all backends of all HAProxy instances of a host.

        haproxy_server { 'web1':
          ensure => maint,
        }

    The title names the server: a name, `backend/server`, or a pattern. With
    `server` set, it can be any text. A resource without `ensure`, `weight`,
    `health` and `agent` changes nothing: it fails when the servers do not
    exist, and `audit` records their state.

    A dry run of the request decides whether the resource is in sync, so
    `guard`, `state_file` and all other parameters count. A change is one run
    of the program, whose summary becomes the message of the event. Under
    `noop` there are only dry runs.

    With `wait`, `shutdown_sessions`, `owner`, `reason` or `expires`, Puppet
    makes the request on every run, even when nothing has to change: the
    program then sends HAProxy no changing commands, but it waits, ends
    sessions and records the owner, which a dry run does not. Under `noop`
    this is left out.

    A refresh (`notify`, `subscribe`) repeats the request. A resource that
    subscribes to the HAProxy service restores what a reload has lost.

    **Autorequires:** the services `haproxy`, `haproxy-*` and `haproxy@*`, the
    package `haproxy`, the package and the file of the program, and the
    folders of `state_file`. The same catalogue can install the program.
  DOC

  # Checks a value with Puppet's own type system, which also words the error.
  def self.assert_type(name, type, value)
    expected = Puppet::Pops::Types::TypeParser.singleton.parse(type)
    Puppet::Pops::Types::TypeAsserter.assert_instance_of(name.to_s, expected, value)
  rescue Puppet::Pops::Types::TypeAssertionError => e
    raise ArgumentError, e.message
  end

  # Checks a switch that may be an object of settings instead.
  def self.assert_switch(name, fields, value)
    assert_type(name, "Variant[Boolean, Enum['true', 'false', yes, no], Struct[{#{fields}}]]", value)
  end

  # Makes a Boolean of the words of a switch, so that 'no' is as good as false to the provider.
  def self.munge_switch(value)
    value.is_a?(Hash) ? value : Puppet::Coercion.boolean(value)
  end

  newparam(:name, namevar: true) do
    desc 'The title: the server, or any text when `server` is set.'
  end

  newproperty(:ensure) do
    desc <<~DOC
      The requested administrative state. `ready` takes traffic, `drain`
      takes only the traffic of persistence clients, `maint` takes none.
      `restore` puts each server back to the state and weight that it had
      before it was taken out, if that was recorded (with `owner`, `reason`
      or `expires`); any other server is left alone, with a warning. It is a
      step towards service like `ready`. Also accepted: `enabled` and
      `enable` for `ready`, `disabled` and `disable` for `maint`. Spare
      slots of a `server-template` (without an address) that only a pattern
      matches are left alone by `ready` and `drain`, with a warning; named
      ones fail with `unreachable_state`. Unchanged by default.

      * `ready`: In service.
      * `drain`: Takes no new traffic except from persistence clients.
      * `maint`: In maintenance: takes no traffic.
      * `restore`: What each server was, with its weight, before it was
        taken out.
    DOC

    newvalues(:ready, :drain, :maint, :restore)
    aliasvalue(:enabled, :ready)
    aliasvalue(:enable, :ready)
    aliasvalue(:disabled, :maint)
    aliasvalue(:disable, :maint)

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      provider.message
    end
  end

  newproperty(:weight) do
    desc <<~DOC
      The requested weight: a number from 0 to 256, or a percentage of the
      configured weight, such as `"50%"`. Like the state, it is set only if
      it differs. A server with weight 0 takes no new traffic except from
      persistence clients. A percentage that rounds down to 0 fails with
      `unreachable_state`, unless it is `"0%"`. Unchanged by default.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Integer[0, 256], Pattern[/\A\d+%?\z/]]', value) }

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      "#{super} (#{provider.message})"
    end
  end

  newproperty(:health) do
    desc <<~DOC
      Whether the servers' health checks run: `enabled` resumes them,
      `disabled` pauses them. A server without one is left as it is, with a
      warning. Unchanged by default.

      * `enabled`: They run.
      * `disabled`: They are paused.
    DOC

    newvalues(:enabled, :disabled)

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      "#{super} (#{provider.message})"
    end
  end

  newproperty(:agent) do
    desc <<~DOC
      Whether the servers' agent checks run: `enabled` resumes them,
      `disabled` pauses them, so that an agent cannot override the state. A
      server without one is left as it is, with a warning. Unchanged by
      default.

      * `enabled`: They run.
      * `disabled`: They are paused.
    DOC

    newvalues(:enabled, :disabled)

    def insync?(_is)
      provider.insync?(name)
    end

    def change_to_s(_is, _should)
      "#{super} (#{provider.message})"
    end
  end

  newproperty(:operational_state) do
    desc <<~DOC
      The state that HAProxy's checks give the server: `stopped`,
      `starting`, `running` or `stopping`. Read-only: `puppet resource`
      shows it, and `audit` records it.
    DOC

    validate { |_value| raise ArgumentError, 'operational_state is read-only' }
  end

  newproperty(:maintenance) do
    desc <<~DOC
      Who has taken the server out, since when, until when and why, if that
      was recorded. Read-only: `puppet resource` shows it, and `audit`
      records it.
    DOC

    validate { |_value| raise ArgumentError, 'maintenance is read-only' }
  end

  newparam(:server) do
    desc <<~DOC
      The servers: names, `backend/server`, or patterns with `*`, `?` and
      `[…]` on each side of at most one `/`; a string (commas separate
      several) or a list. Names are case-sensitive. A change requires this
      or `address`; a status without both covers all servers.

      The title by default.
    DOC

    validate do |value|
      text = 'Variant[String[1], Integer[0]]'
      resource.class.assert_type(name, "Variant[#{text}, Array[#{text}, 1]]", value)
    end
  end

  newparam(:backend) do
    desc <<~DOC
      The backends in which to find the servers: names or patterns, as a
      string or a list. All backends by default.
    DOC

    validate do |value|
      text = 'Variant[String[1], Integer[0]]'
      resource.class.assert_type(name, "Variant[#{text}, Array[#{text}, 1]]", value)
    end
  end

  newparam(:address) do
    desc <<~DOC
      The addresses in force of the servers: an IP address with or without a
      port, such as `10.0.0.5`, `10.0.0.5:8080`, `::1` or `[::1]:80`; a
      string (commas separate several) or a list. Without a port, any port
      matches. With `server` or `backend`, a server must match these as
      well. HAProxy does not show the paths of servers on Unix sockets: name
      these with `server`. Any address by default.
    DOC

    validate do |value|
      text = 'Variant[String[1], Integer[0]]'
      resource.class.assert_type(name, "Variant[#{text}, Array[#{text}, 1]]", value)
    end
  end

  newparam(:instances) do
    desc <<~DOC
      The HAProxy instances of this host: names of discovered instances,
      addresses of stats sockets in HAProxy's notation (`/path`,
      `unix@/path`, `abns@name`, `ipv4@127.0.0.1:9999`, `ipv6@[::1]:9999`),
      or objects with `name` and `socket`; a string (commas separate
      several) or a list. All discovered instances by default.
    DOC

    validate do |value|
      instance = 'Variant[String[1], Integer[0], Struct[{name => String[1], socket => String[1]}]]'
      resource.class.assert_type(name, "Variant[#{instance}, Array[#{instance}, 1]]", value)
    end
  end

  newparam(:ignore_instances) do
    desc <<~DOC
      Instances of this host to leave alone on purpose: names or patterns of
      `*`, `?` and `[…]`, as a string or a list. Discovery skips them
      without a warning, even where it could not manage them. It has no
      effect on instances that `instances` names. None by default.
    DOC

    validate do |value|
      text = 'Variant[String[1], Integer[0]]'
      resource.class.assert_type(name, "Variant[#{text}, Array[#{text}, 1]]", value)
    end
  end

  newparam(:drain) do
    desc <<~DOC
      With `ensure => maint`: drains the servers first, in all backends of
      all instances at once and under one deadline; each goes to maint as
      soon as it has no session and no queued request left (`scur` and
      `qcur` of `show stat`, which do not count idle keep-alive
      connections), no session has begun on it since the previous poll
      (`stot`), and both have held for `stable` seconds. Sessions on
      processes from before a reload count if a master CLI shows them. A
      server that is down goes there at once, one that is in maint stays
      there. `true` means 300 s, `fail` and 0 s. Off by default.

      * `on_timeout`: What happens to servers that still have sessions then.
        `fail` by default.
        * `fail`: They stay in drain, and the run fails. The default.
        * `rollback`: They are rolled back, and so is everything else that
          the run has changed; the run fails.
        * `maint`: They go to maint, with a warning; their sessions
          continue.
        * `shutdown`: They go to maint and their sessions are ended, with a
          warning.
      * `stable`: How long a server must have had no session, old or new, in
        seconds; from 0 to 86400. `0` by default.
      * `timeout`: The longest wait for sessions to end, in seconds; from 0
        (they are polled twice) to 86400. `300` by default.
    DOC

    validate do |value|
      seconds = 'Variant[Numeric, String[1]]'
      fields = "Optional[timeout] => #{seconds}, Optional[stable] => #{seconds}, " \
               'Optional[on_timeout] => Enum[fail, rollback, maint, shutdown]'
      resource.class.assert_switch(name, fields, value)
    end

    munge { |value| resource.class.munge_switch(value) }
  end

  newparam(:shutdown_sessions) do
    desc <<~DOC
      With `ensure => maint`: ends the sessions that are left after the
      change, again and again until none is left. Fails with `not_drained`
      when the time is up: that of `drain`, otherwise of `wait`, otherwise
      `timeout`. Clients see their connections cut; with `{"over": SECONDS}`
      they are ended evenly over that time, so that their clients do not all
      reconnect at once. `false` by default.

      * `over`: The time over which the sessions are ended evenly, in
        seconds; from 0 (all at once) to 86400. `0` by default.
    DOC

    validate do |value|
      resource.class.assert_switch(name, 'Optional[over] => Variant[Numeric, String[1]]', value)
    end

    munge { |value| resource.class.munge_switch(value) }
  end

  newparam(:wait) do
    desc <<~DOC
      Waits for the effect of `ensure`, or of `weight: 0`. With `ready`, a
      server that leaves maint goes through drain, where HAProxy checks it
      without giving it new traffic, and becomes ready once a check has
      passed; then it must take traffic: its weight is above 0 and slowstart
      is over. If a passed check cannot be seen (`fall 1`, `init-state
      fully-up`, an agent check alone), it must stay up for 5 s instead. A
      server without a check, or with a paused one, becomes ready at once.
      After `drain`, `maint` and `weight: 0`, waits until no session is
      left. Fails with `not_up` or `not_drained`. `true` means 60 s. Off by
      default.

      * `need`: With `ready`: in how many of its matched backends a server
        must take traffic. `all` by default.
        * `all`: In each of them. The default.
        * `any`: In at least one on each instance, as with a primary and its
          replicas; in the others it becomes ready once a check has failed
          there, or when the time is up: before that, HAProxy would give it
          the traffic of a role that it may not have.
      * `stable`: After `ready`: how long a server must take traffic without
        interruption, in seconds; from 0 to 86400. `0` by default.
      * `timeout`: The longest wait, in seconds; from 0 to 86400. `60` by
        default.
      * `via`: With `ready`: the state in which a server that leaves maint
        is checked first. `drain` by default.
        * `drain`: Drain: HAProxy checks it and gives it no new traffic; it
          becomes ready once a check has passed since it left maint. The
          default. A server without checks becomes ready at once.
        * `ready`: Ready: clients may find out that it does not work before
          a check does.
    DOC

    validate do |value|
      seconds = 'Variant[Numeric, String[1]]'
      fields = "Optional[timeout] => #{seconds}, Optional[stable] => #{seconds}, " \
               'Optional[via] => Enum[drain, ready], Optional[need] => Enum[all, any]'
      resource.class.assert_switch(name, fields, value)
    end

    munge { |value| resource.class.munge_switch(value) }
  end

  newparam(:guard) do
    desc <<~DOC
      Refuses, before anything is sent anywhere, a change that lowers the
      number of usable servers of a backend below this. Usable servers take
      traffic: they are ready, running or starting, with a weight above 0,
      in a backend that is neither `disabled` nor unpublished. Backup
      servers count as HAProxy uses them: only if no other server is usable,
      and then as one. Servers that track a changed one count as they would
      be after the change. Needs the lock that keeps other runs out. In a
      status, the report's `ok` then means that every matched backend keeps
      at least that many servers in traffic, and the text form lists only
      servers of backends that do not. No guard by default.

      * `min_available`: The fewest usable servers of a backend: a number
        from 0 to 1000000, or a percentage from `"0%"` to `"100%"` of its
        servers that the configuration neither disables nor marks `backup`,
        spare slots aside, rounded up.
    DOC

    validate do |value|
      resource.class.assert_type(name, 'Struct[{min_available => Variant[Integer[0], String[1]]}]', value)
    end
  end

  newparam(:expect) do
    desc <<~DOC
      Refuses as `expectation_failed`, before anything is sent anywhere, a
      change of a server that is in another state than this. Servers that
      need no change may be in any state, so a second run passes. No
      expectation by default.

      * `admin_state`: The effective administrative state of every server
        that is changed. Any by default.
        * `ready`: In service.
        * `drain`: Takes no new traffic except from persistence clients.
        * `maint`: In maintenance: takes no traffic.
      * `operational_state`: The operational state of every server that is
        changed. Any by default.
        * `stopped`: Takes no traffic: it is down, or in maintenance.
        * `starting`: Takes a growing share of traffic: `slowstart` is in
          progress.
        * `running`: Takes traffic.
        * `stopping`: Takes only the traffic of its persistence clients: its
          check answers 404.
    DOC

    validate do |value|
      states = 'Enum[ready, enabled, enable, drain, maint, disabled, disable]'
      operational = 'Enum[stopped, starting, running, stopping]'
      fields = "Optional[admin_state] => #{states}, Optional[operational_state] => #{operational}"
      resource.class.assert_type(name, "Struct[{#{fields}}]", value)
    end
  end

  newparam(:old_processes) do
    desc <<~DOC
      With `drain`, or with `wait` after `drain` and `maint`: how processes
      from before a reload that still run count. `count` by default.

      * `count`: Their sessions count if they can be seen; otherwise they
        are a warning. The default.
      * `wait`: No server is free until they have ended, within the time of
        `drain` or `wait`.
    DOC

    newvalues(:count, :wait)
  end

  newparam(:on_missing) do
    desc <<~DOC
      What a listed server or backend that matches nothing means. `fail` by
      default.

      * `fail`: An error if no selected instance has it. The default.
      * `fail_each`: An error if any selected instance lacks it.
      * `elsewhere_ok`: An error if no instance of this host has it,
        selected or not.
      * `ignore`: Never an error.
    DOC

    newvalues(:fail, :fail_each, :elsewhere_ok, :ignore)
  end

  newparam(:on_unreachable) do
    desc <<~DOC
      What an instance that does not answer means. `fail` by default.

      * `fail`: An error, and nothing is changed anywhere. The default.
      * `skip`: A warning; the other instances are managed.
    DOC

    newvalues(:fail, :skip)
  end

  newparam(:on_failure) do
    desc <<~DOC
      What happens to the changes of this run when a later part of it fails,
      or when a signal ends it. Whatever somebody else has changed in the
      meantime is left alone. `keep` by default.

      * `keep`: They are kept. The default.
      * `rollback`: They are rolled back, in reverse order.
    DOC

    newvalues(:keep, :rollback)
  end

  newparam(:state_file) do
    desc <<~DOC
      Keeps HAProxy's server-state file in step with the state of the
      servers, so that it survives a reload: the absolute path of the file
      (for a single instance), or an object of names and paths. A name is
      `instance`, for all rows of that instance, or `instance/backend`, for
      the rows of one backend (`load-server-state-from-file local`); each
      file may be given only once. The rows of the matched servers are
      compared even if HAProxy needs no command; a difference is written and
      counts as `changed`. The configuration must load the file
      (`server-state-file` and `load-server-state-from-file`). None by
      default.
    DOC

    validate do |value|
      path = 'Pattern[/\A\//]'
      resource.class.assert_type(name, "Variant[#{path}, Hash[String[1], #{path}, 1]]", value)
    end
  end

  newparam(:owner) do
    desc <<~DOC
      Who takes the server out, or puts it back: recorded on this host with
      `drain` and `maint`; `ready` and `restore` are refused (`owned`) if
      another owner is recorded, or any owner if this is missing. At most
      200 characters. None by default.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[String[1], Integer[0]]', value) }
  end

  newparam(:reason) do
    desc <<~DOC
      Why the server is taken out: recorded with `drain` and `maint`, and
      shown in a status. At most 200 characters. None by default.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[String[1], Integer[0]]', value) }
  end

  newparam(:expires) do
    desc <<~DOC
      With `drain` and `maint`: until when the server is meant to be out, as
      an RFC 3339 time with its offset, or `+` and a duration in units of s,
      m, h, d and w; in the future, at most a hundred years ahead. After
      that, `ready` is no longer refused and a status says `expired`, but
      nothing puts the server back automatically. No expiry by default: the
      record counts as long as the server stays in that state.

      Prefer a time to a duration: `+2h` starts anew on every Puppet run.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[String[1], Integer[0]]', value) }
  end

  newparam(:ignore_owner, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      With `ensure => ready`, `restore` or `drain`: puts a server back, or
      from maint to drain, although another owner is recorded. `false` by
      default.
    DOC
  end

  newparam(:on_owned) do
    desc <<~DOC
      With `ensure => ready`, `restore` or `drain`: what happens to servers
      that another owner has taken out. `fail` by default.

      * `fail`: The whole run is refused (`owned`), and nothing is changed
        anywhere. The default.
      * `skip`: They are left alone, with a warning; the others are managed.
        For runs that repeat by themselves.
    DOC

    newvalues(:fail, :skip)
  end

  newparam(:syslog, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      Whether each change of a server is written to the system log
      (`/dev/log`) as well: one line with the instance, the server, the
      states before and after, owner, reason and calling user. A host
      without a system log is fine. `true` by default.
    DOC
  end

  newparam(:lock_timeout) do
    desc <<~DOC
      The longest wait for another run that changes servers of the same
      HAProxy, in seconds; from 0 (one attempt) to 86400, 60 by default.
      Fails with `locked`. It starts again each time that the lock is
      retaken after a wait.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Numeric, String[1]]', value) }
  end

  newparam(:deadline) do
    desc <<~DOC
      The longest that the whole run may take, in seconds; from 0.001 to
      86400. When the time is over, nothing new is sent, what was sent is
      read back, which may take another `timeout`, and the run fails with
      `timeout`. A rollback that `on_failure` requests is carried out
      nevertheless. No limit by default.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Numeric, String[1]]', value) }
  end

  newparam(:timeout) do
    desc <<~DOC
      The longest that one instance may take for one step in total, however
      often it answers in between, in seconds: for connecting, observing,
      one batch of commands, reading back, or one poll; from 0.001 to 86400,
      10 by default. Fails with `timeout`. A dump that has begun is read to
      its end, or until 5 s of silence or 300 s in total, however short this
      is.
    DOC

    validate { |value| resource.class.assert_type(name, 'Variant[Numeric, String[1]]', value) }
  end

  newparam(:show_diff, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc <<~DOC
      Whether a change logs each server before and after. It takes effect
      when Puppet's setting `show_diff` is on. `true` by default.
    DOC

    defaultto true
  end

  autorequire(:service) do
    services = catalog.resources.select { |resource| resource.is_a?(Puppet::Type.type(:service)) }
    services.map { |service| service[:name] }.grep(%r{\Ahaproxy([-@].*)?\z})
  end

  autorequire(:package) { %w[haproxy haproxy_server haproxy-server] }

  autorequire(:file) do
    files = self[:state_file].is_a?(Hash) ? self[:state_file].values : [self[:state_file]].compact
    files.map { |file| File.dirname(file) } + %w[/usr/bin/haproxy_server /usr/local/bin/haproxy_server]
  end

  # Puppet defers a resource until it is suitable, so the same catalogue can install the program. Under noop nothing gets
  # installed, and that is not a failure.
  def suitable?
    noop? || !provider.class.program.nil?
  end

  def retrieve
    provider.observe
    super
  end

  def refresh
    provider.refresh
  end
end
