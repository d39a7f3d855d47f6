/* rendered.c - a chat template and a conversation as the text that a model reads, for bench/templates-vs-jinja.
 *
 *     bench-rendered TEMPLATE VALUES.json [NOW]
 *
 * Writes what the template makes of the values; a fault goes to standard error and ends it with 1. NOW: seconds since 1970. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/json.h"
#include "format/template.h"

static mn_status render(char **argv, int argc, mn_text *out) {
  char *text = NULL;
  size_t n = 0;
  const mn_value *values = NULL;
  mn_template *t = NULL;
  mn_arena *arena = mn_arena_new();
  mn_template_limits limits = {.now = argc > 3 ? atoll(argv[3]) : 0};
  mn_status status = arena ? mn_file_read(argv[1], MN_TEMPLATE_BYTES, &text, &n) : MN_ERR_MEMORY;
  if (status == MN_OK) status = mn_json_read(arena, argv[2], &values);
  if (status == MN_OK) status = mn_template_parse(mn_path_base(argv[1]), text, n, &t);
  if (status == MN_OK) status = mn_template_render(t, values, &limits, out);
  mn_template_free(t);
  mn_arena_free(arena);
  free(text);
  return status;
}

int main(int argc, char **argv) {
  mn_text out = {0};
  if (argc < 3) {
    fprintf(stderr, "bench-rendered TEMPLATE VALUES.json [NOW]\n");
    return 2;
  }
  const mn_status status = render(argv, argc, &out);
  if (status == MN_OK) fwrite(out.data, 1, out.len, stdout);
  else fprintf(stderr, "%s: %s\n", mn_status_name(status), mn_message());
  mn_text_free(&out);
  return status != MN_OK;
}
