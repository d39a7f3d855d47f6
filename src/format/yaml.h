/* yaml.h - YAML (one document, by libyaml) to a value tree: the language of recipes.
 *
 * Plain scalars are typed by the YAML 1.2 core schema (so "yes" and "1_000" are texts). Refused with file, line and what to
 * do: duplicate keys, anchors and aliases (no document grows beyond its text), tags, a second document, keys that are
 * not scalars, invalid UTF-8, nesting beyond MN_VALUE_DEPTH. JSON recipes are read too, as YAML contains JSON. */
#ifndef MN_YAML_H
#define MN_YAML_H

#include "format/value.h"

mn_status mn_yaml_parse(mn_arena *arena, const char *file, const char *text, size_t n, const mn_value **out);
mn_status mn_yaml_read(mn_arena *arena, const char *path, const mn_value **out); /* a file of at most 8 MiB */

/* The right side of --set: values stand at `path`, in `source`, which has no lines. */
mn_status mn_yaml_parse_setting(mn_arena *arena, const char *source, const char *path, const char *text, const mn_value **out);

#endif
