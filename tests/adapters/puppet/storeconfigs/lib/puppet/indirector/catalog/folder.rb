# frozen_string_literal: true

require 'json'
require 'puppet/resource/catalog'
require 'puppet/indirector/code'

# Keeps the exported resources of each catalogue, as PuppetDB does.
class Puppet::Resource::Catalog::Folder < Puppet::Indirector::Code
  desc 'A stand-in for PuppetDB: one file a node, in `<statedir>/exported`.'

  def find(_request); end

  def save(request)
    exported = request.instance.resources.select(&:exported?)
    folder = File.join(Puppet[:statedir], 'exported')
    FileUtils.mkdir_p(folder)
    File.write(File.join(folder, "#{request.key}.json"), JSON.generate(exported.map(&:to_data_hash)))
  end
end
