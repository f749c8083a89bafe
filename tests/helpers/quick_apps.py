"""Hundreds of tests create an app each: what is the same in all of them is worked out once."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from inspect import unwrap
from typing import Any

import httpx
import pytest
from litestar import Litestar, router
from litestar._openapi.plugin import OpenAPIPlugin
from litestar._signature.model import SignatureModel
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.spec import OpenAPI
from litestar.params import ParameterKwarg
from litestar.routes import BaseRoute
from litestar.utils.signature import ParsedSignature

from service.access.identity import scopes
from service.app import Linkbeat
from service.openapi import complete
from service.web import pages


@contextmanager
def quick_apps() -> Iterator[None]:
    """create_app takes a quarter of the time that it takes a service. Routes, guards and state are each app's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenAPIPlugin, "_build_openapi", _described_once(OpenAPIPlugin._build_openapi))
        patch.setattr("service.app.complete", lambda *_: None)
        patch.setattr(ParsedSignature, "from_fn", _parsed_once(ParsedSignature.from_fn))
        patch.setattr(SignatureModel, "create", _modelled_once(SignatureModel.create))
        # A router is copied with all its handlers wherever it is registered, and ours are registered once.
        patch.setattr(router, "deepcopy", lambda value: value)
        patch.setattr(pages, "Files", cache(pages.Files))
        patch.setattr(ParameterKwarg, "__hash__", _by_identity)
        patch.setattr(Litestar, "_get_default_plugins", _listed_once(Litestar._get_default_plugins))
        patch.setattr(BaseRoute, "_parse_path", staticmethod(cache(BaseRoute._parse_path)))
        # Of every client, whether it speaks TLS or not: the certificates of all authorities, read for 20 ms.
        patch.setattr("httpx._transports.default.create_ssl_context", cache(httpx.create_ssl_context))
        patch.setattr(HTTPRouteHandler, "create_kwargs_model", _extracted_once(HTTPRouteHandler.create_kwargs_model))
        yield


def _described_once(build: Any) -> Any:
    """The API's description, which takes as long as everything else."""
    made: dict[str, OpenAPI] = {}

    def described(plugin: OpenAPIPlugin) -> Any:
        if not isinstance(plugin.app, Linkbeat):  # `complete` has one of its own
            return build(plugin)
        if not made:
            made["document"] = build(plugin)
            complete(made["document"], scopes(plugin.app))
        return made["document"]

    return described


def _parsed_once(parse: Any) -> Any:
    """A handler's signature: the handler is another closure in each app, of the same code."""
    known: dict[Any, list[tuple[Any, ParsedSignature]]] = {}

    def parsed(function: Any, signature_namespace: dict[str, Any]) -> ParsedSignature:
        inner = unwrap(function)
        said = (function.__annotations__, function.__defaults__, function.__kwdefaults__, signature_namespace)
        of_code = known.setdefault(inner.__code__, [])
        for same, signature in of_code:
            if same == said:
                return signature
        of_code.append((said, parse(function, signature_namespace)))
        return of_code[-1][1]

    return parsed


def _by_identity(parameter: ParameterKwarg) -> int:
    """typing looks an annotation up by the hash of all that a parameter says, with every dictionary in it copied."""
    return hash((parameter.name, parameter.annotation, parameter.title, parameter.description))


def _listed_once(list_plugins: Any) -> Any:
    """Litestar's own: it searches for Pydantic and attrs, which are not there, each time."""
    known: list[Any] = []

    def listed(plugins: list[Any]) -> list[Any]:
        if not known:
            known.extend(list_plugins([]))
        return plugins + known

    return staticmethod(listed)


def _extracted_once(create: Any) -> Any:
    """How a request's parts become a handler's arguments: by its signature's model, which is made once (below)."""
    known: dict[tuple[Any, frozenset[str]], Any] = {}

    def extracted(handler: HTTPRouteHandler, path_parameters: dict[str, Any]) -> Any:
        if handler.resolve_dependencies():
            return create(handler, path_parameters)
        key = (handler.signature_model, frozenset(path_parameters))
        if key not in known:
            known[key] = create(handler, path_parameters)
        return known[key]

    return extracted


def _modelled_once(create: Any) -> Any:
    """A signature's model. The signatures are kept, so that their ids stay theirs."""
    known: dict[Any, tuple[Any, type[SignatureModel]]] = {}

    def modelled(*, parsed_signature: ParsedSignature, **options: Any) -> type[SignatureModel]:
        names, decoders = options["dependency_name_set"], options["type_decoders"]
        key = (id(parsed_signature), frozenset(names), tuple(decoders), options["data_dto"])
        if key not in known:
            known[key] = parsed_signature, create(parsed_signature=parsed_signature, **options)
        return known[key][1]

    return modelled
