"""`rltrainer completion`: a script that has a shell complete this command line, made from its parser."""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rltrainer.api.options import OPTIONS

PATHS = {"FILE", "DIR", "PATH", "CHECKPOINT", "RUN"}
"""Names of arguments that are files or folders."""
ALGORITHM = "ALGORITHM"


@dataclass(frozen=True)
class Option:
    """An argument of a command, as shells see it."""

    names: list[str]
    """None for a positional one."""
    help: str
    takes: bool
    """Whether a value follows it."""
    words: list[str]
    """The values to choose from."""
    path: bool
    """Whether the value is a file or a folder."""


def arguments(sub: argparse.ArgumentParser) -> None:
    """What `completion` takes."""
    sub.add_argument("shell", choices=sorted(SCRIPTS), help="the shell to make the script for")


def main(arguments: argparse.Namespace) -> int:
    """Prints the script for a shell."""
    from rltrainer.cli import parser  # noqa: PLC0415 - it knows this module

    sys.stdout.write("\n".join(SCRIPTS[arguments.shell](commands_of(parser()))) + "\n")
    return 0


def commands_of(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands by name."""
    (sub,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return dict(sub.choices)


def options_of(sub: argparse.ArgumentParser) -> list[Option]:
    """What a command takes."""
    return [_option(action) for action in sub._actions]


def _option(action: argparse.Action) -> Option:
    metavar = str(action.metavar or "")
    algorithm = metavar == ALGORITHM or "--run" in action.option_strings
    words = sorted(OPTIONS) if algorithm else [str(choice) for choice in action.choices or ()]
    return Option(
        names=list(action.option_strings),
        help=str(action.help or "").partition(";")[0].replace("%(default)s", str(action.default)),
        takes=action.nargs != 0,
        words=words,
        path=metavar in PATHS,
    )


Commands = dict[str, argparse.ArgumentParser]


def bash(commands: Commands) -> Iterator[str]:
    """For bash: a function that looks at the command, the word before, and the word that is begun."""
    yield "# rltrainer for bash: source <(rltrainer completion bash)"
    yield "_rltrainer() {"
    yield '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"'
    yield "  COMPREPLY=()"
    yield '  if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'    COMPREPLY=( $(compgen -W "{" ".join([*commands, "--help", "--version"])}" -- "$current") )'
    yield "    return"
    yield "  fi"
    yield '  case "${COMP_WORDS[1]}:$previous" in'
    for values, after in _values(commands).items():
        yield f"    {'|'.join(after)}) {values}; return ;;"
    yield "  esac"
    yield '  case "${COMP_WORDS[1]}" in'
    for name, sub in commands.items():
        yield f"    {name})"
        yield from (f"      {line}" for line in _bash_words(options_of(sub)))
        yield "      ;;"
    yield "  esac"
    yield "}"
    yield "complete -o filenames -F _rltrainer rltrainer"


def _values(commands: Commands) -> dict[str, list[str]]:
    """What completes a value, and the flags of each command that it does so for."""
    found: dict[str, list[str]] = {}
    for name, sub in commands.items():
        for option in options_of(sub):
            if option.takes:
                found.setdefault(_bash_values(option), []).extend(f"{name}:{each}" for each in option.names)
    return {values: after for values, after in found.items() if after}


def _bash_values(option: Option) -> str:
    if option.words:
        return f'COMPREPLY=( $(compgen -W "{" ".join(option.words)}" -- "$current") )'
    return "local IFS=$'\\n'; COMPREPLY=( $(compgen -f -- \"$current\") )" if option.path else ":"


def _bash_words(options: list[Option]) -> Iterator[str]:
    """The flags of a command, and where no flag is begun what stands without one."""
    flags = " ".join(name for option in options for name in option.names)
    yield 'case "$current" in'
    yield f'  -*) COMPREPLY=( $(compgen -W "{flags}" -- "$current") ) ;;'
    plain = [_bash_values(option) for option in options if not option.names]
    yield f"  *) {plain[0] if plain else ':'} ;;"
    yield "esac"


def zsh(commands: Commands) -> Iterator[str]:
    """For zsh, which can run bash's."""
    yield "# rltrainer for zsh: source <(rltrainer completion zsh)"
    yield "autoload -U +X compinit && compinit"
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from list(bash(commands))[1:]


def fish(commands: Commands) -> Iterator[str]:
    """For fish: a line for each word that can be said."""
    yield "# rltrainer for fish: rltrainer completion fish | source"
    yield "complete -c rltrainer -f"
    for name, sub in commands.items():
        about = _quoted((sub.description or "").rstrip("."))
        yield f"complete -c rltrainer -n __fish_use_subcommand -a {name} -d {about}"
        for option in options_of(sub):
            yield f"complete -c rltrainer -n {_quoted(f'__fish_seen_subcommand_from {name}')}{_fish(option)}"


def _fish(option: Option) -> str:
    names = "".join(f" -l {each[2:]}" if each.startswith("--") else f" -s {each[1:]}" for each in option.names)
    values = f" -a {_quoted(' '.join(option.words))}" if option.words else ""
    files = " -F" if option.path else ""
    required = " -r" if option.takes and option.names else ""
    return f"{names}{required}{files}{values} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[Commands], Iterator[str]]] = {"bash": bash, "fish": fish, "zsh": zsh}
