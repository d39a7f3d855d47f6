/* chat_messages.c - see chat_messages.h. */
#define _GNU_SOURCE /* memmem */
#include "run/chat_messages.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/json.h"

static const char open_mark[] = "\xEF\xB7\x90", close_mark[] = "\xEF\xB7\x91"; /* U+FDD0, U+FDD1 */
enum { MARK = 3 };

/* ---- special tokens ---- */
static int longer_first(const void *a, const void *b) {
  const mn_chat_word *x = a, *y = b;
  return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : (x->id > y->id) - (x->id < y->id);
}

mn_status mn_chat_words_of(const mn_tokenizer *tok, mn_arena *arena, mn_chat_words *out) {
  const int32_t all = mn_tokenizer_vocab_size(tok);
  size_t n = 0, bytes;
  *out = (mn_chat_words){0};
  for (int32_t id = 0; id < all; id++) n += mn_tokenizer_is_special(tok, id);
  out->at = mn_arena_alloc(arena, (n + 1) * sizeof *out->at);
  if (!out->at) return MN_ERR_MEMORY;
  for (int32_t id = 0; id < all; id++) {
    const char *text = mn_tokenizer_is_special(tok, id) ? mn_tokenizer_token(tok, id, &bytes) : NULL;
    if (!text || !bytes) continue;
    out->at[out->n++] = (mn_chat_word){text, bytes, id};
    out->begins[(unsigned char)*text] = true;
  }
  qsort(out->at, out->n, sizeof *out->at, longer_first);
  return MN_OK;
}

int32_t mn_chat_word_at(const mn_chat_words *words, const char *s, size_t n) {
  if (!n || !words->begins[(unsigned char)*s]) return -1;
  for (size_t i = 0; i < words->n; i++)
    if (words->at[i].n <= n && !memcmp(words->at[i].text, s, words->at[i].n)) return words->at[i].id;
  return -1;
}

static size_t word_length(const mn_chat_words *words, int32_t id) {
  for (size_t i = 0; i < words->n; i++)
    if (words->at[i].id == id) return words->at[i].n;
  return 0;
}

/* ---- marks ---- */
static bool is_mark(const char *s, size_t n) { return n >= MARK && (!memcmp(s, open_mark, MARK) || !memcmp(s, close_mark, MARK)); }

static const mn_value *marked_text(mn_arena *arena, const mn_chat_words *words, const char *s, size_t n) {
  mn_text out = {0};
  mn_text clean = {0}; /* taking marks out may put a word together, so that comes first */
  mn_chat_unmark(s, n, &clean);
  s = clean.data ? clean.data : "", n = clean.len;
  for (size_t at = 0; at < n;) {
    const int32_t id = mn_chat_word_at(words, s + at, n - at);
    const size_t length = id >= 0 ? word_length(words, id) : 1;
    if (id >= 0) mn_text_add(&out, open_mark);
    mn_text_add_bytes(&out, s + at, length);
    if (id >= 0) mn_text_add(&out, close_mark);
    at += length;
  }
  const mn_value *v = mn_text_status(&out) == MN_OK && !clean.failed ? mn_value_text(arena, out.data ? out.data : "") : NULL;
  mn_text_free(&out);
  mn_text_free(&clean);
  return v;
}

/* Templates write keys, too: those of arguments, and of what a tool takes. */
static const char *marked_key(mn_arena *arena, const mn_chat_words *words, const char *key) {
  const mn_value *v = marked_text(arena, words, key, strlen(key));
  return v ? v->as.text : NULL;
}

const mn_value *mn_chat_marked(mn_arena *arena, const mn_chat_words *words, const mn_value *v) {
  if (!v) return NULL;
  if (v->kind == MN_TEXT) return marked_text(arena, words, v->as.text, v->count);
  if (v->kind != MN_LIST && v->kind != MN_MAP) return v;
  const mn_value **at = mn_arena_alloc(arena, (v->count + 1) * sizeof *at);
  const char **keys = mn_arena_alloc(arena, (v->count + 1) * sizeof *keys);
  if (!at || !keys) return NULL;
  for (size_t i = 0; i < v->count; i++) {
    at[i] = mn_chat_marked(arena, words, v->kind == MN_LIST ? v->as.items[i] : v->as.entries[i].value);
    if (!at[i]) return NULL;
    if (v->kind == MN_MAP && !(keys[i] = marked_key(arena, words, v->as.entries[i].key))) return NULL;
  }
  return v->kind == MN_LIST ? mn_value_list(arena, v->count, at) : mn_value_map(arena, v->count, keys, at);
}

void mn_chat_unmark(const char *s, size_t n, mn_text *out) {
  size_t from = 0;
  for (size_t at = 0; at < n; at++) {
    if ((unsigned char)s[at] != 0xEF || !is_mark(s + at, n - at)) continue;
    mn_text_add_bytes(out, s + from, at - from);
    from = at + MARK;
    at = from - 1;
  }
  if (n > from) mn_text_add_bytes(out, s + from, n - from);
}

/* The longest word that s[0..n) ends with; 0: none. */
static size_t word_at_end(const mn_chat_words *words, const char *s, size_t n) {
  for (size_t i = 0; i < words->n; i++)
    if (words->at[i].n <= n && !memcmp(words->at[i].text, s + n - words->at[i].n, words->at[i].n)) return words->at[i].n;
  return 0;
}

/* A word may stand beside a mark that has lost the other one. */
mn_chat_part mn_chat_next(const mn_chat_words *words, const char *s, size_t n) {
  mn_chat_part part = {.text = s};
  if (!is_mark(s, n)) {
    while (part.n < n && !is_mark(s + part.n, n - part.n)) part.n++;
    part.passed = part.n;
    const bool closes = part.n < n && !memcmp(s + part.n, close_mark, MARK);
    const size_t word = closes ? word_at_end(words, s, part.n) : 0;
    if (!word) return part;
    part.plain = word == part.n;
    part.n = part.plain ? word : part.n - word;
    part.passed = part.n;
    return part;
  }
  part.passed = MARK;
  if (memcmp(s, open_mark, MARK) != 0) return part;
  const char *end = memmem(s + MARK, n - MARK, close_mark, MARK);
  const bool alone = !end || memmem(s + MARK, (size_t)(end - s) - MARK, open_mark, MARK);
  part.text = s + MARK, part.plain = true;
  part.n = alone ? word_length(words, mn_chat_word_at(words, s + MARK, n - MARK)) : (size_t)(end - s) - MARK;
  part.passed = MARK + part.n + (alone ? 0 : MARK);
  return part;
}

bool mn_chat_begins(const char *s, size_t n, const char *known, size_t n_known, size_t *at) {
  size_t i = 0, k = 0;
  while (k < n_known) {
    if (is_mark(s + i, n - i)) {
      i += MARK;
    } else if (i >= n || s[i] != known[k]) {
      return false;
    } else {
      i++, k++;
    }
  }
  while (is_mark(s + i, n - i) && !memcmp(s + i, close_mark, MARK)) i += MARK; /* of what is known */
  *at = i;
  return true;
}

/* ---- messages ---- */
static mn_status no_text(size_t i, const mn_value *of, const char *what) { return mn_value_fail(of, "message %zu %s", i + 1, what); }

/* The types of parts that are text: of chats, and of responses. */
static bool is_text(const char *type) { return !strcmp(type, "text") || !strcmp(type, "input_text") || !strcmp(type, "output_text"); }

/* Parts of text are one text. */
static mn_status join(mn_arena *arena, size_t i, const mn_value *parts, const mn_value **out) {
  mn_text text = {0};
  mn_status status = MN_OK;
  for (size_t k = 0; k < parts->count && status == MN_OK; k++) {
    const mn_value *part = parts->as.items[k], *kind = mn_value_get(part, "type"), *of = mn_value_get(part, "text");
    char what[160];
    if (part->kind == MN_TEXT) of = part;
    if (kind && kind->kind == MN_TEXT && !is_text(kind->as.text)) {
      snprintf(what, sizeof what, "holds a part of type '%.40s': this model reads text, no images, sounds or files", kind->as.text);
      status = no_text(i, part, what);
    } else if (!of || of->kind != MN_TEXT) {
      status = no_text(i, part, "has a part without text");
    } else {
      mn_text_add_bytes(&text, of->as.text, of->count);
    }
  }
  if (status == MN_OK) status = mn_text_status(&text);
  if (status == MN_OK && !(*out = mn_value_text(arena, text.data ? text.data : ""))) status = MN_ERR_MEMORY;
  mn_text_free(&text);
  return status;
}

/* A copy of a map in which the value of one key is another. */
static const mn_value *with(mn_arena *arena, const mn_value *map, const char *key, const mn_value *value) {
  const mn_value **at = mn_arena_alloc(arena, (map->count + 1) * sizeof *at);
  const char **keys = mn_arena_alloc(arena, (map->count + 1) * sizeof *keys);
  if (!at || !keys || !value) return NULL;
  for (size_t i = 0; i < map->count; i++) {
    keys[i] = map->as.entries[i].key;
    at[i] = !strcmp(keys[i], key) ? value : map->as.entries[i].value;
  }
  return mn_value_map(arena, map->count, keys, at);
}

/* In the form that the template writes; text that is no JSON object stays. */
static mn_status arguments(mn_arena *arena, const mn_value *given, bool as_map, const mn_value **out) {
  *out = given;
  if (as_map && given->kind == MN_TEXT) {
    const mn_value *parsed = NULL;
    if (mn_json_parse(arena, "arguments", given->as.text, given->count, &parsed) == MN_OK && parsed->kind == MN_MAP) *out = parsed;
  } else if (!as_map && given->kind == MN_MAP) {
    mn_text text = {0};
    mn_status status = mn_value_to_json(given, 0, &text);
    if (status == MN_OK && !(*out = mn_value_text(arena, text.data))) status = MN_ERR_MEMORY;
    mn_text_free(&text);
    return status;
  }
  return MN_OK;
}

static mn_status calls(mn_arena *arena, size_t i, const mn_value *list, bool as_map, const mn_value **out) {
  if (list->kind != MN_LIST) return no_text(i, list, "has tool_calls that are no list");
  const mn_value **at = mn_arena_alloc(arena, (list->count + 1) * sizeof *at);
  if (!at) return MN_ERR_MEMORY;
  for (size_t k = 0; k < list->count; k++) {
    const mn_value *call = list->as.items[k], *function = mn_value_get(call, "function"), *given, *form;
    at[k] = call;
    if (!function || function->kind != MN_MAP) continue; /* the template's to refuse */
    if (!(given = mn_value_get(function, "arguments"))) continue;
    MN_TRY(arguments(arena, given, as_map, &form));
    at[k] = with(arena, call, "function", with(arena, function, "arguments", form));
    if (!at[k]) return MN_ERR_MEMORY;
  }
  *out = mn_value_list(arena, list->count, at);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

/* words NULL: plain. */
static mn_status one(mn_arena *arena, const mn_chat_words *words, size_t i, const mn_value *m, bool as_map, const mn_value **out) {
  const mn_value *role = mn_value_get(m, "role");
  if (m->kind != MN_MAP || !role || role->kind != MN_TEXT) return no_text(i, m, "is no map with a role");
  const mn_value **at = mn_arena_alloc(arena, (m->count + 1) * sizeof *at);
  const char **keys = mn_arena_alloc(arena, (m->count + 1) * sizeof *keys);
  size_t n = 0;
  if (!at || !keys) return MN_ERR_MEMORY;
  for (size_t k = 0; k < m->count; k++) {
    const mn_entry *e = &m->as.entries[k];
    const mn_value *v = e->value;
    if (v->kind == MN_NULL) continue; /* templates handle what is missing */
    if (!strcmp(e->key, "content") && v->kind == MN_LIST) MN_TRY(join(arena, i, v, &v));
    else if (!strcmp(e->key, "content") && v->kind != MN_TEXT)
      return no_text(i, v, "has a content that is neither text nor a list of parts");
    if (words && !strcmp(e->key, "tool_calls")) MN_TRY(calls(arena, i, v, as_map, &v));
    keys[n] = words ? marked_key(arena, words, e->key) : e->key;
    at[n] = words ? mn_chat_marked(arena, words, v) : v;
    if (!keys[n] || !at[n]) return MN_ERR_MEMORY;
    n++;
  }
  *out = mn_value_map(arena, n, keys, at);
  return *out ? MN_OK : MN_ERR_MEMORY;
}

mn_status mn_chat_plain(mn_arena *arena, const mn_value *messages, const mn_value **out) {
  return mn_chat_prepared(arena, NULL, messages, false, out);
}

mn_status mn_chat_prepared(mn_arena *arena, const mn_chat_words *words, const mn_value *messages, bool as_map, const mn_value **out) {
  if (!messages || messages->kind != MN_LIST) return mn_fail(MN_ERR_CONFIG, "messages are a list of {role, content}");
  const mn_value **at = mn_arena_alloc(arena, (messages->count + 1) * sizeof *at);
  if (!at) return MN_ERR_MEMORY;
  for (size_t i = 0; i < messages->count; i++) MN_TRY(one(arena, words, i, messages->as.items[i], as_map, &at[i]));
  *out = mn_value_list(arena, messages->count, at);
  return *out ? MN_OK : MN_ERR_MEMORY;
}
