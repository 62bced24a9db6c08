"""The mistakes whose mending is seen only after a minute: they began with the first test of all, and are over by now."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future

import pytest

from tests.integration.operator.mistakes import MISTAKES, Mistake


@pytest.mark.parametrize("mistake", [pytest.param(m, id=f"{m.reason}: {m.sentence}") for m in MISTAKES if m.is_slow])
def test_a_mistake_is_named_and_mending_it_is_enough(mistake: Mistake, slow: Mapping[str, Future[None]]) -> None:
    slow[mistake.sentence].result()
