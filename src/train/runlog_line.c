/* runlog_line.c - see runlog_line.h. */
#include "train/runlog_line.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/text.h"

static const char before_sum[] = ",\"checksum\":\"";
enum { SUM = 16, BEFORE = sizeof before_sum - 1, TAIL = BEFORE + SUM + 2 /* "} */ };

static mn_status sum_of(const char *line, size_t n, const char *identity, char sum[MN_HASH_HEX]) {
  mn_text text = {0};
  mn_text_addf(&text, "%s\n", identity ? identity : "");
  mn_text_add_bytes(&text, line, n);
  mn_status status = mn_text_status(&text);
  if (status == MN_OK) mn_content_hash(text.data, text.len, sum);
  mn_text_free(&text);
  sum[SUM] = 0;
  return status;
}

char *mn_logline_write(json_t *record, const char *identity, int64_t number) {
  char *body = NULL, *line = NULL, sum[MN_HASH_HEX];
  if (record && json_object_set_new(record, "line", json_integer(number)) == 0)
    body = json_dumps(record, JSON_COMPACT | JSON_REAL_PRECISION(15));
  json_decref(record);
  size_t n = body ? strlen(body) - 1 : 0; /* without its brace */
  if (!body) mn_fail(MN_ERR_MEMORY, "out of memory for a line of the metrics log");
  else if (sum_of(body, n, identity, sum) == MN_OK) line = mn_format("%.*s%s%s\"}", (int)n, body, before_sum, sum);
  free(body);
  return line;
}

/* A record of an older program: its step, and nothing but numbers. */
static bool bare(const json_t *record) {
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)record, key, value) {
    if (!strcmp(key, "line") || !strcmp(key, "checksum") || (!json_is_number(value) && !json_is_null(value))) return false;
  }
  return true;
}

/* The number of the line at `at`, n bytes long; 0: it has none, and is sound; -1: it is not sound. */
static int64_t number_of(const mn_loglines *l, size_t at, size_t n, json_t **record) {
  const char *line = l->text + at;
  bool sealed = n > TAIL && !memcmp(line + n - TAIL, before_sum, BEFORE) && !memcmp(line + n - 2, "\"}", 2);
  int64_t number = -1;
  char sum[MN_HASH_HEX];
  if (sealed && (sum_of(line, n - TAIL, l->identity, sum) != MN_OK || memcmp(line + n - 2 - SUM, sum, SUM) != 0)) return -1;
  json_t *r = json_loadb(line, n, JSON_REJECT_DUPLICATES, NULL);
  if (json_is_integer(json_object_get(r, "step"))) {
    if (!sealed) number = bare(r) ? 0 : -1;
    else if (json_integer_value(json_object_get(r, "line")) > 0) number = json_integer_value(json_object_get(r, "line"));
  }
  if (record && number >= 0) *record = r;
  else json_decref(r);
  return number;
}

static bool next_is(const mn_loglines *l, int64_t number) {
  const char *end = l->at < l->size ? memchr(l->text + l->at, '\n', l->size - l->at) : NULL;
  return end && number_of(l, l->at, (size_t)(end - l->text) - l->at, NULL) == number;
}

void mn_loglines_end(mn_loglines *l) {
  json_decref(l->record);
  l->record = NULL;
}

bool mn_loglines_next(mn_loglines *l) {
  mn_loglines_end(l);
  const char *end = l->at < l->size ? memchr(l->text + l->at, '\n', l->size - l->at) : NULL;
  if (!end) return false;
  size_t n = (size_t)(end - l->text) - l->at;
  int64_t number = number_of(l, l->at, n, &l->record);
  l->at += n + 1;
  l->line++;
  l->missing = 0;
  if (number == 0) number = l->sealed ? -1 : l->last + 1;
  else if (number > 0) l->sealed = true;
  int64_t ahead = number - l->last - 1 - l->passed;
  if (number < 0) l->kind = MN_LOGLINE_DAMAGED;
  else l->kind = number <= l->last || (ahead > 0 && next_is(l, l->last + 1)) ? MN_LOGLINE_ASTRAY : MN_LOGLINE_SOUND;
  if (l->kind == MN_LOGLINE_SOUND) {
    l->missing = ahead > 0 ? ahead : 0;
    l->last = number;
    l->passed = 0;
    l->step = json_integer_value(json_object_get(l->record, "step"));
  } else {
    if (number < 0 || number > l->last) l->passed++;
    mn_loglines_end(l);
  }
  return true;
}
