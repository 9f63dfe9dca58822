"""What Argo CD gives a script from argocd-cm: Lua 5.1 with base, package, table and a part of os, and one second.

There is no `string`, no `math`, and strings have no methods. Values go in and out as Argo's own code passes them.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from lupa import lua51

_KEPT = frozenset(
    (
        *("_G", "_VERSION", "assert", "collectgarbage", "error", "getfenv", "getmetatable", "ipairs", "load"),
        *("loadstring", "module", "newproxy", "next", "package", "pairs", "pcall", "print", "rawequal", "rawget"),
        *("rawset", "require", "select", "setfenv", "setmetatable", "table", "tonumber", "tostring", "type"),
        *("unpack", "xpcall"),
    )
)
_SECONDS = 1.0
_DATES = {
    **{flag: f"%{flag}" for flag in "aAbBdFHIMpSyYzZ"},
    "m": "%m",
    "X": "%H:%M:%S",
}
"""What os.date can write, of what differs neither between Lua and Argo's copy of it nor by language."""

_SHUT_IN = """
local kept, date, time = ...
local debug, unpack_error = debug, error
local started = time()
debug.sethook(function()
  if time() - started > kept.seconds then unpack_error("context deadline exceeded", 0) end
end, "", 100000)
getmetatable("").__index = nil
for name in pairs(_G) do
  if not kept.names[name] then _G[name] = nil end
end
for name in pairs(package.loaded) do
  if name ~= "table" and name ~= "package" and name ~= "_G" then package.loaded[name] = nil end
end
package.loaders = { package.loaders[1] }
package.path, package.cpath = "", ""
package.preload.os = function() return { date = date, time = function() return kept.floor(time()) end } end
"""


def run(script: str, obj: Mapping[str, Any]) -> Any:
    """What the script returns for the object, as JSON. Raises LuaError."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False, register_builtins=False)
    kept = lua.table(names=lua.table_from(dict.fromkeys(_KEPT, True)), seconds=_SECONDS, floor=int)
    lua.execute(_SHUT_IN, kept, _date, time.time)
    lua.globals()["actionParams"] = lua.table()
    lua.globals()["obj"] = _to_lua(lua, obj)
    return _to_json(lua.execute(script))


def health(script: str, obj: Mapping[str, Any]) -> dict[str, str]:
    """Status and message, as Argo takes them."""
    found = run(script, obj)
    assert isinstance(found, dict), f"expect table output from Lua script, not {found!r}"
    if found["status"] not in ("Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"):
        return {"status": "Unknown", "message": "Lua returned an invalid health status"}
    return found


def actions(script: str, obj: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The actions that are offered, by name."""
    found = run(script, obj)
    return {name: {"name": name, "disabled": False, **(action or {})} for name, action in found.items()}


def act(script: str, obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object as the action leaves it: what the API server is given a patch for."""
    found = run(script, obj)
    assert isinstance(found, dict), f"expect table output from Lua script, not {found!r}"
    return _cleaned(found, obj)  # type: ignore[no-any-return]


def _date(form: str = "%c", seconds: float | None = None) -> str:
    assert form.startswith("!"), "the time zone of Argo's Pod means nothing to a cluster: begin the form with !"
    now = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    text, flags = "", iter(form[1:])
    for letter in flags:
        text += now.strftime(_DATES[next(flags)]) if letter == "%" else letter
    return text


def _to_lua(lua: Any, value: Any) -> Any:
    """None leaves nothing behind, as in Argo."""
    if isinstance(value, Mapping):
        return lua.table_from({key: _to_lua(lua, item) for key, item in value.items() if item is not None})
    if isinstance(value, list):
        return lua.table_from([_to_lua(lua, item) for item in value])
    return value


def _to_json(value: Any) -> Any:
    """A table is a list when it is empty or begins with 1: Lua cannot tell."""
    if lua51.lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    keys = list(value.keys())
    if 1 in keys or not keys:
        return [_to_json(value[index + 1]) for index in range(len(keys))]
    assert all(isinstance(key, str) for key in keys), f"cannot encode mixed or invalid key types: {keys}"
    return {key: _to_json(value[key]) for key in keys}


def _cleaned(new: Any, old: Any) -> Any:
    """An empty list where there was a map becomes an empty map again."""
    if isinstance(new, dict) and isinstance(old, Mapping):
        return {key: _cleaned(item, old.get(key)) for key, item in new.items()}
    if new == [] and isinstance(old, Mapping):
        return {}
    if isinstance(new, list) and isinstance(old, list):
        return [_cleaned(item, old[index] if index < len(old) else None) for index, item in enumerate(new)]
    return new
