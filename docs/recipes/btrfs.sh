#!/bin/sh
# A provider: a read-only snapshot of the subvolume that holds the data.
#   jetwire snapshot run --exec docs/recipes/btrfs.sh /srv/jetwire /srv/snapshots
set -eu
btrfs subvolume snapshot -r "$1" "$2/jetwire-$(date -u +%Y%m%dT%H%M%SZ)"
