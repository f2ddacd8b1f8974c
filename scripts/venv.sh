#!/bin/sh
# Make a virtual environment: venv.sh PYTHON DIRECTORY. On Debian the module for that is a package of its own.
set -eu

python=$1
directory=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    if ! command -v "$python" >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        sh "$(dirname "$0")/packages.sh" --must 'Python' python3 python3-venv
    else
        echo "zapd needs Python 3.11 or newer as '$python': install it, or say make PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
fi

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    sh "$(dirname "$0")/packages.sh" --must 'a virtual environment' python3-venv
fi

if ! "$python" -m venv "$directory"; then
    rm -rf "$directory"
    echo "could not make the virtual environment $directory with $python" >&2
    exit 1
fi
