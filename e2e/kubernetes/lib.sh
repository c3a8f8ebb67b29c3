# Sourced by the suites here: a verdict per step, and a cluster with both charts installed.
# shellcheck shell=bash disable=SC2034  # used by the scripts that source this
#
# A script says what it needs by calling `bring_up` and then `install_charts`; `finish` runs at its end, whatever
# happened, and takes everything away again. Only one of these scripts can use a cluster at a time: the names are fixed.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

passed=0 failed=0 skipped=0
namespace=agents system=openshell-system
image=localhost/openshell-test/sandbox:bookworm
work=$(mktemp -d)
trap 'end_started; rm -rf "$work"' EXIT
export XDG_CONFIG_HOME=$work/config XDG_STATE_HOME=$work/state

# A step fails with the first command in it that does, unless the script looks at exit codes itself (`lenient`); so nobody
# may call it where bash ignores that (`if`, `&&`, `||`).
lenient=
step() { # what, command...
  local what=$1 start=$EPOCHREALTIME output verdict; shift
  output=$([ -n "$lenient" ] || set -e; "$@" 2>&1)
  verdict=$?
  if [ $verdict = 0 ]; then
    passed=$((passed + 1)); printf '  ok    %s (%d ms)\n' "$what" $(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
  else
    failed=$((failed + 1)); printf '  FAIL  %s\n' "$what"; tail -n 25 <<<"$output" | sed 's/^/        /'
    return 1
  fi
}
skip() { skipped=$((skipped + 1)); printf '  skip  %s: %s\n' "$1" "$2"; }
# What the rest of a script cannot do without.
need() {
  step "$@"
  [ "$failed" = 0 ] || { printf '%d passed, %d failed, the rest was not tried\n' "$passed" "$failed"; exit 1; }
}
count() {
  printf '%d passed, %d failed' "$passed" "$failed"
  [ "$skipped" = 0 ] || printf ', %d skipped' "$skipped"
  printf '\n'
  [ "$failed" = 0 ]
}

k() { timeout 200 "$kubectl" "$@"; }
openshell() { timeout 60 "$bin/openshell" "$@"; }
says() { local wanted=$1 got; shift; got=$("$@" 2>&1) || true; grep -qF -- "$wanted" <<<"$got" || { printf 'wanted %s, got:\n%s\n' "$wanted" "$got"; return 1; }; }
until_true() { local end=$((SECONDS + ${within:-60})); until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || { "$@"; return 1; }; sleep 0.2; done; }

# An answer that could not be had is not an empty one.
no_sandbox_pods() { local left; left=$(k get pods -n $namespace -o name -l openshell.ai/sandbox-id) && [ -z "$left" ]; }
# Nothing of any kind has a label of ours, and none of our definitions is there.
none_left() {
  local kinds label left
  # Events are told of what has been; metrics have no labels of their own.
  kinds=$(k api-resources --verbs=list -o name | grep -v -e ^events -e metrics.k8s.io | paste -sd,) && [ -n "$kinds" ] || return 1
  for label in app.kubernetes.io/part-of=openshell app.kubernetes.io/managed-by=openshell-operator openshell.ai/gateway openshell.ai/sandbox-id; do
    left=$(k get "$kinds" -A --ignore-not-found -o name -l "$label") || return 1
    [ -z "$left" ] || { printf 'left behind with %s:\n%s\n' "$label" "$left"; return 1; }
  done
  left=$(k get crds -o name) || return 1
  ! grep 'openshell\.ai$' <<<"$left"
}

# Garbage collection looks for new kinds every 30 s. What is owned by one that is gone before that stays for ever.
collectable() { k get crds -o json | python3 -c '
import datetime, json, sys
made = [item["metadata"]["creationTimestamp"] for item in json.load(sys.stdin)["items"] if item["spec"]["group"] == "openshell.ai"]
age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(max(made).replace("Z", "+00:00"))
sys.exit(age.total_seconds() < 45)'; }

# Ends what this script started in the background, by id.
started=()
end_started() {
  local pid
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null; done
  started=()
}

# Ends the script in time whatever hangs. What it waits for just then is bounded itself, and is waited for.
bounded() { # seconds
  {
    # In pieces, so that it does not outlive the script.
    for ((waited = 0; waited < $1; waited += 5)); do
      read -rt 5 <> <(:)
      grep -q "^PPid:.$$\$" /proc/$BASHPID/status || exit
    done
    kill -TERM $$
  } >/dev/null 2>&1 &
  started+=($!)
  # shellcheck disable=SC2064  # the bound of now
  trap "echo 'not done within $1 s' >&2; exit 1" TERM
}

finish() {
  end_started
  if [ -n "${helm:-}" ]; then
    "$helm" uninstall openshell -n $system --ignore-not-found --wait --timeout 60s >/dev/null 2>&1
    "$helm" uninstall openshell-crds -n $system --ignore-not-found --wait --timeout 60s >/dev/null 2>&1
    k delete namespace $namespace $system "$@" --ignore-not-found --wait=true --timeout=60s >/dev/null 2>&1
  fi
  rm -rf "$work"
}

# The cluster and its tools.
bring_up_cluster() {
  local line
  line=$(e2e/cluster/up) || exit 1
  eval "$line"
  kubectl=$(e2e/cluster/tool kubectl) && helm=$(e2e/cluster/tool helm) || exit 1
  export KUBECACHEDIR=$work/kubectl
  trap finish EXIT
}
# The same, and the images. The first argument is the directory of the `openshell` command.
bring_up() { # [directory]
  bin=$(realpath "${1:-${CARGO_TARGET_DIR:-target}/debug}")
  [ -x "$bin/openshell" ] || { echo "$bin has no openshell: cargo build -p openshell-cli, or name the directory that has it" >&2; exit 1; }
  bring_up_cluster
  scripts/images --profile "${OPENSHELL_IMAGE_PROFILE:-dev}" --load "${image_options[@]}" >/dev/null || exit 1
  e2e/cluster/image $image "$(e2e/cluster/rootfs)" --user 1000:1000 >/dev/null || exit 1
}
image_options=()

namespaces() {
  k apply -f - <<YAML
{apiVersion: v1, kind: List, items: [
 {apiVersion: v1, kind: Namespace, metadata: {name: $system, labels: {pod-security.kubernetes.io/enforce: restricted}}},
 {apiVersion: v1, kind: Namespace, metadata: {name: $namespace, labels: {pod-security.kubernetes.io/enforce: restricted}}}]}
YAML
}
install_operator() { # helm's options…
  "$helm" upgrade --install openshell charts/openshell -n $system --wait --timeout 90s --set server.sandboxNamespace=$namespace \
    --set server.sandboxImage=$image --set server.sandboxImagePullPolicy=Never "$@"
}
# Whether the definitions stay when their release goes, and what hangs on them.
keep=false
install_definitions() {
  need "namespaces that admit only restricted pods" namespaces
  # Those that another test applied belong to no release.
  need "no definition is there" k delete -f crds/manifests --ignore-not-found --timeout=60s
  need "helm install of the definitions" "$helm" install openshell-crds charts/openshell-crds -n $system --set keep=$keep --wait
  need "they are served" until_true k get openshellgateways,openshellsandboxes,policies.openshell.ai,providers.openshell.ai -A
}
install_charts() { # helm's options…
  install_definitions
  need "helm install of the operator and its gateway" install_operator "$@"
  need "the gateway is Ready" k wait -n $system --for=condition=Ready openshellgateway/default --timeout=90s
}
