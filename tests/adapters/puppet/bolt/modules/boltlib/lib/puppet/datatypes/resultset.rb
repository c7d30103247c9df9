# frozen_string_literal: true

Puppet::DataTypes.create_type('ResultSet') do
  interface <<-PUPPET
    attributes => { 'results' => Array[Result] },
    functions => {
      error_set => Callable[[], ResultSet],
      first => Callable[[], Optional[Result]],
      ok => Callable[[], Boolean],
    },
  PUPPET
  implementation_class StandIn::ResultSet
end
