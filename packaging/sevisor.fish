# fish completion for sevisor: by the one for bash, which asks `sevisor ... --help`.

function __sevisor_words
    set -l completion
    for folder in (path dirname (status filename))/../../bash-completion/completions /usr/share/bash-completion/completions /usr/local/share/bash-completion/completions
        test -r $folder/sevisor; and set completion $folder/sevisor; and break
    end
    test -n "$completion"; or return
    set -l words (commandline -opc) (commandline -ct)
    bash -c 'source "$1"; shift
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _sevisor
        printf "%s\n" "${COMPREPLY[@]}"' complete $completion $words 2>/dev/null
end
complete -c sevisor -f -a '(__sevisor_words)'
