# frozen_string_literal: true

Puppet::DataTypes.create_type('Result') do
  interface <<-PUPPET
    attributes => { 'target' => Target, 'value' => Hash[String[1], Data] },
    functions => { error => Callable[[], Optional[Error]], ok => Callable[[], Boolean] },
  PUPPET
  implementation_class StandIn::Result
end
