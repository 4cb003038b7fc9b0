#!/bin/sh
# make demo: the main job on the embedded default, offline. What it makes stays in cache/ and models/.
# LeNet-5 was trained on the digits 0-4; the head learns the digits 5-9, which that network never saw.
set -eu
FEATX="${FEATX:-featx}"
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

say featx extract
"$FEATX" extract
say featx fit-head --model logreg
"$FEATX" fit-head --model logreg
say featx promote --finetune
"$FEATX" promote --finetune

digits="${FEATX_HOME:-$HOME/.cache/featx}/digits/test"
images=""
for label in 5 6 7 8 9; do
  images="$images $(find "$digits/$label" -name '*.png' | sort | head -n 1)"
done
say featx predict models/digits--lenet5--logreg--promoted.safetensors DIGITS... --top 2
# shellcheck disable=SC2086 # one word per image
"$FEATX" predict models/digits--lenet5--logreg--promoted.safetensors $images --top 2

say "featx extract    # again: nothing has changed, so nothing is computed"
"$FEATX" extract
say "featx extract --weights random    # what a network that has learned nothing gives"
"$FEATX" extract --weights random -o cache/digits--random.h5
"$FEATX" fit-head cache/digits--random.h5 --model logreg 2>/dev/null | grep "^accuracy"
printf '\nThe difference between the two accuracies is what transfer learning gave.\n'
