"""Run demo and tests in the userland of another release of Debian, with its libc and compilers.

The userland is made in build/glibc/RELEASE, by mmdebstrap or debootstrap, from the mirror that
apt of this machine is set up with; it stays for the next run.  What is tested is the last commit,
by an ordinary user, with the network and pip's settings of this machine.  Needs root.
    MIRROR  an address of Debian's packages instead of the one that apt has
    ARGS    further arguments of `make test`, or of the task, there
"""

import argparse
import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Where pip, and what it fetches with, look for settings; later ones win.
PIP_FILES = ("/etc/xdg/pip/pip.conf", "/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# The same names lead to other machines there, and to the certificates that they have.
SHARED_FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
USER = "tester"


def step(text: str) -> None:
    """Say what begins."""
    print(f"==> {text}", flush=True)


def fail(text: str) -> NoReturn:
    """End with status 1 and this reason."""
    sys.exit(f"test-glibc: {text}")


def handed_in(environment: Mapping[str, str], files: Sequence[str] = PIP_FILES) -> dict[str, str]:
    """The variables that make pip work there as it works here: files of settings become some."""
    parser = configparser.RawConfigParser(strict=False)
    parser.read(
        [Path(name).expanduser() for name in (*files, environment.get("PIP_CONFIG_FILE")) if name]
    )
    found = {
        "PIP_" + key.upper().replace("-", "_"): " ".join(value.split())
        for section in ("global", "install")
        if parser.has_section(section)
        for key, value in parser.items(section)
    }
    found |= {
        name: value
        for name, value in environment.items()
        if name.startswith("PIP_") or name in CERTIFICATES or name in PROXIES
    }
    found.pop("PIP_CONFIG_FILE", None)
    return found


def named_paths(variables: Mapping[str, str]) -> Iterator[Path]:
    """The files and folders of this machine that settings name: packages, certificates."""
    for value in variables.values():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                yield path


def apt_settings() -> list[str]:
    """How apt of this machine fetches: proxies, time-outs, what it checks."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    kinds = ("http", "https", "Check", "Retries", "ForceIPv")
    return [
        line
        for line in dump.splitlines()
        if line.startswith(tuple(f"Acquire::{kind}" for kind in kinds))
    ]


def find_mirror() -> str:
    """Debian's address among apt's sources of this machine; the environment's MIRROR before it."""
    if chosen := os.environ.get("MIRROR"):
        return chosen
    command = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
        "Label: Debian",
        "Component: main",
    ]
    for _ in range(2):
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if found:
            return found[0]
        # apt knows whose a source is when it has read its list.
        subprocess.run(["apt-get", "update", "-qq"], check=True)
    fail("apt's sources of this machine name no mirror of Debian; give MIRROR=ADDRESS")


def make_userland(release: str, root: Path) -> None:
    """It appears at `root` when it is whole."""
    mirror = find_mirror()
    step(f"userland of {release} in {root}")
    partial = root.with_name(root.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    settings = partial.with_suffix(".apt")
    settings.write_text("\n".join(apt_settings()) + "\n")
    keyring = [f"--keyring={KEYRING}"] if KEYRING.exists() else []
    if shutil.which("mmdebstrap"):
        command = ["mmdebstrap", "--quiet", "--mode=root", f"--aptopt={settings}"]
    else:
        command = ["debootstrap"]
    subprocess.run(
        [
            *command,
            *keyring,
            "--variant=minbase",
            "--include=ca-certificates",
            release,
            str(partial),
            mirror,
        ],
        check=True,
    )
    shutil.copy(settings, partial / "etc/apt/apt.conf.d/90machine")
    # No waiting for the disk, and no services.
    (partial / "etc/dpkg/dpkg.cfg.d/90machine").write_text("force-unsafe-io\n")
    policy = partial / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    settings.unlink()
    partial.rename(root)


def mount(root: Path, paths: Sequence[Path]) -> None:
    """All of it in the mount namespace of this process: it ends with the last process there."""
    for kind, folder in (("proc", "proc"), ("sysfs", "sys")):
        subprocess.run(["mount", "-t", kind, kind, str(root / folder)], check=True)
    subprocess.run(["mount", "--rbind", "/dev", str(root / "dev")], check=True)
    for path in dict.fromkeys(paths):
        place = root / path.relative_to("/")
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.mkdir() if path.is_dir() else place.touch()
        for options in (["--bind"], ["-o", "remount,bind,ro"]):
            source = [str(path.resolve())] if options == ["--bind"] else []
            subprocess.run(["mount", *options, *source, str(place)], check=True)


def run_inside(
    root: Path, command: Sequence[str], variables: Mapping[str, str], user: str = "root"
) -> int:
    """The status of the command there, in the user's folder and with these variables only."""
    home = "/root" if user == "root" else f"/home/{user}"
    system = ":/usr/sbin:/sbin" if user == "root" else ""
    words = {"HOME": home, "PATH": f"/usr/local/bin:/usr/bin:/bin{system}", **variables}
    return subprocess.run(
        ["chroot", f"--userspec={user}:{user}", str(root), "/usr/bin/env", "-i",
         *(f"{name}={value}" for name, value in words.items()),
         "sh", "-c", f'cd "{home}" && exec "$@"', "sh", *command],
        check=False,
    ).returncode  # fmt: skip


def copy_commit(root: Path) -> None:
    """The tree of the last commit, of which only .venv is left from the run before."""
    if subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout:
        step("what is not committed is not tested")
    folder = root / "home" / USER / "dlopen"
    if folder.exists():
        for path in folder.iterdir():
            if path.name != ".venv":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    with subprocess.Popen(["git", "archive", "HEAD"], stdout=subprocess.PIPE) as archive:
        subprocess.run(
            ["chroot", f"--userspec={USER}:{USER}", str(root), "sh", "-c",
             f"mkdir -p /home/{USER}/dlopen && tar -x -C /home/{USER}/dlopen"],
            stdin=archive.stdout, check=True,
        )  # fmt: skip
    if archive.returncode != 0:
        fail("git archive failed")


def main() -> int:
    """The worst status of `make demo` and `make test` there, or of another task."""
    parser = argparse.ArgumentParser(prog="test-glibc", description=__doc__)
    parser.add_argument("release", help="a name that the mirror has: trixie, sid")
    parser.add_argument("--task", help="instead of demo and test: packages")
    parser.add_argument("--renew", action="store_true", help="make the userland anew")
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z][a-z0-9.-]*", options.release):
        fail("needs the name of a release, as RELEASE=trixie")
    if os.geteuid() != 0:
        fail("needs root, to make a userland and to mount in it")
    if not (shutil.which("mmdebstrap") or shutil.which("debootstrap")):
        fail("needs mmdebstrap: apt-get install mmdebstrap debian-archive-keyring")
    if not options.in_namespace:
        # Whatever ends this process ends all of that namespace, and with it its mounts.
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        again = [sys.executable, sys.argv[0], "--in-namespace", *sys.argv[1:]]
        os.execvp(unshare[0], [*unshare, *again])

    root = Path("build/glibc", options.release).absolute()
    if options.renew:
        shutil.rmtree(root, ignore_errors=True)
    if not root.exists():
        make_userland(options.release, root)
    variables = handed_in(os.environ)
    mount(root, [path for path in map(Path, SHARED_FILES) if path.exists()]
          + list(named_paths(variables)))  # fmt: skip
    if not (root / "home" / USER).exists():
        run_inside(root, ["useradd", "--create-home", "--groups=users", USER], {})
    copy_commit(root)
    as_root = {"DEBIAN_FRONTEND": "noninteractive", **variables}
    tree = f"/home/{USER}/dlopen"
    commands = [["dpkg", "--configure", "-a"], ["bash", f"{tree}/.ci/run", "packages"]]
    if options.task == "packages":  # for each Python that the release has
        commands.append(["apt-get", "install", "-qq", "-y", "--no-install-recommends",
                         r"^python3\.[0-9]+-venv$"])  # fmt: skip
    for command in commands:
        if status := run_inside(root, command, as_root):
            return status
    for tool in (["ldd"], ["gcc"], ["gdb"], ["python3"]):
        run_inside(root, ["sh", "-c", f"{tool[0]} --version | head -n 1"], {}, USER)
    # A missing tool is a failure, as in CI.
    as_user = {"CI": "true", **variables}
    worst = 0
    arguments = f"ARGS={os.environ.get('ARGS', '')}"
    tasks = [[options.task, arguments]] if options.task else [["demo"], ["test", arguments]]
    for task in tasks:
        step(f"make {task[0]} in {options.release}")
        worst = max(worst, run_inside(root, ["make", "-C", "dlopen", *task], as_user, USER))
    return worst


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        fail(f"{shlex.join(error.cmd)} ended with status {error.returncode}")
    except KeyboardInterrupt:
        sys.exit(130)
