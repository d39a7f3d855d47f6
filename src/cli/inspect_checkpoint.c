/* inspect_checkpoint.c - see inspect_checkpoint.h. One tree of JSON holds all that is said; people are shown the same. */
#include "cli/inspect_checkpoint.h"

#include "checkpoint/arch.h"
#include "format/gguf.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

bool mn_is_checkpoint(const char *path) {
  mn_checkpoint_form form;
  return mn_checkpoint_form_at(path, &form) == MN_OK && form != MN_FORM_MNEME;
}

/* ---- the tree ---- */

enum { SHOWN_ITEMS = 4, SHOWN_BYTES = 60 };

static mn_status add_shown(json_t *map, const char *key, mn_text *value) {
  mn_status status = mn_text_status(value);
  char shown[MN_PRINTABLE];
  if (status == MN_OK) json_object_set_new(map, mn_printable(key, shown), mn_cli_text(value->data ? value->data : ""));
  mn_text_free(value);
  return status;
}

static mn_status metadata_of_gguf(const mn_gguf *g, json_t *map) {
  for (int i = 0; i < mn_gguf_meta_count(g); i++) {
    mn_text value = {0};
    mn_gguf_meta_show(mn_gguf_meta_at(g, i), SHOWN_ITEMS, SHOWN_BYTES, &value);
    MN_TRY(add_shown(map, mn_gguf_meta_at(g, i)->key, &value));
  }
  return MN_OK;
}

static mn_status settings_of(const mn_value *settings, json_t *map) {
  for (size_t i = 0; settings->kind == MN_MAP && i < settings->count; i++) {
    mn_text value = {0};
    mn_status status = mn_value_to_json(settings->as.entries[i].value, 0, &value);
    if (status == MN_OK) status = add_shown(map, settings->as.entries[i].key, &value);
    else mn_text_free(&value);
    MN_TRY(status);
  }
  return MN_OK;
}

static json_t *shape_of(const mn_shape *s) {
  json_t *list = json_array();
  for (int i = 0; i < s->ndim; i++) json_array_append_new(list, json_integer(s->dim[i]));
  return list;
}

/* {Q4_K: {tensors, values, bytes}}; with `each` all of them, too. */
static void tensors_of(const mn_checkpoint *c, bool each, json_t *doc) {
  json_t *types = json_object(), *list = json_array();
  json_int_t values = 0, bytes = 0;
  for (int i = 0; i < mn_checkpoint_count(c); i++) {
    const mn_checkpoint_tensor *t = mn_checkpoint_at(c, i);
    json_t *type = json_object_get(types, t->type);
    if (!type) json_object_set_new(types, t->type, type = json_pack("{s:i, s:i, s:i}", "tensors", 0, "values", 0, "bytes", 0));
    const struct {
      const char *key;
      json_int_t more;
    } sums[] = {{"tensors", 1}, {"values", mn_shape_count(&t->shape)}, {"bytes", (json_int_t)t->bytes}};
    for (int k = 0; k < 3; k++)
      json_object_set_new(type, sums[k].key, json_integer(json_integer_value(json_object_get(type, sums[k].key)) + sums[k].more));
    values += mn_shape_count(&t->shape);
    bytes += (json_int_t)t->bytes;
    if (each)
      json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:I}", "name", mn_cli_text(t->name), "type", t->type, "shape",
                                            shape_of(&t->shape), "bytes", (json_int_t)t->bytes));
  }
  json_object_set_new(doc, "tensors", json_integer(mn_checkpoint_count(c)));
  json_object_set_new(doc, "values", json_integer(values));
  json_object_set_new(doc, "bytes", json_integer(bytes));
  json_object_set_new(doc, "types", types);
  if (each) json_object_set_new(doc, "list", list);
  else json_decref(list);
}

/* Which of Mneme's architectures it is, or why none. */
static void model_of(const mn_checkpoint *c, mn_arena *arena, json_t *doc) {
  const mn_arch_def *a = NULL;
  const mn_value *map = NULL;
  mn_settings s = {0};
  mn_status status = mn_settings_open(arena, c, &s);
  if (status == MN_OK) status = mn_arch_of(&s, &a);
  if (status == MN_OK) status = a->recipe(&s, &map);
  if (status == MN_OK) json_object_set_new(doc, "architecture", json_string(a->name));
  else json_object_set_new(doc, "not_opened", mn_cli_text(mn_message()));
}

static mn_status describe(const char *path, bool each, mn_arena *arena, json_t *doc) {
  mn_checkpoint *c = NULL;
  mn_gguf *g = NULL;
  mn_status status = mn_checkpoint_open(path, &c); /* checks checksums, too */
  if (status != MN_OK) return status;
  const bool gguf = mn_checkpoint_form_of(c) == MN_FORM_GGUF;
  json_t *metadata = json_object();
  if (gguf) status = mn_gguf_open(path, &g);
  json_object_set_new(doc, "file", mn_cli_text(path));
  if (status == MN_OK && gguf) {
    json_object_set_new(doc, "form", json_sprintf("GGUF, version %u", mn_gguf_version(g)));
    json_object_set_new(doc, "checksums", json_string(mn_gguf_checksum(g) ? "hold" : "none"));
    status = metadata_of_gguf(g, metadata);
  } else if (status == MN_OK) {
    json_object_set_new(doc, "form", json_string("Hugging Face"));
    status = settings_of(mn_checkpoint_settings(c), metadata);
  }
  json_object_set_new(doc, "metadata", metadata);
  if (status == MN_OK) {
    model_of(c, arena, doc);
    tensors_of(c, each, doc);
    status = mn_checkpoint_intact(c);
  }
  mn_gguf_close(g);
  mn_checkpoint_close(c);
  return status;
}

/* ---- for people ---- */

static const char *text_of(const json_t *doc, const char *key) { return json_string_value(json_object_get(doc, key)); }
static long long number_of(const json_t *doc, const char *key) { return (long long)json_integer_value(json_object_get(doc, key)); }

static void print_list(const json_t *list) {
  size_t i;
  json_t *t;
  if (list) mn_print("\ntensor                                             type    shape                        bytes\n");
  json_array_foreach(list, i, t) {
    mn_text line = {0};
    char shown[MN_PRINTABLE];
    mn_text_addf(&line, "%-50s %-7s [", mn_printable(text_of(t, "name"), shown), text_of(t, "type"));
    size_t k;
    json_t *dim;
    json_array_foreach(json_object_get(t, "shape"), k, dim)
        mn_text_addf(&line, "%s%lld", k ? ", " : "", (long long)json_integer_value(dim));
    mn_text_add(&line, "]");
    mn_text_pad(&line, 80);
    if (line.data) mn_print("%s %12lld\n", line.data, number_of(t, "bytes"));
    mn_text_free(&line);
  }
}

static void print(const json_t *doc) {
  const char *key, *checksums = text_of(doc, "checksums");
  json_t *value;
  mn_print("%s: %s%s\n", text_of(doc, "file"), text_of(doc, "form"),
           !checksums                   ? ""
           : !strcmp(checksums, "hold") ? "; checksums hold"
                                        : "; no checksums: not written by Mneme, damage cannot be noticed");
  if (text_of(doc, "architecture")) mn_print("architecture    %s\n", text_of(doc, "architecture"));
  else mn_print("not opened      %s\n", text_of(doc, "not_opened"));
  mn_print("\n");
  json_object_foreach(json_object_get(doc, "metadata"), key, value) {
    char shown[MN_PRINTABLE];
    mn_print("%-45s %s\n", key, mn_printable(json_string_value(value), shown));
  }
  mn_print("\ntype     tensors          values           bytes   bits of a value\n");
  json_object_foreach(json_object_get(doc, "types"), key, value) {
    const long long values = number_of(value, "values");
    mn_print("%-8s %7lld %15lld %15lld %17.4f\n", key, number_of(value, "tensors"), values, number_of(value, "bytes"),
             values ? 8.0 * (double)number_of(value, "bytes") / (double)values : 0.0);
  }
  mn_print("all      %7lld %15lld %15lld\n", number_of(doc, "tensors"), number_of(doc, "values"), number_of(doc, "bytes"));
  print_list(json_object_get(doc, "list"));
}

mn_status mn_inspect_checkpoint(mn_cli *cli) {
  mn_arena *arena = mn_arena_new();
  json_t *doc = json_object();
  mn_status status = arena && doc ? describe(cli->args[0], mn_cli_given(cli, "params"), arena, doc) : MN_ERR_MEMORY;
  mn_arena_free(arena);
  if (status == MN_OK && cli->json) return mn_cli_json(cli, doc);
  if (status == MN_OK) print(doc);
  json_decref(doc);
  return status;
}
