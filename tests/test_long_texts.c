/* What must be true of a machine of a grammar whose text passes through more states than are kept: it goes on, and a state that is held stays what
 * it was. */
#include <string.h>

#include "format/json.h"
#include "serve/json_schema.h"
#include "test.h"

static const char *const texts[] = {"[", "]", ", ", "\"", "abcdefgh", "x", "\"y\""};
enum { N_TEXTS = sizeof texts / sizeof *texts, OPEN = 0, CLOSE, COMMA, QUOTE, EIGHT, ONE, OTHER, ITEMS = 4096, LETTERS = 64 };

static const char *text_of(void *ctx, int32_t i, size_t *n) {
  (void)ctx;
  *n = strlen(texts[i]);
  return texts[i];
}

typedef struct writer { /* of one text */
  mn_machine *m;
  const mn_lexicon *l;
  int32_t at;
  long wrong; /* tokens that the mask did not allow, or that it allows where they are none */
} writer;

static bool may(writer *w, int token) {
  const uint64_t *mask = mn_machine_mask(w->m, w->at, w->l);
  return mask && (*mask >> token & 1);
}

static void say(writer *w, int token) {
  w->wrong += !may(w, token);
  const int32_t from = w->at;
  for (const char *s = texts[token]; *s; s++) w->at = mn_machine_next(w->m, w->at, (unsigned char)*s);
  mn_machine_hold(w->m, w->at), mn_machine_leave(w->m, from);
}

static void say_item(writer *w, int i) {
  w->wrong += i > 0 && may(w, CLOSE); /* none may be missing */
  if (i) say(w, COMMA);
  say(w, QUOTE);
  for (int k = 0; k < LETTERS / 8; k++) say(w, EIGHT);
  w->wrong += may(w, ONE) || may(w, OTHER);
  say(w, QUOTE);
}

/* 4096 strings of 64 letters pass through more states than are kept. Another text begins early, waits, and ends later. */
static void a_long_list_comes_to_its_end(void) {
  static const char schema[] =
      "{\"type\": \"array\", \"minItems\": 4096, \"maxItems\": 4096, \"items\": {\"type\": \"string\", \"minLength\": 64, "
      "\"maxLength\": 64}}";
  mn_arena *arena = mn_arena_new();
  const mn_value *v = NULL;
  mn_grammar *g = NULL;
  mn_machine *m = NULL;
  mn_lexicon *l = NULL;
  CHECK_OK(mn_json_parse(arena, "schema", schema, strlen(schema), &v));
  CHECK_OK(mn_grammar_of_schema(v, &g));
  if (g) CHECK_OK(mn_machine_new(g, &m));
  CHECK_OK(mn_lexicon_new(N_TEXTS, text_of, NULL, &l));
  CHECK((long)ITEMS * LETTERS >= MN_MACHINE_STATES, "the list needs fewer states than are kept");
  if (m && l) {
    writer all = {m, l, mn_machine_begin(m), 0}, other = all;
    mn_machine_hold(m, all.at), mn_machine_hold(m, other.at);
    say(&other, OPEN);
    for (int i = 0; i < 5; i++) say_item(&other, i);
    say(&all, OPEN);
    for (int i = 0; i < ITEMS; i++) say_item(&all, i);
    CHECK(all.wrong == 0 && !may(&all, COMMA), "%ld masks of the first text are others", all.wrong);
    say(&all, CLOSE);
    CHECK(mn_machine_whole(m, all.at) && !mn_machine_goes_on(m, all.at), "the list has no end");
    for (int i = 5; i < ITEMS; i++) say_item(&other, i);
    say(&other, CLOSE);
    CHECK(other.wrong == 0 && mn_machine_whole(m, other.at), "%ld masks of the text that waited are others", other.wrong);
    CHECK_OK(mn_machine_status(m));
  }
  mn_lexicon_free(l), mn_machine_free(m), mn_grammar_free(g), mn_arena_free(arena);
}

int main(void) {
  RUN(a_long_list_comes_to_its_end);
  return test_end();
}
