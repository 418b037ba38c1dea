"""The end of a launcher's story: wait for the worker, end what is left of it, report how it ended."""

END = r"""
# --- wait --------------------------------------------------------------------------------
status=0
# Until it has ended, or a trap has said why it shall: a reason is no PID, so that wait fails at once.
wait "${why:-$pid}" 2>/dev/null || status=$?

# --- what ends with the worker -----------------------------------------------------------
descendants() {   # of process $1, added to tree
  local file kid
  local -a kids
  for file in /proc/"$1"/task/*/children; do
    kids=()
    { read -r -a kids <"$file"; } 2>/dev/null || :
    for kid in "${kids[@]}"; do
      tree+=("$kid")
      descendants "$kid"
    done
  done
}

carriers() {   # of the token, whatever session or parent they have, added to tree
  local dir
  local -a environment
  for dir in /proc/[0-9]*; do
    environment=()
    { mapfile -d '' -t environment <"$dir/environ"; } 2>/dev/null || :
    [[ ${dir#/proc/} == "$$" || " ${environment[*]} " != *" ORCHESTRA_TOKEN=$token "* ]] || tree+=("${dir#/proc/}")
  done
  return 0
}

clock() {   # second: whole ones since the machine came up; the time of day may jump
  read -r second _ </proc/uptime
  second=${second%.*}
}

heed_grace() {   # orchestra stop --grace: a stop gives what it says; what is said later can only hasten the end
  local given='' by
  [[ ! -f $here/grace ]] || { IFS= read -r given <"$here/grace"; } 2>/dev/null || :
  [[ $given != "$heeded" && $given =~ ^[0-9]{1,9}([.][0-9]*)?$ ]] || return 0
  by=$((second + 10#${given%.*} + 1))
  if [[ (-z $heeded && $asked == stopped) || $by -lt $deadline ]]; then
    deadline=$by
  fi
  heeded=$given
}

end_tree() {   # everything that this attempt started: TERM, then KILL after the grace
  local deadline second i heeded=''
  clock
  deadline=$((second + ${grace_s%.*} + 1))
  heed_grace
  tree=()
  descendants $$
  [[ ${#tree[@]} -gt 0 || -z $supervised || -n $why ]] || return 0
  carriers
  [[ ${#tree[@]} -gt 0 ]] || return 0
  { kill -TERM "${tree[@]}"; kill -CONT "${tree[@]}"; } 2>/dev/null || :
  while ((${#tree[@]} > 0 && second <= deadline + 10)); do
    sleep 0.03 || :
    clock
    heed_grace
    tree=()
    descendants $$
    # What forks on and on is elsewhere before a look at all processes is over: strike at once.
    for ((i = 0; i < 200 && second >= deadline && ${#tree[@]} > 0; i++)); do
      kill -KILL "${tree[@]}" 2>/dev/null || :
      tree=()
      descendants $$
    done
    carriers
    if ((second >= deadline && ${#tree[@]} > 0)); then
      kill -KILL "${tree[@]}" 2>/dev/null || :
    fi
  done
  [[ ${#tree[@]} == 0 ]] || kill -KILL "${tree[@]}" 2>/dev/null || :
}

broken() {   # line command status: a step of this launcher failed, with the worker at work; how that did is not known
  local i
  trap - ERR EXIT CHLD
  set +eu
  for ((i = 0; i < 200; i++)); do   # what it has started must not outlive it
    tree=()
    descendants $$
    carriers
    [[ ${#tree[@]} -gt 0 ]] || break
    kill -KILL "${tree[@]}" 2>/dev/null
  done
  json "$2"
  report '"failed"' '"lost"' "\"its launcher failed at line $1 with status $3, and took it along: ${quoted:1}" null null
  clear_away
  exit 70
}
trap 'broken "$LINENO" "$BASH_COMMAND" "$?"' ERR EXIT

# --- end ---------------------------------------------------------------------------------
trap '' ALRM USR1 "${others[@]}"

worker_is_gone() {
  local line=''
  local -a threads=(/proc/"$pid"/task/*)
  { read -r line <"/proc/$pid/stat"; } 2>/dev/null || return 0
  [[ ${line##*) } == [ZX]* && ${#threads[@]} -le 1 ]]   # its main thread alone may have ended
}

exited_by_itself() {   # with that status, as bash has it of its job
  [[ -f $here/jobs ]] && grep -qsE "^\[[12]\]. *$pid [^(]* $status +\(" "$here/jobs"
}

asked=$why
if [[ -n $why ]]; then
  ! worker_is_gone || why=''   # it had ended before we were told to end it
  end_tree
  status=0
  wait "$pid" || status=$?
  # Told in the very instant of its end, bash has reaped it and forgotten how: then 127 is no status of its own.
  [[ $status -ge 0 && $status != 127 ]] || exited_by_itself || { why=$asked status=null; }
fi
trap - CHLD
end_tree   # what is left of a worker that has ended
trap - ERR EXIT
set +e

# --- report ------------------------------------------------------------------------------
last_lines() {   # of standard error, and of nothing else: what a worker reads aloud is no error
  [[ ! -f $log_err ]] || last=$(tail -c 4096 -- "$log_err" | tr -d '\0')
}

stderr_says() {   # pattern
  shopt -s nocasematch
  [[ $last =~ $1 ]]
}

killed_on_request() {   # where the grace is over at once, orchestra's own KILL comes before we have looked
  [[ $asked == stopped && $status == 137 ]] && ! exited_by_itself
}

killed_for_memory() {   # reason: the counter says that somebody in our cgroup was, SIGKILL that it was the worker
  local how='ended by SIGKILL'
  [[ $status == 0 || -z $kills_before ]] && return 1
  if [[ $status != 137 ]]; then
    stderr_says $'(^|\n|[0-9] +)Killed([ \n]|$)' || return 1   # a shell tells of its child
    how="exit status $status, with a child that was killed"
  elif exited_by_itself; then
    how='exit status 137, as of a shell whose child was ended by SIGKILL'
  fi
  { memory_kills /sys/fs/cgroup; } 2>/dev/null || :
  [[ -n $kills ]] && ((kills > kills_before)) || return 1
  reason="\"$how; while it ran, the kernel killed $((kills - kills_before)) in its cgroup for want of memory\""
}

missing() {   # reason: the first expected artefact that is not there, if any
  local i file least size
  for ((i = 0; i < ${#expect[@]}; i += 3)); do
    file=$out/${expect[i]} least=${expect[i + 1]}
    [[ -n ${expect[i]} ]] || file=$log_out
    size=0
    [[ -f $file && -r $file ]] && size=$(wc -c <"$file")
    if [[ ! -f $file || ! -r $file || $size -lt $least ]]; then
      reason="\"exit 0, but ${expect[i + 2]:1:-1} has $size bytes of at least $least\""
      [[ -e $file ]] || reason="\"exit 0, but ${expect[i + 2]:1:-1} is missing\""
      return 0
    fi
    # An agent with nothing to say still ends its line.
    if [[ $least != 0 ]] && ! LC_ALL=C grep -aq '[^[:space:]]' -- "$file"; then
      reason="\"exit 0, but ${expect[i + 2]:1:-1} holds nothing but white space\""
      return 0
    fi
  done
  return 1
}

last=''
[[ $status == 0 ]] || last_lines
if [[ $status =~ ^(1|12[67])$ && $last == "$0: "* ]]; then
  # A process whose exec fails ends on the spot, without its traps: only bash's own words tell.
  reason=$cannot_execute retry=never
  fail "$LINENO" exec "$status"
elif [[ $status == 70 && -e $sentinel ]]; then
  :   # the worker could not start, and its process has said so
elif [[ $why == timeout ]]; then
  report '"failed"' '"timeout"' "\"still running after ${timeout_s} s\"" "$status" null
elif [[ $why == signal ]]; then
  report '"failed"' '"signal"' "\"its launcher was told to end by SIG$told_by\"" null "$(kill -l "$told_by")"
elif [[ $why == stopped ]] || killed_on_request; then
  report '"failed"' '"stopped"' '"stopped on request"' "$status" null
elif killed_for_memory; then
  if [[ $status == 137 ]] && ! exited_by_itself; then
    report '"failed"' '"oom"' "$reason" null 9
  else
    report '"failed"' '"oom"' "$reason" "$status" null
  fi
elif [[ $status -gt 128 && $status -le 192 ]] && ! exited_by_itself; then
  signal=$((status - 128))
  reason="ended by SIG$(kill -l "$signal")"
  [[ $signal != 9 ]] || reason+='; it is not known by whom: the kernel, for want of memory, is one possibility'
  report '"failed"' '"signal"' "\"$reason\"" null "$signal"
elif [[ $status == 0 ]]; then
  if missing; then
    report '"failed"' '"empty"' "$reason" 0 null
  else
    report '"done"' null null 0 null
  fi
elif [[ $status == 75 ]] || stderr_says "$rate_limit"; then
  report '"failed"' '"rate_limited"' "\"exit status $status: a limit was hit\"" "$status" null
elif stderr_says "$auth"; then
  report '"failed"' '"auth"' "\"exit status $status: not authorised\"" "$status" null
else
  report '"failed"' '"exit_code"' "\"exit status $status\"" "$status" null
fi
clear_away
"""
