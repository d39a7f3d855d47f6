/* What must be true of a shelf of conversations: they come back as they were, from memory and from files; as many stay in memory as there
 * is room for, the least lately used go; one is had by one at a time; forks, notes, removal; an owner's
 * are nobody else's; beginnings without a name are not too many, and none is there twice; what is kept is there for the next program. */
#include "run/shelf.h"

#include <pthread.h>

#include "base/file.h"
#include "model_fixture.h"
#include "scratch.h"
#include "test.h"

enum { VOCAB = 50 };

static bool open_model(fixture *f) {
  return fixture_open(
      f, 7,
      "{vocab_size: %d, d_model: 16, blocks: [{mixer: {type: gated_deltanet, heads: 2}}, {mixer: {type: attention, heads: 2, "
      "max_context: 256}}]}",
      VOCAB);
}

static mn_shelf *make(const fixture *f, const char *folder, size_t bytes, bool keeps) {
  mn_shelf *s = NULL;
  const mn_shelf_config config = {.model = f->model, .params = f->params, .folder = folder, .bytes = bytes, .keeps = keeps};
  CHECK_OK(mn_shelf_new(&config, &s));
  return s;
}

static mn_conversation *take(mn_shelf *s, const char *name, bool anew) {
  mn_conversation *c = NULL;
  CHECK_OK(mn_shelf_take(s, 0, name, anew, &c));
  return c;
}

/* n tokens more, which depend on the name and the place. */
static void talk(mn_shelf *s, const char *name, int n) {
  mn_conversation *c = take(s, name, true);
  for (int i = 0; c && i < n; i++) {
    const int32_t token = (int32_t)((mn_hash_str(name) + (uint64_t)mn_conversation_length(c) * 7) % VOCAB);
    CHECK_OK(mn_conversation_feed(c, &token, 1, NULL));
  }
  if (c) CHECK_OK(mn_conversation_mark(c));
  if (c) CHECK_OK(mn_shelf_give(s, 0, name, c, name));
}

static void says(mn_shelf *s, const char *name, float out[VOCAB]) {
  mn_conversation *c = take(s, name, false), *fork = NULL;
  const int32_t token = 1;
  const float *logits = NULL;
  if (c) CHECK_OK(mn_conversation_fork(c, &fork));
  if (fork) CHECK_OK(mn_conversation_feed(fork, &token, 1, &logits));
  if (logits) memcpy(out, logits, VOCAB * sizeof *out);
  mn_conversation_free(fork);
  if (c) CHECK_OK(mn_shelf_give(s, 0, name, c, NULL));
}

typedef struct seen {
  int n, in_memory;
  char names[200];
} seen;
static void note(void *ctx, const mn_shelf_entry *e) {
  seen *x = ctx;
  x->n++, x->in_memory += e->in_memory;
  snprintf(x->names + strlen(x->names), sizeof x->names - strlen(x->names), "%s ", e->name);
}
static seen look(mn_shelf *s) {
  seen x = {0};
  CHECK_OK(mn_shelf_each(s, 0, note, &x));
  return x;
}

static void the_least_lately_used_go_to_files_and_come_back(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *roomy = make(&f, NULL, 0, false), *s;
  talk(roomy, "a", 5), talk(roomy, "b", 6), talk(roomy, "c", 7);
  const size_t one = mn_shelf_bytes(roomy) / 3;
  s = make(&f, "shelf", 2 * one + one / 2, false);
  talk(s, "a", 5), talk(s, "b", 6), talk(s, "c", 7);
  CHECK(look(s).n == 3 && look(s).in_memory == 2 && mn_file_exists("shelf/a.safetensors") && !mn_file_exists("shelf/c.safetensors"),
        "a was used least lately");
  talk(roomy, "a", 1), talk(s, "a", 1); /* comes back, and b goes */
  CHECK(look(s).in_memory == 2 && mn_file_exists("shelf/b.safetensors"), "b goes");
  for (int i = 0; i < 3; i++) {
    float x[VOCAB] = {0}, y[VOCAB] = {1};
    const char name[2] = {(char)('a' + i), 0};
    mn_text kept = {0};
    says(roomy, name, x), says(s, name, y);
    CHECK(!memcmp(x, y, sizeof x), "%s says what it would have said", name);
    CHECK_OK(mn_shelf_note(s, 0, name, &kept));
    CHECK(kept.data && !strcmp(kept.data, name), "and has its note");
    mn_text_free(&kept);
  }
  CHECK(mn_shelf_bytes(s) <= 2 * one + one / 2, "%zu bytes", mn_shelf_bytes(s));
  mn_shelf_free(s);
  CHECK(!mn_file_exists("shelf/a.safetensors") && !mn_file_exists("shelf/b.safetensors"), "files for room alone go with it");
  mn_shelf *small = make(&f, NULL, one + one / 2, false); /* without files the oldest are forgotten */
  talk(small, "a", 6), talk(small, "b", 6);
  CHECK(look(small).n == 1 && !take(small, "a", false), "a is forgotten");
  mn_shelf_free(small);
  mn_shelf_free(roomy);
  fixture_close(&f);
}

static void what_is_kept_is_there_for_the_next_program(void) {
  fixture f;
  if (!open_model(&f)) return;
  float x[VOCAB] = {0}, y[VOCAB] = {1};
  mn_shelf *s = make(&f, "kept/deep", 0, true);
  talk(s, "anna", 9);
  says(s, "anna", x);
  CHECK_OK(mn_shelf_fork(s, 0, "anna", "bela"));
  CHECK(mn_shelf_fork(s, 0, "anna", "bela") == MN_ERR_CONFIG, "%s", mn_message());
  CHECK(mn_shelf_fork(s, 0, "nobody", "x") == MN_ERR_CONFIG, "%s", mn_message());
  talk(s, "bela", 3);
  mn_shelf_free(s);
  s = make(&f, "kept/deep", 0, true);
  CHECK(!strcmp(look(s).names, "anna bela "), "%s", look(s).names);
  says(s, "anna", y);
  CHECK(!memcmp(x, y, sizeof x), "anna is as she was");
  mn_conversation *c = take(s, "bela", false);
  if (c) CHECK_OK(mn_conversation_back(c, 9));
  if (c) CHECK(mn_conversation_fed(c) == 0, "to where it was forked");
  if (c) CHECK_OK(mn_shelf_give(s, 0, "bela", c, NULL));
  says(s, "bela", y);
  CHECK(!memcmp(x, y, sizeof x), "bela was anna");
  CHECK_OK(mn_shelf_remove(s, 0, "anna"));
  CHECK_OK(mn_shelf_remove(s, 0, "anna"));
  CHECK(!mn_file_exists("kept/deep/anna.safetensors") && !take(s, "anna", false) && look(s).n == 1, "removed");
  CHECK_OK(mn_file_write("kept/deep/broken.safetensors", "none", 4));
  CHECK(mn_shelf_take(s, 0, "broken", true, &c) != MN_OK && !c, "a broken file is not begun anew: %s", mn_message());
  CHECK(mn_file_exists("kept/deep/broken.safetensors"), "and stays");
  mn_shelf_free(s);
  fixture_close(&f);
}

static void one_is_had_by_one_at_a_time(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *s = make(&f, NULL, 0, false);
  mn_conversation *c = take(s, "a", true), *again = NULL;
  CHECK(mn_shelf_take(s, 0, "a", true, &again) == MN_ERR_CONFIG && !again && strstr(mn_message(), "in use"), "%s", mn_message());
  CHECK(mn_shelf_remove(s, 0, "a") == MN_ERR_CONFIG, "%s", mn_message());
  CHECK_OK(mn_shelf_give(s, 0, "a", c, NULL));
  CHECK(mn_shelf_give(s, 0, "a", c, NULL) == MN_ERR_ARG, "%s", mn_message());
  static const char *const bad[] = {"", "a/b", "..", ".hidden"};
  for (int i = 0; i < 4; i++) CHECK(mn_shelf_take(s, 0, bad[i], true, &again) == MN_ERR_CONFIG && !again, "'%s'", bad[i]);
  mn_shelf *wrong = NULL;
  CHECK(mn_shelf_new(&(mn_shelf_config){.model = f.model, .params = f.params, .keeps = true}, &wrong) == MN_ERR_ARG && !wrong, "%s",
        mn_message());
  mn_shelf_free(s);
  fixture_close(&f);
}

/* n tokens that all begin with. */
static void say(mn_shelf *s, uint64_t owner, const char *name, int n) {
  mn_conversation *c = NULL;
  CHECK_OK(mn_shelf_take(s, owner, name, true, &c));
  for (int32_t i = 0; c && i < n; i++) CHECK_OK(mn_conversation_feed(c, &(int32_t){i % VOCAB}, 1, NULL));
  if (c) CHECK_OK(mn_conversation_mark(c));
  if (c) CHECK_OK(mn_shelf_give(s, owner, name, c, owner == 1 ? "of one" : "of two"));
}

static int64_t length_of(mn_shelf *s, uint64_t owner, const char *name) { /* -1: there is none */
  mn_conversation *c = NULL;
  CHECK_OK(mn_shelf_take(s, owner, name, false, &c));
  const int64_t n = c ? mn_conversation_length(c) : -1;
  if (c) CHECK_OK(mn_shelf_give(s, owner, name, c, NULL));
  return n;
}

/* How much of n tokens is known. */
static int64_t known_to(mn_shelf *s, uint64_t owner, int n) {
  int32_t tokens[64];
  mn_conversation *c = NULL;
  for (int i = 0; i < n; i++) tokens[i] = i % VOCAB;
  CHECK_OK(mn_shelf_begin(s, owner, tokens, n, 1, &c));
  const int64_t known = c ? mn_conversation_length(c) : 0;
  mn_conversation_free(c);
  return known;
}

static const char *seen_by(mn_shelf *s, uint64_t owner) {
  static seen x;
  x = (seen){0};
  CHECK_OK(mn_shelf_each(s, owner, note, &x));
  return x.names;
}

static void nothing_is_there_of_another(mn_shelf *s) {
  mn_text told = {0};
  mn_ids ids = {0};
  uint64_t holder;
  CHECK(length_of(s, 2, "ones") == -1 && !mn_shelf_has(s, 2, "ones", &holder) && mn_shelf_has(s, 1, "ones", &holder) && holder == 1,
        "taken");
  CHECK_OK(mn_shelf_note(s, 2, "ones", &told));
  CHECK_OK(mn_shelf_tokens(s, 2, "ones", &ids));
  CHECK(!told.len && !ids.len, "its note is '%s', and %zu tokens", told.data ? told.data : "", ids.len);
  CHECK(mn_shelf_fork(s, 2, "ones", "stolen") == MN_ERR_CONFIG && strstr(mn_message(), "there is no"), "%s", mn_message());
  CHECK_OK(mn_shelf_remove(s, 2, "ones"));
  CHECK(length_of(s, 1, "ones") == 20, "it is not removed by another");
  CHECK(!strcmp(seen_by(s, 1), "both ones ") && !strcmp(seen_by(s, 2), "both ") && !*seen_by(s, 0), "%s", seen_by(s, 2));
  CHECK(length_of(s, 1, "both") == 10 && length_of(s, 2, "both") == 12, "a name is each one's own");
  mn_text_free(&told), mn_ids_free(&ids);
}

static void an_owners_are_nobody_elses(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *s = make(&f, "owned", 0, true);
  say(s, 1, "ones", 20), say(s, 1, "both", 10), say(s, 2, "both", 12);
  nothing_is_there_of_another(s);
  CHECK(known_to(s, 1, 30) == 20 && known_to(s, 2, 30) == 12 && known_to(s, 3, 30) == 0, "what began so is one's own");
  mn_shelf_free(s);
  s = make(&f, "owned", 0, true); /* and so it is in files */
  nothing_is_there_of_another(s);
  say(s, 0, "alls", 16); /* everybody's, unless one has his own of that name */
  CHECK(length_of(s, 1, "alls") == 16 && length_of(s, 3, "alls") == 16 && !strcmp(seen_by(s, 3), "alls ") && known_to(s, 3, 30) == 16, "%s",
        seen_by(s, 3));
  say(s, 0, "both", 3);
  CHECK(length_of(s, 1, "both") == 10 && length_of(s, 3, "both") == 3 && !strcmp(seen_by(s, 1), "alls both ones "), "%s", seen_by(s, 1));
  CHECK_OK(mn_file_write("owned/x@1.safetensors", "none", 4));
  CHECK(!strstr(seen_by(s, 0), "x"), "no owner's file is called so: %s", seen_by(s, 0));
  mn_conversation *c = NULL;
  CHECK(mn_shelf_take(s, 0, "ones@0000000000000001", false, &c) == MN_ERR_CONFIG && !c, "nobody names another's file");
  mn_shelf_free(s);
  fixture_close(&f);
}

/* What begins with the digits of i. */
static void beginning(int i, int32_t tokens[5]) {
  for (int k = 0; k < 4; k++) tokens[k] = 1 + (i >> 3 * k & 7);
  tokens[4] = 20;
}

static void lay(mn_shelf *s, uint64_t owner, int i) {
  int32_t tokens[5];
  mn_conversation *c = NULL;
  beginning(i, tokens);
  CHECK_OK(mn_shelf_begin_or_new(s, 99, tokens, 5, 1, &c));
  if (c) CHECK_OK(mn_conversation_feed(c, tokens, 4, NULL));
  if (c) CHECK_OK(mn_conversation_mark(c));
  if (c) mn_shelf_lay(s, owner, c);
}

/* Is all of it there? It is not, afterwards. */
static bool has(mn_shelf *s, uint64_t owner, int i) {
  int32_t tokens[5];
  mn_conversation *c = NULL;
  beginning(i, tokens);
  CHECK_OK(mn_shelf_begin(s, owner, tokens, 5, 4, &c));
  mn_conversation_free(c);
  return c != NULL;
}

static void beginnings_are_not_too_many(void) {
  enum { N = 300, MOST = 256 };
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *s = make(&f, NULL, 0, false);
  lay(s, 1, 7), lay(s, 1, 7), lay(s, 2, 7);
  const size_t one = mn_shelf_bytes(s) / 2;
  CHECK(has(s, 1, 7) && !has(s, 1, 7) && has(s, 2, 7) && one, "one is there once for each owner");
  for (int i = 0; i < N; i++) {
    lay(s, 1 + (uint64_t)i % 2, i);
    if (i > N - MOST) lay(s, 1, 0); /* is used again and again */
  }
  int known = 0;
  for (int i = 1; i < N; i++) known += has(s, 1 + (uint64_t)i % 2, i) == (i > N - MOST);
  CHECK(known == N - 1 && has(s, 1, 0), "%d of %d", known, N - 1);
  CHECK(mn_shelf_bytes(s) == 0, "%zu bytes", mn_shelf_bytes(s));
  mn_shelf_free(s);
  fixture_close(&f);
}

typedef struct worker {
  mn_shelf *shelf;
  int id, done;
} worker;
static void *work(void *ctx) {
  worker *w = ctx;
  for (int i = 0; i < 30; i++) {
    char name[8];
    mn_conversation *c = NULL;
    snprintf(name, sizeof name, "n%d", (w->id * 7 + i * 5) % 6);
    if (mn_shelf_take(w->shelf, 0, name, true, &c) != MN_OK) continue; /* another has it */
    const int32_t token = (int32_t)(mn_hash_str(name) % VOCAB);
    if (mn_conversation_feed(c, &token, 1, NULL) == MN_OK) w->done++;
    if (mn_shelf_give(w->shelf, 0, name, c, name) != MN_OK) w->done = -1000;
  }
  return NULL;
}

static void any_number_of_threads_may_ask(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *s = make(&f, "threads", 1, false); /* all go to files at once */
  worker w[3];
  pthread_t t[3];
  int done = 0;
  int64_t n = 0;
  for (int i = 0; i < 3; i++) {
    w[i] = (worker){s, i, 0};
    CHECK(pthread_create(&t[i], NULL, work, &w[i]) == 0, "thread");
  }
  for (int i = 0; i < 3; i++) pthread_join(t[i], NULL), done += w[i].done;
  for (int i = 0; i < 6; i++) {
    char name[8];
    mn_conversation *c = NULL;
    snprintf(name, sizeof name, "n%d", i);
    CHECK_OK(mn_shelf_take(s, 0, name, false, &c));
    if (c) n += mn_conversation_length(c);
    if (c) CHECK_OK(mn_shelf_give(s, 0, name, c, NULL));
  }
  CHECK(n == done && done > 30, "%d tokens of %d", (int)n, done);
  mn_shelf_free(s);
  fixture_close(&f);
}

/* Begins as the one conversation does again and again, which puts its pages where its copies see them, too. */
static void *begin_so(void *ctx) {
  worker *w = ctx;
  int32_t tokens[200];
  for (int i = 0; i < 200; i++) tokens[i] = i % VOCAB;
  for (int i = 0; i < 20; i++) {
    mn_conversation *c = NULL;
    if (mn_shelf_begin(w->shelf, 1, tokens, 150 + i, 1, &c) == MN_OK && c) w->done++;
    mn_conversation_free(c);
  }
  return NULL;
}

static void skip(void *ctx, const mn_shelf_entry *e) { *(size_t *)ctx += e->bytes; }

static void *ask_for_bytes(void *ctx) {
  worker *w = ctx;
  for (int i = 0; i < 200; i++) {
    size_t bytes = 0;
    if (mn_shelf_each(w->shelf, 1, skip, &bytes) == MN_OK && bytes && mn_shelf_bytes(w->shelf)) w->done++;
  }
  return NULL;
}

/* What one has in memory may be asked for while it is copied: no lock is held then. */
static void bytes_are_asked_for_meanwhile(void) {
  fixture f;
  if (!fixture_open(&f, 7, "{vocab_size: %d, d_model: 256, layers: 1, block: {mixer: {type: attention, heads: 4, max_context: 256}}}",
                    VOCAB))
    return;
  mn_shelf *s = make(&f, NULL, 0, false);
  say(s, 1, "long", 200);
  worker w[2] = {{s, 0, 0}, {s, 1, 0}};
  pthread_t t[2];
  CHECK(pthread_create(&t[0], NULL, begin_so, &w[0]) == 0 && pthread_create(&t[1], NULL, ask_for_bytes, &w[1]) == 0, "threads");
  pthread_join(t[0], NULL), pthread_join(t[1], NULL);
  CHECK(w[0].done == 20 && w[1].done == 200, "%d begun, %d asked", w[0].done, w[1].done);
  mn_shelf_free(s);
  fixture_close(&f);
}

/* Two shelves on one folder, as two servers have them. */
static void what_is_kept_is_one_processs_at_a_time(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *one = make(&f, "both", 0, true), *two = make(&f, "both", 0, true);
  mn_text told = {0};
  mn_conversation *c = NULL, *no = NULL;
  talk(one, "a", 5);
  c = take(one, "a", false);
  CHECK(mn_shelf_take(two, 0, "a", true, &no) == MN_ERR_CONFIG && !no && strstr(mn_message(), "open in another process"), "%s",
        mn_message());
  CHECK(mn_shelf_remove(two, 0, "a") == MN_ERR_CONFIG && strstr(mn_message(), "open in another process"), "%s", mn_message());
  talk(two, "b", 3);
  CHECK(mn_shelf_fork(two, 0, "b", "a") == MN_ERR_CONFIG, "%s", mn_message());
  if (c) CHECK_OK(mn_shelf_give(one, 0, "a", c, "first"));
  CHECK(length_of(two, 0, "a") == 5, "the other has it as it was saved");
  say(two, 0, "a", 4); /* while the first has it in memory */
  CHECK_OK(mn_shelf_note(one, 0, "a", &told));
  CHECK(told.data && !strcmp(told.data, "of two"), "its note is the other's: %s", told.data ? told.data : "none");
  CHECK(length_of(one, 0, "a") == 9, "and what was said there is not lost");
  say(one, 0, "a", 1);
  CHECK(length_of(two, 0, "a") == 10 && length_of(one, 0, "a") == 10, "by turns");
  c = take(one, "new", true);
  CHECK(mn_shelf_take(two, 0, "new", true, &no) == MN_ERR_CONFIG && !no, "nor is one begun twice: %s", mn_message());
  if (c) CHECK_OK(mn_shelf_give(one, 0, "new", c, NULL));
  CHECK(mn_shelf_fork(two, 0, "b", "new") == MN_ERR_CONFIG && strstr(mn_message(), "is there already"), "%s", mn_message());
  CHECK(!mn_file_exists("both/.mneme-a.safetensors.lock") && !mn_file_exists("both/.mneme-new.safetensors.lock"), "nobody has one now");
  mn_shelf_free(one), mn_shelf_free(two);
  mn_text_free(&told);
  fixture_close(&f);
}

/* A program that knows of no locks writes the file of one that is open. */
static void neither_of_two_is_lost(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_shelf *s = make(&f, "torn", 0, true);
  talk(s, "a", 5), talk(s, "other", 2);
  mn_conversation *c = take(s, "a", false);
  const int32_t token = 3;
  if (c) CHECK_OK(mn_conversation_feed(c, &token, 1, NULL));
  CHECK_OK(mn_file_copy("torn/other.safetensors", "torn/a.safetensors"));
  if (c)
    CHECK(mn_shelf_give(s, 0, "a", c, NULL) == MN_ERR_IO && strstr(mn_message(), "another program has written it"), "%s", mn_message());
  CHECK(length_of(s, 0, "other") == 2, "the others go on");
  CHECK_OK(mn_shelf_keep(s));
  CHECK_OK(mn_shelf_keep(s));
  mn_shelf_free(s);
  s = make(&f, "torn", 0, true);
  CHECK(length_of(s, 0, "a") == 2 && length_of(s, 0, "a-2") == 6 && look(s).n == 3, "both are there: %s", look(s).names);
  talk(s, "lost", 3);
  CHECK(rename("torn", "away") == 0, "moved");
  CHECK_OK(mn_file_write("torn", "a file", 6));
  c = take(s, "lost", false);
  if (c) CHECK(mn_shelf_give(s, 0, "lost", c, NULL) == MN_ERR_IO, "%s", mn_message());
  CHECK(mn_shelf_keep(s) == MN_ERR_IO && strstr(mn_message(), "torn is a file"), "what cannot be kept is said: %s", mn_message());
  mn_shelf_free(s);
  fixture_close(&f);
}

int main(void) {
  RUN(the_least_lately_used_go_to_files_and_come_back);
  RUN(what_is_kept_is_there_for_the_next_program);
  RUN(one_is_had_by_one_at_a_time);
  RUN(an_owners_are_nobody_elses);
  RUN(what_is_kept_is_one_processs_at_a_time);
  RUN(neither_of_two_is_lost);
  RUN(beginnings_are_not_too_many);
  RUN(any_number_of_threads_may_ask);
  RUN(bytes_are_asked_for_meanwhile);
  return test_end();
}
