#!/bin/sh
# Sets up what `make demo` and `make test` need, once: a virtual environment, the Python packages and an
# ngspice that loads OSDI devices. `bootstrap.sh demo` or `bootstrap.sh test`; the second adds torch and the
# checkers. A finished set-up leaves a stamp in the virtual environment, and the next call returns at once.
set -eu
cd "$(dirname "$0")"
profile=${1:-demo}
venv=${KCNET_VENV:-.venv}
say() { printf '[set-up] %s\n' "$*" >&2; }

case $profile in demo) extras= ;; test) extras='[train,test]' ;; *)
    say "unknown profile '$profile': use demo or test"; exit 1 ;; esac

fingerprint() { { cat pyproject.toml constraints.txt bootstrap.sh; pwd; command -v ngspice || echo no-ngspice; } | cksum; }
for done in "$profile" test; do  # what is set up for tests is set up for the demo
    stamp=$venv/.ready-$done
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then exit 0; fi
done
stamp=$venv/.ready-$profile

# --- how to become root, if at all -------------------------------------------------------------------
if [ "$(id -u)" = 0 ]; then as_root=env
elif command -v sudo >/dev/null 2>&1 && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then as_root='sudo env'
else as_root=; fi
apt() { $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" >/dev/null; }
can_apt() { [ -n "$as_root" ] && command -v apt-get >/dev/null 2>&1; }

# --- Python ------------------------------------------------------------------------------------------
python=${KCNET_PYTHON:-}
for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && break
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; fi
done
if [ -z "$python" ]; then
    if can_apt; then say 'installing python3'; apt update; apt install -y python3 python3-venv; python=python3
    else say 'no Python 3.11 or newer found: install one, or name it in $KCNET_PYTHON'; exit 1; fi
fi
if [ ! -x "$venv/bin/python" ]; then
    say "creating the virtual environment $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        if can_apt; then say 'installing python3-venv'; apt update; apt install -y python3-venv
        else say "$python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; fi
        "$python" -m venv "$venv"
    fi
fi
say "installing the Python packages ($profile); the first time takes minutes"
if [ "$profile" = test ]; then
    # The version is named so that a CPU wheel of it, where the machine has one, wins over newer CUDA builds.
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt 'torch==2.13.0'
fi
"$venv/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".$extras"

# --- ngspice -----------------------------------------------------------------------------------------
# The binary is asked, not its version: one built without OSDI does not know the command at all.
has_osdi() {
    command -v ngspice >/dev/null 2>&1 || return 1
    probe=$(printf '*\n.control\nosdi /nonexistent.osdi\nquit\n.endc\n.end\n' | ngspice -b 2>&1 </dev/stdin || true)
    case $probe in *'no such command'*) return 1 ;; *) return 0 ;; esac
}
install_from_backports() {
    # The mirror and its keyring come from the machine's own sources; nothing under /etc/apt is changed.
    codename=$1
    mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v want="$codename" '$1 == want { print $2; exit }')
    key=/usr/share/keyrings/debian-archive-keyring.gpg; [ -r "$key" ] || key=
    [ -n "$mirror" ] || { say "no source for $codename in this machine's apt sources"; return 1; }
    list=$(mktemp -d); mkdir "$list/lists"
    for suite in "$codename" "$codename-backports"; do
        printf 'deb %s%s %s main\n' "${key:+[signed-by=$key] }" "$mirror" "$suite"
    done >"$list/sources.list"
    chmod -R a+rX "$list"
    set -- -o "Dir::Etc::SourceList=$list/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$list/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
    apt "$@" update && apt "$@" install -y -t "$codename-backports" ngspice; status=$?
    $as_root rm -rf "$list"
    return $status
}
install_ngspice() {
    if [ "$(uname)" = Darwin ]; then
        command -v brew >/dev/null 2>&1 && brew install ngspice >&2; return
    fi
    can_apt || return 1
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    if [ "$codename" = bookworm ]; then install_from_backports bookworm
    else apt update && apt install -y ngspice; fi
}
if ! has_osdi; then
    say 'no ngspice that loads OSDI devices on PATH: installing one'
    install_ngspice || true
    has_osdi || {
        say 'ngspice could not be installed here (no rights, or no package); VACASK will be the simulator.'
        say 'To have ngspice: install version 39 or newer built with OSDI, put it on PATH, and run this again.'
    }
fi

# --- a browser, for the test that opens the report; the test says so where there is none ---------------
if [ "$profile" = test ] && ! command -v chromium >/dev/null 2>&1 && can_apt &&
    [ "$(. /etc/os-release && printf '%s' "$ID")" = debian ]; then
    say 'installing chromium'
    { apt update && apt install -y --no-install-recommends chromium; } || say 'chromium could not be installed'
fi

fingerprint >"$stamp"
say 'ready'
