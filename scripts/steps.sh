# Sourced by what runs checks one after the other: each runs even if one before it failed; the last line counts them.
# shellcheck shell=bash

passed=0 failed=0 skipped=0 failures=()
# Where there are words, only steps with one of them in their name are run.
words=()
wanted() { # name
  local word
  for word in "${words[@]}"; do [[ $1 != *"$word"* ]] || return 0; done
  [ ${#words[@]} = 0 ]
}
step() { if wanted "$1"; then run_step "$@"; fi; } # name, command...
run_step() {
  local name=$1 start=$SECONDS
  shift
  printf '\n==> %s\n' "$name"
  if "$@"; then
    passed=$((passed + 1)); printf '<== %s: ok (%ds)\n' "$name" $((SECONDS - start))
  else
    failed=$((failed + 1)); failures+=("$name"); printf '<== %s: FAILED (%ds)\n' "$name" $((SECONDS - start))
  fi
}
skip() {
  wanted "$1" || return 0
  skipped=$((skipped + 1)); printf '\n==> %s: skipped: %s\n' "$1" "$2"
}
count() {
  printf '\n'
  [ "$failed" = 0 ] || printf 'failed: %s\n' "${failures[@]}"
  printf '%d passed, %d failed, %d skipped in %d min\n' "$passed" "$failed" "$skipped" $((SECONDS / 60))
  [ "$failed" = 0 ] && [ $((passed + skipped)) != 0 ]
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
