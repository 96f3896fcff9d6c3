"""Write what is generated: from rltrainer/api the CRDs and their policies, the chart's copy of both,
docs/reference.md and the types of `rltrainer.train`, and from the command line's own parsers docs/cli.md.

`--check` writes nothing and fails where one of them is stale.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hack.stubs import stub
from rltrainer.api.admission import policies
from rltrainer.api.crd import crds
from rltrainer.cli import parser as command_line
from rltrainer.cli.completion import commands_of

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Generated from rltrainer/api by `make generate`.\n"
KEEP = {"helm.sh/resource-policy": "keep"}

Schema = dict[str, Any]


class Dumper(yaml.SafeDumper):
    """A writer that writes everything out: no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(*manifests: Schema) -> str:
    """Write YAML that is the same for the same manifests."""
    return HEADER + yaml.dump_all(manifests, Dumper=Dumper, sort_keys=False, width=120, allow_unicode=True)


def kept(crd: Schema) -> Schema:
    """Return a CRD that uninstalling the chart leaves."""
    return crd | {"metadata": crd["metadata"] | {"annotations": KEEP}}


def chart_template(*manifests: Schema) -> str:
    """Return manifests as a template of the chart, which a person may switch off."""
    return f"{{{{- if .Values.crds.install }}}}\n{dump(*manifests)}{{{{- end }}}}\n"


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Walk every field below a schema: its path, its own schema, and whether it must be there."""
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, field, name in schema.get("required", [])
        yield from fields(field, here)
        if "items" in field:
            yield from fields(field["items"], f"{here}[]")
        if "additionalProperties" in field:
            yield from fields(field["additionalProperties"], f"{here}.*")


def kind_of(field: Schema) -> str:
    """Tell the field's type, and its bounds, in a few words."""
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if "items" in field:
        return f"list of {kind_of(field['items'])}"
    bounds = []
    if "minimum" in field:
        bounds.append(f"{'>' if field.get('exclusiveMinimum') else '≥'} {field['minimum']}")
    if "maximum" in field:
        bounds.append(f"{'<' if field.get('exclusiveMaximum') else '≤'} {field['maximum']}")
    name: str = field.get("type", "any value")
    if name == "object" and "properties" not in field and field.get("x-kubernetes-preserve-unknown-fields"):
        name = "any object"
    return name + (f", {', '.join(bounds)}" if bounds else "")


def default_of(field: Schema, required: bool) -> str:
    """Tell the field's default in the table."""
    if required:
        return "required"
    value = field.get("default")
    return "" if value in (None, {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table(schema: Schema, path: str) -> str:
    """Return the fields of a schema as a table."""
    rows = [
        f"| `{where}` | {kind_of(field)} | {default_of(field, required)} | {field.get('description', '')} |"
        for where, field, required in fields(schema, path)
    ]
    return "\n".join(["| field | type | default | meaning |", "| --- | --- | --- | --- |", *rows])


def reference() -> str:
    """Return docs/reference.md."""
    parts = [
        "<!-- Generated from rltrainer/api by `make generate`. -->\n"
        "# Reference\n\n"
        "Every field of the documents, as `kubectl explain rlx.spec` and `rltrainer describe` show it too. "
        "Options in `spec.config` belong to all algorithms unless their description says whose they are."
    ]
    for crd in crds().values():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        parts.append(f"## {crd['spec']['names']['kind']}\n\n{schema['description']}")
        parts += [f"### {part}\n\n{table(schema['properties'][part], part)}" for part in ("spec", "status")]
        rules = [f"- {rule['message']}" for rule in schema["x-kubernetes-validations"]]
        parts += ["### Rules\n\n" + "\n".join(rules)]
    return "\n\n".join(parts) + "\n"


CLI_INTRO = """\
<!-- Generated from rltrainer/cli by `make generate`. -->
# The command line

`rltrainer COMMAND --help` says the same. Exit codes: 0 done; 2 the command line, the document or its environment is
wrong, and no retry helps; 1 anything else; 128 + n after signal n. Results go to standard output, notes and the log to
standard error.

A CHECKPOINT is one of

- a folder or an `s3://` URI of a checkpoint (`.../checkpoints/checkpoint_000010`);
- the same of a run, whose best checkpoint by the run's own `scoreAttribute` is taken, or with `RUN/latest` or
  `--which latest` its newest;
- the same of a search, whose best trial is taken;
- the name of an RLExperiment in the cluster of the kubeconfig's current context. Its status says where the checkpoint
  is, its document (or the operator's settings) how storage is reached, and the Secret that it names has the
  credentials, which are taken from the environment where the Secret cannot be read. Where storage's endpoint is known
  only inside the cluster, forward its port and give `--endpoint`.

Completion: `source <(rltrainer completion bash)`, the same with `zsh`, or `rltrainer completion fish | source`."""


def command_reference() -> str:
    """Return docs/cli.md."""
    parts = [CLI_INTRO]
    for name, sub in commands_of(command_line()).items():
        parts.append(f"## rltrainer {name}\n\n{sub.description}")
        for title, actions in argument_groups(sub).items():
            rows = [argument_row(action, sub) for action in actions]
            parts += [f"### {title}"] * bool(title)
            parts.append("\n".join(["| argument | meaning |", "| --- | --- |", *rows]))
    return "\n\n".join(parts) + "\n"


def argument_groups(sub: argparse.ArgumentParser) -> dict[str, list[argparse.Action]]:
    """Return the arguments of a command by the title of their group; those of no group first."""
    groups: dict[str, list[argparse.Action]] = {"": []}
    for group in sub._action_groups:
        plain = group.title in ("positional arguments", "options")
        actions = [action for action in group._group_actions if "--help" not in action.option_strings]
        groups.setdefault("" if plain else (group.title or "").capitalize(), []).extend(actions)
    return {title: actions for title, actions in groups.items() if actions}


def argument_row(action: argparse.Action, sub: argparse.ArgumentParser) -> str:
    """Return an argument of a command as a row of its table."""
    choices = "{" + ",".join(str(choice) for choice in action.choices or ()) + "}"
    value = action.metavar or (choices if action.choices else "")
    takes = f" {value}" if value and action.nargs != 0 else ""
    names = ", ".join(f"`{name}{takes}`" for name in action.option_strings) or f"`{value}`"
    about = (action.help or "") % {**vars(action), "prog": sub.prog}
    return f"| {names} | {about.replace('|', '/')} |"


def generated() -> dict[Path, str]:
    """Return the content of every generated file."""
    templates = ROOT / "charts" / "rl-operator" / "templates" / "crds"
    files = {ROOT / "docs" / "reference.md": reference(), ROOT / "docs" / "cli.md": command_reference()}
    files[ROOT / "rltrainer" / "__init__.pyi"] = stub()
    for name, crd in crds().items():
        files[ROOT / "crds" / name] = dump(crd)
        files[templates / name] = chart_template(kept(crd))
    files[ROOT / "crds" / "policies.yaml"] = dump(*policies())
    files[templates / "policies.yaml"] = chart_template(*policies())
    return files


def main() -> int:
    """Write the files, or with --check compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is stale")
    check = parser.parse_args().check
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(generated()[path])
        print(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}")
    if check and stale:
        print("error: run `make generate` and commit what it writes", file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
