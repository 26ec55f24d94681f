#!/bin/sh
# Renews .sqlx against a freshly migrated database. Run by `make sqlx`, with the test services up.
# --check fails instead when .sqlx is not what the queries need.
set -eu
export DATABASE_URL="$WHITEMONDAY_TEST_DATABASE_URL"
target/debug/whitemonday migrate run --from migrations >/dev/null

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
# Touched, so that every query is compiled again.
touch src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" cargo check --quiet --lib
if [ "${1:-}" = --check ]; then
    diff -r .sqlx "$fresh" && echo "The prepared queries are up to date."
else
    rm -rf .sqlx
    cp -r "$fresh" .sqlx
    echo "Prepared $(ls .sqlx | wc -l) queries."
fi
