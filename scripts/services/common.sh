# What the scripts of this folder share. To be sourced by one that has set name and port.
#
# Programs and data of all test servers lie below SOFIA2_SERVICES (by default .services of the checkout, which git ignores).
# A server is stopped by the pid that was written when it was started, never by its name.
set -euo pipefail
services=${SOFIA2_SERVICES:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.services}
home=$services/$name
data=$home/data
log=$home/log
pid_file=$home/pid
START_S=60
STOP_S=20

say() { printf '%s\n' "$*" >&2; }
fail() { say "$name: $*"; exit 1; }

make_home() {
    mkdir -p "$home"
    [ -f "$services/.gitignore" ] || echo '*' >"$services/.gitignore"
}

# Install Debian packages, quietly. What is there already costs nothing.
apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "is not installed: it needs root and apt-get, or install $* by hand"
    say "installing $*"
    make_home
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
        >"$home/install.log" 2>&1 || fail "could not be installed, see $home/install.log"
}

# The pid of our server, if it runs: a number that another process has got since does not count.
running_pid() {
    local pid
    pid=$(cat "$pid_file" 2>/dev/null) && [ -n "$pid" ] || return 1
    [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$home" && echo "$pid"
}

is_listening() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

is_gone() { ! [ -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

wait_until() { # seconds, command…
    local tries=$(($1 * 20))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.05
    done
}

# Start a command as a server of its own session and wait until it answers; the script defines is_ready.
launch() {
    make_home
    is_listening && fail "port $port is taken by another program (set the port by $port_variable)"
    setsid nohup "$@" >>"$log" 2>&1 </dev/null &
    local pid=$!
    echo "$pid" >"$pid_file"
    local tries=$((START_S * 20))
    until is_ready >/dev/null 2>&1; do
        if is_gone "$pid"; then
            tail -5 "$log" >&2
            fail "has ended by itself, see $log"
        fi
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || fail "does not answer on port $port after $START_S s, see $log"
        sleep 0.05
    done
}

# Whether a process of the session of a server is left: PostgreSQL's workers end a moment after it.
is_session_gone() {
    local stat fields
    for stat in /proc/[0-9]*/stat; do
        read -r -a fields 2>/dev/null <"$stat" || continue
        # Fields 3 and 6 are state and session; the name in field 2 has no spaces for the programs that we start.
        [ "${fields[5]:-}" = "$1" ] && [ "${fields[2]}" != Z ] && return 1
    done
    return 0
}

# End the server and wait until its files are free. A server that does not end in time is killed.
end() { # signal
    local pid
    if pid=$(running_pid); then
        kill "-$1" "$pid"
        wait_until "$STOP_S" is_session_gone "$pid" || { kill -KILL "$pid"; wait_until "$STOP_S" is_session_gone "$pid"; }
    fi
    rm -f "$pid_file"
}

# The script defines is_installed, install, start and url.
run() {
    case ${1:-} in
        install) is_installed || install ;;
        installed) is_installed ;;
        start)
            if ! running_pid >/dev/null; then
                is_installed || install
                start
            fi
            url
            ;;
        stop) end "$stop_signal" ;;
        kill) end KILL ;;
        status)
            if running_pid >/dev/null && is_ready >/dev/null 2>&1; then echo running; else echo stopped; exit 3; fi
            ;;
        url) url ;;
        *)
            say "usage: $0 install|installed|start|stop|kill|status|url"
            exit 2
            ;;
    esac
}
