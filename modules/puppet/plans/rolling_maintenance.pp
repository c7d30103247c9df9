# @summary Takes servers out on all load balancers, runs a task or a command on them, and puts them back, in batches.
#
# Servers that are out of service on any load balancer, and that `owner` has not taken out, are left alone: neither worked
# on nor put back. A message names them. Before anything changes, dry runs check on every load balancer that each batch can
# be taken out and that all servers can be put back. Each batch is then taken out on all load balancers at once, worked on,
# and put back, whether or not the work succeeded. The plan ends with the first batch that fails. A batch that cannot be
# taken out everywhere is put back wherever this run took it out, and nothing is run on it.
#
# A server's name in HAProxy is the name of its target, or the target's variable `haproxy_server`.
#
# @param targets
#   The servers to work on.
# @param load_balancers
#   The HAProxy hosts. The program `haproxy_server` is installed there.
# @param command
#   The command to run on the servers while they are out. Give either `command` or `task`.
# @param task
#   The task to run on the servers while they are out. Give either `command` or `task`.
# @param task_parameters
#   The parameters of that task. Those that start with `_` are Bolt's options, such as `_run_as`.
# @param batch
#   How many servers are out at a time.
# @param maint
#   More parameters for the task `haproxy_server` when it takes servers out.
# @param ready
#   More parameters for the task `haproxy_server` when it puts servers back.
# @param owner
#   Who takes the servers out. Recorded on the load balancers, so that nobody else puts the servers back meanwhile.
# @param reason
#   Why the servers are taken out. Recorded on the load balancers.
# @param run_as
#   The user who manages HAProxy on the load balancers.
# @param preview
#   Ends after the dry runs: prints what each load balancer would do, and returns the results.
#
# @return
#   The results of the task or the command, one for each server; with `preview` those of the dry runs.
#
# @example Upgrade all web servers, two at a time
#   bolt plan run haproxy_server::rolling_maintenance --targets web \
#     load_balancers=lb batch=2 command='apt-get -y upgrade' owner=upgrade
#
# @example See what that would do
#   bolt plan run haproxy_server::rolling_maintenance --targets web load_balancers=lb batch=2 preview=true
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
  Boolean $preview = false,
) {
  unless $preview or ($command =~ Undef) != ($task =~ Undef) {
    fail_plan("give either 'command' or 'task'", 'haproxy_server/bad-request')
  }

  $balancers = get_targets($load_balancers)
  $options = { '_catch_errors' => true } + ($run_as ? { undef => {}, default => { '_run_as' => $run_as } })
  $claim = { 'owner' => $owner }.filter |$_key, $value| { $value =~ NotUndef }
  $cause = { 'reason' => $reason }.filter |$_key, $value| { $value =~ NotUndef }

  $named = get_targets($targets).map |$server| { [$server, $server.vars['haproxy_server'].lest || { $server.name }] }

  # A server that is out already may be in other hands, whether or not they have recorded an owner.
  $selection = $maint.filter |$key, $_value| {
    $key in ['backend', 'address', 'instances', 'ignore_instances', 'on_unreachable', 'timeout']
  }
  $seen = run_task(
    'haproxy_server',
    $balancers,
    'see how the servers are',
    $selection + { 'server' => $named.map |$pair| { $pair[1] }, 'on_missing' => 'ignore' } + $options,
  )
  # By the name in HAProxy, where each of them is out. What could not be asked fails in the dry runs.
  $alone = $seen.results.reduce({}) |$known, $result| {
    ($result.value['servers'].lest || { [] }).reduce($known) |$all, $server| {
      $is_own = $owner =~ NotUndef and $server['owner'] =~ NotUndef and compare($server['owner'], $owner, false) == 0
      if $server['before']['admin_state'] == 'ready' or $is_own {
        $all
      } else {
        $place = "${server['instance']} has ${server['backend']}/${server['server']} in ${server['before']['admin_state']}"
        $who = $server['owner'].then |$by| { " by ${by}" }.lest || { '' }
        $why = $server['reason'].then |$because| { " (${because})" }.lest || { '' }
        $all + { $server['server'] => "on ${result.target.name}, ${place}${who}${why}" }
      }
    }
  }
  $alone.each |$name, $where| { out::message("${name} is left alone: ${where}") }

  # Each batch: its targets, their names in HAProxy, and the two requests for them.
  $batches = $named.filter |$pair| { $alone[$pair[1]] =~ Undef }.slice($batch).map |$pairs| {
    $names = $pairs.map |$pair| { $pair[1] }
    $part = {
      'servers'  => $pairs.map |$pair| { $pair[0] },
      'shown'    => $names.join(', '),
      'take_out' => $maint + $claim + $cause + { 'server' => $names, 'state' => 'maint' } + $options,
      'put_back' => $ready + $claim + { 'server' => $names, 'state' => 'ready' } + $options,
    }
  }

  # A wrong name, a wrong parameter or a guard must not come up halfway.
  $foreseen = ['put_back', 'take_out'].map |$request| {
    $what = $request ? { 'put_back' => 'put back', default => 'taken out' }
    $batches.map |$part| {
      $check = run_task(
        'haproxy_server',
        $balancers,
        "check that ${part['shown']} can be ${what}",
        $part[$request] + { '_noop' => true },
      )
      unless $check.ok {
        $first = $check.error_set.first
        fail_plan(
          "nothing has changed: ${part['shown']} cannot be ${what} on ${first.target.name}: ${first.error.message}",
          'haproxy_server/not-begun',
          { 'results' => $check },
        )
      }
      $check.results
    }
  }
  if $preview {
    $taken_out = $foreseen[1].flatten
    $taken_out.each |$result| { out::message("${result.target.name}: ${result.value['msg']}") }
    return ResultSet($taken_out)
  }

  $results = $batches.map |$part| {
    $shown = $part['shown']
    $out = run_task('haproxy_server', $balancers, "take ${shown} out of service", $part['take_out'])
    unless $out.ok {
      # Only what this run has taken out comes back: others may have had a reason.
      $changed = $out.results.filter |$result| { $result.value['changed'] == true }.map |$result| { $result.target }
      run_task('haproxy_server', $changed, "put ${shown} back into service", $part['put_back'])
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
        run_command($command, $part['servers'], '_catch_errors' => true)
      } else {
        run_task($task, $part['servers'], $task_parameters + { '_catch_errors' => true })
      }
    }
    $back = run_task('haproxy_server', $balancers, "put ${shown} back into service", $part['put_back'])

    if $work =~ Error {
      fail_plan($work)
    }
    unless $work.ok {
      $first = $work.error_set.first
      fail_plan(
        "the work on ${first.target.name} failed: ${first.error.message}",
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
