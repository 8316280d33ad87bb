#!/usr/bin/env bash
# What the action of action.yml does once adapterdock is installed.
#
# ADAPTERDOCK is the command. PATHS and OPTIONS have one argument a line. BEFORE is the commit that
# the change starts from, PULL_REQUEST its number; both may be empty. Names of files and texts of
# manifests may be a stranger's: they are never evaluated, and are shown in blocks of code.
set -uo pipefail

readonly MARK='<!-- adapterdock -->'
readonly FENCE='``````````'
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# macOS has bash 3.2: no mapfile, and an empty array counts as unset.
paths=() options=()
while IFS= read -r line; do [[ -n "$line" ]] && paths+=("$line"); done <<< "${PATHS:-.}"
while IFS= read -r line; do [[ -n "$line" ]] && options+=("$line"); done <<< "${OPTIONS:-}"

# Makes lines that the runner does not take for commands, whatever names are in them.
plain() { sed 's/^/adapterdock: /; s/##\[/## [/g'; }
say() { printf '%s\n' "$1" | plain; }

# The worse of two exit statuses: a crash before 2 before 1 before 3 before 0.
worse() {
  local status
  for status in "$1" "$2"; do
    if ((status > 3)); then echo "$status" && return; fi
  done
  for status in 2 1 3; do
    if (($1 == status || $2 == status)); then echo "$status" && return; fi
  done
  echo 0
}

validate() {
  "$ADAPTERDOCK" validate --many ${options[@]+"${options[@]}"} "$@" -- "${paths[@]}"
}

# Whether a file is a lock of ours and not of another tool.
is_ours() { grep -qsE '^(# Written by .adapterdock lock|generator: .?adapterdock)' "$1"; }

check_locks() { "$ADAPTERDOCK" lock --check --locked-only --many "$@" -- "${paths[@]}"; }

has_before() {
  [[ "${BEFORE:-}" =~ ^[0-9a-f]{7,64}$ && ! "$BEFORE" =~ ^0+$ ]] || return 1
  git cat-file -e "$BEFORE^{commit}" 2>/dev/null && return
  git fetch --quiet --no-tags --depth=1 origin "$BEFORE" 2>/dev/null && return
  say "Cannot fetch $BEFORE: the changes of the locks are not shown" >&2
  return 1
}

# What changed in the locks since BEFORE: the name of each, and a sentence for each change.
describe_locks() {
  local lock side sides
  has_before || return 0
  while IFS= read -r -d '' lock; do
    sides=()
    for side in "$BEFORE" HEAD; do
      # beside it would be its samples, which say nothing to people
      if git show "$side:$lock" > "$work/$side.lock" 2>/dev/null; then
        sides+=("$work/$side.lock")
      else
        rm -f "$work/$side.lock"
        sides+=(/dev/null)
      fi
    done
    is_ours "${sides[0]}" || is_ours "${sides[1]}" || continue
    printf '%q:\n' "$lock"
    "$ADAPTERDOCK" diff "${sides[@]}" 2>&1 | sed 's/^/  /'
  done < <(git diff --name-only --no-renames -z "$BEFORE" HEAD -- '*.lock')
}

# The text of a file in a block of code that it cannot end.
block() { printf '\n%stext\n%s\n%s\n\n' "$FENCE" "$(sed "s/$FENCE//g" "$1")" "$FENCE"; }

# The line of a report that says how it ended: the last one, or for wrong usage what is wrong.
total_of() {
  if (($1 == 2)); then
    grep -m 1 -iE '(^|: )error' "$2" && return
  fi
  tail -n 1 "$2"
}

write_summary() {
  local title
  case "$1" in
    0) title='Every adapter fits' ;;
    3) title='Some checks could not run' ;;
    *) title='Something is wrong' ;;
  esac
  printf '%s\n### adapterdock: %s\n\n' "$MARK" "$title"
  block "$work/total"
  if [[ -s "$work/changes" ]]; then
    printf '#### What the locks change\n'
    block <(head -c 10000 "$work/changes")
  fi
  if (($1)); then
    printf '<details><summary>Findings</summary>\n'
    block <(head -c 50000 "$work/report")
    printf '</details>\n'
  fi
}

# Posts the summary, or replaces the one that was posted before. A token of a fork cannot.
comment() {
  local place="repos/$GITHUB_REPOSITORY/issues" first
  first="$(gh api "$place/$PULL_REQUEST/comments" --paginate \
    --jq "[.[] | select(.body | startswith(\"$MARK\"))][0].id // empty" | head -n 1)" || return 1
  if [[ -n "$first" ]]; then
    gh api --method PATCH "$place/comments/$first" -F "body=@$1" > /dev/null
  else
    gh api --method POST "$place/$PULL_REQUEST/comments" -F "body=@$1" > /dev/null
  fi
}

validate --format github > "$work/shown" 2> "$work/errors"
status=$?
cat "$work/shown"
plain < "$work/errors"
NO_COLOR=1 validate --format text > "$work/report" 2>&1
total_of "$status" "$work/report" > "$work/total"
if [[ -n "${SARIF:-}" ]]; then
  if { : > "$SARIF"; } 2> /dev/null; then
    validate --format sarif > "$SARIF" 2> /dev/null
  else
    say "Cannot write $SARIF"
    status="$(worse "$status" 2)"
  fi
fi
# of wrong usage, lock --check would say the same
if [[ "${LOCK_CHECK:-true}" == true && "$status" != 2 ]]; then
  check_locks --format github > "$work/annotations" 2> "$work/errors"
  locked=$?
  if ((locked)); then
    # what validate said of the same lines is not said twice
    grep -vxFf "$work/shown" "$work/annotations"
    plain < "$work/errors"
    NO_COLOR=1 check_locks --format text > "$work/locks" 2>&1
    { printf '\nadapterdock lock --check\n'; cat "$work/locks"; } >> "$work/report"
    { printf 'adapterdock lock --check: '; total_of "$locked" "$work/locks"; } >> "$work/total"
  fi
  status="$(worse "$status" "$locked")"
fi
describe_locks > "$work/changes"

write_summary "$status" > "$work/summary.md"
if [[ -n "${GITHUB_STEP_SUMMARY:-}" ]]; then
  cat "$work/summary.md" >> "$GITHUB_STEP_SUMMARY"
fi
if [[ -n "${GITHUB_OUTPUT:-}" ]]; then
  printf 'exit-status=%s\n' "$status" >> "$GITHUB_OUTPUT"
fi
if [[ "${COMMENT:-false}" == true && -n "${PULL_REQUEST:-}" ]]; then
  comment "$work/summary.md" || say "Cannot post a comment: does the job have pull-requests: write?"
fi
exit "$status"
