# Sourced by what runs checks one after the other: each runs even if one before it failed; the last line counts them.
# shellcheck shell=bash

passed=0 failed=0 skipped=0 failures=()
step() { # name, command...
  local name=$1 start=$SECONDS
  shift
  printf '\n==> %s\n' "$name"
  if "$@"; then
    passed=$((passed + 1)); printf '<== %s: ok (%ds)\n' "$name" $((SECONDS - start))
  else
    failed=$((failed + 1)); failures+=("$name"); printf '<== %s: FAILED (%ds)\n' "$name" $((SECONDS - start))
  fi
}
skip() { skipped=$((skipped + 1)); printf '\n==> %s: skipped: %s\n' "$1" "$2"; }
count() {
  printf '\n'
  [ "$failed" = 0 ] || printf 'failed: %s\n' "${failures[@]}"
  printf '%d passed, %d failed, %d skipped in %d min\n' "$passed" "$failed" "$skipped" $((SECONDS / 60))
  [ "$failed" = 0 ]
}

start_cluster() {
  local line
  line=$(e2e/cluster/up) && eval "$line"
}
end_cluster() { e2e/cluster/down && e2e/cluster/check-clean; }
# More pods at a time than this only wait for each other.
operator_on_the_cluster() {
  OPENSHELL_TEST_KUBECONFIG=$KUBECONFIG cargo test -p openshell-operator --test cluster "$@" -- --test-threads 4
}
