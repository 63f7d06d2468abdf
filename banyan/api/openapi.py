"""`/openapi.json`: the interface as OpenAPI 3.1, made from the routes and schemas that serve the requests."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from banyan.api.documented import BODIES, ID_PATTERN, NEEDED, PARAMETERS, Taken
from banyan.api.query import AUTOMATIC
from banyan.api.routes import ROUTES, Route, route
from banyan.api.schema import RESOURCES
from banyan.api.selection import ITEM, LISTING
from banyan.domain.programs import MAX_STRING_BYTES

Document = dict[str, Any]

_TYPES: dict[str, Document] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "float": {"type": "number"},
    "boolean": {"type": "boolean"},
    "dict": {"type": "object"},
    "list": {"type": "array"},
    "objectid": {"type": "string", "pattern": ID_PATTERN},
    "datetime": {"type": "string", "examples": ["Tue, 02 Apr 2013 10:29:13 GMT"]},
}
_COERCED: dict[str, Document] = {
    "size": {"type": ["integer", "string"], "examples": [1073741824, "1 GiB"]},
    "duration": {"type": ["number", "string"], "examples": [90, "2h"]},
    "expiry": {"type": ["number", "string", "null"], "examples": ["30d", "2030-01-31"]},
    "capability": {"type": ["number", "string"], "examples": ["8.0"]},
}
_NO_NUL = r"^[^\x00]*$"
_NAMES: Document = {"minLength": 1, "maxLength": 1000, "pattern": r"^[^=\x00]+$"}
_CHECKED: dict[str, Document] = {
    "no_nul": {"pattern": _NO_NUL},
    "texts": {"items": {"type": "string", "minLength": 1, "maxLength": 1000, "pattern": r"^[^\x00]+$"}},
    "path": {"pattern": _NO_NUL},
    "names_to_texts": {"propertyNames": _NAMES, "additionalProperties": {"type": "string", "pattern": _NO_NUL}},
    "environment": {
        "propertyNames": _NAMES,
        "additionalProperties": {"type": "string", "pattern": _NO_NUL, "maxLength": MAX_STRING_BYTES},
    },
    "names_to_amounts": {
        "propertyNames": _NAMES,
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1e9},
    },
    "grid": {"minProperties": 1, "additionalProperties": {"type": "array", "minItems": 1}},
    "points": {"minItems": 1},
}
_BOUNDS = {"min": "minimum", "max": "maximum", "maxlength": "maxLength", "minlength": "minLength"}
_PARAMETERS = {
    "where": 'a filter in MongoDB\'s syntax, such as {"state": "running"}',
    "projection": 'fields to show, {"name": 1}, or to leave out, {"metadata": 0}',
    "sort": "fields to sort by, such as -priority,name",
    "max_results": "documents on a page; more than the server's limit is cut to it",
    "page": "the page, from 1 on",
    "embedded": 'references to show as documents, such as {"task": 1}',
}
_STRICT: Document = {"$ref": "#/components/parameters/strict_json"}
_STREAMS = ("stdout", "stderr", "files/{path}")
_ERRORS = {
    "400": "malformed JSON or query",
    "401": "no token, or a wrong one",
    "403": "the role or the owner does not allow it",
    "404": "no such thing",
    "409": "another request was first",
    "412": "If-Match names another revision",
    "405": "the path does not take this method",
    "413": "too large",
    "416": "the range lies behind the end",
    "422": "a value is wrong, or not allowed now; `_issues` names the fields",
    "429": "a quota is used up",
    "500": "a defect of the server; its log has the details",
    "503": "MongoDB is away; try again after `Retry-After` seconds; with `Banyan-Begun: no` nothing was done",
}


@route("GET", "/openapi.json", summary="This interface as an OpenAPI document")
def openapi() -> Document:
    """The OpenAPI document."""
    return document()


@cache
def document() -> Document:
    """The whole interface."""
    paths: dict[str, Document] = {}
    for resource in RESOURCES:
        paths.update(_readings(resource))
    for each in ROUTES.values():
        paths.setdefault(_template(each.path), {})[each.method.lower()] = _operation(each)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Banyan", "version": _version(), "description": "A job queue over REST and MongoDB"},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": _schemas(),
            "parameters": {
                "strict_json": _parameter("strict_json", "true: NaN and infinities are null, and `_nulls` names them")
            },
            "responses": {code: _error(text) for code, text in _ERRORS.items()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "the token is the user name"},
            },
        },
        "security": [{"bearer": []}, {"basic": []}],
    }


def json_schema(rules: Mapping[str, Any]) -> Document:
    """The JSON schema of one field."""
    meta = rules.get("meta", {})
    kinds = rules.get("type", ())
    schema = _kind([kinds] if isinstance(kinds, str) else list(kinds), rules)
    for name, bound in _BOUNDS.items():
        if name in rules and not (name.endswith("length") and "array" in str(schema.get("type"))):
            schema[bound] = rules[name]
    if "maxlength" in rules and schema.get("type") == "array":
        schema["maxItems"] = rules["maxlength"]
    schema |= _CHECKED.get(str(rules.get("check_with")), {})
    if "regex" in rules:
        schema["pattern"] = f"^{rules['regex']}$"
    if "allowed" in rules:
        schema["enum"] = list(rules["allowed"])
    if rules.get("nullable"):
        schema = _or_null(schema)
    if "default" in rules:
        schema["default"] = rules["default"]
    if rules.get("readonly"):
        schema["readOnly"] = True
    if "description" in meta:
        schema["description"] = meta["description"]
    return schema


def _or_null(schema: Document) -> Document:
    """The same schema, or null."""
    if "enum" in schema:
        schema = {**schema, "enum": [*schema["enum"], None]}
    kinds = schema.get("type")
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if kinds is None or "null" in kinds:
        return schema
    return {**schema, "type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


def _kind(kinds: list[str], rules: Mapping[str, Any]) -> Document:
    meta = rules.get("meta", {})
    if rules.get("coerce") in _COERCED:
        return dict(_COERCED[rules["coerce"]])
    if "schema" in rules:
        return object_schema(rules["schema"])
    if len(kinds) > 1:
        return {"anyOf": [_kind([kind], rules) for kind in kinds]}
    schema = dict(_TYPES[kinds[0]]) if kinds else {}
    if kinds == ["list"] and "items" in meta:
        schema["items"] = json_schema(meta["items"])
        if rules.get("coerce") == "dependencies":
            schema["items"] = {"anyOf": [_TYPES["objectid"], schema["items"]]}
    if kinds == ["dict"] and "values" in meta:
        schema["additionalProperties"] = json_schema(meta["values"])
    return schema


def object_schema(fields: Mapping[str, Any]) -> Document:
    """The JSON schema of an object with these fields alone."""
    schema: Document = {
        "type": "object",
        "properties": {name: json_schema(rules) for name, rules in fields.items()},
        "additionalProperties": False,
    }
    required = [name for name, rules in fields.items() if rules.get("required")]
    return schema | {"required": required} if required else schema


def _schemas() -> dict[str, Document]:
    automatic = {name: {**json_schema(rules), "readOnly": True} for name, rules in AUTOMATIC.items()}
    schemas = {}
    for name, fields in RESOURCES.items():
        schema = object_schema(fields)
        schema["properties"].update(automatic)
        schemas[name] = schema
    schemas["error"] = {
        "type": "object",
        "properties": {
            "_status": {"const": "ERR"},
            "_issues": {"type": "object"},
            "_items": {"type": "array", "items": {"type": "object"}},
            "_error": {
                "type": "object",
                "properties": {"code": {"type": "integer"}, "message": {"type": "string"}},
            },
        },
    }
    return schemas


def _readings(resource: str) -> dict[str, Document]:
    shown = {"$ref": f"#/components/schemas/{resource}"}
    page = {
        "type": "object",
        "properties": {"_items": {"type": "array", "items": shown}, "_meta": {"type": "object"}},
    }
    by_name = resource in ("users", "queues")
    key: Document = {"name": "name" if by_name else "id", "in": "path", "required": True}
    key["schema"] = {"type": "string"} if by_name else _TYPES["objectid"]
    return {
        f"/{resource}": {"get": _reading(f"List {resource}", page, [*(_parameter(name) for name in LISTING), _STRICT])},
        f"/{resource}/{{{key['name']}}}": {
            "get": _reading(f"One of {resource}", shown, [key, *(_parameter(name) for name in ITEM), _STRICT])
        },
    }


def _reading(summary: str, schema: Document, parameters: list[Document]) -> Document:
    responses = _responses("200", _json(schema)) | {"304": {"description": "unchanged since `If-None-Match`"}}
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _parameter(name: str, description: str | None = None, required: bool = False) -> Document:
    return {
        "name": name,
        "in": "query",
        "description": description or _PARAMETERS[name],
        "required": required,
        **PARAMETERS[name],
    }


def _operation(each: Route) -> Document:
    query = (_parameter(name, text, (each.endpoint, name) in NEEDED) for name, text in each.query.items())
    operation: Document = {
        "summary": each.summary,
        "description": f"{(each.handler.__doc__ or '').strip()} Roles: {', '.join(sorted(each.roles))}.",
        "parameters": [
            *_path_parameters(each.path),
            *query,
            *([_STRICT] if each.media_type == "application/json" else ()),
        ],
        "responses": _responses(str(each.status), {each.media_type: {}}),
    }
    if each.status == 204:
        operation["responses"]["204"] = {"description": "done"}
    if "format" in each.query:
        operation["responses"]["200"]["content"]["text/csv"] = {}
    if each.method == "GET" and _template(each.path).endswith(_STREAMS):
        whole: Document = {"*/*": {}}  # files have types of their own
        operation["responses"] |= {code: {"description": "bytes", "content": whole} for code in ("200", "206")}
    taken = BODIES.get(each.endpoint)
    if each.body is not None:
        taken = Taken(fields=each.body)
    if taken is not None:
        operation["requestBody"] = {"required": taken.required, "content": {taken.media_type: _body(taken)}}
    elif each.resource is not None and each.method == "POST":
        one: Document = {"$ref": f"#/components/schemas/{each.resource}"}
        operation["requestBody"] = {"required": True, "content": _json(_or_listed(one) if each.listed else one)}
    if each.open:
        operation["security"] = []
    return operation


def _body(taken: Taken) -> Document:
    if taken.schema is not None:
        return {"schema": taken.schema}
    if taken.fields is None:
        return {}
    one = object_schema(taken.fields)
    return {"schema": _or_listed(one) if taken.listed else one}


def _or_listed(one: Document) -> Document:
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


def _responses(status: str, content: Document) -> Document:
    answers: Document = {status: {"description": "done", "content": content}}
    return answers | {code: {"$ref": f"#/components/responses/{code}"} for code in _ERRORS}


def _error(text: str) -> Document:
    return {"description": text, "content": _json({"$ref": "#/components/schemas/error"})}


def _json(schema: Document) -> Document:
    return {"application/json": {"schema": schema}}


def _template(path: str) -> str:
    return re.sub(r"<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", re.sub(r"<objectid:[a-z_]+>", "{id}", path))


def _path_parameters(path: str) -> list[Document]:
    return [
        {
            "name": "id" if kind == "objectid:" else name,
            "in": "path",
            "required": True,
            "schema": _TYPES["objectid"] if kind == "objectid:" else {"type": "string"},
        }
        for kind, name in re.findall(r"<([a-z]+:)?([a-z_]+)>", path)
    ]


def _version() -> str:
    try:
        return version("banyan-queue")
    except PackageNotFoundError:
        return "0"
