"""What can be wrong with a Model beyond what the API server checks."""


class InvalidSpecError(ValueError):
    """A field of the spec that Berth cannot carry out.

    `field` is its path, the message one sentence with the way out.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message
