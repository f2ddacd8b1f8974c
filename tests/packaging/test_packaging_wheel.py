"""What is built is what was meant: one wheel, our names only, and a base install that applications can bear."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("packaging")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, made by the tools of this environment."""
    out = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel's base install and nothing else."""
    home = tmp_path_factory.mktemp("fresh") / "venv"
    venv.create(home, with_pip=True)
    done = run(home / "bin" / "python", "-m", "pip", "install", "--quiet", wheel, cwd=home)
    if done.returncode != 0 and "ZAPD_REQUIRE_COMPONENTS" not in os.environ:
        pytest.skip("pip cannot fetch pyzmq and PyNaCl here")
    assert done.returncode == 0, done.stderr
    return home


def site_packages(home: Path) -> Path:
    (path,) = home.glob("lib/python*/site-packages")
    return path


def test_the_wheel_holds_our_three_packages_and_nothing_else(wheel: Path) -> None:
    """zapd, zapd_backends and zapd_migrations, each typed; no module called backends, migrations or tests."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    (info,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {"zapd", "zapd_backends", "zapd_migrations", info}
    assert {"zapd/py.typed", "zapd_backends/py.typed", "zapd_migrations/py.typed"} <= set(names)
    assert "zapd/agent/bridge.py" in names
    assert any(name.startswith("zapd_migrations/versions/") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".key", ".db"))]


def test_the_source_distribution_holds_what_a_packager_needs(built: Path) -> None:
    """Sources, tests, units, documentation and licence; no configuration or secret of a working copy."""
    import tarfile

    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "pyproject.toml", "deploy/zapd.service", "zapd/agent/guarding.py"} <= names
    assert not {"zapd.toml", "admin.token"} & names
    assert not [name for name in names if name.startswith((".venv", "data/"))]


def test_the_base_install_asks_for_pyzmq_and_pynacl_alone(wheel: Path) -> None:
    """Whatever else zapd uses stands behind an extra."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    needs = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist") or []
    base = {need.split(">")[0].strip().lower() for need in needs if "extra ==" not in need}
    assert base == {"pyzmq", "pynacl"}


def test_nothing_with_a_folder_name_of_ours_is_installed(installed: Path) -> None:
    """In a fresh environment there is no module called backends or migrations."""
    tops = {path.name for path in site_packages(installed).iterdir()}
    assert {"zapd", "zapd_backends", "zapd_migrations"} <= tops
    assert not {"backends", "migrations", "tests", "bench"} & tops
    code = "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in ('backends', 'migrations')))"
    assert run(installed / "bin" / "python", "-c", code, cwd=installed).returncode == 0


def test_an_application_needs_no_more_than_the_base_install(installed: Path) -> None:
    """With pyzmq and PyNaCl alone an agent starts, guards a socket, and the context ends."""
    code = """
import sys, zmq, zapd.agent
with zmq.Context() as context:
    agent = zapd.agent.start(context, None, endpoints=["tcp://127.0.0.1:1"])
    with context.socket(zmq.ROUTER) as socket:
        zapd.agent.guard(socket, domain="orders", secret_key=zmq.curve_keypair()[1])
        socket.bind("tcp://127.0.0.1:*")
print(sorted(name for name in sys.modules if name.partition(".")[0] in
      {"sqlalchemy", "fastapi", "click", "rich", "structlog", "msgspec", "pydantic", "uvloop", "alembic"}))
"""
    done = run(installed / "bin" / "python", "-W", "error", "-c", code, cwd=installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_command_without_its_extra_says_which(installed: Path) -> None:
    """`zapd` from the base install names the extra instead of showing a traceback."""
    done = run(installed / "bin" / "zapd", "--version", cwd=installed)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "zapd[server]" in said or said.startswith("zapd")


def test_the_program_runs_from_the_wheel(installed: Path) -> None:
    """`zapd --version` of the installed wheel, its libraries borrowed from the environment of the tests."""
    borrowed = {"PYTHONPATH": sysconfig.get_path("purelib")}
    done = run(installed / "bin" / "zapd", "--version", cwd=installed, env=borrowed)
    assert done.returncode == 0, done.stderr
    assert "zapd" in done.stdout
    code = "import zapd as a, zapd_backends as b, zapd_migrations as c; print(a.__file__, b.__file__, c.__file__)"
    done = run(installed / "bin" / "python", "-c", code, cwd=installed, env=borrowed)
    assert done.stdout.count(str(installed)) == 3, done.stdout + done.stderr
