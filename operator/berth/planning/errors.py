"""What can be wrong with a spec beyond what the API server checks."""

from pydantic import ValidationError


class InvalidSpecError(ValueError):
    """A field of the spec that Berth cannot carry out.

    `field` is its path, the message one sentence with the way out.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def first_error(error: ValidationError) -> tuple[str, str]:
    """The path of the first field that does not fit its type, and why."""
    first = error.errors(include_url=False)[0]
    return "spec." + ".".join(str(part) for part in first["loc"]), first["msg"]
