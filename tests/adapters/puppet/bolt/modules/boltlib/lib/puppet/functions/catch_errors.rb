# frozen_string_literal: true

Puppet::Functions.create_function(:catch_errors) do
  dispatch :catch_errors do
    block_param 'Callable[0, 0]', :block
  end

  def catch_errors
    yield
  rescue StandIn::Failure => e
    e.to_error
  rescue Puppet::PreformattedError => e
    raise unless e.cause.is_a?(StandIn::Failure)

    e.cause.to_error
  end
end
