"""How much a server has to do, read from its metrics. Nothing heavy is imported: the drain sidecar uses this too."""

import math
import re


def sample_sum(text: str, name: str) -> float | None:
    """The sum of all samples of a metric in Prometheus text format, whatever their labels.

    None when there is no sample, or one that is no finite number: then nothing is known. Only the lines of this
    metric are looked at, so that what a server writes about other things cannot hide it.
    """
    # An anchor in the pattern would have every line tried; without one its fixed beginning is searched for.
    found = re.finditer(rf"{re.escape(name)}(?:\{{.*\}})?[ \t]+(\S+)", text)
    try:
        numbers = [float(one[1]) for one in found if one.start() == 0 or text[one.start() - 1] == "\n"]
    except ValueError:
        return None
    return sum(numbers) if numbers and all(map(math.isfinite, numbers)) else None
