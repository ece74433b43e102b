#!/usr/bin/env bash
# The demo: an animation and a still, through a farm that starts for it and is taken down after. `make demo` runs it.
set -euo pipefail
cd "$(dirname "$0")/.."

# Keeps the demo's farm in the demo's folder, so that `make clean` leaves nothing behind.
export RENDERFARM_DATA="$PWD/demo/farm"

renderfarm render examples/animation.blend -o demo/animation
renderfarm render examples/still.blend -o demo/still

printf '\nThe demo is done. Its pictures:\n'
printf '  animation  %s (%s frames)\n' "$PWD/demo/animation" "$(find demo/animation -name '*.png' | wc -l | tr -d ' ')"
printf '  still      %s\n' "$(find "$PWD/demo/still" -name '*.png')"
