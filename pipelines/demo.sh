#!/bin/sh
# make demo: the main job on the built-in example, offline. Its files stay in cache/ and models/.
# The LeNet-5 was trained on the digits 0-4; the head is fitted to the digits 5-9, which were not in its training data.
set -eu
FEATX="${FEATX:-featx}"
cd "$(dirname "$0")/.."

show() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }

show featx extract
"$FEATX" extract
show featx fit-head --model logreg
"$FEATX" fit-head --model logreg
show featx promote --finetune
"$FEATX" promote --finetune

digits="${FEATX_HOME:-$HOME/.cache/featx}/digits/test"
images=""
for label in 5 6 7 8 9; do
  images="$images $(find "$digits/$label" -name '*.png' | sort | head -n 1)"
done
show featx predict models/digits--lenet5--logreg--promoted.safetensors DIGITS... --top 2
# shellcheck disable=SC2086 # one word per image
"$FEATX" predict models/digits--lenet5--logreg--promoted.safetensors $images --top 2

show "featx extract    # again: nothing has changed, so nothing is computed"
"$FEATX" extract
show "featx extract --weights random    # for comparison: a network that is not trained"
"$FEATX" extract --weights random -o cache/digits--random.h5
"$FEATX" fit-head cache/digits--random.h5 --model logreg 2>/dev/null | grep "^Cross\|^Evaluated\|^accuracy"
printf '\nThe difference from the accuracies above is the gain of transfer learning.\n'
