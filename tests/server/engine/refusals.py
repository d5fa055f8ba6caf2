"""A call must answer a named error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from jetwire_protocol.errors import Err, JetError


async def refused(call: Awaitable[object], code: Err) -> JetError:
    with pytest.raises(JetError) as caught:
        await call
    assert caught.value.code == code, caught.value
    return caught.value


def refused_now(call: Callable[[], object], code: Err) -> JetError:
    with pytest.raises(JetError) as caught:
        call()
    assert caught.value.code == code, caught.value
    return caught.value
