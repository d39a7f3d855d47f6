/* Any recipe over a table with every type of field: refused with a message, or read, in range, and the same after it was
 * written as JSON and read again. */
#include "format/config.h"
#include "format/json.h"
#include "format/yaml.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct sample {
  int head_dim;
  int64_t window;
  double eta;
  float dropout;
  bool causal;
  enum { TOKEN, CHUNK } write;
  const char *note;
  mn_ints shape;
  mn_floats betas;
  mn_strings files;
  const mn_value *inner;
} sample;

static const char *const words[] = {"token", "chunk", NULL};
static const mn_field fields[] = {MN_FIELD_INT(sample, head_dim, 64, 1, 512, "width of a head"),
                                  MN_FIELD_INT(sample, window, 0, INT64_MIN, INT64_MAX, "tokens"),
                                  MN_FIELD_FLOAT(sample, eta, 0.9, 0, INFINITY, "momentum"),
                                  MN_FIELD_FLOAT(sample, dropout, 0, 0, 1, "share"),
                                  MN_FIELD_BOOL(sample, causal, true, "causal"),
                                  MN_FIELD_ENUM(sample, write, words, TOKEN, "when"),
                                  MN_FIELD_STRING(sample, note, "", "text"),
                                  MN_FIELD_INTS(sample, shape, 1, 100, "shape"),
                                  MN_FIELD_FLOATS(sample, betas, 0, 1, "decays"),
                                  MN_FIELD_STRINGS(sample, files, "files"),
                                  MN_FIELD_VALUE(sample, inner, "nested"),
                                  MN_FIELD_END};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  mn_arena *arena = mn_arena_new();
  const mn_value *map, *again;
  sample s, t;
  mn_text text = {0};
  if (mn_yaml_parse(arena, "fuzz", (const char *)data, size, &map) == MN_OK) {
    if (mn_config_read(arena, map, NULL, fields, &s) == MN_OK) {
      if (s.head_dim < 1 || s.head_dim > 512 || !(s.eta >= 0) || !(s.dropout >= 0 && s.dropout <= 1)) abort();
      const mn_value *v = mn_config_to_value(arena, &(mn_config_part){fields, &s}, 1);
      if (!v) abort();
      if (mn_value_to_json(v, 0, &text) == MN_OK) {
        if (mn_json_parse(arena, "again", text.data, text.len, &again) != MN_OK) abort();
        if (mn_config_read(arena, again, NULL, fields, &t) != MN_OK) abort();
        if (!mn_value_equal(v, mn_config_to_value(arena, &(mn_config_part){fields, &t}, 1))) abort();
      }
    } else if (!*mn_message()) abort();
  }
  mn_text_free(&text);
  mn_arena_free(arena);
  return 0;
}
