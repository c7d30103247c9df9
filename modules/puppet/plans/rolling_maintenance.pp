# @summary Takes servers out on all load balancers, runs a task or a command on them, and puts them back, in batches.
#
# Before anything is changed, a dry run finds out whether all servers could be put back on all load balancers. Each
# batch is taken out on all of them at once, worked on, and put back on all of them, also where the work has failed.
# After the first failure no other batch is begun. Where a batch cannot be taken out, it is put back where this run
# has changed something, and nothing is run on it.
#
# The name of a server in HAProxy is that of its target, or its variable `haproxy_server`.
#
# @param targets
#   The servers that are worked on.
# @param load_balancers
#   The hosts of HAProxy. The program `haproxy_server` is installed there.
# @param command
#   The command that is run on the servers while they are out; or else give `task`.
# @param task
#   The task that is run on the servers while they are out; or else give `command`.
# @param task_parameters
#   The parameters of that task; those that start with `_` are options of Bolt, as `_run_as`.
# @param batch
#   How many servers are out at a time.
# @param maint
#   More parameters of the task `haproxy_server` that takes the servers out.
# @param ready
#   More parameters of the task `haproxy_server` that puts the servers back.
# @param owner
#   Who takes the servers out: recorded on the load balancers, so that no other owner puts them back meanwhile.
# @param reason
#   Why the servers are taken out: recorded on the load balancers.
# @param run_as
#   The user that manages HAProxy on the load balancers.
#
# @return
#   What the task or the command gave, one result for each server.
#
# @example Upgrade all web servers, two at a time
#   bolt plan run haproxy_server::rolling_maintenance --targets web \
#     load_balancers=lb batch=2 command='apt-get -y upgrade' owner=upgrade
plan haproxy_server::rolling_maintenance (
  TargetSpec $targets,
  TargetSpec $load_balancers,
  Optional[String[1]] $command = undef,
  Optional[String[1]] $task = undef,
  Hash[String[1], Data] $task_parameters = {},
  Integer[1] $batch = 1,
  Hash[String[1], Data] $maint = { 'drain' => true, 'guard' => { 'min_available' => 1 } },
  Hash[String[1], Data] $ready = { 'wait' => true },
  Optional[String[1]] $owner = undef,
  Optional[String[1]] $reason = undef,
  Optional[String[1]] $run_as = undef,
) {
  if ($command =~ Undef) == ($task =~ Undef) {
    fail_plan("give either 'command' or 'task'", 'haproxy_server/bad-request')
  }

  $balancers = get_targets($load_balancers)
  $options = { '_catch_errors' => true } + ($run_as ? { undef => {}, default => { '_run_as' => $run_as } })
  $claim = { 'owner' => $owner }.filter |$_key, $value| { $value =~ NotUndef }
  $cause = { 'reason' => $reason }.filter |$_key, $value| { $value =~ NotUndef }

  # A wrong name or parameter must not come up when the servers are out.
  $names_of_all = get_targets($targets).map |$server| { $server.vars['haproxy_server'].lest || { $server.name } }
  $dry_run = $ready + $claim + { 'server' => $names_of_all, 'state' => 'ready' } + $options + { '_noop' => true }
  $check = run_task('haproxy_server', $balancers, 'look for the servers', $dry_run)
  unless $check.ok {
    $first = $check.error_set.first
    fail_plan(
      "the servers could not be put back on ${first.target.name}: ${first.error.message}",
      'haproxy_server/not-begun',
      { 'results' => $check },
    )
  }

  $results = get_targets($targets).slice($batch).map |$servers| {
    $names = $servers.map |$server| { $server.vars['haproxy_server'].lest || { $server.name } }
    $shown = $names.join(', ')
    $take_out = $maint + $claim + $cause + { 'server' => $names, 'state' => 'maint' }
    $put_back = $ready + $claim + { 'server' => $names, 'state' => 'ready' }

    $out = run_task('haproxy_server', $balancers, "take ${shown} out of service", $take_out + $options)
    unless $out.ok {
      # Only what this run has taken out comes back: others may have had a reason.
      $changed = $out.results.filter |$result| { $result.value['changed'] == true }.map |$result| { $result.target }
      run_task('haproxy_server', $changed, "put ${shown} back into service", $put_back + $options)
      $first = $out.error_set.first
      fail_plan(
        "${shown} cannot be taken out on ${first.target.name}: ${first.error.message}",
        'haproxy_server/not-taken-out',
        { 'results' => $out },
      )
    }

    # Whatever goes wrong here must not keep the servers out.
    $work = catch_errors() || {
      if $command {
        run_command($command, $servers, '_catch_errors' => true)
      } else {
        run_task($task, $servers, $task_parameters + { '_catch_errors' => true })
      }
    }
    $back = run_task('haproxy_server', $balancers, "put ${shown} back into service", $put_back + $options)

    if $work =~ Error {
      fail_plan($work)
    }
    unless $work.ok {
      $first = $work.error_set.first
      fail_plan(
        "the work on ${first.target.name} has failed: ${first.error.message}",
        'haproxy_server/work-failed',
        { 'results' => $work },
      )
    }
    unless $back.ok {
      $first = $back.error_set.first
      fail_plan(
        "${shown} cannot be put back on ${first.target.name}: ${first.error.message}",
        'haproxy_server/not-put-back',
        { 'results' => $back },
      )
    }
    $work.results
  }

  return ResultSet($results.flatten)
}
