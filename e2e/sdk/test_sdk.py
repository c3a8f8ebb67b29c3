"""What the published SDK wraps, unmodified, against our gateway."""

import time

import grpc
import pytest
from openshell import DeletionOutcome, ExecChunk, ExecResult, GatewayError, Sandbox, SandboxClient, SandboxError
from openshell import WorkspaceClient
from openshell._proto import openshell_pb2, sandbox_pb2

from conftest import IN_CLUSTER, WORKSPACE


def test_health(client):
    health = client.health()
    assert health.status == openshell_pb2.SERVICE_STATUS_HEALTHY
    assert health.version


def test_a_client_without_the_certificate_is_refused(gateway):
    from openshell import TlsConfig

    with SandboxClient(gateway.endpoint, tls=TlsConfig(ca_path=gateway.mtls / "ca.crt")) as anonymous:
        with pytest.raises(GatewayError) as refused:
            anonymous.list_all(workspace=WORKSPACE)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_create_answers_with_an_id_and_becomes_ready(client):
    ref = client.create(workspace=WORKSPACE, labels={"team": "blue"})
    try:
        assert ref.id and ref.name and ref.workspace == WORKSPACE
        assert ref.labels == {"team": "blue"}
        ready = client.wait_ready(ref.name, workspace=WORKSPACE, timeout_seconds=30)
        assert ready.id == ref.id
        assert ready.phase == openshell_pb2.SANDBOX_PHASE_READY
        assert ready.current_policy_version == 1
        assert any(c.type == "Ready" and c.status == "True" for c in ready.conditions)
    finally:
        client.delete(ref.name, workspace=WORKSPACE)


def test_exec_gives_output_and_exit_code(client, sandbox):
    result = client.exec(sandbox.name, ["sh", "-c", "echo out; echo err >&2; exit 3"], workspace=WORKSPACE)
    assert (result.stdout, result.stderr, result.exit_code) == ("out\n", "err\n", 3)


def test_exec_passes_stdin(client, sandbox):
    data = bytes(range(256)) * 1024
    result = client.exec(sandbox.name, ["sha256sum"], workspace=WORKSPACE, stdin=data)
    import hashlib

    assert result.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_exec_environment_and_working_directory(client, sandbox):
    result = client.exec(sandbox.name, ["sh", "-c", "echo $COLOUR; pwd"], workspace=WORKSPACE, env={"COLOUR": "green"}, workdir="/tmp")
    assert result.stdout == "green\n/tmp\n"


def test_exec_timeout_is_124(client, sandbox):
    start = time.monotonic()
    result = client.exec(sandbox.name, ["sleep", "60"], workspace=WORKSPACE, timeout_seconds=1)
    assert result.exit_code == 124
    assert time.monotonic() - start < 10


def test_exec_streams_while_it_runs(client, sandbox):
    start = time.monotonic()
    seen = []
    for item in client.exec_stream(sandbox.name, ["sh", "-c", "echo one; sleep 2; echo two"], workspace=WORKSPACE):
        seen.append((time.monotonic() - start, item))
    chunks = [(t, i.data) for t, i in seen if isinstance(i, ExecChunk)]
    assert chunks[0][1] == b"one\n" and chunks[0][0] < 1.5
    assert isinstance(seen[-1][1], ExecResult) and seen[-1][1].exit_code == 0


def test_exec_of_a_program_that_is_not_there(client, sandbox):
    result = client.exec(sandbox.name, ["no-such-program"], workspace=WORKSPACE)
    assert result.exit_code == 127


def test_large_output_arrives_whole(client, sandbox):
    result = client.exec(sandbox.name, ["sh", "-c", "yes | head -c 20000000"], workspace=WORKSPACE)
    assert len(result.stdout) == 20_000_000 and result.exit_code == 0


def test_reserved_environment_is_refused(client, sandbox):
    with pytest.raises(GatewayError) as refused:
        client.exec(sandbox.name, ["true"], workspace=WORKSPACE, env={"OPENSHELL_X": "1"})
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_stop_and_start_keep_the_workspace(client, sandbox):
    client.exec(sandbox.name, ["sh", "-c", "echo kept > note"], workspace=WORKSPACE)
    client.stop(sandbox.name, workspace=WORKSPACE)
    stopped = client.wait_stopped(sandbox.name, workspace=WORKSPACE, timeout_seconds=30)
    assert stopped.id == sandbox.id
    client.start(sandbox.name, workspace=WORKSPACE)
    client.wait_ready(sandbox.name, workspace=WORKSPACE, timeout_seconds=30)
    assert client.exec(sandbox.name, ["cat", "note"], workspace=WORKSPACE).stdout == "kept\n"


def test_list_pages_and_selects(client):
    names = [f"page-{i}" for i in range(5)]
    try:
        for i, name in enumerate(names):
            client.create(workspace=WORKSPACE, name=name, labels={"suite": "paging", "odd": str(i % 2)})
        pager = client.list(workspace=WORKSPACE, page_size=2, label_selector="suite=paging")
        pages = [[ref.name for ref in page.items] for page in pager]
        assert [len(p) for p in pages] == [2, 2, 1]
        assert sorted(sum(pages, [])) == names
        odd = client.list_all(workspace=WORKSPACE, label_selector="suite=paging,odd=1")
        assert sorted(ref.name for ref in odd) == ["page-1", "page-3"]
        assert set(names) <= {ref.name for ref in client.list_all_for_all_workspaces(page_size=3)}
    finally:
        for name in names:
            client.delete(name, workspace=WORKSPACE, allow_missing=True)


def test_delete_outcomes(client):
    ref = client.create(workspace=WORKSPACE, name="gone")
    client.wait_ready("gone", workspace=WORKSPACE, timeout_seconds=30)
    start = time.monotonic()
    result = client.delete("gone", workspace=WORKSPACE)
    assert time.monotonic() - start < 2
    assert result.outcome in (DeletionOutcome.ACCEPTED, DeletionOutcome.COMPLETED)
    assert result.sandbox_id == ref.id
    client.wait_deleted("gone", workspace=WORKSPACE, timeout_seconds=30, expected_sandbox_id=ref.id)
    assert client.delete("gone", workspace=WORKSPACE, allow_missing=True).outcome == DeletionOutcome.ALREADY_ABSENT
    with pytest.raises(GatewayError) as missing:
        client.delete("gone", workspace=WORKSPACE)
    assert missing.value.code() == grpc.StatusCode.NOT_FOUND
    assert missing.value.error_info is not None and missing.value.error_info.metadata.get("name", "gone") == "gone"


def test_error_types_say_the_field(client):
    with pytest.raises(GatewayError) as refused:
        client.create(workspace=WORKSPACE, name="Not_A_Name")
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in refused.value.field_violations] == ["name"]
    assert refused.value.error_info.domain

    client.create(workspace=WORKSPACE, name="twice")
    try:
        with pytest.raises(GatewayError) as exists:
            client.create(workspace=WORKSPACE, name="twice")
        assert exists.value.code() == grpc.StatusCode.ALREADY_EXISTS
    finally:
        client.delete("twice", workspace=WORKSPACE)

    with pytest.raises(GatewayError) as nowhere:
        client.create(workspace="no-such-workspace", name="x")
    assert nowhere.value.code() == grpc.StatusCode.NOT_FOUND


def test_what_the_driver_cannot_do_is_refused_by_name(client):
    # An image is no use to the process driver; a socket of the agent's is none to any driver yet.
    field, value = ("agent_socket", "/run/agent.sock") if IN_CLUSTER else ("image", "debian:12")
    spec = openshell_pb2.SandboxSpec(template=openshell_pb2.SandboxTemplate(**{field: value}))
    with pytest.raises(GatewayError) as refused:
        client.create(workspace=WORKSPACE, name="refused", spec=spec)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert any(field in v.field for v in refused.value.field_violations)


def test_a_bad_policy_is_refused_with_its_place(client):
    policy = sandbox_pb2.SandboxPolicy(version=1)
    policy.network_policies["x"].endpoints.add(host="*", port=443)
    with pytest.raises(GatewayError) as refused:
        client.create(workspace=WORKSPACE, name="bad-policy", spec=openshell_pb2.SandboxSpec(policy=policy))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert any("network_policies.x.endpoints[0].host" in v.field for v in refused.value.field_violations)


def test_what_is_not_there_yet_names_the_method(client):
    with pytest.raises(GatewayError) as missing:
        client.sandbox_templates().list_all(workspace=WORKSPACE)
    assert missing.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "ListSandboxTemplates" in missing.value.details()


def test_the_main_process_and_its_exit_code(client):
    spec = openshell_pb2.SandboxSpec(command=["sh", "-c", "exit 0"])
    client.create(workspace=WORKSPACE, name="main", spec=spec)
    try:
        done = client.wait_ready("main", workspace=WORKSPACE, timeout_seconds=30)
        deadline = time.time() + 20
        while done.phase != openshell_pb2.SANDBOX_PHASE_COMPLETED and time.time() < deadline:
            time.sleep(0.1)
            done = client.get("main", workspace=WORKSPACE)
        assert done.phase == openshell_pb2.SANDBOX_PHASE_COMPLETED
        assert done.status.exit_code == 0
    finally:
        client.delete("main", workspace=WORKSPACE)


def test_the_context_manager_creates_and_deletes(client):
    with Sandbox(workspace=WORKSPACE, name="context") as box:
        assert box.exec(["echo", "hello"]).stdout == "hello\n"
        ident = box.id
    with pytest.raises(GatewayError) as gone:
        client.get("context", workspace=WORKSPACE)
    assert gone.value.code() == grpc.StatusCode.NOT_FOUND
    assert ident


def test_wait_ready_raises_for_a_failed_sandbox(client):
    spec = openshell_pb2.SandboxSpec(command=["/no/such/program"])
    client.create(workspace=WORKSPACE, name="broken", spec=spec)
    try:
        with pytest.raises(SandboxError):
            client.wait_ready("broken", workspace=WORKSPACE, timeout_seconds=10)
    finally:
        client.delete("broken", workspace=WORKSPACE)


def test_the_default_workspace_is_there(client):
    workspaces = WorkspaceClient.from_sandbox_client(client)
    assert "default" in [w.name for w in workspaces.list_all()]
    assert workspaces.get("default").name == "default"
