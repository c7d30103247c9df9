# frozen_string_literal: true

require 'json'
require 'puppet/resource'
require 'puppet/indirector/code'

# Finds what other nodes have exported, as PuppetDB does. Of the queries it knows `tag == '...'`.
class Puppet::Resource::Folder < Puppet::Indirector::Code
  desc 'A stand-in for PuppetDB.'

  def search(request)
    _, operator, tag = request.options[:filter]
    raise Puppet::Error, "the stand-in does not know #{request.options[:filter].inspect}" unless operator == '=='

    Dir.glob(File.join(Puppet[:statedir], 'exported/*.json')).sort.flat_map do |file|
      next [] if File.basename(file, '.json') == request.options[:host]

      resources = JSON.parse(File.read(file)).map { |data| Puppet::Resource.from_data_hash(data) }
      found = resources.select { |resource| resource.type == request.key.split('/').first && resource.tagged?(tag) }
      found.map { |resource| in_scope(resource, request.options[:scope]) }
    end
  end

  private

  def in_scope(resource, scope)
    parameters = resource.to_h.map do |name, value|
      Puppet::Parser::Resource::Param.new(name: name, value: value, source: scope.source)
    end
    Puppet::Parser::Resource.new(resource.type, resource.title, scope: scope, source: scope.source, parameters: parameters)
  end
end
