"""The client of bench/schemas-vs-jsonschema: schemas_jsonschema.py URL ANSWERS."""
import json
import sys
import urllib.request

import jsonschema

url, answers = sys.argv[1], int(sys.argv[2])
person = {"type": "object", "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 130}},
          "required": ["name", "age"], "additionalProperties": False}
SCHEMAS = [
    person,
    {"type": "array", "items": person, "minItems": 1, "maxItems": 3},
    {"type": "string", "pattern": r"^\d{3}-\d{4}$"},
    {"type": "string", "pattern": r"^[A-Z][a-z]+( [A-Z][a-z]+)?$", "maxLength": 20},
    {"type": "string", "pattern": r"\d\s\w", "maxLength": 8},
    {"type": "string", "pattern": r"^[^\d\s]+$", "minLength": 2, "maxLength": 6},
    {"type": "string", "pattern": r"^(\S+|\W{2}\D)$", "maxLength": 9},
    {"type": "integer", "exclusiveMinimum": -7, "exclusiveMaximum": 7.5},
    {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    {"type": "number", "minimum": -273.15},
    {"type": "number", "exclusiveMaximum": 0.1, "minimum": 1e-7},
    {"type": "number", "multipleOf": 0.25, "minimum": -10, "maximum": 10},
    {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
    {"type": "integer", "multipleOf": 15, "exclusiveMinimum": 100},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
    {"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083},
    {"type": "string", "format": "duration"},
    {"type": "string", "format": "base64", "contentEncoding": "base64", "maxLength": 40},
    {"type": "string", "format": "email", "pattern": r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"},
    {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}, {"type": "null"}]},
    {"type": "string", "pattern": r"^(?=.*[A-Z])(?=.*\d)(?!.*\s).{8,20}$"},
    {"type": "string", "format": "date", "pattern": r"^(?:(?:\d\d[2468][048]|\d\d[13579][26]|\d\d0[48]|[02468][048]00|[13579][26]00)-02-29|\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|(?:02)-(?:0[1-9]|1\d|2[0-8])))$"},
    {"type": "integer", "format": "int32"},
    {"type": "array", "uniqueItems": True, "minItems": 2, "items": {"enum": ["a", "b", "c", 4], "type": "string"}},
    {"type": "object", "propertyNames": {"enum": ["red", "green", "blue"]}, "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 255}, "required": ["red"]},
    {"type": "object", "patternProperties": {"^[a-z]{1,3}$": {"type": "boolean"}}, "additionalProperties": False},
    {"type": "array", "items": [{"type": "string", "maxLength": 4}, {"type": "number", "minimum": 0, "maximum": 1}], "minItems": 2, "maxItems": 2, "$schema": "http://json-schema.org/draft-07/schema#"},
    {"oneOf": [{"type": "object", "properties": {"type": {"const": "circle", "type": "string"}, "radius": {"type": "number", "exclusiveMinimum": 0}}, "required": ["type", "radius"], "additionalProperties": False},
               {"type": "object", "properties": {"type": {"const": "square", "type": "string"}, "side": {"type": "number", "exclusiveMinimum": 0}}, "required": ["type", "side"], "additionalProperties": False}],
     "discriminator": {"propertyName": "type", "mapping": {"circle": "#/$defs/Circle", "square": "#/$defs/Square"}}},
    {"enum": ["red", 3, None, [1, 2], {"a": True}, 2.5], "type": ["string", "integer", "array"]},
    {"type": "object", "properties": {"a": {"const": [1, {"b": None}]}, "ab": {"type": "boolean"}}, "additionalProperties": {"type": "integer"}, "required": ["ab"]},
    {"allOf": [person, {"properties": {"age": {"minimum": 18}}}]} | {"title": "grown up"},
    {"$defs": {"base": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}},
     "allOf": [{"$ref": "#/$defs/base"}, {"type": "object", "properties": {"tag": {"enum": ["x", "y"]}}, "required": ["tag"]}]},
    {"oneOf": [{"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["kind", "lives"]},
               {"type": "object", "properties": {"kind": {"const": "dog"}, "tricks": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2}}, "required": ["kind"]}]},
    {"$defs": {"tree": {"type": "object", "properties": {"v": {"type": "integer", "minimum": 0, "maximum": 9}, "kids": {"type": "array", "maxItems": 2, "items": {"$ref": "#/$defs/tree"}}},
                        "required": ["v"], "additionalProperties": False}}, "$ref": "#/$defs/tree"},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 3}, "b": {"type": "integer", "minimum": 0, "maximum": 3}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
     "additionalProperties": False},
    {"type": "array", "prefixItems": [{"type": "string", "maxLength": 3}, {"type": "number"}], "items": False, "minItems": 2},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "object", "required": ["x"], "additionalProperties": {"type": "boolean"}},
    {"type": "array", "items": {"enum": [1, 2, 3]}, "contains": {"const": 2}, "minContains": 2, "maxItems": 6},
    {"type": "array", "items": {"enum": [1, 2, "a", None]}, "contains": {"type": ["string", "null"]}, "maxContains": 2, "minItems": 3, "maxItems": 6},
    {"type": "string", "maxLength": 3, "not": {"enum": ["a", "b.c", ""]}},
    {"type": "integer", "minimum": 0, "maximum": 9, "not": {"enum": [0, 3, 9]}},
    {"type": "object", "properties": {k: {"type": "boolean"} for k in "abc"}, "not": {"required": ["a", "b"]}, "minProperties": 1, "additionalProperties": False},
    {"type": "object", "properties": {"kind": {"enum": ["card", "cash"]}, "number": {"type": "string", "pattern": r"^\d{4}$"}}, "required": ["kind"], "additionalProperties": False,
     "if": {"properties": {"kind": {"const": "card"}}}, "then": {"required": ["number"]}, "else": {"properties": {"number": False}}},
    {"type": "integer", "minimum": 0, "maximum": 99, "allOf": [{"if": {"minimum": 10}, "then": {"multipleOf": 5}}, {"if": {"maximum": 50}, "then": {"not": {"const": 7}}, "else": {"maximum": 70}}]},
    {"type": "object", "properties": {k: {"type": "boolean"} for k in "abcd"}, "minProperties": 2, "maxProperties": 3, "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": {"type": "null"}, "minProperties": 2, "maxProperties": 4},
    {"type": "integer", "minimum": 0, "maximum": 99, "minLength": 3, "pattern": "^x", "items": False},
    {"type": ["string", "integer"], "minLength": 1, "maxLength": 4, "minimum": 3, "maximum": 9, "anyOf": [{"type": "integer"}, {"type": "string"}]},
    {"minLength": 2, "maxLength": 5, "minimum": 3, "maximum": 30, "multipleOf": 1},
    {"enum": [1, "a", "abc", None, [], [1]], "minLength": 2, "minItems": 1},
    {"type": "string", "maxLength": 5, "then": {"minLength": 2}, "minContains": 3, "if": {"minimum": 5}, "else": {"minLength": 4}},
    {"$defs": {"t": {"anyOf": [{"type": "null"}, {"type": "array", "contains": {"$ref": "#/$defs/t"}, "maxItems": 2}]}},
     "$ref": "#/$defs/t"},
    {"type": "array", "items": {"type": ["array", "boolean"], "maxItems": 2}, "maxItems": 3, "not": {"$ref": "#/$defs/t"}, "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}},
    {"allOf": [{"$ref": "#/$defs/x", "maximum": 7}, {"minimum": 3}], "$defs": {"x": {"type": "integer"}}},
    {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 3, "maxLength": 3}, {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4}]},
]

all_, whole, wrong = 0, 0, 0
for schema in SCHEMAS:
    judge = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)(schema, format_checker=jsonschema.FormatChecker(["uuid", "date", "email", "ipv4", "ipv6"]))
    fit = 0
    for seed in range(answers):
        body = {"prompt": "a", "seed": seed, "temperature": 1, "max_tokens": 1000, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
        r = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        said = json.load(urllib.request.urlopen(r))["choices"][0]
        all_ += 1
        if said["finish_reason"] != "stop":
            continue
        whole, fit = whole + 1, fit + 1
        try:
            judge.validate(json.loads(said["text"]))
        except (ValueError, jsonschema.ValidationError) as e:
            wrong += 1
            print(f"WRONG {json.dumps(schema)}: {said['text']!r}: {str(e).splitlines()[0]}")
    print(f"{fit} of {answers} whole: {json.dumps(schema)[:100]}")
print(f"{all_} answers, {whole} whole, {wrong} wrong")
sys.exit(1 if wrong or whole < all_ / 2 else 0)
