#!/bin/sh
# Plants each bug of tests/planted-bugs/ into a copy of the sources and runs the tests that its head names, with the services up:
#     # caught by: it MODULE::TEST     a test of tests/it; of src with `lib` instead
# Each of them must pass without the bug and fail with it. Arguments are the names of the bugs to plant; otherwise all are.
set -eu
cd "$(dirname "$0")/.."
bugs=$PWD/tests/planted-bugs
work=${CARGO_TARGET_DIR:-$PWD/target}/planted-bugs
sources=$work/sources
# Dependencies are compiled once for the copy and the original; programs with bugs lie apart from those without.
export CARGO_BUILD_BUILD_DIR="${work%/*}" CARGO_TARGET_DIR="$work"
# Otherwise git would look for the copy in the repository around it.
export GIT_CEILING_DIRECTORIES="$work"

# shellcheck disable=SC2046
[ $# -gt 0 ] || set -- $(for patch in "$bugs"/*.patch; do basename "$patch" .patch; done)

die() {
    echo "$*" >&2
    exit 1
}

# Cargo takes a copy for the original: without this, what was built of one would count as built of the other.
forget_builds() { rm -rf "$CARGO_BUILD_BUILD_DIR"/debug/.fingerprint/whitemonday-*; }
trap forget_builds EXIT
trap 'exit 1' INT TERM

copy_sources() {
    forget_builds
    rm -rf "$sources"
    mkdir -p "$sources"
    { git ls-files -z --cached --others --exclude-standard; find web/dist -type f -print0; } |
        tar -c --null -T - | tar -xm -C "$sources"
}

# Prints the tests of these bugs: `it` or `lib`, and the name.
tests_of() {
    for bug in "$@"; do
        sed -nE 's/^# caught by: (it|lib) /\1 /p' "$bugs/$bug.patch"
    done
}

# Runs the tests of these bugs on the copy as it is, and keeps what they say; the exit code is nextest's: 0, 100 when tests have failed, others for no run.
run_tests() {
    targets=$(tests_of "$@" | sed 's/^lib .*/--lib/; s/^it .*/--test it/' | sort -u)
    names=$(tests_of "$@" | sed 's/^[a-z]* //')
    code=0
    # shellcheck disable=SC2086
    (cd "$sources" && cargo nextest run --color never $targets -- --exact $names) >"$work/log" 2>&1 || code=$?
    return "$code"
}

# Whether each test of these bugs has ended so: PASS or FAIL.
all_ended() {
    end=$1
    shift
    for name in $(tests_of "$@" | sed 's/^[a-z]* //'); do
        grep -q "^ *$end .* $name\$" "$work/log" || return 1
    done
}

for bug in "$@"; do
    [ -n "$(tests_of "$bug")" ] || die "$bug names no test that catches it"
done

copy_sources
if ! run_tests "$@" || ! all_ended PASS "$@"; then
    cat "$work/log"
    die "Not all of the tests are there and pass without a bug."
fi

missed=0
for bug in "$@"; do
    began=$(date +%s)
    copy_sources
    (cd "$sources" && git apply "$bugs/$bug.patch") || die "$bug does not apply any more: renew it"
    code=0
    run_tests "$bug" || code=$?
    case $code in
        0 | 100) ;;
        *) cat "$work/log"; die "$bug: no tests were run" ;;
    esac
    cp "$work/log" "$work/$bug.log"
    if all_ended FAIL "$bug"; then
        result="caught by"
    else
        cat "$work/log"
        result="NOT CAUGHT by all of"
        missed=1
    fi
    printf '%-22s %3d s  %s\n' "$bug" $(($(date +%s) - began)) "$result"
    tests_of "$bug" | sed 's/^/    /'
done
exit $missed
