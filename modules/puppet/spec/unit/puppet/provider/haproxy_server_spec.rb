# frozen_string_literal: true

RSpec.describe Puppet::Type.type(:haproxy_server).provider(:haproxy_server) do
  let(:requests) { [] }

  # The program, with an answer for each call.
  def program(*answers)
    allow(described_class).to receive_messages(program: '/usr/bin/haproxy_server')
    allow(Open3).to receive(:capture3) do |command, stdin_data:, binmode:|
      expect([command, binmode]).to eq([['/usr/bin/haproxy_server'] * 2, true])
      requests << JSON.parse(stdin_data)
      answer = answers.length > 1 ? answers.shift : answers.first
      answer.is_a?(Array) ? answer : [JSON.generate(answer), '', status(0)]
    end
  end

  def status(code, signal = nil)
    instance_double(Process::Status, exited?: signal.nil?, exitstatus: code, termsig: signal)
  end

  def server(before, after = before, commands: [], name: 'web1', instance: 'http')
    as_state = ->((state, weight)) { { 'admin_state' => state, 'operational_state' => 'running', 'weight' => weight } }
    {
      'instance' => instance, 'backend' => 'web', 'server' => name, 'commands' => commands,
      'before' => as_state[before], 'after' => as_state[after]
    }
  end

  def report(*servers, changed: false, failed: false, msg: 'web1: done', warnings: [])
    {
      'changed' => changed, 'failed' => failed, 'dry_run' => false, 'msg' => msg, 'comment' => msg,
      'servers' => servers, 'instances' => [], 'warnings' => warnings
    }
  end

  def resource(**attributes)
    Puppet::Type.type(:haproxy_server).new(title: 'web1', provider: described_class.new, **attributes)
  end

  # Applies a catalogue of one resource, and gives its status.
  def apply(resource)
    catalog = Puppet::Resource::Catalog.new
    catalog.add_resource(resource)
    catalog.apply.report.resource_statuses[resource.ref]
  end

  def events(resource)
    apply(resource).events.map { |event| [event.property, event.previous_value, event.desired_value, event.status] }
  end

  let(:out) { report(server(['ready', 1], ['maint', 1]), changed: true, msg: 'web1: maint in 1 of 1 backend') }
  let(:same) { report(server(['maint', 1])) }

  it 'plans with a dry run and changes with the same request' do
    program(out)
    expect(events(resource(ensure: :maint, guard: { 'min_available' => 1 }, on_failure: 'rollback'))).to eq(
      [['ensure', :ready, :maint, 'success']],
    )
    wanted = { 'server' => 'web1', 'state' => 'maint', 'guard' => { 'min_available' => 1 }, 'on_failure' => 'rollback' }
    expect(requests).to eq([wanted.merge('dry_run' => true, 'diff' => false), wanted])
  end

  it 'sends one dry run when nothing has to change' do
    program(same)
    expect(events(resource(ensure: :maint))).to be_empty
    expect(requests.map { |request| request['dry_run'] }).to eq([true])
  end

  it 'sends only dry runs under noop' do
    program(out, same)
    wanted = { ensure: :maint, wait: true, owner: 'alice', noop: true }
    expect(events(resource(**wanted))).to eq([['ensure', :ready, :maint, 'noop']])
    expect(events(resource(**wanted))).to be_empty
    expect(requests.map { |request| request['dry_run'] }).to eq([true, true])
  end

  it 'reports a change under noop while the program is missing, and fails without noop' do
    program(out)
    allow(described_class).to receive(:program)
    expect(events(resource(ensure: :maint, weight: 5, noop: true))).to eq([['ensure', :absent, :maint, 'noop']])
    expect(events(resource(noop: true))).to be_empty
    expect(apply(resource(ensure: :maint))).to be_failed
    expect { described_class.ask({}) }.to raise_error(Puppet::MissingCommand, %r{install it})
    expect(requests).to be_empty
  end

  { wait: true, shutdown_sessions: true, owner: 'alice', reason: 'disk', expires: '2100-01-01T00:00:00Z' }.each do |name, value|
    it "makes the request even when nothing has to change, with #{name}" do
      program(same)
      expect(events(resource(ensure: :maint, name => value))).to be_empty
      expect(requests.map { |request| request['dry_run'] }).to eq([true, nil])
    end
  end

  it 'fails when that request fails' do
    program(same, report(failed: true, msg: 'web1 has 1 session'))
    expect(apply(resource(ensure: :maint, wait: true))).to be_failed
  end

  it 'reports what that request changed after all, and makes no other' do
    program(same, out)
    expect(events(resource(ensure: :maint, wait: true))).to eq([['ensure', :ready, :maint, 'success']])
    expect(requests.length).to eq(2)
  end

  it 'makes one request for several properties, with an event for each that differs' do
    program(report(server(['maint', 1], ['maint', 5], commands: ['disable health web/web1']), changed: true))
    expect(events(resource(ensure: :maint, weight: 5, health: :disabled, agent: :enabled))).to eq(
      [['weight', 1, 5, 'success'], ['health', :enabled, :disabled, 'success']],
    )
    expect(requests.length).to eq(2)
  end

  it 'reports a change of something else, such as a state file, on the first property' do
    program(report(server(['maint', 1]), changed: true))
    expect(events(resource(weight: 1, ensure: :maint, state_file: '/s'))).to eq([['ensure', :maint, :maint, 'success']])
    expect(events(resource(weight: 1, state_file: '/s'))).to eq([['weight', 1, 1, 'success']])
  end

  it 'shows all values when servers differ' do
    program(report(server(['ready', 1], ['maint', 1]), server(['maint', 5]), changed: true))
    expect(events(resource(ensure: :maint)).first[1]).to eq('maint, ready')
  end

  it 'asks for the status when no state is requested' do
    program(same)
    expect(events(resource(server: ['web/web1'], timeout: 3))).to be_empty
    expect(requests).to eq([{ 'server' => ['web/web1'], 'timeout' => 3, 'dry_run' => true, 'diff' => false }])
  end

  it 'fails with the message of the program, and does not try again for the next property' do
    program(
      report(server(['maint', 1], ['maint', 5], commands: ['disable health web/web1']), changed: true),
      report(failed: true, msg: 'HAProxy is busy'),
    )
    failures = apply(resource(weight: 5, health: :disabled)).events
    expect(failures.map(&:status)).to eq(%w[failure failure])
    expect(failures.map(&:message)).to all(end_with('failed: HAProxy is busy'))
    expect(requests.length).to eq(2)
  end

  it 'repeats the request on a refresh, unless no state is requested' do
    program(out)
    wanted = resource(ensure: :maint)
    expect(wanted).to receive(:notice).with('web1: maint in 1 of 1 backend')
    wanted.refresh
    resource.refresh
    expect(requests).to eq([{ 'server' => 'web1', 'state' => 'maint' }])
  end

  it 'logs each warning once' do
    program(out.merge('warnings' => ['web1 has weight 0']))
    wanted = resource(ensure: :maint)
    expect(wanted).to receive(:warning).with('web1 has weight 0').once
    apply(wanted)
  end

  {
    'nothing' => ['', '', 'exit code 0): it said nothing'],
    'a text' => ["Segmentation fault\nmore", '', 'exit code 0): Segmentation fault'],
    'half a report' => ['{"changed": true, "ser', '', 'exit code 0): {"changed": true, "ser'],
    'another object' => ['{"msg": "hello"}', '', 'exit code 0): {"msg": "hello"}'],
    'bytes that are not text' => ["\xff\xfe", 'cannot open shared object', 'exit code 0): cannot open shared object'],
  }.each do |name, (out, err, sentence)|
    it "says so when the program answers with #{name}" do
      program([out, err, status(0)])
      expect { described_class.ask({}) }.to raise_error(
        Puppet::Error, "/usr/bin/haproxy_server gave no report (#{sentence}"
      )
    end
  end

  it 'says so when the program is killed or cannot be run' do
    program(['', '', status(nil, 9)])
    expect { described_class.ask({}) }.to raise_error(Puppet::Error, %r{gave no report \(signal 9\)})
    allow(Open3).to receive(:capture3).and_raise(Errno::EACCES)
    expect { described_class.ask({}) }.to raise_error(Puppet::Error, %r{cannot be run: Permission denied})
  end

  it 'lists every server, with its instance when two have the same name' do
    program(report(server(['ready', 1]), server(['maint', 2], instance: 'ldap'), server(['drain', 3], name: 'web2')))
    expect(described_class.instances.map { |each| [each.name, each.ensure, each.weight] }).to eq(
      [['web/web1 on http', :ready, 1], ['web/web1 on ldap', :maint, 2], ['web/web2', :drain, 3]],
    )
    expect(requests).to eq([{ 'on_unreachable' => 'skip' }])
  end

  it 'shows who has taken a server out, in signs that do nothing to a terminal' do
    out = { 'since' => '2026-11-23T02:55:45Z', 'owner' => 'alice', 'reason' => "new \u{202e}\e[31mdisk" }
    program(report(server(['maint', 1]).merge(out), server(['ready', 1], name: 'web2')))
    expect(described_class.instances.map { |each| each.get(:maintenance) }).to eq(
      ['since 2026-11-23T02:55:45Z by alice (new \\u{202e}\\u{1b}[31mdisk)', :absent],
    )
  end

  it 'has no prefetch' do
    expect(described_class).not_to respond_to(:prefetch)
  end
end
