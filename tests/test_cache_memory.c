/* What must be true of the memory of caches: room for a long context costs nothing until it is used, wherever sessions come from and go to;
 * forks cost what they say themselves, and have the bits of whole copies; what is over gives its memory back. Memory is what the system
 * counts for this process, each shared page once. */
#include "run/conversation.h"

#include "base/file.h"
#include "model_fixture.h"
#include "scratch.h"
#include "test.h"

enum { VOCAB = 50, CONTEXT = 131072, LONG = 4000, FORKS = 8 };

static bool open_model(fixture *f) { /* 8 KiB a token; a whole context is 1 GiB */
  return fixture_open(
      f, 7, "{vocab_size: %d, d_model: 32, layers: 4, block: {mixer: {type: attention, heads: 4, head_dim: 64, max_context: %d}}}", VOCAB,
      CONTEXT);
}

/* Bytes of memory; 0: the system does not say. */
static size_t memory(void) {
  char *text = NULL, *at;
  size_t n = 0;
  if (mn_file_exists("/proc/self/smaps_rollup") && mn_file_read("/proc/self/smaps_rollup", 1 << 16, &text, &n) == MN_OK &&
      (at = strstr(text, "\nPss:")))
    n = (size_t)strtoull(at + 5, NULL, 10) * 1024;
  else n = 0;
  free(text);
  return n;
}

static int32_t token(int i) { return (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * VOCAB); }
static void read_on(mn_conversation *c, int from, int n, const float **logits) {
  int32_t *tokens = mn_alloc((size_t)n * sizeof *tokens);
  for (int i = 0; i < n; i++) tokens[i] = token(from + i);
  CHECK_OK(mn_conversation_feed(c, tokens, n, logits));
  free(tokens);
}

static void a_long_context_costs_what_is_used_of_it(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_conversation *c = NULL, *again = NULL, *fork = NULL;
  mn_session *batch = NULL;
  const size_t before = memory();
  CHECK_OK(mn_conversation_new(f.model, f.params, NULL, NULL, &c));
  const size_t room = mn_session_room_bytes(mn_conversation_session(c));
  CHECK(room > (size_t)1 << 30, "%zu bytes", room);
  read_on(c, 0, 40, NULL);
  CHECK(mn_conversation_bytes(c) < room / 1000, "%zu bytes in use", mn_conversation_bytes(c));
  CHECK_OK(mn_conversation_fork(c, &fork));
  CHECK_OK(mn_conversation_mark(c));
  CHECK_OK(mn_conversation_save(c, "c.safetensors", NULL));
  CHECK_OK(mn_conversation_open(f.model, f.params, &(mn_session_config){.program = mn_session_program(mn_conversation_session(c))}, NULL,
                                "c.safetensors", NULL, &again));
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 8, .program = mn_session_program(mn_conversation_session(c))},
                          &batch));
  for (int i = 0; i < 8; i++) CHECK_OK(mn_conversation_to_row(c, batch, i));
  CHECK_OK(mn_session_save(batch, "batch.safetensors"));
  CHECK_OK(mn_session_load(batch, "batch.safetensors"));
  mn_session_tensor t;
  for (int i = 0; i < mn_session_count(batch); i++) CHECK_OK(mn_session_at(batch, i, &t));
  mn_file_info info;
  CHECK_OK(mn_file_stat("batch.safetensors", &info));
  CHECK((size_t)info.size < room / 100, "%lld bytes in a file", (long long)info.size);
  if (memory()) CHECK(memory() - before < room / 10, "%zu bytes of %zu are there", memory() - before, room);
  mn_session_free(batch);
  mn_conversation_free(c);
  mn_conversation_free(fork);
  mn_conversation_free(again);
  fixture_close(&f);
}

static void forks_cost_what_they_say(void) {
  fixture f;
  if (!open_model(&f)) return;
  mn_conversation *c = NULL, *fork[FORKS] = {NULL}, *whole = NULL;
  const float *x = NULL, *y = NULL;
  CHECK_OK(mn_conversation_new(f.model, f.params, NULL, NULL, &c));
  read_on(c, 0, 300, NULL); /* all that is compiled is there */
  read_on(c, 300, 1, NULL), read_on(c, 301, 20, NULL);
  const size_t before = memory();
  read_on(c, 321, LONG - 321, NULL);
  CHECK_OK(mn_conversation_save(c, "long.safetensors", NULL));
  const size_t one = memory() - before, used = mn_conversation_bytes(c);
  for (int i = 0; i < FORKS; i++) {
    CHECK_OK(mn_conversation_fork(c, &fork[i]));
    read_on(fork[i], 5000 + 100 * i, 20, NULL);
  }
  size_t all = mn_conversation_bytes(c);
  for (int i = 0; i < FORKS; i++) all += mn_conversation_bytes(fork[i]);
  CHECK(all < used + used / 4, "%d forks and their origin say %zu bytes, it alone %zu", FORKS, all, used);
  if (memory()) CHECK(memory() - before < one + one / 2, "they have %zu bytes, it alone had %zu", memory() - before, one);
  /* to the bits of whole copies, the origin too; and what goes back into what is shared */
  CHECK_OK(mn_conversation_back(fork[1], 1000));
  for (int i = 0; i < FORKS; i += 7) {
    mn_session_config how = {.program = mn_session_program(mn_conversation_session(c))};
    CHECK_OK(mn_conversation_open(f.model, f.params, &how, NULL, "long.safetensors", NULL, &whole));
    read_on(whole, 5000 + 100 * i, 20, NULL);
    read_on(whole, 77, 1, &x);
    read_on(fork[i], 77, 1, &y);
    CHECK(x && y && memcmp(x, y, VOCAB * sizeof *x) == 0, "fork %d is no copy", i);
    mn_conversation_free(whole);
  }
  CHECK_OK(mn_conversation_open(f.model, f.params, &(mn_session_config){.program = mn_session_program(mn_conversation_session(c))}, NULL,
                                "long.safetensors", NULL, &whole));
  read_on(whole, 99, 3, &x);
  read_on(c, 99, 3, &y);
  CHECK(memcmp(x, y, VOCAB * sizeof *x) == 0, "the origin was changed by its forks");
  CHECK_OK(mn_conversation_back(whole, 1000));
  read_on(whole, 55, 30, &x);
  read_on(fork[1], 55, 30, &y);
  CHECK(memcmp(x, y, VOCAB * sizeof *x) == 0, "the one that went back");
  mn_conversation_free(whole);
  for (int i = 0; i < FORKS; i++) mn_conversation_free(fork[i]);
  /* what is over is given back */
  CHECK_OK(mn_session_reset(mn_conversation_session(c)));
  if (memory()) CHECK(memory() < before + one / 2, "%zu bytes stay of %zu", memory() - before, one);
  mn_conversation_free(c);
  fixture_close(&f);
}

/* The same of windows: rows cost what was written of them, wherever they are copied to, and a row that had more is as if it had not. */
static void a_window_costs_what_is_used_of_it(void) {
  fixture f;
  if (!fixture_open(&f, 7,
                    "{vocab_size: %d, d_model: 32, layers: 4, block: {mixer: {type: attention, heads: 4, head_dim: 64, window: %d, "
                    "persistent: 2}}}",
                    VOCAB, 2048))
    return;
  mn_session *one = NULL, *batch[2] = {NULL, NULL};
  int32_t tokens[200];
  char *files[2] = {NULL, NULL};
  size_t bytes[2] = {0, 1};
  for (int i = 0; i < 200; i++) tokens[i] = token(i);
  CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 1}, &one));
  const mn_session_config of_two = {.batch = 2, .program = mn_session_program(one)}, of_eight = {.batch = 8, .program = of_two.program};
  for (int i = 0; i < 2; i++) CHECK_OK(mn_session_new(f.model, f.params, &of_two, &batch[i]));
  CHECK_OK(mn_session_feed(one, tokens, 40, NULL));
  CHECK_OK(mn_session_feed(batch[1], tokens, 100, NULL)); /* of each: these rows had more */
  CHECK_OK(mn_session_reset_rows(batch[1], (const bool[]){false, true}));
  for (int i = 0; i < 2; i++) {
    char name[32];
    for (int row = 0; row < 2; row++) CHECK_OK(mn_session_copy_row(batch[i], row, one, 0));
    snprintf(name, sizeof name, "window%d.safetensors", i);
    CHECK_OK(mn_session_save(batch[i], name));
    CHECK_OK(mn_file_read(name, 1 << 28, &files[i], &bytes[i]));
  }
  CHECK(bytes[0] == bytes[1] && files[0] && files[1] && !memcmp(files[0], files[1], bytes[0]), "a row that had more says something else");
  mn_session *eight = NULL, *fork = NULL;
  const size_t before = memory();
  CHECK_OK(mn_session_new(f.model, f.params, &of_eight, &eight));
  for (int i = 0; i < 8; i++) CHECK_OK(mn_session_copy_row(eight, i, one, 0));
  CHECK_OK(mn_session_fork(one, &fork));
  const size_t more = memory() - before, room = mn_session_room_bytes(eight) + mn_session_room_bytes(fork);
  CHECK(!before || more < room / 10, "%zu of %zu bytes", more, room);
  mn_session_free(one), mn_session_free(eight), mn_session_free(fork);
  for (int i = 0; i < 2; i++) mn_session_free(batch[i]), free(files[i]);
  fixture_close(&f);
}

int main(void) {
  RUN(a_long_context_costs_what_is_used_of_it);
  RUN(a_window_costs_what_is_used_of_it);
  RUN(forks_cost_what_they_say);
  return test_end();
}
