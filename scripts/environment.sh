# The Python environment of the checkout: .venv, with exactly what requirements.lock names. To be sourced, in the checkout.
# Quick when nothing has changed: the stamp in .venv says what is installed.

say() { printf '%s\n' "$*" >&2; }

# What isolates programs of users. bubblewrap and pyseccomp are in .venv; libseccomp2 is the system's (Debian's apt needs it, too).
sandbox_is_there() { .venv/bin/python -c 'import pyseccomp' 2>/dev/null; }

find_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    say "Python 3.11 or newer is needed: install it (apt-get install python3 python3-pip) and try again."
    return 1
}

fingerprint() {
    { cat requirements.lock pyproject.toml; pwd; } | sha256sum | cut -d ' ' -f 1
}

make_environment() {
    local python stamp=.venv/.sofia2-installed
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$(fingerprint)" ]; then
        return
    fi
    python=$(find_python) || return
    # Two starts at once must not install into each other's environment.
    exec 9>.venv.lock
    flock 9
    if ! .venv/bin/python -c '' 2>/dev/null; then
        say "making .venv"
        rm -rf .venv
        # Without pip: Debian keeps venv's own pip in a package of its own.
        "$python" -m venv --without-pip .venv || return
    fi
    if ! [ -x .venv/bin/uv ]; then
        say "installing uv"
        "$python" -m pip --python .venv/bin/python install --quiet uv || return
    fi
    say "installing what requirements.lock names (the first time takes a minute)"
    .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.lock || return
    .venv/bin/uv pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps -e . || return
    # A platform is nine Python processes: compiled once, they start in half the time (also where Python may not write its caches).
    say "compiling"
    .venv/bin/python -m compileall -q -j 0 .venv/lib/python3*/site-packages sib storage actors serve sofia2 >/dev/null 2>&1 || true
    fingerprint >"$stamp"
    exec 9>&-
}
