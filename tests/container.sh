#!/usr/bin/env bash
# docs/Containerfile, checked: built and used where docker or podman runs; else its COPY and RUN steps are done in a
# fresh environment, in a new folder.
#
#     tests/container.sh                 TORCH_INDEX chooses where torch comes from
set -euo pipefail
cd "$(dirname "$0")/.."
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for engine in docker podman; do
  if "$engine" info > /dev/null 2>&1; then
    "$engine" build --build-arg TORCH_INDEX="$index" -f docs/Containerfile -t gtool-check .
    "$engine" run --rm -v "$folder:/work" gtool-check sample transgan --num 4 -o grid.png
    test -s "$folder/grid.png"
    exit 0
  fi
done

echo "neither docker nor podman runs: the steps, in a fresh environment"
python3 -m venv "$folder/venv"
export PATH="$folder/venv/bin:$PATH" GTOOL_CACHE="$folder/cache" TORCH_INDEX="$index"
unset PYTHONPATH
mkdir "$folder/src"
while read -r step words; do
  case "$step" in
    COPY) read -ra names <<< "$words"; echo "+ COPY $words"
      target="$folder/src/${names[-1]}"; unset 'names[-1]'
      [ "${#names[@]}" = 1 ] && cp -r "${names[0]}" "$target" || cp "${names[@]}" "$target" ;;
    RUN) echo "+ $words"; (cd "$folder/src" && bash -euc "$words") ;;
  esac
done < docs/Containerfile
(cd "$folder" && gtool sample transgan --num 4 -o grid.png)
test -s "$folder/grid.png"
du -sh "$folder/venv"
