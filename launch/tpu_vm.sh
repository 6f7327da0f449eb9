#!/usr/bin/env bash
# Trains on a slice of TPU VMs: requests it, installs this checkout on its
# hosts, runs on them, and begins again after a preemption.
#
# States and flags: https://cloud.google.com/tpu/docs/queued-resources and
# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh COMMAND [--dry_run] --tpu=NAME --zone=ZONE
           [--project=ID] [--type=TYPE] [--spot | --reserved] [--hours=24]
           [--setup=FILE] [-- --config=FILE:ARG --workdir=DIR ...]

COMMAND is one of
  create   request the slice, unless it is there, and wait until it is ACTIVE
  run      install this checkout on every host of the slice, and run on them
           `python -m r1jax.main` with what follows --
  train    create and run; after a preemption once more, until the run has ended
  delete   withdraw the request and give the slice back

  --type      for create and train, e.g. v5p-256, v5litepod-16, v6e-16
  --spot, --reserved   the price; on demand without either of them
  --hours     how long the request may wait
  --setup     a script of this checkout that every host runs when r1jax is
              installed, e.g. to mount the file system of --workdir
  --dry_run   print the commands and run none of them
In the environment: POLL, seconds between two looks at the slice (default 30).

What is copied is what git tracks, as it is now: new files need `git add`.
TEXT
}

# refuse WORDS: a wrong command line.
refuse() {
  echo "error: $1" >&2
  usage >&2
  exit 2
}

# fail WORDS [STATUS]: what else went wrong.
fail() {
  echo "error: $1" >&2
  exit "${2:-1}"
}

say() { echo "launch: $1"; }

# step COMMAND ...: prints a command as it can be pasted, and runs it.
step() {
  printf '%q ' "$@"
  echo
  $dry_run || "$@"
}

# look KIND FIELD: what gcloud says of the request or its node; ABSENT: there
# is none. What fails once is asked again.
look() {
  local try
  for try in 1 2 3; do
    if gcloud compute tpus "$1" describe "$tpu" "${where[@]}" \
      "--format=value($2)" 2>"$work/errors"; then
      return
    fi
    if grep -q NOT_FOUND "$work/errors"; then
      echo ABSENT
      return
    fi
    [[ $try == 3 ]] || sleep "$POLL"
  done
  fail "gcloud cannot describe $tpu: $(tail -n 1 "$work/errors")"
}

# The state of the slice. A node that is not READY speaks for it: its request
# may be ACTIVE for minutes after a preemption.
state() {
  local now
  now=$(look queued-resources state.state) || return
  if [[ $now == ACTIVE ]]; then
    now=$(look tpu-vm state) || return
    case $now in
      READY) now=ACTIVE ;;
      ABSENT) now=GONE ;;
    esac
  fi
  echo "$now"
}

# The image of the hosts: https://cloud.google.com/tpu/docs/runtimes
runtime() {
  case $type in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v[234]-*) echo tpu-ubuntu2204-base ;;
    *) return 1 ;;
  esac
}

request() {
  step gcloud compute tpus queued-resources create "$tpu" "${where[@]}" \
    "--node-id=$tpu" "--accelerator-type=$type" \
    "--runtime-version=$(runtime)" "--valid-until-duration=${hours}h" \
    ${price:+"$price"}
}

delete() {
  step gcloud compute tpus queued-resources delete "$tpu" "${where[@]}" \
    --force --quiet
}

# Requests the slice unless it is there, and waits until it is ACTIVE.
create() {
  local now why before='' requested=false
  local deadline=$((SECONDS + hours * 3600))
  if $dry_run; then
    request
    step gcloud compute tpus queued-resources describe "$tpu" "${where[@]}" \
      '--format=value(state.state)'
    return
  fi
  while true; do
    now=$(state)
    [[ $now == "$before" ]] || say "$tpu is $now"
    before=$now
    case $now in
      ACTIVE)
        granted=true
        return
        ;;
      ABSENT)
        ! $requested || fail "$tpu has been deleted by somebody else"
        request
        requested=true
        continue
        ;;
      FAILED) # before it was ever granted, it would fail again
        if $requested && ! $granted; then
          why=$(look queued-resources state.failedData.error.message)
          fail "the request of $tpu has FAILED: $why"
        fi
        delete
        requested=false
        ;;
      SUSPENDED | PREEMPTED | TERMINATED)
        delete
        requested=false
        ;;
    esac
    ((SECONDS < deadline)) ||
      fail "$tpu is $now after $hours hours; delete withdraws the request"
    sleep "$POLL"
  done
}

# everywhere COMMAND [FLAG]: runs a command on every host. Its status is that of
# the first host that has failed. Silent connections are kept alive.
everywhere() {
  step gcloud compute tpus tpu-vm ssh "$tpu" "${where[@]}" --worker=all \
    --ssh-flag=-oConnectTimeout=30 --ssh-flag=-oServerAliveInterval=60 \
    ${2:+"$2"} "--command=$1" </dev/null
}

# Copies what git tracks to every host, and installs it there.
install() {
  local tree='' there left
  if ! $dry_run; then # a commit of what has changed; '' if nothing has
    tree=$(git -c user.name=launch -c user.email=launch stash create) || return
    left=$(git ls-files --others --exclude-standard | wc -l)
    ((left == 0)) || say "files that git does not track are not copied: $left"
  fi
  step git archive --format=tar.gz --prefix=r1jax/ \
    "--output=$work/r1jax.tar.gz" "${tree:-HEAD}" || return
  step gcloud compute tpus tpu-vm scp "$work/r1jax.tar.gz" "$tpu:" \
    "${where[@]}" --worker=all || return
  there='rm -rf r1jax && tar -xzf r1jax.tar.gz && cd r1jax'
  there+=' && bash launch/install.sh tpu'
  [[ -z $setup ]] || printf -v there '%s && bash %q' "$there" "$setup"
  everywhere "$there"
}

# Runs on every host. With a terminal (-tt) a lost connection, or Ctrl-C here,
# is a SIGHUP there: the run saves its state and stops. The next one waits for
# its end (flock). `distributed`: jax asks the metadata server for the others.
run() {
  local main
  install || return
  printf -v main '%q ' ../r1jax-venv/bin/python -m r1jax.main "$@" \
    --config.distributed=True
  everywhere "cd r1jax && exec flock -w 600 -E 75 ../r1jax.lock ${main% }" \
    --ssh-flag=-tt
}

# The state once it is clear: a preemption may show a while after its effects.
settled() {
  local look now
  for look in 1 2 3 4; do
    now=$(state) || return
    [[ $now == ACTIVE && $look != 4 ]] || break
    sleep "$POLL"
  done
  echo "$now"
}

# create and run, until the run has ended or what ended it would do so again.
train() {
  local status now began again=0
  while true; do
    create
    began=$SECONDS status=0
    run "$@" || status=$?
    ((status != 0)) || return 0
    ((status != 2)) || fail 'refused, see above' 2
    now=$(settled)
    if [[ $now == ABSENT ]]; then
      fail "$tpu has been deleted; the same command goes on" "$status"
    elif [[ $now == ACTIVE ]]; then
      # 75: stopped, or a process was lost. 134, 137: ended by jax after such a
      # loss, or killed. 255: a host could not be reached.
      [[ $status =~ ^(75|134|137|255)$ ]] ||
        fail "exit status $status, and $tpu is ACTIVE: no preemption" "$status"
      ((SECONDS - began < 3600)) || again=0
      ((++again <= 3)) ||
        fail "exit status $status for the fourth time on $tpu, ACTIVE" "$status"
    fi
    say "exit status $status, $tpu is $now: once more"
  done
}

command=${1-} tpu='' zone='' project='' type='' hours=24 setup='' price=''
dry_run=false granted=false
case $command in
  create | run | train | delete) shift ;;
  -h | --help) usage && exit 0 ;;
  *) refuse "expected create, run, train or delete, received '$command'" ;;
esac
while [[ $# -gt 0 && $1 != -- ]]; do
  case $1 in
    --dry_run) dry_run=true ;;
    --tpu=*) tpu=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --spot | --reserved)
      [[ -z $price ]] || refuse "expected $price or $1, not both"
      price=$1
      ;;
    --hours=*) hours=${1#*=} ;;
    --setup=*) setup=${1#*=} ;;
    *) refuse "unknown argument '$1'" ;;
  esac
  shift
done
[[ -n $tpu ]] || refuse 'expected --tpu=NAME'
[[ -n $zone ]] || refuse 'expected --zone=ZONE'
[[ $hours =~ ^[1-9][0-9]*$ ]] || refuse "expected --hours=N, received '$hours'"
case $command in
  create | train)
    runtime >/dev/null ||
      refuse "expected --type=TYPE, e.g. v5p-256, received '$type'"
    ;;
esac
case $command in
  run | train)
    [[ $# -gt 1 ]] || refuse 'expected -- and the arguments of r1jax.main'
    shift
    ;;
  *) [[ $# -eq 0 ]] || refuse "$command takes nothing after --" ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
[[ -z $setup || -f $setup ]] || refuse "--setup=$setup: not in this checkout"
POLL=${POLL:-30}
where=("--zone=$zone")
[[ -z $project ]] || where+=("--project=$project")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$command" "$@"
