"""`rltrainer completion`: shell completion scripts, generated from the parser."""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rltrainer.api.options import OPTIONS

PATHS = {"FILE", "DIR", "PATH", "CHECKPOINT", "RUN"}
"""Names of arguments that are files or folders."""
ALGORITHM = "ALGORITHM"


@dataclass(frozen=True)
class Completion:
    """An argument of a command, for a completion script."""

    names: list[str]
    """Empty for a positional argument."""
    help: str
    has_value: bool
    choices: list[str]
    is_path: bool
    """Whether the value is a file or a folder."""


def arguments(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `completion`."""
    sub.add_argument("shell", choices=sorted(SCRIPTS), help="the shell to make the script for")


def main(arguments: argparse.Namespace) -> int:
    """Print the script for a shell."""
    from rltrainer.cli import parser  # noqa: PLC0415 - it imports this module

    sys.stdout.write("\n".join(SCRIPTS[arguments.shell](commands_of(parser()))) + "\n")
    return 0


def commands_of(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands by name."""
    (sub,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return dict(sub.choices)


def options_of(sub: argparse.ArgumentParser) -> list[Completion]:
    """Return the arguments of a command."""
    return [_option(action) for action in sub._actions]


def _option(action: argparse.Action) -> Completion:
    metavar = str(action.metavar or "")
    algorithm = metavar == ALGORITHM or "--run" in action.option_strings
    choices = sorted(OPTIONS) if algorithm else [str(choice) for choice in action.choices or ()]
    return Completion(
        names=list(action.option_strings),
        help=str(action.help or "").partition(";")[0].replace("%(default)s", str(action.default)),
        has_value=action.nargs != 0,
        choices=choices,
        is_path=metavar in PATHS,
    )


Commands = dict[str, argparse.ArgumentParser]


def bash(commands: Commands) -> Iterator[str]:
    """Yield the script for bash: a function of the command, the previous word and the current word."""
    yield "# rltrainer for bash: source <(rltrainer completion bash)"
    yield "_rltrainer() {"
    yield '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"'
    yield "  COMPREPLY=()"
    yield '  if [ "$COMP_CWORD" -eq 1 ]; then'
    yield f'    COMPREPLY=( $(compgen -W "{" ".join([*commands, "--help", "--version"])}" -- "$current") )'
    yield "    return"
    yield "  fi"
    yield '  case "${COMP_WORDS[1]}:$previous" in'
    for values, flags in _value_completions(commands).items():
        yield f"    {'|'.join(flags)}) {values}; return ;;"
    yield "  esac"
    yield '  case "${COMP_WORDS[1]}" in'
    for name, sub in commands.items():
        yield f"    {name})"
        yield from (f"      {line}" for line in _bash_words(options_of(sub)))
        yield "      ;;"
    yield "  esac"
    yield "}"
    yield "complete -o filenames -F _rltrainer rltrainer"


def _value_completions(commands: Commands) -> dict[str, list[str]]:
    """Return each way to complete a value, with the flags that it is for, as command:flag."""
    flags: dict[str, list[str]] = {}
    for name, sub in commands.items():
        for option in options_of(sub):
            if option.has_value:
                flags.setdefault(_bash_values(option), []).extend(f"{name}:{each}" for each in option.names)
    return {values: names for values, names in flags.items() if names}


def _bash_values(option: Completion) -> str:
    if option.choices:
        return f'COMPREPLY=( $(compgen -W "{" ".join(option.choices)}" -- "$current") )'
    return "local IFS=$'\\n'; COMPREPLY=( $(compgen -f -- \"$current\") )" if option.is_path else ":"


def _bash_words(options: list[Completion]) -> Iterator[str]:
    """Yield the completion of a command's flags, and of its positional argument where the word is no flag."""
    flags = " ".join(name for option in options for name in option.names)
    yield 'case "$current" in'
    yield f'  -*) COMPREPLY=( $(compgen -W "{flags}" -- "$current") ) ;;'
    positional = [_bash_values(option) for option in options if not option.names]
    yield f"  *) {positional[0] if positional else ':'} ;;"
    yield "esac"


def zsh(commands: Commands) -> Iterator[str]:
    """Yield the script for zsh, which can run bash's."""
    yield "# rltrainer for zsh: source <(rltrainer completion zsh)"
    yield "autoload -U +X compinit && compinit"
    yield "autoload -U +X bashcompinit && bashcompinit"
    yield from list(bash(commands))[1:]


def fish(commands: Commands) -> Iterator[str]:
    """Yield the script for fish: a line for each command and flag."""
    yield "# rltrainer for fish: rltrainer completion fish | source"
    yield "complete -c rltrainer -f"
    for name, sub in commands.items():
        about = _quoted((sub.description or "").rstrip("."))
        yield f"complete -c rltrainer -n __fish_use_subcommand -a {name} -d {about}"
        for option in options_of(sub):
            yield f"complete -c rltrainer -n {_quoted(f'__fish_seen_subcommand_from {name}')}{_fish(option)}"


def _fish(option: Completion) -> str:
    names = "".join(f" -l {each[2:]}" if each.startswith("--") else f" -s {each[1:]}" for each in option.names)
    values = f" -a {_quoted(' '.join(option.choices))}" if option.choices else ""
    files = " -F" if option.is_path else ""
    required = " -r" if option.has_value and option.names else ""
    return f"{names}{required}{files}{values} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SCRIPTS: dict[str, Callable[[Commands], Iterator[str]]] = {"bash": bash, "fish": fish, "zsh": zsh}
