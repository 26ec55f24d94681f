#!/bin/sh
# Runs tests with PgBouncer (transaction mode) between the program and its database. Run by `make test-pgbouncer`, with the test services
# up. PGBOUNCER names the program; without it and without one of 1.21 or newer on the PATH it is built from Debian's source package, because
# Debian 12 has 1.18, which cannot carry prepared statements.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/target/pgbouncer
tests=${*:-"test(/^(purchase|batches|payments|refunds|checkout|cart|orders|expiry|subscriptions|reads|search|sessions|races|oversell)::/)"}

is_new_enough() { [ -x "$1" ] && [ "$(printf '%s\n' 1.21 "$("$1" --version | sed -n 's/^PgBouncer //p')" | sort -V | head -n 1)" = 1.21 ]; }

build() {
    echo "Building PgBouncer from Debian's source package …" >&2
    sudo=""; [ "$(id -u)" -eq 0 ] || sudo=sudo
    mkdir -p "$tools/lists/partial" "$tools/cache/archives/partial"
    # Debian 13's, from the mirror that this system uses.
    awk 'BEGIN { RS = ""; ORS = "\n\n" } NR == 1' /etc/apt/sources.list.d/debian.sources |
        sed -e 's/^Types:.*/Types: deb-src/' -e 's/^Suites:.*/Suites: trixie/' >"$tools/trixie.sources"
    from="-o Dir::Etc::sourcelist=$tools/trixie.sources -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists=$tools/lists -o Dir::Cache=$tools/cache"
    $sudo apt-get install -qq -y build-essential dpkg-dev libevent-dev libssl-dev pkg-config >/dev/null
    # shellcheck disable=SC2086
    (cd "$tools" && apt-get $from -qq update && apt-get $from -qq source pgbouncer && cd pgbouncer-*/ && ./configure --without-cares --quiet && make -s)
    cp "$tools"/pgbouncer-*/pgbouncer "$tools/pgbouncer"
}

program=${PGBOUNCER:-$(command -v pgbouncer || true)}
is_new_enough "$program" || program=$tools/pgbouncer
is_new_enough "$program" || build
is_new_enough "$program" || { echo "There is no PgBouncer of 1.21 or newer: set PGBOUNCER." >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/pgbouncer.XXXXXX")
chmod 755 "$work"
finish() {
    [ ! -s "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

url=${WHITEMONDAY_TEST_DATABASE_URL#postgres://}
server=${url#*@} login=${url%%@*}
server=${server%%/*}
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/pgbouncer.ini" <<CONFIG
[databases]
* = host=${server%%:*} port=${server##*:} user=${login%%:*} password=${login#*:}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
auth_type = any
pool_mode = transaction
max_prepared_statements = 500
ignore_startup_parameters = extra_float_digits
max_client_conn = 2000
default_pool_size = 20
unix_socket_dir =
logfile = $work/log
pidfile =
CONFIG
if [ "$(id -u)" -eq 0 ]; then chown -R nobody "$work"; user="-u nobody"; else user=""; fi
# shellcheck disable=SC2086
"$program" -q $user "$work/pgbouncer.ini" &
echo $! >"$work/pid"
export WHITEMONDAY_TEST_PGBOUNCER="127.0.0.1:$port"
echo "$("$program" --version | head -n 1) in transaction mode on $WHITEMONDAY_TEST_PGBOUNCER" >&2
cargo nextest run -E "$tests"
