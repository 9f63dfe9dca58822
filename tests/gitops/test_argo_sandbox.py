"""The sandbox of the tests is as narrow as Argo CD's own."""

import re

import pytest
from lupa.lua51 import LuaError

from support import argo_lua


@pytest.mark.parametrize(
    "script",
    [
        'return { status = string.upper("x") }',
        'return { status = ("x"):upper() }',
        "return math.floor(1.5)",
        "return os.time()",
        'return io.open("/etc/passwd")',
        "return debug.traceback()",
        "return coroutine.create(print)",
        'return require("string")',
        'return require("os").execute("true")',
        'return dofile("/etc/passwd")',
        'return package.loaded.string.upper("x")',
        'return getmetatable("").__index.upper("x")',
        "return python.builtins",
    ],
)
def test_what_argo_does_not_give_is_not_there(script: str) -> None:
    with pytest.raises(LuaError):
        argo_lua.run(script, {})


def test_what_argo_gives_is_there() -> None:
    script = """
    local os = require("os")
    local words = {}
    for _, word in ipairs(obj.words) do table.insert(words, word) end
    return { text = table.concat(words, " "), date = os.date("!%Y-%m-%dT%H:%M:%SZ"), time = os.time(),
             kind = type(obj.number), next = obj.number + 1, sure = pcall(error, "x"), absent = obj.absent == nil }
    """
    found = argo_lua.run(script, {"words": ["a", "b"], "number": 1, "absent": None})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("date"))
    assert found.pop("time") > 1_700_000_000
    assert found == {"text": "a b", "kind": "number", "next": 2, "sure": False, "absent": True}


def test_a_script_has_a_second() -> None:
    with pytest.raises(LuaError, match="context deadline exceeded"):
        argo_lua.run("while true do end", {})


def test_values_come_back_as_argo_encodes_them() -> None:
    obj = {"map": {}, "list": [], "nested": [{"empty": {}}, 1.5, 2, True], "null": None}
    assert argo_lua.run("return obj", obj) == {"map": [], "list": [], "nested": [{"empty": []}, 1.5, 2, True]}
    assert argo_lua.act("return obj", obj) == {"map": {}, "list": [], "nested": [{"empty": {}}, 1.5, 2, True]}


def test_an_invalid_health_is_unknown() -> None:
    found = argo_lua.health('return { status = "Fine" }', {})
    assert found == {"status": "Unknown", "message": "Lua returned an invalid health status"}
