#!/bin/bash
# run_steps.sh SCENARIO: one scenario with the words of steps.sh, ended by its first step that fails.
set -euo pipefail -E
# shellcheck source=steps.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
trap 'failed_at "${BASH_SOURCE[0]}" "$LINENO" "$BASH_COMMAND"' ERR
trap 'tell_server_logs $?' EXIT
# shellcheck source=/dev/null
source "$1"
