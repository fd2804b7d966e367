"""Completion scripts for bash, zsh and fish, and their installation."""

from __future__ import annotations

import os
from pathlib import Path

from finetune.errors import UsageError

# No space is added after candidates that end with a dot or an equals sign (keys) or a slash (folders).
BASH = r"""_finetune_completion() {
    local found
    COMPREPLY=()
    found=$(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
        _FINETUNE_COMPLETE=complete_bash "$1" 2>/dev/null) || { compopt -o default; return; }
    [[ -n $found ]] && mapfile -t COMPREPLY <<< "$found"
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=./] ]] && compopt -o nospace
    return 0
}
complete -F _finetune_completion finetune
"""

ZSH = r"""#compdef finetune
_finetune_completion() {
    local found line value
    local -a partial partial_shown complete complete_shown
    found=$(COMP_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" _FINETUNE_COMPLETE=complete_zsh \
        "${words[1]}" 2>/dev/null) || { _files; return }
    for line in "${(@f)found}"; do
        value=${line%%$'\t'*}
        [[ -z $value ]] && continue
        line="$value${${line#*$'\t'}:+  -- ${line#*$'\t'}}"
        if [[ $value == *[=./] ]]; then
            partial+=("$value") partial_shown+=("$line")
        else
            complete+=("$value") complete_shown+=("$line")
        fi
    done
    (( $#partial )) && compadd -l -S '' -d partial_shown -a partial
    (( $#complete )) && compadd -l -d complete_shown -a complete
}
if [[ $funcstack[1] == _finetune ]]; then  # read from fpath, at any Tab
    _finetune_completion "$@"
else
    compdef _finetune_completion finetune
fi
"""

FISH = r"""function __finetune_completion
    set -l line (commandline -cp)
    set -l found (env COMP_LINE="$line" _FINETUNE_COMPLETE=complete_fish finetune 2>/dev/null)
    if test $status -eq 0
        string join \n -- $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete --command finetune --no-files --arguments '(__finetune_completion)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def detect_shell() -> str:
    """Return the user's shell; raises ``UsageError`` for a shell without a script."""
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SCRIPTS:
        raise UsageError(f"no completion for the shell '{shell}'; write SHELL=bash, zsh or fish before the command")
    return shell


def install_script(shell: str) -> Path:
    """Install the completion script of a shell and return its file.

    Adds a line that loads it to ``.bashrc`` or ``.zshrc``, once.
    """
    from finetune.files import atomic
    from finetune.files.atomic import translate_disk_errors

    home = Path.home()
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    zshrc = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    places = {
        "bash": (home / ".bash_completions/finetune.sh", home / ".bashrc", "source ~/.bash_completions/finetune.sh"),
        "zsh": (home / ".zfunc/_finetune", zshrc, "fpath+=~/.zfunc; autoload -Uz compinit; compinit"),
        "fish": (settings / "fish/completions/finetune.fish", None, ""),
    }
    file, started, reads = places[shell]
    with translate_disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(file, SCRIPTS[shell])
    if started is not None:
        with translate_disk_errors(started):
            before = started.read_bytes() if started.exists() else b""
            if reads.encode() not in before.splitlines():
                with started.open("ab") as added:  # a link stays a link
                    added.write(b"\n" * bool(before and not before.endswith(b"\n")) + reads.encode() + b"\n")
    return file
