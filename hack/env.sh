# shellcheck shell=bash
# Sourced by every command in hack/: one virtual environment per checkout, exactly as requirements.lock says.
# Leaves BERTH_ROOT and PYTHON set, PYTHONPATH pointing at the sources, and is quick when nothing changed.
BERTH_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export BERTH_ROOT
PYTHON="$BERTH_ROOT/.venv/bin/python"
export PYTHONPATH="$BERTH_ROOT/operator:$BERTH_ROOT/hack${PYTHONPATH:+:$PYTHONPATH}"


_berth_prepare() {
    local stamp="$BERTH_ROOT/.venv/berth-lock" base
    cmp -s "$BERTH_ROOT/requirements.lock" "$stamp" 2>/dev/null && [ -x "$PYTHON" ] && return 0
    base="$(command -v python3)" || { echo "hack: python3 is missing; install it with: apt-get install python3 python3-venv" >&2; return 1; }
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "hack: Python 3.11 or newer is needed, $base is $("$base" -V)" >&2; return 1; }
    # Two commands started at once must not build the same environment at the same time.
    exec 8>"$BERTH_ROOT/.venv.lock" && { command -v flock >/dev/null && flock 8; }
    if ! { cmp -s "$BERTH_ROOT/requirements.lock" "$stamp" && [ -x "$PYTHON" ]; }; then
        echo "hack: preparing .venv from requirements.lock" >&2
        [ -x "$PYTHON" ] || { "$base" -m venv "$BERTH_ROOT/.venv" || {
            echo "hack: python3 cannot make virtual environments; install it with: apt-get install python3-venv" >&2; return 1; }; }
        "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$BERTH_ROOT/requirements.lock" >&2 &&
            cp "$BERTH_ROOT/requirements.lock" "$stamp" || return 1
    fi
    exec 8>&-
}
_berth_prepare || exit 1
