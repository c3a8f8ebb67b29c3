"""What a test of the whole stack needs: the charts in a cluster, the command line, a witness in a sandbox, the audit log.

The cluster is that of e2e/cluster/up: its components are stopped and started, its processes killed by their id, its audit
log read. Nothing here works on another one.
"""

import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = "localhost/openshell-test/sandbox:bookworm"
SANDBOX_ID = "openshell.ai/sandbox-id"

# Prints every request as a line of JSON. What the witness must not reach is told by these lines: they are read from the
# node's disk, so that nobody who is away can hide one.
SERVER = """
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        seen = {"method": self.command, "path": self.path, "authorization": self.headers.get("Authorization", "")}
        if self.path != "/": print(json.dumps(seen), flush=True)
        body = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_DELETE = do_GET
    def log_message(self, *_): pass
ThreadingHTTPServer(("", 8000), Handler).serve_forever()
"""

# The main process of a sandbox. It first tries what it must not, then says over the way that it may use what came of it.
WITNESS = """
import http.client, os, sys, time
name, host, other = sys.argv[1:]
def ask(method, host, path, headers={}):
    connection = http.client.HTTPConnection(host, 8000, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()
turn = 0
while True:
    delete = ask("DELETE", host, "/breach/" + name)
    elsewhere = ask("GET", other, "/breach/" + name)
    token = ask("GET", host, "/token/" + name, {"Authorization": "Bearer " + os.environ.get("TOKEN", "")})
    ask("GET", host, f"/turn/{name}/{turn}?delete={delete}&elsewhere={elsewhere}&token={token}")
    turn += 1
    time.sleep(0.1)
"""


class Failed(Exception):
    """Something does not hold; the message says what was seen instead."""


def run(*command, timeout=60, check=True, text_in=None, environment=None):
    try:
        done = subprocess.run(command, cwd=ROOT, input=text_in, capture_output=True, text=True, timeout=timeout, env=environment)
    except subprocess.TimeoutExpired:
        raise Failed(f"{shlex.join(command)[:200]} did not end within {timeout} s") from None
    if check and done.returncode != 0:
        raise Failed(f"{shlex.join(command)[:200]} ended with {done.returncode}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return done


def until(what, holds, seconds=60, pause=0.2):
    """What `holds` answers as soon as that is true; what it raises counts as not yet."""
    end, last = time.monotonic() + seconds, None
    while time.monotonic() < end:
        try:
            if answer := holds():
                return answer
        except Failed as error:
            last = error
        time.sleep(pause)
    raise Failed(f"not within {seconds} s: {what}" + (f"; last: {last}" if last else ""))


def expect(holds, what):
    if not holds:
        raise Failed(what)


class Report:
    """A verdict per line, and the count."""

    def __init__(self):
        self.passed = self.failed = 0

    @contextlib.contextmanager
    def step(self, what):
        begin = time.monotonic()
        try:
            yield
        except Failed as error:
            self.failed += 1
            print(f"  FAIL  {what}\n" + "\n".join("        " + line for line in str(error).splitlines()[-25:]), flush=True)
        else:
            self.passed += 1
            print(f"  ok    {what} ({(time.monotonic() - begin) * 1000:.0f} ms)", flush=True)


class Stack:
    """A cluster with the charts installed in two namespaces of this run."""

    def __init__(self, binaries, purpose, images=True):
        self.name = os.environ.get("OPENSHELL_CLUSTER_NAME", "default")
        self.state = pathlib.Path("/var/lib/openshell-cluster") / self.name
        self.work = pathlib.Path(tempfile.mkdtemp())
        self.agents, self.system = f"{purpose}-{os.getpid()}-agents", f"{purpose}-{os.getpid()}"
        run("e2e/cluster/up", timeout=1800)
        os.environ.pop("OPENSHELL_TEST_KUBECONFIG", None)
        os.environ["KUBECONFIG"] = str(self.state / "kubeconfig")
        os.environ["KUBECACHEDIR"] = str(self.work / "kubectl")
        self.kubectl = run("e2e/cluster/tool", "kubectl", timeout=1800).stdout.strip()
        self.helm = run("e2e/cluster/tool", "helm", timeout=1800).stdout.strip()
        if images:
            run("scripts/images", "--profile", os.environ.get("OPENSHELL_IMAGE_PROFILE", "dev"), "--load", timeout=3600)
            self.image(IMAGE)
        self.openshell = str(pathlib.Path(binaries).resolve() / "openshell")
        homes = {"XDG_CONFIG_HOME": str(self.work / "config"), "XDG_STATE_HOME": str(self.work / "state")}
        self.environment = os.environ | homes
        self.host = f"service.{self.agents}.svc.cluster.local"

    # --- the cluster ---

    def k(self, *arguments, timeout=60, check=True, text_in=None):
        return run(self.kubectl, "--request-timeout=20s", *arguments, timeout=timeout, check=check, text_in=text_in).stdout

    def apply(self, *objects):
        self.k("apply", "--server-side", "--force-conflicts", "-f", "-", text_in=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind, name=None, namespace=None, selector=None):
        """One object, None if it is not there, or all of a kind."""
        arguments = ["get", kind, "-n", namespace or self.agents, "-o", "json", "--ignore-not-found"]
        text = self.k(*arguments, *([name] if name else []), *(["-l", selector] if selector else []))
        answer = json.loads(text) if text.strip() else None
        return answer if name else (answer or {}).get("items", [])

    def component(self, action, name):
        run("e2e/cluster/component", action, name)

    def api_ready(self, seconds=60):
        until("the API server answers", lambda: self.k("get", "--raw", "/readyz") == "ok", seconds)

    def image(self, name):
        """Puts the sandbox image into the cluster under a name."""
        rootfs = run("e2e/cluster/rootfs", timeout=1800).stdout.strip()
        run("e2e/cluster/image", name, rootfs, "--user", "1000:1000", timeout=600)

    def api_address(self):
        """Where pods reach the API server."""
        return self.get("service", "kubernetes", "default")["spec"]["clusterIP"]

    # --- the release ---

    def namespaces(self, *names):
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}} for name in names))

    def install(self):
        self.namespaces(self.system, self.agents)
        run(self.helm, "install", "openshell-crds", "charts/openshell-crds", "-n", self.system, "--take-ownership", "--set", "keep=false")
        until("the definitions are served", lambda: "openshellgateways" in self.k("get", "--raw", "/apis/openshell.ai/v1alpha1"), 30)
        values = {"server.sandboxNamespace": self.agents, "server.sandboxImage": IMAGE, "server.sandboxImagePullPolicy": "Never"}
        settings = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
        run(self.helm, "install", "openshell", "charts/openshell", "-n", self.system, "--wait", "--timeout", "90s", *settings, timeout=120)
        self.gateway_ready()
        self.register()

    def register(self):
        """Tells the command line of the gateway, with what that has for its clients now."""
        self.cli("gateway", "add", "--kubernetes", "--namespace", self.system, "--name", "cluster")

    def upgrade(self, *settings):
        run(self.helm, "upgrade", "openshell", "charts/openshell", "-n", self.system, "--reuse-values", "--wait", "--timeout", "90s",
            *(word for setting in settings for word in ("--set", setting)), timeout=120)

    def gateway_ready(self):
        self.k("wait", "-n", self.system, "--for=condition=Ready", "openshellgateway/default", "--timeout=90s", timeout=120)

    def stop(self):
        for release in ("openshell", "openshell-crds"):
            run(self.helm, "uninstall", release, "-n", self.system, "--ignore-not-found", check=False, timeout=120)
        self.k("delete", "namespace", self.agents, self.system, "--ignore-not-found", "--timeout=60s", timeout=120, check=False)
        shutil.rmtree(self.work, ignore_errors=True)

    # --- the command line ---

    def cli(self, *arguments, timeout=60, check=True):
        return run(self.openshell, *arguments, timeout=timeout, check=check, environment=self.environment)

    def inside(self, name, *command, timeout=30):
        return self.cli("sandbox", "exec", "--name", name, "--no-tty", "--", *command, timeout=timeout).stdout

    def inside_works(self, name, seconds=60):
        until(f"a command runs in {name}", lambda: "works" in self.inside(name, "echo", "works"), seconds)

    # --- sandboxes ---

    def serve(self):
        restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        pod = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0,
               "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
               "containers": [{"name": "server", "image": IMAGE, "imagePullPolicy": "Never", "securityContext": restricted,
                               "readinessProbe": {"httpGet": {"path": "/", "port": 8000}, "periodSeconds": 1},
                               "command": ["python3", "-c", SERVER]}]}
        services = [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": self.agents},
                     "spec": {"selector": {"app": "service"}, "ports": [{"port": 8000}]}} for name in ("service", "other")]
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "service", "namespace": self.agents, "labels": {"app": "service"}},
                    "spec": pod}, *services)
        self.k("wait", "-n", self.agents, "--for=condition=Ready", "pod/service", "--timeout=60s", timeout=90)
        self.address = self.get("service", "service")["spec"]["clusterIP"]
        self.other = self.get("service", "other")["spec"]["clusterIP"]
        self.server = self.get("pod", "service")["metadata"]["uid"]
        self.apply(self.policy(), self.secret("first"), self.provider())

    def policy(self, grants=True):
        rest = {"host": self.host, "port": 8000, "protocol": "rest", "enforcement": "enforce", "access": "read-only",
                "allowed_ips": [self.address + "/32"]}
        service = {"endpoints": [rest], "binaries": [{"path": "/usr/bin/python3*"}, {"path": "/usr/bin/curl"}]}
        files = {"include_workdir": True, "read_only": ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/dev/urandom", "/dev/zero"],
                 "read_write": ["/tmp", "/dev/null", "/dev/tty"]}
        document = {"version": 1, "filesystem_policy": files}
        if grants:
            document["network_policies"] = {"service": service}
        return self.of_ours("Policy", "faults", {"policy": document})

    def secret(self, value):
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "namespace": self.agents,
                "labels": {"openshell.ai/credential": "true"}}, "stringData": {"token": value}}

    def provider(self):
        spec = {"type": "generic", "credentials": [{"name": "TOKEN", "secretKeyRef": {"name": "token", "key": "token"}}],
                "endpoints": [{"host": self.host, "port": 8000}]}
        return self.of_ours("Provider", "faults", spec)

    def of_ours(self, kind, name, spec):
        return {"apiVersion": "openshell.ai/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": self.agents}, "spec": spec}

    def sandbox(self, name, **more):
        return self.of_ours("OpenShellSandbox", name, {"command": ["sleep", "infinity"], "policyRef": {"name": "faults"}} | more)

    def as_before(self, witness):
        """What a fault found when it came, is there for the next one, however it went."""
        if not self.get("namespace", self.agents):
            self.namespaces(self.agents)
            self.upgrade()
            self.serve()
        names = [item["metadata"]["name"] for item in self.get("ossb") if item["metadata"]["name"] != witness.name]
        if names:
            self.remove(*names)
        self.apply(self.policy(), self.secret("first"), self.provider())
        self.gateway_ready()
        self.register()
        try:
            self.ready(witness.name, seconds=10)
        except Failed:
            self.remove(witness.name)
        self.witness(witness.name)
        witness.mark()

    def witness(self, name):
        """A sandbox that keeps trying what it may and what it must not."""
        command = ["python3", "-c", WITNESS, name, self.host, self.other]
        self.apply(self.sandbox(name, command=command, providerRefs=[{"name": "faults"}]))
        self.ready(name)
        return Witness(self, name)

    def ready(self, *names, seconds=60):
        wanted = [f"openshellsandbox/{name}" for name in names]
        try:
            self.k("wait", "-n", self.agents, "--for=condition=Ready", *wanted, f"--timeout={seconds}s", timeout=seconds * len(names) + 30)
        except Failed as error:
            raise Failed(f"{error}\n{self.k('get', 'ossb', '-n', self.agents)}") from None

    def condition(self, name, kind, status=None, reason=None, part="", object_kind="ossb"):
        """The condition if it is so, else None."""
        found = (self.get(object_kind, name) or {}).get("status", {}).get("conditions", [])
        for condition in found:
            if condition["type"] == kind:
                so = status in (None, condition["status"]) and reason in (None, condition["reason"]) and part in condition["message"]
                if so:
                    return condition
                raise Failed(f"{kind} of {name} is {condition['status']} {condition['reason']}: {condition['message']}")
        return None

    def pod(self, name):
        return self.get("pod", name)

    def remove(self, *names):
        self.k("delete", "ossb", "-n", self.agents, *names, "--ignore-not-found", "--timeout=120s", timeout=150)
        until("their pods are gone", lambda: not {pod["metadata"]["name"] for pod in self.get("pods")} & set(names))

    # --- processes of the node ---

    def processes(self, *pods):
        """(process id as the machine counts, program) of everything that runs in pods of these UIDs."""
        marks = [mark for uid in pods for mark in (uid, uid.replace("-", "_"))]
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                    if any(mark in (entry / "cgroup").read_text() for mark in marks):
                        yield int(entry.name), command

    def process(self, pod, program):
        for number, command in self.processes(pod):
            if command.endswith(program):
                return number
        raise Failed(f"no process {program} in pod {pod}")

    def pods_of(self, program):
        """The running pods of operator or gateway."""
        pods = self.get("pods", namespace=self.system, selector=f"app.kubernetes.io/name={program}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"] and pod["status"].get("phase") == "Running"]

    def kill(self, program, pod=None):
        pod = pod or self.pods_of(program)[0]
        os.kill(self.process(pod["metadata"]["uid"], program), signal.SIGKILL)
        return pod

    # --- what must hold after every fault ---

    def mark(self):
        """A place in the audit log."""
        return (self.state / "logs/audit.log").stat().st_size

    def audited(self, since, until=None):
        with open(self.state / "logs/audit.log", "rb") as log:
            log.seek(since)
            for line in log:
                if until is not None and since >= until:
                    return
                since += len(line)
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event.get("stage") == "ResponseComplete" and event.get("objectRef"):
                        yield event

    def made(self, since, resource):
        """How often an object of each name was made."""
        count = {}
        for event in self.audited(since):
            reference = event["objectRef"]
            of_it = reference.get("resource") == resource and reference.get("namespace") == self.agents and "subresource" not in reference
            if of_it and event["responseStatus"].get("code") == 201:
                name = reference.get("name") or "?"
                count[name] = count.get(name, 0) + 1
        return count

    def nothing_twice(self, since, pods=None, sandboxes=None):
        """Each sandbox was made once since then, but for those of which another count is said."""
        for resource, usual in (("sandboxes", sandboxes or {}), ("pods", pods or {})):
            made = self.made(since, resource)
            wrong = {name: times for name, times in made.items() if times != usual.get(name, 1)}
            missing = {name: times for name, times in usual.items() if times and name not in made}
            expect(not wrong and not missing, f"{resource} were made so often: {made}; expected once, or {usual}")
        kept = self.get("ossb")
        for kind, most in (("sandboxes.agents.x-k8s.io", 1), ("pods", 1)):
            found = [thing["metadata"].get("labels", {}).get(SANDBOX_ID) for thing in self.get(kind) if "deletionTimestamp" not in thing["metadata"]]
            for sandbox in kept:
                count = found.count(sandbox["metadata"]["uid"])
                expect(count <= most, f"{sandbox['metadata']['name']} has {count} {kind}")

    def orphans(self):
        """Whatever of ours has an owner that is not there, or is for a sandbox that is not."""
        kinds = "pods,sandboxes.agents.x-k8s.io,openshellsandboxes,openshellgateways,policies.openshell.ai,providers.openshell.ai,secrets,configmaps," \
            "persistentvolumeclaims,services,serviceaccounts,deployments,replicasets,controllerrevisions,networkpolicies"
        things = [thing for space in (self.agents, self.system) for thing in json.loads(self.k("get", kinds, "-n", space, "-o", "json"))["items"]]
        things += json.loads(self.k("get", "crd", "-o", "json"))["items"]
        there = {thing["metadata"]["uid"] for thing in things}
        for thing in things:
            metadata = thing["metadata"]
            owners = [owner["uid"] for owner in metadata.get("ownerReferences", [])]
            wanted = [*owners, *([metadata["labels"][SANDBOX_ID]] if SANDBOX_ID in metadata.get("labels", {}) else [])]
            if any(uid not in there for uid in wanted):
                yield f"{thing['kind']} {metadata['namespace']}/{metadata['name']}"

    def nothing_orphaned(self):
        until_none(self.orphans)


def until_none(things, seconds=60):
    def none():
        left = list(things())
        if left:
            raise Failed("left: " + ", ".join(left))
        return True
    until("nothing is left", none, seconds, 0.5)


class Witness:
    """What the server saw of a sandbox that tries what it must not."""

    def __init__(self, stack, name):
        self.stack, self.name = stack, name
        self.since = 0

    def lines(self):
        """Everything that the server was asked, from the node's disk."""
        for log in sorted((self.stack.state / "logs/pods").glob(f"{self.stack.agents}_service_{self.stack.server}/server/*.log")):
            for line in log.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, IndexError):
                    yield json.loads(line.split(" ", 3)[3])

    def turns(self):
        """(turn, delete, elsewhere, token) in order; a turn that is smaller than the one before is another process."""
        pattern = re.compile(rf"/turn/{self.name}/(\d+)\?delete=(\w+)&elsewhere=(\w+)&token=(\w+)$")
        found = (pattern.match(line["path"]) for line in self.lines())
        return [(int(match[1]), *match.groups()[1:]) for match in found if match]

    def tokens(self):
        return [line["authorization"] for line in self.lines() if line["path"] == f"/token/{self.name}"]

    def mark(self):
        self.since = len(self.turns())

    def goes_on(self, turns=5, seconds=20):
        """It asks, is allowed what it may, and is denied what it must not, in at least so many turns from now."""
        begin = len(self.turns())
        until(f"{turns} further turns of {self.name}", lambda: len(self.turns()) >= begin + turns, seconds)
        self.denied()

    def denied(self):
        """Nothing got through that must not; the policy was the reason wherever the server could be reached, as it can now."""
        breaches = [line for line in self.lines() if line["path"] == f"/breach/{self.name}"]
        expect(not breaches, f"what is forbidden got through: {breaches[:3]}")
        turns = self.turns()[self.since:]
        expect(turns, f"{self.name} has said nothing")
        # The method is denied by an answer, the address by a refused connection. A connection is tried before its requests are
        # decided: where a cluster in trouble has no way to the server, the agent gets that error.
        open_doors = [turn for turn in turns if turn[1].isdigit() and turn[1] != "403" or turn[2].isdigit()]
        expect(not open_doors, f"not denied by policy: {open_doors[:3]} of {len(turns)} turns")
        expect(turns[-1][1] == "403", f"the last turn was not denied by policy: {turns[-1]}")

    def same_process(self):
        numbers = [turn[0] for turn in self.turns()[self.since:]]
        expect(numbers and numbers == sorted(numbers), f"{self.name} was started again: {numbers[:3]}…{numbers[-3:]}")
