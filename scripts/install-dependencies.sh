#!/bin/sh
# Installs what is missing on this machine, with the system's package manager, and says so.
#   install-dependencies.sh run     what the demo needs: PostgreSQL (15 or newer), Redis, Node.js (18 or newer)
#   install-dependencies.sh test    the same, a browser (Chromium, unless there is one), cargo-nextest, Prometheus, and what check-deploy.sh needs:
#                                   a compose client, Python
set -eu

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

has_postgres() {
    for bin in "$(command -v postgres 2>/dev/null || true)" /usr/lib/postgresql/*/bin/postgres \
               /opt/homebrew/opt/postgresql@*/bin/postgres /usr/local/opt/postgresql@*/bin/postgres; do
        [ -x "$bin" ] || continue
        major=$("$bin" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        [ "$major" -ge 15 ] && return 0
    done
    return 1
}

has_node() {
    command -v npm >/dev/null 2>&1 && [ "$(node --version 2>/dev/null | sed 's/v\([0-9]*\).*/\1/')" -ge 18 ]
}

has_browser() {
    [ -z "${CHROMIUM:-}" ] || return 0
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null 2>&1 && return 0
    done
    return 1
}

install() {
    if command -v apt-get >/dev/null 2>&1; then
        sudo=""
        [ "$(id -u)" -eq 0 ] || sudo=sudo
        say "Installing with apt-get: $1"
        $sudo apt-get update -qq
        # shellcheck disable=SC2086
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $1 >&2
    elif command -v brew >/dev/null 2>&1; then
        say "Installing with Homebrew: $2"
        # shellcheck disable=SC2086
        brew install $2 >&2
    else
        say "Please install: $1"
        exit 1
    fi
}

apt="" brew=""
has_postgres || { apt="$apt postgresql" brew="$brew postgresql@17"; }
command -v redis-server >/dev/null 2>&1 || { apt="$apt redis-server" brew="$brew redis"; }
has_node || { apt="$apt nodejs npm" brew="$brew node"; }
[ -z "$apt" ] || install "${apt# }" "${brew# }"

if [ "${1:-run}" = test ] && ! has_browser; then
    chromium=chromium
    # Ubuntu has it as a snap only, which its package of the older name installs.
    ! grep -qs '^ID=ubuntu' /etc/os-release || chromium=chromium-browser
    install "$chromium" "--cask chromium"
fi
if [ "${1:-run}" = test ]; then
    apt="" brew=""
    { command -v prometheus && command -v promtool; } >/dev/null 2>&1 || { apt="$apt prometheus" brew="$brew prometheus"; }
    docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null 2>&1 || { apt="$apt docker-compose" brew="$brew docker-compose"; }
    python3 -c 'import ensurepip' >/dev/null 2>&1 || { apt="$apt python3-venv" brew="$brew python"; }
    [ -z "$apt" ] || install "${apt# }" "${brew# }"
    # The tests start a Prometheus of their own; Debian's package starts one as a service.
    ! command -v systemctl >/dev/null 2>&1 || ${sudo:-} systemctl disable --quiet --now prometheus 2>/dev/null || true
fi
if [ "${1:-run}" = test ] && ! cargo nextest --version >/dev/null 2>&1; then
    say "Installing with cargo: cargo-nextest"
    cargo install cargo-nextest --locked
fi
