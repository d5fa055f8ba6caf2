#!/bin/sh
# A provider: a snapshot of the data set that holds the data.
#   jetwire snapshot run --exec docs/recipes/zfs.sh tank/jetwire
set -eu
zfs snapshot "$1@jetwire-$(date -u +%Y%m%dT%H%M%SZ)"
