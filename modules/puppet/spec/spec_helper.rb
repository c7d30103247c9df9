# frozen_string_literal: true

# These specs need rspec and Puppet only: neither HAProxy nor the program is asked.
require 'puppet'
require 'json'
require 'tmpdir'

folder = Dir.mktmpdir('haproxy_server-spec')
Puppet.initialize_settings(['--confdir', folder, '--vardir', folder])
FileUtils.mkdir_p(Puppet[:statedir])

RSpec.configure do |config|
  config.disable_monkey_patching!
  config.mock_with(:rspec) { |mocks| mocks.verify_partial_doubles = true }
  config.after(:suite) { FileUtils.remove_entry(folder) }
end
