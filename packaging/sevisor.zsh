#compdef sevisor
# zsh completion for sevisor: by the one for bash, which asks `sevisor ... --help`.

_sevisor_of_bash() {
  local -a replies
  replies=("${(@f)$(COMP_LINE=$BUFFER bash -c '
    source "$1"; shift
    COMP_CWORD=$1; shift
    COMP_WORDS=("$@")
    _sevisor
    printf "%s\n" "${COMPREPLY[@]}"' complete "$1" $((CURRENT - 1)) "${words[@]}" 2>/dev/null)}")
  replies=("${(@)replies:#}")
  if (( ${#replies} )); then
    compadd -f -- "${replies[@]}"
  else
    _files
  fi
}

local folder
for folder in /usr/share /usr/local/share "${${(%):-%x}:A:h:h:h}"; do
  if [[ -r $folder/bash-completion/completions/sevisor ]]; then
    _sevisor_of_bash "$folder/bash-completion/completions/sevisor"
    return
  fi
done
_files
