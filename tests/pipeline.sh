#!/usr/bin/env bash
# A pipeline as it would be run: a minute of training, a gate, a worse model that is refused, a stored baseline.
#
#     tests/pipeline.sh [FOLDER]          from the repository's root; GTOOL names the command, `gtool` if unset
#
# Everything stays in FOLDER (a new temporary one if left out): result.json, junit.xml, report.md, report.html and
# the runs. Needs no network and no weights. Ends with 0 if every step ended with the status it should. MINUTES (1) of
# training reach RATIO (15 times the real-vs-real floor of 500 images) on two cores that have nothing else to do; give
# busy ones more.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:-$(mktemp -d)}
gtool=${GTOOL:-gtool}
minutes=${MINUTES:-1}
ratio=${RATIO:-15}
mkdir -p "$folder"

expect() { # STATUS COMMAND...: run, and stop unless it ends with STATUS
  local wanted=$1
  shift
  echo "+ $*"
  "$@"
  local status=$?
  [ "$status" = "$wanted" ] || { echo "ended with $status instead of $wanted" >&2; exit 1; }
}

# Words of GTOOL are a command with its arguments.
# shellcheck disable=SC2086
score() { $gtool eval "$1" --rfd --num 500 "${@:2}"; }

expect 0 $gtool train transgan --dataset scenes --minutes "$minutes" --out "$folder/run"
expect 0 score "$folder/run" --max rfd.ratio="$ratio" --max swd_32.ratio=2:warn \
  -o "$folder/result.json" -o "$folder/junit.xml" -o "$folder/report.md" -o "$folder/report.html"

echo "A model that has hardly been trained is refused:"
expect 0 $gtool train transgan --dataset scenes --kimg 0.1 --out "$folder/worse"
expect 4 score "$folder/worse" --max rfd.ratio="$ratio" -o "$folder/worse.xml"

echo "The same against the stored result of the first:"
expect 0 score "$folder/run" --baseline "$folder/result.json" --max-regress rfd=5%
expect 4 score "$folder/worse" --baseline "$folder/result.json" --max-regress rfd=5%

echo "Another number of images is another protocol:"
expect 1 $gtool eval "$folder/run" --rfd --num 400 --baseline "$folder/result.json" --max-regress rfd=5%

echo "The JUnit files are read back:"
expect 0 ${PYTHON:-python3} - "$folder" <<'PYTHON'
import sys
from pathlib import Path

from tests.helpers.junit_files import read_junit

better, worse = (read_junit(Path(sys.argv[1]) / name) for name in ("junit.xml", "worse.xml"))
assert all(case["failure"] is None for case in better.values()), better
assert [case["message"] for case in worse.values() if case["failure"]], worse
print(*(case["message"] for case in worse.values()), sep="\n")
PYTHON
echo "results in $folder"
