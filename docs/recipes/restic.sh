#!/bin/sh
# A provider: restic reads the data while it stands still. For large data snapshot the volume instead, thaw, and let restic read the snapshot.
#   RESTIC_REPOSITORY=... RESTIC_PASSWORD_FILE=... jetwire snapshot run --renew --exec docs/recipes/restic.sh /srv/jetwire
set -eu
restic backup --tag jetwire --exclude '*-lock' --exclude scratch "$1" "$JETWIRE_MANIFEST"
