"""The person's podTemplate, merged last into the rendered one."""

from typing import Any

from berth.planning.errors import InvalidSpecError


def merge_pod_template(
    rendered: dict[str, Any], partial: dict[str, Any], *, allow_unsafe: bool
) -> dict[str, Any]:
    """The rendered template with the person's wishes. Raises InvalidSpecError with the path of what is refused."""
    raise InvalidSpecError("podTemplate", "not supported yet")
