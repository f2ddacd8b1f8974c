#!/bin/sh
# Have Debian packages installed: packages.sh [--must] 'what they are for' PACKAGE...
# As root it installs the missing ones; otherwise it says which. Without --must, missing ones are no failure:
# tests that need them are skipped, unless ZAPD_REQUIRE_COMPONENTS is set, as it is in CI.
set -eu

must=${ZAPD_REQUIRE_COMPONENTS:-}
if [ "$1" = --must ]; then
    must=1
    shift
fi
purpose=$1
shift

missing=
if command -v dpkg-query >/dev/null 2>&1; then
    for package in "$@"; do
        case $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true) in
            installed*) ;;
            *) missing="$missing $package" ;;
        esac
    done
else
    echo "not Debian: $purpose want what Debian calls $*" >&2
    exit 0
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for $purpose:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of names
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
    echo "apt-get could not install:$missing" >&2
else
    echo "missing for $purpose; as root: apt-get install --no-install-recommends$missing" >&2
fi
[ -z "$must" ] || exit 1
