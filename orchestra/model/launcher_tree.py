"""What a launcher knows of the processes that its attempt started: which they are, and how they end."""

TREE = r"""
# --- what was started --------------------------------------------------------------------
is_gone() {   # process $1, if not yet reaped
  local line=''
  local -a threads=(/proc/"$1"/task/*)
  { IFS= read -r -d '' line <"/proc/$1/stat"; } 2>/dev/null || :
  [[ -z $line || (${line##*) } == [ZX]* && ${#threads[@]} -le 1) ]]   # its main thread alone may have ended
}

descendants() {   # of process $1, added to tree
  local file kid
  local -a kids
  for file in /proc/"$1"/task/*/children; do
    kids=()
    { read -r -a kids <"$file"; } 2>/dev/null || :
    for kid in "${kids[@]}"; do
      is_gone "$kid" || tree+=("$kid")
      descendants "$kid"
    done
  done
}

look_at() {   # variables: the environment of process $1; one that is just becoming another program has none for a moment
  local i line tries=20
  local -a stat
  for ((i = 0; i < 10000 && tries > 0; i++)); do
    variables=() line=''
    { mapfile -d '' -t variables <"/proc/$1/environ"; } 2>/dev/null || break   # gone, or another user's
    [[ ${#variables[@]} == 0 ]] || break
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || break
    IFS=' ' read -r -a stat <<<"${line##*) }"
    [[ ${stat[20]} != 0 ]] || break      # no memory: the kernel's own, or a zombie
    [[ ${stat[24]} != 0 ]] || continue   # its code is not in place yet
    # It begins where it ends: it has none. Else it has come only now; or was thrown away by its process.
    [[ ${stat[47]} != "${stat[48]}" ]] || break
    tries=$((tries - 1))
  done
}

carriers() {   # of the token, whatever session or parent they have, added to tree
  local dir variable
  local -a variables
  for dir in /proc/[0-9]*; do
    look_at "${dir#/proc/}"
    [[ ${dir#/proc/} != "$$" && " ${variables[*]} " == *" ORCHESTRA_TOKEN=$token "* ]] || continue
    for variable in "${variables[@]}"; do   # it may stand in another's text
      [[ $variable != "ORCHESTRA_TOKEN=$token" ]] || { tree+=("${dir#/proc/}"); break; }
    done
  done
}
"""

ENDING = r"""
clock() {   # second: whole ones since the machine came up; the time of day may jump
  read -r second _ </proc/uptime
  second=${second%.*}
}

heed_grace() {   # orchestra stop --grace: a stop gives what it says; what is said later can only hasten the end
  local given='' by
  [[ ! -f $here/grace ]] || { given=$(head -c 64 -- "$here/grace"); } 2>/dev/null || :
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
    { sleep 0.03; } 2>/dev/null || :   # bash says there who was killed
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
"""
