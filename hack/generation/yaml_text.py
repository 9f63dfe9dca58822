"""How generated YAML is written."""

from typing import Any

import yaml


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, and no node is replaced by a reference to an equal one."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def yaml_text(document: dict[str, Any]) -> str:
    """One document, its keys in their order."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return text
