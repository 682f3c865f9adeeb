# bash completion for sevisor: commands, options and their values are those that `sevisor ... --help` lists.

_sevisor() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} program=${COMP_WORDS[0]}
  local word help names choices command=() i
  COMPREPLY=()
  # bash splits --host=emulated into three words.
  if [[ $current == = ]]; then
    current=
  elif [[ $previous == = ]] && ((COMP_CWORD > 2)); then
    previous=${COMP_WORDS[COMP_CWORD - 2]}
  fi
  # The command's words: those before the first option.
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    [[ $word == -* ]] && break
    [[ $word == help && $i -eq 1 ]] && continue
    help=$("$program" "${command[@]}" --help 2>/dev/null) || return
    names=$(awk '/^Subcommands:$/ { b = 1; next } /^$/ { b = 0 } b && /^  [^ ]/ { print $1 }' <<<"$help")
    grep -qxF -- "$word" <<<"$names" || break
    command+=("$word")
  done
  help=$("$program" "${command[@]}" --help 2>/dev/null) || return

  if [[ $previous == -* ]]; then
    # What follows the option in the help: a list of choices, a kind of value, or nothing when it takes none.
    choices=$(awk -v option="$previous" '/^  -/ {
      split($1, spellings, ",")
      for (k in spellings) if (spellings[k] == option && match($0, /^  [^ ]+ [^ ]+/)) { print $2; exit }
    }' <<<"$help")
    # Names of CPU types are listed in its text.
    [[ $choices == NAME* && $previous == --*cpu-type ]] && choices=$(grep -o 'EPYC[-A-Za-z0-9]*' <<<"$help" | sort -u | paste -sd '|')
    if [[ $choices == *[A-Za-z]*'|'* && $choices != *FILE* ]]; then
      choices=${choices%=*}
      mapfile -t COMPREPLY < <(compgen -W "${choices//|/ }" -- "$current")
      return
    fi
    # A file, or something that only the user knows: the names of files.
    if [ -n "$choices" ]; then
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
      return
    fi
  fi
  if [[ $current == -* ]]; then
    names=$(awk '/^  -/ { gsub(",", "\n", $1); print $1 }' <<<"$help")
  else
    names=$(awk '/^Subcommands:$/ { b = 1; next } /^$/ { b = 0 } b && /^  [^ ]/ { print $1 }' <<<"$help")
    [ -n "$names" ] || mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
  [ -z "$names" ] || mapfile -t COMPREPLY < <(compgen -W "$names" -- "$current")
}
complete -o filenames -o bashdefault -F _sevisor sevisor
