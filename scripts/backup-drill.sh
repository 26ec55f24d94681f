#!/bin/sh
# Makes a base backup in mid-stampede, keeps the WAL, restores to a moment of the fire, and audits what comes out. Run by `make
# backup-drill`, with the test services up (durable ones, as in production). Some forty seconds.
set -eu
cd "$(dirname "$0")/.."
program=$PWD/${WHITEMONDAY:-target/debug/whitemonday}
services=${WHITEMONDAY_TEST_DATABASE_URL%/*}
work=$(mktemp -d "${TMPDIR:-/tmp}/backup-drill.XXXXXX")
children=""

say() { printf '\n%s\n' "$*"; }
sql() { psql -X -At -d "$services/drill" -c "$1"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Waits for a condition, a minute at most.
wait_until() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.2
    done
    echo "It never came true: $*" >&2
    tail -n 5 "$work"/*.log >&2
    exit 1
}

# PostgreSQL refuses to run as root.
as_postgres() { if [ "$(id -u)" -eq 0 ]; then su postgres -s /bin/sh -c "$*"; else sh -c "$*"; fi; }

finish() {
    # shellcheck disable=SC2086
    [ -z "$children" ] || kill $children 2>/dev/null || true
    [ ! -d "$work/restored" ] || as_postgres "$bin/pg_ctl -D $work/restored -m immediate stop" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

psql -X -q -d "$services/postgres" -c 'DROP DATABASE IF EXISTS drill' -c 'CREATE DATABASE drill'
major=$(($(sql 'SHOW server_version_num') / 10000))
# shellcheck disable=SC2012
bin=$(dirname "$(ls /usr/lib/postgresql/$major/bin/pg_ctl /opt/homebrew/opt/postgresql@$major/bin/pg_ctl \
    /usr/local/opt/postgresql@$major/bin/pg_ctl 2>/dev/null | head -n 1)")

say "A shop of its own"
"$program" keys generate >"$work/settings"
server=$(free_port) payments=$(free_port)
cat >>"$work/settings" <<END
DATABASE_URL=$services/drill
LISTEN=127.0.0.1:$server
PAYMENT_URL=http://127.0.0.1:$payments
PAYMENT_SECRET_KEY=sk_test_drill
SMTP_URL=smtp://127.0.0.1:9
LOG=warn
END
set -a
# shellcheck disable=SC1091
. "$work/settings"
set +a
"$program" migrate run >/dev/null
"$program" payment-simulator --listen "127.0.0.1:$payments" >"$work/payments.log" 2>&1 &
children="$children $!"
"$program" serve --with-jobs >"$work/server.log" 2>&1 &
children="$children $!"
is_ready() { python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$server/healthz/ready')"; }
wait_until is_ready

say "The archive: every change from now on"
mkdir "$work/wal"
"$bin/pg_receivewal" -d "$services/postgres" -D "$work/wal" --slot drill --create-slot
"$bin/pg_receivewal" -d "$services/postgres" -D "$work/wal" --slot drill --synchronous 2>"$work/archive.log" &
children="$children $!"

say "A stampede, and a base backup in its midst"
"$program" stampede --url "http://127.0.0.1:$server" --buyers 2000 --units 200000 --in-flight 32 --duration 15s --no-ceilings \
    >"$work/stampede.log" 2>&1 &
stampede=$!
has_orders() { [ "$(sql 'SELECT count(*) FROM orders')" -gt "$1" ]; }
wait_until has_orders 500
"$bin/pg_basebackup" -d "$services/postgres" -D "$work/restored" -X none --checkpoint=fast --no-manifest
after_backup=$(sql 'SELECT count(*) FROM orders')
wait_until has_orders $((after_backup + 500))

before=$(sql 'SELECT count(*) FROM orders')
place=$(sql "SELECT pg_create_restore_point('drill')")
kill -0 "$stampede" 2>/dev/null || { echo "The stampede was over before the restore point." >&2; exit 1; }
wait "$stampede" || { tail -n 20 "$work/stampede.log" >&2; exit 1; }
segment=$(sql "SELECT pg_walfile_name('$place')")
sql 'SELECT pg_switch_wal()' >/dev/null
wait_until test -e "$work/wal/$segment"
total=$(sql 'SELECT count(*) FROM orders')

say "Restored to a moment of the fire, beside what was fired at"
restored=$(free_port)
touch "$work/restored/recovery.signal"
cat >>"$work/restored/postgresql.auto.conf" <<END
port = $restored
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
# Nobody reads before it is promoted, so it need not have the room that the first one had.
hot_standby = off
restore_command = 'cp $work/wal/%f %p'
recovery_target_name = 'drill'
recovery_target_action = 'promote'
END
chmod 700 "$work/restored"
if [ "$(id -u)" -eq 0 ]; then chown -R postgres "$work"; fi
as_postgres "$bin/pg_ctl -D $work/restored -l $work/restored.log -w -t 60 start" >/dev/null || { tail -n 20 "$work/restored.log" >&2; exit 1; }
DATABASE_URL=$(echo "$services/drill" | sed "s/:[0-9]*\/drill\$/:$restored\/drill/")
export DATABASE_URL
is_promoted() { [ "$(psql -X -At -d "$DATABASE_URL" -c 'SELECT pg_is_in_recovery()')" = f ]; }
wait_until is_promoted
orders=$(psql -X -At -d "$DATABASE_URL" -c 'SELECT count(*) FROM orders')
echo "Orders: $before before the moment, $orders restored, $total in the end."
if [ "$orders" -lt "$before" ] || [ "$orders" -ge "$total" ]; then
    echo "The restored database is not one of that moment." >&2
    exit 1
fi
"$program" audit
