#!/bin/sh
# Prepares this checkout and says what it does. Safe to repeat: what is already there is left alone.
#
#   ./setup.sh run     for the server: virtual environment, dependencies, compiled extension
#   ./setup.sh test    the same, and what the checks, tests and benchmarks need (browsers, coturn, nginx, PostgreSQL, Node)
#   ./setup.sh bench   the same, and what only a benchmark needs: Janus, which we are measured against
#   ./setup.sh stacks  the same as for test, and other WebRTC stacks for `make test-interop`: GStreamer, and Pion with its compiler
#   ./setup.sh lock    rewrites constraints.txt from what is installed
#
# Debian packages are installed when root; otherwise the line to type is printed, and nothing else happens.
# Where pip and npm fetch from is left to their own configuration.

set -eu
cd "$(dirname "$0")"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"  # nginx, iptables; not on the path of a Debian user
VENV=.venv
PURPOSE="${1:-run}"
LOG="$(mktemp)"
OUR_POLICY=
trap 'rm -f "$LOG" $OUR_POLICY' EXIT
trap 'exit 130' INT TERM

say() { printf '· %s\n' "$*"; }
fail() { printf '\n%s\n' "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
# Runs a command quietly; if it fails, shows what it said.
quietly() {
    what="$1"
    shift
    "$@" >"$LOG" 2>&1 || { cat "$LOG" >&2; fail "$what"; }
}

# --- the interpreter -------------------------------------------------------------------------------------------------

find_python() {
    for candidate in python3.13 python3.12 python3.11 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# --- Debian packages -------------------------------------------------------------------------------------------------

MISSING=
need() { MISSING="$MISSING $*"; }

look_for_build_tools() {
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || need "$PYTHON-venv"
    printf '#include <stdlib.h>\n' | cc -E - >/dev/null 2>&1 || need gcc libc6-dev
    "$PYTHON" -c 'import os, sysconfig; os.stat(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null ||
        need "$PYTHON-dev"
}

look_for_test_tools() {
    has chromium || need chromium
    has firefox-esr || need firefox-esr
    has turnserver || need coturn
    has nginx || need nginx-light
    [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || need libnginx-mod-stream
    has certutil || need libnss3-tools
    has ip || need iproute2
    has iptables || need iptables
    has sysctl || need procps
    has openssl || need openssl
    has git || need git
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need postgresql
    ls /usr/share/fonts/truetype/dejavu/*.ttf >/dev/null 2>&1 || need fonts-dejavu-core
    has node || need nodejs
    has npm || need npm
}

look_for_benchmark_tools() {
    has janus || need janus
    has taskset || need util-linux
}

look_for_stacks() {
    has go || need golang-go
    [ -d /usr/share/gocode/src/github.com/pion/webrtc ] || need golang-github-pion-webrtc.v3-dev
    /usr/bin/python3 -c 'import gi' 2>/dev/null || need python3-gi
    for library in GstWebRTC GstSdp; do
        ls /usr/lib/*/girepository-1.0/"$library"-1.0.typelib >/dev/null 2>&1 || need gir1.2-gst-plugins-bad-1.0 gir1.2-gst-plugins-base-1.0
    done
    for plugin in base:app good:vpx good:rtp bad:webrtc bad:dtls bad:srtp; do
        ls /usr/lib/*/gstreamer-1.0/libgst"${plugin#*:}".so >/dev/null 2>&1 || need "gstreamer1.0-plugins-${plugin%:*}"
    done
    ls /usr/lib/*/gstreamer-1.0/libgstnice.so >/dev/null 2>&1 || need gstreamer1.0-nice
}

install_missing() {
    [ -n "$MISSING" ] || return 0
    has apt-get || fail "Missing on this machine, by their Debian names:$MISSING"
    if [ "$(id -u)" != 0 ]; then
        fail "Some Debian packages are missing. Type this, then try again:

    sudo apt install --no-install-recommends$MISSING
"
    fi
    say "Installing Debian packages:$MISSING"
    # A test needs the programs, not the services that their packages start: an open coturn, a web server on port 80.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        OUR_POLICY=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$OUR_POLICY"
        chmod +x "$OUR_POLICY"
    fi
    quietly 'apt-get could not read the package lists.' apt-get update -qq
    # shellcheck disable=SC2086  # a list of names
    quietly 'apt-get could not install them.' env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $MISSING
    for service in coturn nginx postgresql janus; do
        case "$MISSING " in
            *" $service"*) if has systemctl; then systemctl disable --quiet "$service" 2>/dev/null || true; fi ;;
        esac
    done
    MISSING=
}

# --- stamps: the content that something was made from, kept beside it ------------------------------------------------

is_fresh() { [ "$(cat "$1" 2>/dev/null)" = "$2" ]; }
sum_of() { cat "$@" | cksum; }
# What is installed; the settings of pytest, ruff and mypy, further down in pyproject.toml, change nothing in it.
sum_of_packages() { sed '/^\[tool\.pytest/,$d' pyproject.toml | cat - constraints.txt | cksum; }

# --- steps -----------------------------------------------------------------------------------------------------------

pip_install() { quietly 'pip could not install the packages.' "$VENV/bin/python" -m pip --disable-pip-version-check --quiet install "$@"; }

make_venv() {
    "$VENV/bin/python" -c 'import pip' 2>/dev/null && return
    say "Making the virtual environment $VENV with $("$PYTHON" --version)"
    "$PYTHON" -m venv --clear "$VENV"
}

install_python_packages() { # $1: "." or ".[test]"
    say "Installing Python packages ($1)"
    # The extension is built in this environment, so that changing it later needs no network.
    "$VENV/bin/python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
        >"$VENV/build-requires.txt"
    pip_install --constraint constraints.txt --requirement "$VENV/build-requires.txt"
    pip_install --constraint constraints.txt --no-build-isolation --editable "$1"
}

build_extension() {
    say 'Compiling server/media/fastpath and loadtest'
    quietly 'The extension does not compile.' "$VENV/bin/python" setup.py --quiet build_ext --inplace --force
}

install_node_packages() {
    say 'Installing Node packages (type checker, accessibility checker)'
    quietly 'npm could not install the packages.' npm ci --no-audit --no-fund --loglevel=error
}

# --- here we go ------------------------------------------------------------------------------------------------------

if [ "$PURPOSE" = lock ]; then
    "$VENV/bin/python" -m pip freeze --exclude-editable --all --exclude pip >constraints.txt
    exit
fi

extras=.
[ "$PURPOSE" = run ] || extras='.[test]'
packages="$(sum_of_packages) $extras"
sources="$(sum_of setup.py server/media/fastpath/*.pyx server/media/fastpath/*.pxd loadtest/*.pyx loadtest/*.pxd)"

PYTHON="$(find_python)"
if [ -z "$PYTHON" ]; then
    PYTHON=python3
    need python3
fi

has_packages() {
    is_fresh "$VENV/.stamp-packages" "$packages" || is_fresh "$VENV/.stamp-packages" "$(sum_of_packages) .[test]"
}
has_extension() { is_fresh "$VENV/.stamp-extension" "$sources" && ls server/media/fastpath/*.so loadtest/*.so >/dev/null 2>&1; }

if ! has_packages || ! has_extension; then look_for_build_tools; fi
[ "$PURPOSE" = run ] || look_for_test_tools
[ "$PURPOSE" != bench ] || look_for_benchmark_tools
[ "$PURPOSE" != stacks ] || look_for_stacks
install_missing

make_venv
if ! has_packages; then
    install_python_packages "$extras"
    echo "$packages" >"$VENV/.stamp-packages"
    echo "$sources" >"$VENV/.stamp-extension"
fi
if ! has_extension; then
    build_extension
    echo "$sources" >"$VENV/.stamp-extension"
fi
if [ "$PURPOSE" != run ]; then
    tools="$(sum_of package.json package-lock.json)"
    if ! is_fresh node_modules/.stamp "$tools"; then
        install_node_packages
        echo "$tools" >node_modules/.stamp
    fi
fi
