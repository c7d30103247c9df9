# frozen_string_literal: true

RSpec.describe Puppet::Type.type(:haproxy_server) do
  def resource(**attributes)
    described_class.new(title: 'web1', **attributes)
  end

  it 'accepts the states under their names and those of older modules' do
    { ready: %w[ready enabled enable], drain: %w[drain], maint: %w[maint disabled disable] }.each do |state, words|
      words.each { |word| expect(resource(ensure: word)[:ensure]).to eq(state) }
    end
  end

  it 'has no default for a requested state' do
    bare = resource
    %i[ensure weight health agent].each { |property| expect(bare[property]).to be_nil }
    expect(resource(weight: 5)[:ensure]).to be_nil
  end

  {
    ensure: %w[absent present up], weight: [-1, 257, 'half', '5 %'], health: %w[on], agent: %w[on],
    operational_state: %w[running], maintenance: ['by alice'], server: ['', [], [''], {}], backend: ['', []], ignore_instances: ['', []],
    instances: ['', [], [{ 'name' => 'ldap' }], [{ 'name' => 'a', 'socket' => '/s', 'port' => 1 }]],
    drain: [30, 'soon', { 'timeuot' => 3 }, { 'on_timeout' => 'give up' }],
    wait: [30, { 'on_timeout' => 'fail' }, { 'via' => 'maint' }, { 'need' => 'most' }],
    guard: [2, {}, { 'min_available' => -1 }],
    expect: ['ready', { 'admin_state' => 'up' }, { 'operational_state' => 'up' }],
    old_processes: %w[ignore], on_missing: %w[warn], on_unreachable: %w[ignore], on_failure: %w[retry],
    on_owned: %w[ignore], state_file: ['http.state', { 'http' => 'http.state' }, {}],
    owner: ['', []], reason: [''], expires: [''], syslog: %w[perhaps],
    shutdown_sessions: ['perhaps', 60, { 'over' => [] }, { 'timeout' => 60 }],
    ignore_owner: %w[perhaps], show_diff: %w[perhaps], lock_timeout: [[]], timeout: [{}],
    deadline: [[]],
  }.each do |name, values|
    it "refuses an invalid #{name} and names it" do
      values.each do |value|
        expect { resource(name => value) }.to raise_error(Puppet::Error, %r{\b#{name}\b}), value.inspect
      end
    end
  end

  it 'accepts every form of the values' do
    {
      weight: [0, 256, '10', '50%'], server: ['web1', %w[web1 app/web2], 7], backend: ['app*', ['app']],
      ignore_instances: ['test-*', %w[edge staging]],
      instances: ['http', %w[http ldap], [{ 'name' => 'ldap', 'socket' => '/run/ldap.sock' }]],
      drain: [true, false, 'true', { 'timeout' => 60, 'on_timeout' => 'maint' }, {}],
      wait: [true, { 'stable' => '5' }, { 'via' => 'ready', 'need' => 'any' }],
      guard: [{ 'min_available' => 1 }, { 'min_available' => '50%' }], expect: [{ 'admin_state' => 'ready' }],
      state_file: ['/var/lib/haproxy/state', { 'http' => '/var/lib/haproxy/http.state' }], lock_timeout: [0, '5', 0.5],
      shutdown_sessions: [true, 'no', { 'over' => 60 }], on_owned: ['skip'], ignore_owner: ['yes'], syslog: [false],
      expires: ['+2h']
    }.each do |name, values|
      values.each { |value| expect { resource(name => value) }.not_to raise_error }
    end
  end

  it 'takes the words of a switch as Booleans' do
    %i[drain shutdown_sessions wait].each do |name|
      { 'yes' => true, 'true' => true, 'no' => false, 'false' => false }.each do |word, value|
        expect(resource(name => word)[name]).to be(value)
      end
    end
  end

  it 'autorequires services, packages and folders' do
    types = { service: %w[haproxy haproxy-ldap haproxy@http nginx haproxyish], package: %w[haproxy haproxy_server] }
    needed = types.flat_map { |type, names| names.map { |name| Puppet::Type.type(type).new(name: name) } }
    needed << Puppet::Type.type(:file).new(path: '/var/lib/haproxy')
    server = resource(ensure: :maint, state_file: { 'http' => '/var/lib/haproxy/http.state' })
    catalog = Puppet::Resource::Catalog.new
    catalog.add_resource(server, *needed)
    before = server.autorequire.map { |edge| edge.source.ref }
    expect(before).to contain_exactly(
      'Service[haproxy]', 'Service[haproxy-ldap]', 'Service[haproxy@http]', 'Package[haproxy]',
      'Package[haproxy_server]', 'File[/var/lib/haproxy]'
    )
  end
end
