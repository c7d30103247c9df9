# frozen_string_literal: true

require 'json'
require 'open3'

Puppet::Type.type(:haproxy_server).provide(:haproxy_server) do
  desc <<~DOC
    Runs the program `haproxy_server` with a JSON request on its standard input. The program is looked up in Puppet's
    PATH (see the setting `path`), then in `/usr/bin` and `/usr/local/bin`.
  DOC

  # The program's path, or nil. Services and sudo often run Puppet with a PATH that lacks /usr/local/bin.
  def self.program
    names = %w[haproxy_server /usr/bin/haproxy_server /usr/local/bin/haproxy_server]
    names.lazy.filter_map { |name| which(name) }.first
  end

  # The version of the program that this module was made for and tested with: its own, which metadata.json has.
  self::MADE_FOR = '1.0.0'

  # What the program compares and sets.
  self::PROPERTIES = %i[ensure weight health agent].freeze

  # The fields of a request, under the names of their parameters.
  self::FIELDS = %i[
    weight health agent backend address instances ignore_instances drain shutdown_sessions wait guard expect
    old_processes on_missing on_unreachable on_failure state_file owner reason expires ignore_owner on_owned lock_timeout
    syslog timeout deadline
  ].freeze

  # What a dry run leaves out. With one of these, the request is made even when nothing has to change.
  self::BEYOND_A_DRY_RUN = %i[wait shutdown_sessions owner reason expires].freeze

  # Every server of every instance, for `puppet resource`.
  #
  # There is no `prefetch`: it would run before the catalogue has started HAProxy, and one failure there skips all
  # resources of the type.
  def self.instances
    report = ask(on_unreachable: :skip)
    report['warnings'].each { |warning| Puppet.warning(warning) }
    raise Puppet::Error, report['msg'] if report['failed']

    names = report['servers'].map { |server| "#{server['backend']}/#{server['server']}" }
    names.zip(report['servers']).map do |name, server|
      new(
        name: names.count(name) == 1 ? name : "#{name} on #{server['instance']}",
        ensure: server['before']['admin_state'].to_sym,
        weight: server['before']['weight'],
        operational_state: server['before']['operational_state'],
        maintenance: maintenance(server),
      )
    end
  end

  # Who has taken a server out, since when, until when and why, in the words of the program's text form; nil if that
  # was not recorded.
  def self.maintenance(server)
    return unless server['since']

    words = { 'since' => 'since', 'by' => 'owner', 'until' => 'expires' }
    said = words.filter_map { |word, field| "#{word} #{server[field]}" if server[field] }
    said << "(#{server['reason']})" if server['reason']
    # Puppet shows a value as it is: nothing in it may steer a terminal.
    said.join(' ').gsub(/[\p{C}\p{Zl}\p{Zp}]/) { |sign| format('\u{%x}', sign.ord) }
  end

  # Runs a request and returns its report, failed or not.
  def self.ask(request)
    path = program
    unless path
      raise Puppet::MissingCommand, "'haproxy_server' is neither on PATH nor in /usr/bin or /usr/local/bin; install it"
    end

    out, err, status = Open3.capture3([path, path], stdin_data: JSON.generate(request), binmode: true)
    report = parse(out)
    return note_version(report) if report

    how = status.exited? ? "exit code #{status.exitstatus}" : "signal #{status.termsig}"
    said = "#{err}\n#{out}".force_encoding(Encoding::UTF_8).scrub('?').strip.lines.first
    raise Puppet::Error, "#{path} gave no report (#{how}): #{said ? said.strip[0, 200] : 'it said nothing'}"
  rescue SystemCallError => e
    raise Puppet::Error, "#{path} cannot be run: #{e.message}"
  end

  # The report, with a warning where another version of the program has written it than this module was made for.
  def self.note_version(report)
    version = report.fetch('version', self::MADE_FOR)
    return report if version == self::MADE_FOR

    warning = "this host has haproxy_server #{version}, and the Puppet module was made for #{self::MADE_FOR}"
    report.merge('warnings' => report['warnings'] + [warning])
  end
  private_class_method :note_version

  # The report in the program's output, or nil.
  def self.parse(text)
    report = JSON.parse(text)
    whole = report.is_a?(Hash) && report['msg'].is_a?(String) && [true, false].include?(report['failed']) &&
            %w[servers warnings].all? { |key| report[key].is_a?(Array) }
    report if whole
  rescue JSON::ParserError, EncodingError
    nil
  end
  private_class_method :parse

  # Reads the current state and what the request would change.
  def observe
    return unless @property_hash.empty?

    @warned = []
    @done = nil
    @seen = foresee
    if @seen['changed']
      log_plan
    elsif !resource.noop? && wanted.any? && self.class::BEYOND_A_DRY_RUN.any? { |field| resource[field] }
      # It does change something when somebody else has changed the servers meanwhile: an event like any other.
      @seen = @done = make(request)
    end
  end

  def insync?(property)
    !differing.include?(property)
  end

  # What was done, or under noop would be done, in one sentence.
  def message
    (@done || @seen)['msg']
  end

  def refresh
    return if wanted.empty?

    @warned = []
    report = make(request)
    resource.notice(report['msg']) if report['changed']
  end

  self::PROPERTIES.each do |property|
    define_method(property) { current(property) }
    define_method("#{property}=") { |_value| apply }
  end

  %i[operational_state maintenance].each do |property|
    define_method(property) { current(property) }
  end

  private

  def request
    fields = { server: resource[:server].nil? ? resource[:name] : resource[:server], state: resource.should(:ensure) }
    self.class::FIELDS.each do |field|
      fields[field] = self.class::PROPERTIES.include?(field) ? resource.should(field) : resource[field]
    end
    fields.compact
  end

  # The report of a dry run. Under noop the program may still be missing, because the catalogue would install it.
  def foresee
    return make(request.merge(dry_run: true, diff: diff?)) if self.class.program || !resource.noop?

    { 'changed' => true, 'msg' => 'unknown until haproxy_server is installed', 'servers' => [], 'diff' => nil }
  end

  # Makes a request, logs its warnings once each, and fails as the program does.
  def make(request)
    report = self.class.ask(request)
    (report['warnings'] - @warned).each { |warning| resource.warning(warning) }
    @warned |= report['warnings']
    raise Puppet::Error, report['msg'] if report['failed']

    report
  end

  # One run for all properties; where it fails, it fails for all of them.
  def apply
    raise @done if @done.is_a?(Puppet::Error)

    @done ||= make(request)
  rescue Puppet::Error => e
    @done = e
    raise
  end

  def wanted
    self.class::PROPERTIES.select { |property| resource.should(property) }
  end

  # The properties that the program would change. The first one stands in for anything else, such as a state file.
  def differing
    return [] unless @seen['changed']

    found = wanted.select { |property| @seen['servers'].any? { |server| differs?(property, server) } }
    found.empty? ? wanted.first(1) : found
  end

  def differs?(property, server)
    before, after = server.values_at('before', 'after')
    case property
    when :ensure then before['admin_state'] != after['admin_state']
    when :weight then before['weight'] != after['weight']
    else server['commands'].any? { |command| command.match?(%r{\A(enable|disable) #{property} }) }
    end
  end

  # The current value, or all values when the servers differ.
  def current(property)
    return @property_hash[property] unless @property_hash.empty?

    values = @seen['servers'].map { |server| value(property, server) }.uniq
    case values.length
    when 0 then :absent
    when 1 then values.first
    else values.map(&:to_s).sort.join(', ')
    end
  end

  def value(property, server)
    case property
    when :ensure then server['before']['admin_state'].to_sym
    when :weight, :operational_state then server['before'][property.to_s]
    when :maintenance then self.class.maintenance(server) || :absent
    else
      # The report does not tell whether checks run, only which commands they need.
      should = resource.should(property)
      differs?(property, server) ? (%i[enabled disabled] - [should]).first : should
    end
  end

  def diff?
    Puppet[:show_diff] && resource.show_diff?
  end

  def log_plan
    log_diff if @seen['diff']
    # Under noop Puppet 7 does not ask the property for a message.
    resource.notice(@seen['msg']) if resource.noop? && Puppet::PUPPETVERSION.to_i < 8
  end

  def log_diff
    before, after = @seen['diff'].values_at('before', 'after').map(&:lines)
    lines = before.zip(after).reject { |old, new| old == new }.flat_map { |old, new| ["-#{old}", "+#{new}"] }
    resource.send_log(resource[:loglevel], "\n#{lines.join}") unless lines.empty?
  end
end
