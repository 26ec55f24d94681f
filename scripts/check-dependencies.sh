#!/bin/sh
# Licences, sources and banned crates by cargo-deny; known vulnerabilities where the advisory database can be had.
set -eu
if ! cargo deny --version >/dev/null 2>&1; then
    echo "Installing with cargo: cargo-deny" >&2
    cargo install cargo-deny --locked
fi
cargo deny --log-level error check bans licenses sources
if [ "${ADVISORIES:-}" = on ]; then
    cargo deny check advisories
else
    echo "advisories skipped (ADVISORIES=on checks them; it fetches the advisory database)"
fi
