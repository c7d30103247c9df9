# frozen_string_literal: true

# These specs need only rspec and Puppet, neither HAProxy nor the program.
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
