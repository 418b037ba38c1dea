"""The part of the launcher that is the same for every attempt: a story in the order in which it happens.

It stands behind the assignments that `launcher.render` writes, and reads: claim, start, wait,
end, report. What it may count on is said there.
"""

from orchestra.model.launcher_end import END
from orchestra.model.launcher_tree import ENDING, TREE
from orchestra.model.trail import NOTES

# Names that the script uses, or that change how bash reads it: in the environment they are the worker's.
SHADOWED = "[a-z][a-z_]*|POSIXLY_CORRECT|FUNCNEST|EXECIGNORE|BASH_COMPAT"

_TOOLS = r"""
set +o posix
unset -v FUNCNEST EXECIGNORE BASH_COMPAT   # the narrator's may not rule here; the worker gets them back
export -n SHELLOPTS BASHOPTS               # and ours are not the worker's
set -Eeuo pipefail

# Before all else, as orchestra has set the timer already. Who is told to end on the way starts its
# worker and ends it.
pid=''                                    # of the worker, once it is started
why=''                                    # why we shall end the worker, if we shall
by_itself=''                              # whether the worker exited, and was not ended by a signal
told_by=''                                # the signal that said so, where it was not orchestra's
trap 'why=${why:-stopped}' USR1           # orchestra stop
trap 'why=${why:-timeout}' ALRM
# Somebody else, or the machine going down.
others=(HUP INT QUIT ABRT USR2 TERM STKFLT XCPU XFSZ VTALRM PROF IO PWR)
[[ $timeout_s != 0 ]] || others+=(ALRM)
for name in "${others[@]}"; do
  # shellcheck disable=SC2064
  trap "why=\${why:-signal} told_by=$name" "$name"
done

mark=$run_dir/.pid-$worker.json
sentinel=$run_dir/.spawn-$worker.error
here=$run_dir/attempts/$worker/$attempt   # no other attempt writes here
supervised=${1:-}                         # by orchestra: it has set the timer and made us the reaper of orphans
plain=${2:-}                              # and it has seen that the environment has no name of ours
kill_counter=${3:-}                       # where the kernel counts whom it kills in our cgroup for want of memory
callers_umask=${4:-$(umask)}
kills_before=${5:-}                       # what it had counted; nothing: not known
umask 077
reason=''
retry=later                               # what a failure is worth before the worker runs: the host is to blame
started_at=null
log_out=$run_dir/log-$worker.out
log_err=$run_dir/log-$worker.err
exec 8<"$run_dir"                         # as long as it is open, no other directory can be taken for it

stamp() {   # now: RFC 3339, UTC, milliseconds
  local clock=$EPOCHREALTIME
  TZ=UTC0 printf -v now '%(%Y-%m-%dT%H:%M:%S)T' "${clock%[.,]*}"
  clock=${clock#*[.,]}
  now+=.${clock:0:3}Z
}

json() {   # quoted: the text as a JSON string
  local code character
  quoted=${1//\\/\\\\}
  quoted=\"${quoted//\"/\\\"}\"
  for code in 0{1..9} 0{a..f} 1{0..9} 1{a..f}; do
    printf -v character '%b' "\\x$code"
    quoted=${quoted//"$character"/\\u00$code}
  done
}

report() {   # status verdict reason exit_code signal, all as JSON; on a full disk into reserved space
  local text flat
  stamp
  printf -v text '{"worker":"%s","attempt":%s,"status":%s,"verdict":%s,"reason":%s,"exit_code":%s,"signal":%s,"started_at":%s,"ended_at":"%s","worker_pid":%s,"token":"%s"}' \
    "$worker" "$attempt" "$1" "$2" "$3" "$4" "$5" "$started_at" "$now" "${pid:-null}" "$token"
  [[ $run_dir -ef /proc/$$/fd/8 ]] || return 0   # the run was taken away: nothing is done to what is in its place
  # What the worker may have put in our way: it is gone, and no FIFO may hold us up.
  [[ -d $here ]] || mkdir -p -- "$here"
  [[ ! -e $here/result.new && ! -e $here/result.json ]] || rm -rf -- "$here/result.new" "$here/result.json"
  if ! printf '%s\n' "$text" >"$here/result.new"; then
    printf '%s\n' "$text" 1<>"$here/reserve" && mv -f -- "$here/reserve" "$here/result.new"
  fi
  sync -- "$here/result.new" || :
  mv -f -- "$here/result.new" "$here/result.json"
  # Where another attempt's mark stands, this one was abandoned: not told under the flat name.
  if [[ ! -e $mark || $mark -ef /proc/$$/fd/7 ]]; then
    flat=$run_dir/result-$worker.json
    [[ ! -d $flat ]] || rm -rf -- "$flat"
    ln -f -- "$here/result.json" "$flat" ||   # where there are no hard links
      { cp -- "$here/result.json" "$here/flat.new" && mv -f -- "$here/flat.new" "$flat"; }
  fi
}

launcher_broke() {   # line command status: a step of this launcher failed; how its worker did is not known
  local i
  trap - ERR EXIT
  [[ -n $pid ]] || could_not_start "$@"
  set +eu
  for ((i = 0; i < 200; i++)); do   # what it has started must not outlive it
    tree=()
    descendants $$
    [[ -n $supervised ]] || carriers   # else its orphans are ours
    [[ ${#tree[@]} -gt 0 ]] || break
    kill -KILL "${tree[@]}" 2>/dev/null
  done
  json "$2"
  report '"failed"' '"lost"' "\"its launcher failed at line $1 with status $3, and took it along: ${quoted:1}" null null
  clear_away
  exit 70
}

could_not_start() {   # line command status: the worker could not start; nor has anything else that was begun a use
  trap - ERR EXIT
  set +eu
  umask 077
  tree=()
  descendants $$
  [[ ${#tree[@]} == 0 ]] || kill -KILL "${tree[@]}" 2>/dev/null
  [[ $run_dir -ef /proc/$$/fd/8 ]] || exit 70   # as in `report`
  stamp
  json "$2"
  [[ -n $reason ]] || reason="\"the launcher failed at line $1 with status $3: ${quoted:1}"
  if printf '{"worker":"%s","attempt":%s,"line":%s,"command":%s,"exit_code":%s,"reason":%s,"retry":"%s","at":"%s","token":"%s"}\n' \
    "$worker" "$attempt" "$1" "$quoted" "$3" "$reason" "$retry" "$now" "$token" >"$here/error.new"; then
    mv -f -- "$here/error.new" "$sentinel"
  else
    rm -f -- "$here/error.new"
  fi
  report '"failed"' '"spawn_error"' "$reason" "$3" null
  [[ -n $supervised ]] || printf '%s could not start: %s\n' "$worker" "${reason:1:-1}" >&2
  clear_away
  exit 70
}

clear_away() {   # what is there for the time of the attempt only
  rm -rf -- "$tmp_dir"
  [[ ! $run_dir -ef /proc/$$/fd/8 ]] || rm -rf -- "$here"/{@NOTES@}
}
"""

_STORY = r"""
# --- claim -------------------------------------------------------------------------------
trap 'launcher_broke "$LINENO" "$BASH_COMMAND" "$?"' ERR EXIT
IFS=' ' read -r -a stat <"/proc/$$/stat"
if [[ -z $supervised ]]; then   # by hand: maybe another boot, another machine, another container
  read -r boot_id </proc/sys/kernel/random/boot_id
  read -r host </proc/sys/kernel/hostname
  pid_ns=$(stat -Lc %i /proc/self/ns/pid 2>/dev/null) || pid_ns=0   # 0: not known
  machine_id=''
  [[ ! -r /etc/machine-id ]] || read -r machine_id </etc/machine-id || :
  [[ $machine_id =~ ^[0-9a-f]+$ ]] || machine_id=''
  json "$host"
  host_json=$quoted
fi
stamp
started_at=\"$now\"
printf -v claim '{"worker":"%s","attempt":%s,"pid":%s,"process_start":%s,"boot_id":"%s","host":%s,"pid_ns":%s,"machine_id":"%s","token":"%s","started_at":"%s","tmp_dir":%s}' \
  "$worker" "$attempt" $$ "${stat[21]}" "$boot_id" "$host_json" "$pid_ns" "$machine_id" "$token" "$now" "$tmp_dir_json"
refrain() {
  trap - ERR EXIT
  printf 'attempt %s of %s has been claimed already: its launcher starts nothing twice\n' "$attempt" "$worker" >&2
  exit 75
}

made=''
set -o noclobber
if { made=yes; printf '%s\n' "$claim"; } >"$mark"; then   # not with a "!", which a failed redirection ignores
  set +o noclobber
else
  set +o noclobber
  [[ -n $made || ! -e $mark ]] || refrain   # another launcher has claimed this attempt: it is running, or was
  reason='"the mark could not be written"'
  false
fi
exec 7<"$mark"   # as long as it is open, no other file can be taken for it
# Who was held up on the way here may have been given up meanwhile, and the attempt be another's.
# (In a result attempt and status stand side by side, whoever wrote it.)
told=''
standing=''
IFS= read -r standing <&7 || :
[[ ! -f $run_dir/result-$worker.json ]] || told=$(head -c 4096 -- "$run_dir/result-$worker.json" | tr -d '\0')
[[ $standing == "$claim" && ${told// /} != *"\"attempt\":$attempt,\"status\":\"failed\""* ]] || refrain

# --- start -------------------------------------------------------------------------------
[[ -n $supervised ]] || { mkdir -p -- "$here" "$out" "$tmp_dir"; exec 3>/dev/null; }
exec 4>"$log_out" 5>"$log_err" 6<"$stdin"
retry=never                                # what is wrong here stays so until it is mended
reason=$no_directory
cd -- "$cwd"
reason=$no_command
PATH=$path type -P -- "${argv[0]}" >/dev/null
[[ ${argv[0]} != */* || -f ${argv[0]} ]]   # a pipe would hold us for ever
retry=later
reason='"no process could be had for the worker"'
export ORCHESTRA_RUN_DIR=$run_dir ORCHESTRA_WORKER=$worker ORCHESTRA_ATTEMPT=$attempt
export ORCHESTRA_OUT=$out ORCHESTRA_BRIEF=$run_dir/brief-$worker.md
export ORCHESTRA_HEARTBEAT=$here/heartbeat ORCHESTRA_TOKEN=$token TMPDIR=$tmp_dir
become_worker() {   # in a process of its own; what goes wrong is told as bash tells that it cannot execute
  trap 'printf "%s: line %s: %s\n" "$0" "$LINENO" "$BASH_COMMAND" >&2; trap - ERR; exit 126' ERR
  trap - INT QUIT
  umask "$callers_umask"
  # From here on a name like `token` or `out` is the worker's own, if its environment has one.
  set -- "${argv[@]}"
  if [[ -z $plain ]]; then
    mapfile -d '' -t ORCHESTRA_GIVEN <"/proc/$$/environ"
    for ORCHESTRA_PAIR in "${ORCHESTRA_GIVEN[@]}"; do
      if [[ $ORCHESTRA_PAIR =~ ^(FUNCNEST|EXECIGNORE)= ]]; then
        set -- env "$ORCHESTRA_PAIR" "$@"   # bash itself would obey
      elif [[ $ORCHESTRA_PAIR =~ ^(@SHADOWED@)= ]]; then
        unset -v "${ORCHESTRA_PAIR%%=*}"
        export "${ORCHESTRA_PAIR?}"
      fi
    done
  fi
  environment 2>/dev/null   # a locale that is not there is no concern of ours
  exec -- "$@" 3>&-
}
if [[ -z $supervised && $timeout_s != 0 ]]; then
  { trap - ERR EXIT; sleep "$timeout_s"; while kill -ALRM $$; do sleep 1; done; } &
  disown   # the worker is job 1
fi
set -m   # a process group of its own: a worker that signals its group means its own children
( become_worker ) <&6 >&4 2>&5 4>&- 5>&- 6<&- 7<&- 8<&- &
pid=$!
set +m
reason=''
trap '' PIPE
printf '%s\n' "$worker" >&3 2>/dev/null || :   # the sign of life; nobody may be there to see it
exec 3>&- 4>&- 5>&- 6<&-

# --- wait --------------------------------------------------------------------------------
reap() {   # status, by_itself: how the worker ended, if it has; bash keeps no job that a signal has ended
  status=0
  # Until it ends, or a trap says why it shall: a reason is no PID, so that wait fails at once.
  wait "${why:-$pid}" 2>/dev/null || status=$?
  [[ -e /proc/$pid ]] || ! jobs %1 &>/dev/null || by_itself=yes
}

reap

# --- end ---------------------------------------------------------------------------------
trap '' ALRM USR1 "${others[@]}"
@ENDING@
asked=$why
if [[ -n $why ]]; then
  ! is_gone "$pid" || why=''   # it had ended before we were told to end it
  end_tree
  why='' reap
  # Told in the very instant of its end, bash has reaped it and forgotten how: it says 127, or -1.
  [[ $status != -1 && ($status != 127 || -n $by_itself) ]] || { why=$asked status=null by_itself=''; }
fi
end_tree   # what is left of a worker that has ended
trap - ERR EXIT
set +e
"""

BODY = (
    (_TOOLS + TREE + _STORY.replace("@ENDING@", ENDING) + END)
    .replace("@SHADOWED@", SHADOWED)
    .replace("@NOTES@", ",".join(NOTES))
)
