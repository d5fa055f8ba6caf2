"""Restored files take an instance's place: a list of renames, written down before the first of them.

Until the list is durable the instance is what it was; from then on it is the restored one, and whoever opens it next
(the restore itself, a server's start, an offline command) does what is left of the list. There is no state between.
"""

from __future__ import annotations

import msgspec

from jetwire_protocol.errors import Err, JetError
from jetwire_server.failpoints import hit
from jetwire_server.files.local import LocalFiles
from jetwire_server.files.whole import read_if_there

PLAN = "restore.swap"
STAGING = "restore.staging"


class Plan(msgspec.Struct, frozen=True):
    """`moves`: from where to where; `removes`: what the restored instance must not find. All of it can be done twice."""

    moves: list[tuple[str, str]]
    removes: list[str]


def swap(files: LocalFiles, plan: Plan) -> None:
    """From the moment this has written its plan the restore has happened."""
    hit("restore.swap.before_plan")
    files.replace(PLAN, msgspec.json.encode(plan))
    hit("restore.swap.planned")
    finish_swap(files)


def finish_swap(files: LocalFiles) -> bool:
    """Does what a plan leaves to do; False if there is none."""
    data = read_if_there(files, PLAN)
    if data is None:
        return False
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except msgspec.DecodeError as error:
        raise JetError(Err.RestoreInProgress, f"{PLAN} is damaged: {error}; restore into a new directory") from error
    files.sync_directory()  # who wrote the plan may have been killed before it did
    for path in plan.removes:
        if files.exists(path):
            files.remove(path)
            hit("restore.swap.removed")
    directories = {""}
    for source, target in plan.moves:
        directory = target.rpartition("/")[0]
        if directory not in directories:
            files.make_directory(directory)
            directories.add(directory)
        if files.exists(source):
            files.rename(source, target)
            hit("restore.swap.moved")
    for directory in directories:
        files.sync_directory(directory)
    hit("restore.swap.before_done")
    files.remove(PLAN)
    files.sync_directory()
    hit("restore.swap.done")
    remove_tree(files, STAGING)
    return True


def remove_tree(files: LocalFiles, path: str) -> None:
    if not files.exists(path):
        return
    for name in files.list(path):
        inner = f"{path}/{name}"
        try:
            files.remove(inner)
        except JetError:  # a directory that is not empty
            remove_tree(files, inner)
    files.remove(path)
