#!/bin/sh
# A provider: a snapshot of the logical volume that holds the data.
#   jetwire snapshot run --exec docs/recipes/lvm.sh vg0/data 5G
set -eu
volume=$1
size=$2
name="jetwire-$(date -u +%Y%m%dT%H%M%SZ)"
lvcreate --snapshot --size "$size" --name "$name" "$volume"
echo "$name"
