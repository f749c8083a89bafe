"""Removes invalid hints of a heartbeat (service/wire.py: HINTS); the rest of the heartbeat is kept."""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from service.wire import HINTS, MAX_INTERFACES, Heartbeat, NetworkInterface

S = TypeVar("S", bound=msgspec.Struct)

_DECODERS = {
    struct: [
        (field.name, msgspec.json.Decoder(field.type).decode)
        for field in msgspec.structs.fields(struct)
        if field.name in names
    ]
    for struct, names in HINTS.items()
}


def _loose(struct: type[msgspec.Struct], **types: Any) -> type[msgspec.Struct]:
    """The same struct with raw hints: decoded into objects, a megabyte of brackets would take a hundred."""
    types |= dict.fromkeys(HINTS[struct], msgspec.Raw)
    fields: list[Any] = [
        (field.name, types.get(field.name, field.type), *(() if field.required else (field.default,)))
        for field in msgspec.structs.fields(struct)
    ]
    return msgspec.defstruct(struct.__name__, fields)


_LooseInterface = _loose(NetworkInterface)
_LooseInterfaces = Annotated[
    list[_LooseInterface],  # type: ignore[valid-type]  # made above
    msgspec.Meta(max_length=MAX_INTERFACES),
]
_decode_loosely = msgspec.json.Decoder(_loose(Heartbeat, network_interfaces=_LooseInterfaces | None)).decode


def decode_sensible(body: bytes) -> Heartbeat:
    """The heartbeat without hints of the wrong type. Agents that send an invalid hint send it every time: it costs one
    more decoding.

    Raises like any decoder of msgspec for errors in other fields.
    """
    body.decode()  # the decoder does not check strings in raw hints
    loose: Any = _decode_loosely(body)
    if loose.network_interfaces is not None:
        loose.network_interfaces = [_sensible(NetworkInterface, one) for one in loose.network_interfaces]
    return _sensible(Heartbeat, loose)


def _sensible(struct: type[S], loose: Any) -> S:
    values = {name: getattr(loose, name) for name in struct.__struct_fields__}
    for name, decode in _DECODERS[struct]:
        if values[name] is not None:
            try:
                values[name] = decode(values[name])
            except msgspec.ValidationError:
                values[name] = None
    return struct(**values)


def consistent(heartbeat: Heartbeat) -> Heartbeat:
    """The same heartbeat without hints that contradict its data. Fast, because it checks every heartbeat.

    A primary interface that is not reported is removed. So is circular `stacked_on`: none of these interfaces would be
    the lowest, and no sum would contain their traffic.
    """
    interfaces = heartbeat.network_interfaces
    if not interfaces:
        return heartbeat
    primary = heartbeat.primary_interface
    below: dict[str, list[str]] = {}
    for one in interfaces:
        if one.name == primary:
            primary = None
        if one.stacked_on:
            below[one.name] = one.stacked_on
    if primary is not None:
        heartbeat = msgspec.structs.replace(heartbeat, primary_interface=None)
    if below and any(name in below for names in below.values() for name in names) and (circle := _in_circles(below)):
        untangled = [
            msgspec.structs.replace(
                one, stacked_on=[name for name in one.stacked_on or () if name not in circle] or None
            )
            if one.name in circle
            else one
            for one in interfaces
        ]
        heartbeat = msgspec.structs.replace(heartbeat, network_interfaces=untangled)
    return heartbeat


def _in_circles(below: Mapping[str, list[str]]) -> set[str]:
    """The names on or between cycles: those that remain after removing everything that ends below, and then above."""
    above: dict[str, list[str]] = {}
    for name, names in below.items():
        for other in names:
            if other in below:
                above.setdefault(other, []).append(name)
    left = _without_ends(
        set(below), {name: [one for one in names if one in below] for name, names in below.items()}, above
    )
    return _without_ends(left, above, below)


def _without_ends(names: set[str], onward: Mapping[str, list[str]], back: Mapping[str, list[str]]) -> set[str]:
    """The `names` from which `onward` leads into a cycle; `back` is the other direction."""
    left = set(names)
    steps = Counter({name: sum(one in left for one in onward.get(name, ())) for name in left})
    ends = deque(name for name in left if not steps[name])
    while ends:
        end = ends.popleft()
        left.discard(end)
        for name in back.get(end, ()):
            if name in left:
                steps[name] -= 1
                if not steps[name]:
                    ends.append(name)
    return left
