/* json_schema.h - a JSON schema as a grammar: the texts of JSON that it allows.
 *
 * Known are: type (one or a list), enum, const, nullable, properties, required, additionalProperties, unevaluatedProperties, propertyNames,
 * minProperties, maxProperties, one of patternProperties, items (one, or a list with additionalItems), prefixItems, minItems, maxItems,
 * uniqueItems of few values, contains, minContains, maxContains of what has an opposite, minLength, maxLength, pattern (json_pattern.h),
 * format and contentEncoding (json_format.h; of numbers int32, double and the like), minimum, maximum, the exclusive ones and multipleOf
 * (json_number.h), anyOf, oneOf where no value could fit two of its schemas, allOf, not and if with then or else of what has an opposite
 * (schema_complement.h), $ref within the schema, $defs and definitions. Keys beside anyOf, allOf and $ref hold, too. What only describes
 * (title, description, default, examples, $schema, discriminator, x-...) changes nothing, and neither does a key that says nothing where it stands:
 * of values of another type than the schema's, or of a key that is not beside it (minContains without contains, then without if). Any other key would be broken silently, and is
 * refused by name, as is a schema that no text fits that ends, and one that would explode: more than 4096 schemas merged, least counts
 * beyond 4096, names beyond 256 bytes beside additionalProperties, lists and patterns that would take too long to compare. A way of anyOf
 * or oneOf that no value fits is none, and a property that none fits is left out. minProperties counts properties that are named, and one
 * other at most, as a name may stand twice. A list may be told by such lists in it (contains of a $ref around it), one of them; where more are
 * counted, what must be told apart doubles with each level, and is refused.
 *
 * Not every text that fits is made: where no type is said, values of the types that the keys speak of; a string that may have more than 4096 letters has at most those, and lists and objects that may have
 * more than 1024 items or properties have at most 1024, or as many as there must be or are named; properties come in the schema's order,
 * required ones always; others only where additionalProperties says so, or no properties are named, under keys of ASCII that no property
 * has. Between values stand at most a line's end and spaces. */
#ifndef MN_SERVE_JSON_SCHEMA_H
#define MN_SERVE_JSON_SCHEMA_H

#include "format/value.h"
#include "serve/grammar.h"

/* Any value of JSON; only_object: any object. MN_ERR_MEMORY or MN_OK. */
mn_status mn_grammar_of_json(bool only_object, mn_grammar **out);
/* MN_ERR_CONFIG: a key that is not known, a value that does not fit, or a schema that explodes; the message names the place. */
mn_status mn_grammar_of_schema(const mn_value *schema, mn_grammar **out);

/* {"name": NAME, "arguments": ...} of one of a request's tools, or of the one that `only` names (NULL: any). */
mn_status mn_grammar_of_calls(const mn_value *tools, const char *only, mn_grammar **out);

#endif
