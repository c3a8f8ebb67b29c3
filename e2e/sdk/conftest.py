"""A gateway of the suite's own, found by the SDK the way it finds any gateway."""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import pytest

BIN = pathlib.Path(os.environ["OPENSHELL_BIN_DIR"])
WORKSPACE = "default"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def gateway():
    with tempfile.TemporaryDirectory(prefix="openshell-sdk-") as root:
        root = pathlib.Path(root)
        os.environ.update(
            XDG_STATE_HOME=str(root / "state"),
            XDG_CONFIG_HOME=str(root / "config"),
            OPENSHELL_SERVER_PORT=str(free_port()),
        )
        os.environ.pop("OPENSHELL_GATEWAY", None)
        log = open(root / "gateway.log", "wb")
        process = subprocess.Popen([BIN / "openshell-gateway"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        line = process.stdout.readline().decode()
        assert line.startswith("ready "), (root / "gateway.log").read_text()
        yield root
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        end_supervisors(root)
        log.close()


def end_supervisors(root: pathlib.Path) -> None:
    import json

    pids = []
    for record in (root / "state/openshell/sandboxes").glob("*/supervisor.json"):
        pid = json.loads(record.read_text())["pid"]
        try:
            if b"openshell-sandbox" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGTERM)
                pids.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            pass
    deadline = time.time() + 5
    while time.time() < deadline and any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
        time.sleep(0.05)


@pytest.fixture(scope="session")
def client(gateway):
    from openshell import SandboxClient

    with SandboxClient.from_active_cluster() as c:
        yield c


@pytest.fixture
def sandbox(client, request):
    """A ready sandbox, deleted afterwards."""
    name = f"t{abs(hash(request.node.name)) % 10**9}"
    ref = client.create(workspace=WORKSPACE, name=name)
    client.wait_ready(name, workspace=WORKSPACE, timeout_seconds=30)
    yield ref
    client.delete(name, workspace=WORKSPACE, allow_missing=True)
    client.wait_deleted(name, workspace=WORKSPACE, timeout_seconds=30, expected_sandbox_id=ref.id)
