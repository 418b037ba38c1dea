"""The end of a launcher's story: how its worker ended, told in its result."""

END = r"""
# --- report ------------------------------------------------------------------------------
last_lines() {   # of standard error, and of nothing else: what a worker reads aloud is no error
  [[ ! -f $log_err ]] || last=$(tail -c 4096 -- "$log_err" | tr -d '\0')
}

stderr_says() {   # pattern, whatever the case
  shopt -s nocasematch
  local found=no
  [[ ! $last =~ $1 ]] || found=yes
  shopt -u nocasematch
  [[ $found == yes ]]
}

kernel_said() {   # quoted: why bash could not execute, in ASCII
  local LC_ALL=C text=${last##*: }
  json "${text//[^ -~]/}"
}

killed_on_request() {   # where its grace is over by then, orchestra's own KILL comes before we have looked
  local given='' told_at
  # By the status: bash may not know yet that no exit of its own was it.
  [[ $asked == stopped && $status == 137 && -f $here/grace ]] || return 1
  given=$(head -c 64 -- "$here/grace") && told_at=$(stat -c %Y -- "$here/grace") || return 1
  [[ $given =~ ^[0-9]{1,9}([.][0-9]*)?$ ]] && ((EPOCHSECONDS - told_at >= 10#${given%%.*}))
}

memory_kills() {   # kills: how many the kernel has killed in our cgroup for want of memory by now
  local line
  local -a lines
  kills=''
  mapfile -t lines <"$kill_counter"
  for line in "${lines[@]}"; do
    [[ $line != 'oom_kill '* ]] || kills=${line#oom_kill }
  done
}

killed_for_memory() {   # reason: the counter says that somebody in our cgroup was, SIGKILL that it was the worker
  local how='ended by SIGKILL'
  [[ $status == 0 || -z $kills_before ]] && return 1
  if [[ $status != 137 ]]; then
    [[ $last =~ (^|$'\n'|[0-9]\ +)Killed([[:space:]]|$) ]] || return 1   # a shell tells of its child
    how="exit status $status, with a child that was killed"
  elif [[ -n $by_itself ]]; then
    how='exit status 137, as of a shell whose child was ended by SIGKILL'
  fi
  { memory_kills; } 2>/dev/null || :
  [[ -n $kills ]] && ((kills > kills_before)) || return 1
  reason="\"$how; while it ran, the kernel killed $((kills - kills_before)) in its cgroup for want of memory\""
}

missing() {   # reason: the first expected artefact that is not there, if any
  local i file least size seen failed
  for ((i = 0; i < ${#expect[@]}; i += 3)); do
    file=$out/${expect[i]} least=${expect[i + 1]}
    [[ -n ${expect[i]} ]] || file=$log_out
    size=0
    [[ -f $file && -r $file ]] && size=$(wc -c <"$file")
    if [[ ! $size =~ ^[0-9]+$ ]]; then
      reason="\"exit 0, but ${expect[i + 2]:1:-1} could not be looked at: wc failed\""
      return 0
    fi
    if [[ ! -f $file || ! -r $file || $size -lt $least ]]; then
      reason="has $size bytes of at least $least"
      [[ -r $file ]] || reason='may not be read'
      [[ -f $file ]] || reason='is no regular file'
      [[ -e $file ]] || reason='is missing'
      reason="\"exit 0, but ${expect[i + 2]:1:-1} $reason\""
      return 0
    fi
    # An agent with nothing to say still ends its line. (Not by grep, which holds a whole line.)
    [[ $least != 0 ]] || continue
    failed=''
    seen=$(LC_ALL=C tr -d '[:space:]' <"$file" 2>/dev/null | head -c 1 | wc -c) || failed=yes   # or has seen enough
    if [[ $seen != 1 ]]; then
      reason="\"exit 0, but ${expect[i + 2]:1:-1} holds nothing but white space\""
      [[ -z $failed ]] || reason="\"exit 0, but ${expect[i + 2]:1:-1} could not be looked at: tr failed\""
      return 0
    fi
  done
  return 1
}

exit_code=$status signal=null   # which of the two it was
if [[ $status != null && $status -gt 128 && $status -le 192 && -z $by_itself ]]; then
  exit_code=null signal=$((status - 128))
fi
last=''
[[ $status == 0 ]] || last_lines
if [[ $status =~ ^(1|12[67])$ && $last == "$0: "* ]]; then
  # A process whose exec fails ends on the spot, without its traps: only bash's own words tell.
  kernel_said
  reason="${cannot_execute%\"} (${quoted:1:-1})\"" retry=never
  could_not_start "$LINENO" exec "$status"
elif [[ $why == timeout ]]; then
  report '"failed"' '"timeout"' "\"still running after ${timeout_s} s\"" "$exit_code" "$signal"
elif [[ $why == signal ]]; then
  report '"failed"' '"signal"' "\"its launcher was told to end by SIG$told_by\"" null "$(kill -l "$told_by")"
elif [[ $why == stopped ]] || killed_on_request; then
  report '"failed"' '"stopped"' '"stopped on request"' "$exit_code" "$signal"
elif killed_for_memory; then
  report '"failed"' '"oom"' "$reason" "$exit_code" "$signal"
elif [[ $signal != null ]]; then
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
