"""Does an object hold what we want of it? What others added, and how the API server spells it, does not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

_LISTS_BY_KEY: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
}
"""Lists that the API server keeps as maps, where others may add items; all other lists are compared whole (a rule that
somebody added to a pod's Role must go)."""
_QUANTITIES = frozenset({"resources", "sizeLimit", "limits", "requests"})
_LITERAL = frozenset({"data", "binaryData", "labels", "annotations", "matchLabels", "nodeSelector"})
"""Maps of people's strings: "1" and "1.0" are two texts there, and an empty one is one too."""
_SUFFIXES: Mapping[str, Decimal] = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "": Decimal(1),
    **{suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate("kMGTPE", start=1)},
    **{f"{suffix}i": Decimal(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)},
}


def difference(wanted: Any, live: Any) -> str | None:
    """Where `live` is not what `wanted` says: a path like `spec.template.spec.containers[name=ollama].image`; None if nowhere."""
    return _difference(wanted, live, "", quantity=False, literal=False)


def _difference(wanted: Any, live: Any, path: str, *, quantity: bool, literal: bool) -> str | None:
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            if key not in live:
                if _means_nothing(value) and not literal:
                    continue
                return _join(path, key)
            below = _difference(
                value,
                live[key],
                _join(path, key),
                quantity=not literal and (quantity or key in _QUANTITIES),
                literal=literal or key in _LITERAL,
            )
            if below is not None:
                return below
        return None
    if _is_list(wanted) and _is_list(live):
        by = _LISTS_BY_KEY.get(path.rpartition(".")[2])
        if by is not None and all(isinstance(item, Mapping) and by in item for item in (*wanted, *live)):
            found = {item[by]: item for item in live}
            pairs = [(f"{path}[{by}={item[by]}]", item, found.get(item[by])) for item in wanted]
        elif len(wanted) != len(live):
            return path
        else:
            pairs = [(f"{path}[{at}]", *both) for at, both in enumerate(zip(wanted, live, strict=True))]
        for where, one, other in pairs:
            below = _difference(one, other, where, quantity=quantity, literal=literal)
            if below is not None:
                return below
        return None
    if type(wanted) is type(live) and wanted == live:
        return None
    if quantity and _quantity(wanted) is not None and _quantity(wanted) == _quantity(live):
        return None
    return path


def _means_nothing(value: Any) -> bool:
    """What Go's `omitempty` leaves out of an answer."""
    return value is None or value is False or (not isinstance(value, bool) and value in ("", 0, {}, []))


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _quantity(value: Any) -> Decimal | None:
    """The amount that Kubernetes reads in "500m", "0.5", 1 or "1Gi"; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = str(value)
    number = text.rstrip("numkKMGTPEi")
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError):
        return None
