"""A gateway of the suite's own, found by the SDK the way it finds any gateway.

With `OPENSHELL_SDK_GATEWAY=registered` nothing is started: the gateway is the active one, which is
then one in a cluster (`e2e/kubernetes/sdk`).
"""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import pytest

WORKSPACE = "default"
IN_CLUSTER = os.environ.get("OPENSHELL_SDK_GATEWAY") == "registered"


@dataclasses.dataclass
class Gateway:
    """Where the gateway is, as its registration says."""

    endpoint: str
    mtls: pathlib.Path


def active_gateway() -> Gateway:
    config = pathlib.Path(os.environ["XDG_CONFIG_HOME"]) / "openshell"
    directory = config / "gateways" / (config / "active_gateway").read_text().strip()
    endpoint = json.loads((directory / "metadata.json").read_text())["gateway_endpoint"]
    return Gateway(endpoint.removeprefix("https://"), directory / "mtls")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def gateway():
    os.environ.pop("OPENSHELL_GATEWAY", None)
    if IN_CLUSTER:
        yield active_gateway()
        return
    with tempfile.TemporaryDirectory(prefix="openshell-sdk-") as root:
        root = pathlib.Path(root)
        os.environ.update(
            XDG_STATE_HOME=str(root / "state"),
            XDG_CONFIG_HOME=str(root / "config"),
            OPENSHELL_SERVER_PORT=str(free_port()),
        )
        log = open(root / "gateway.log", "wb")
        process = subprocess.Popen([pathlib.Path(os.environ["OPENSHELL_BIN_DIR"]) / "openshell-gateway"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        line = process.stdout.readline().decode()
        assert line.startswith("ready "), (root / "gateway.log").read_text()
        yield active_gateway()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        end_supervisors(root)
        log.close()


def end_supervisors(root: pathlib.Path) -> None:
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
