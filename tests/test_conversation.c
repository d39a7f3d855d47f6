/* What must be true of a conversation: asked to stand at a list of tokens it computes only those that are new; going back, by one turn or by
 * three, gives the bits of never having said them; a fork goes on alone; what is cut and what is kept in a snapshot is for each kind of
 * memory what it must be; a row of a batch takes it over and gives it back; a file holds all of it, or is refused. */
#include "run/conversation.h"

#include "base/file.h"
#include "model_fixture.h"
#include "run/conversation_internal.h"
#include "scratch.h"
#include "small_mixers.h"
#include "test.h"

enum { VOCAB = 50, N = 160 };

/* A cache that is cut; a window that turns over; a recurrent state beside a cache; a memory that learns while it reads. */
static const char *const blocks[] = {
    "{mixer: {type: attention, heads: 2, max_context: 256, persistent: 2}, channel: swiglu}",
    "{mixer: {type: attention, heads: 2, window: 6, sinks: 1}}",
    "[{mixer: {type: gated_deltanet, heads: 2, conv: 3, chunk: 4}}, {mixer: {type: attention, heads: 2, max_context: 256, conv: 3}}]",
    "{mixer: {type: titans_lmm, heads: 2, memory_net: linear, chunk: 4}}",
};
enum { N_MODELS = sizeof blocks / sizeof *blocks };

static bool open_model(fixture *f, int i) {
  const bool list = blocks[i][0] == '[';
  return fixture_open(f, 7, "{vocab_size: %d, d_model: 16, %s: %s}", VOCAB, list ? "blocks" : "layers: 2, block", blocks[i]);
}

static int32_t tokens[N];
static void draw(void) {
  for (int i = 0; i < N; i++) tokens[i] = (int32_t)(mn_random_uniform(3, 0, (uint64_t)i) * VOCAB);
}

static mn_conversation *make(const fixture *f, int64_t every) {
  mn_conversation *c = NULL;
  CHECK_OK(mn_conversation_new(f->model, f->params, NULL, &(mn_conversation_config){.every = every}, &c));
  return c;
}

static bool same(const float *a, const float *b) { return a && b && memcmp(a, b, VOCAB * sizeof *a) == 0; }

/* What a conversation says next, without moving it. */
static void next(const mn_conversation *c, int32_t token, float out[VOCAB]) {
  mn_conversation *fork = NULL;
  const float *logits = NULL;
  CHECK_OK(mn_conversation_fork(c, &fork));
  if (fork) CHECK_OK(mn_conversation_feed(fork, &token, 1, &logits));
  if (logits) memcpy(out, logits, VOCAB * sizeof *out);
  mn_conversation_free(fork);
}

static void only_new_tokens_are_computed(void) {
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!open_model(&f, m)) continue;
    mn_conversation *c = make(&f, 16), *all = make(&f, 16);
    mn_conversation_step did;
    const float *a = NULL, *b = NULL;
    CHECK_OK(mn_conversation_become(c, tokens, 40, &did, NULL));
    CHECK(did.kept == 0 && did.fed == 40, "a new one reads all");
    CHECK_OK(mn_conversation_mark(c));
    CHECK_OK(mn_conversation_become(c, tokens, 75, &did, &a));
    CHECK(did.kept == 40 && did.fed == 35 && did.gone == 0, "model %d: kept %d", m, (int)did.kept);
    CHECK(mn_conversation_fed(c) == 75 && mn_session_position(mn_conversation_session(c)) == 75, "75 tokens were computed, each once");
    CHECK_OK(mn_conversation_feed(all, tokens, 40, NULL)); /* the same pieces */
    CHECK_OK(mn_conversation_feed(all, tokens + 40, 35, &b));
    CHECK(same(a, b), "model %d: the logits of reading on", m);
    /* the list again: only its last token is read, where nothing need be read to go there */
    CHECK_OK(mn_conversation_become(c, tokens, 75, &did, NULL));
    CHECK(did.known == 75 && did.kept == (m == 0 ? 74 : 64), "model %d: kept %d", m, (int)did.kept);
    /* another turn in place of the last */
    int32_t other[60];
    memcpy(other, tokens, sizeof other);
    other[40] = (other[40] + 1) % VOCAB;
    const uint64_t before = mn_conversation_fed(c);
    CHECK_OK(mn_conversation_become(c, other, 60, &did, NULL));
    CHECK(did.kept == 40 && did.fed == 20 && did.gone == 35 && mn_conversation_fed(c) - before == 20, "model %d: from the mark", m);
    mn_conversation_free(c);
    mn_conversation_free(all);
    fixture_close(&f);
  }
}

/* Turns of 13 tokens, of which the last three are taken back. */
static void going_back_three_turns_gives_the_bits_of_never_having_said_them(void) {
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!open_model(&f, m)) continue;
    mn_conversation *c = make(&f, -1), *straight = make(&f, -1);
    float x[VOCAB] = {0}, y[VOCAB] = {1};
    for (int turn = 0; turn < 6; turn++) {
      CHECK_OK(mn_conversation_feed(c, tokens + 13 * turn, 13, NULL));
      CHECK_OK(mn_conversation_mark(c));
      if (turn < 3) CHECK_OK(mn_conversation_feed(straight, tokens + 13 * turn, 13, NULL));
    }
    const uint64_t fed = mn_conversation_fed(c);
    CHECK_OK(mn_conversation_back(c, 39));
    CHECK(mn_conversation_fed(c) == fed, "model %d: %d tokens were read again", m, (int)(mn_conversation_fed(c) - fed));
    CHECK(mn_conversation_length(c) == 39, "length");
    for (int i = 0; i < 30; i++) { /* and on */
      const int32_t t = tokens[N - 1 - i];
      next(c, t, x), next(straight, t, y);
      CHECK(same(x, y), "model %d, %d tokens later", m, i);
      CHECK_OK(mn_conversation_feed(c, &t, 1, NULL));
      CHECK_OK(mn_conversation_feed(straight, &t, 1, NULL));
    }
    CHECK_OK(mn_conversation_back(c, 0));
    CHECK_OK(mn_conversation_feed(c, tokens, 13, NULL));
    CHECK_OK(mn_conversation_back(straight, 13));
    next(c, 1, x), next(straight, 1, y);
    CHECK(m == 0 ? same(x, y) : mn_conversation_length(straight) == 13, "model %d: from the beginning", m);
    mn_conversation_free(c);
    mn_conversation_free(straight);
    fixture_close(&f);
  }
}

/* Whatever a memory keeps: a snapshot has all of it that cannot be cut. Their chunks, windows and segments turn over within a few tokens. */
static void every_memory_goes_back(void) {
  for (int m = 0; m < MN_SMALL_MIXERS; m++) {
    fixture f;
    if (!fixture_open(&f, 7, "{vocab_size: %d, d_model: 8, layers: 2, block: {mixer: %s}}", VOCAB, mn_small_mixers[m])) continue;
    mn_conversation *c = make(&f, -1), *straight = make(&f, -1), *again = NULL;
    float x[VOCAB] = {0}, y[VOCAB] = {1}, z[VOCAB] = {2};
    CHECK_OK(mn_conversation_feed(c, tokens, 5, NULL));
    CHECK_OK(mn_conversation_mark(c));
    CHECK_OK(mn_conversation_feed(c, tokens + 20, 6, NULL));
    CHECK_OK(mn_conversation_save(c, "m.safetensors", NULL));
    CHECK_OK(mn_conversation_open(f.model, f.params, NULL, NULL, "m.safetensors", NULL, &again));
    CHECK_OK(mn_conversation_feed(straight, tokens, 5, NULL));
    CHECK_OK(mn_conversation_back(c, 5));
    if (again) CHECK_OK(mn_conversation_back(again, 5));
    for (int i = 0; i < 3 && again; i++) {
      const int32_t t = tokens[40 + i];
      next(c, t, x), next(straight, t, y), next(again, t, z);
      CHECK(same(x, y) && same(x, z), "%s, %d tokens later", mn_small_mixers[m], i);
      CHECK_OK(mn_conversation_feed(c, &t, 1, NULL));
      CHECK_OK(mn_conversation_feed(straight, &t, 1, NULL));
      CHECK_OK(mn_conversation_feed(again, &t, 1, NULL));
    }
    mn_conversation_free(c), mn_conversation_free(straight), mn_conversation_free(again);
    fixture_close(&f);
  }
}

static void a_fork_goes_on_alone(void) {
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!open_model(&f, m)) continue;
    mn_conversation *a = make(&f, -1), *b = NULL;
    float x[VOCAB] = {0}, y[VOCAB] = {1};
    for (int turn = 0; turn < 3; turn++) {
      CHECK_OK(mn_conversation_feed(a, tokens + 13 * turn, 13, NULL));
      CHECK_OK(mn_conversation_mark(a));
    }
    next(a, 3, x);
    CHECK_OK(mn_conversation_fork(a, &b));
    CHECK_OK(mn_conversation_feed(b, tokens + 60, 20, NULL));
    CHECK_OK(mn_conversation_mark(b));
    next(a, 3, y);
    CHECK(same(x, y), "model %d: the fork disturbs it", m);
    CHECK_OK(mn_conversation_back(a, 13)); /* leaves snapshots that the fork holds, too */
    CHECK_OK(mn_conversation_feed(a, tokens + 100, 9, NULL));
    const uint64_t fed = mn_conversation_fed(b);
    CHECK_OK(mn_conversation_back(b, 39));
    next(b, 3, y);
    CHECK(same(x, y) && mn_conversation_fed(b) == fed, "model %d: the fork goes back to where it began", m);
    mn_conversation_free(a);
    CHECK_OK(mn_conversation_back(b, 26));
    mn_conversation_free(b);
    fixture_close(&f);
  }
}

static void a_snapshot_holds_what_cannot_be_cut(void) {
  static const int kept_of[N_MODELS] = {0, 1, 1, 1};
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!open_model(&f, m)) continue;
    mn_conversation *c = make(&f, 16);
    CHECK_OK(mn_conversation_feed(c, tokens, 100, NULL));
    CHECK(mn_conversation_snapshots(c) == (kept_of[m] ? 6 : 0), "model %d: %d snapshots", m, (int)mn_conversation_snapshots(c));
    const size_t state = mn_session_state_bytes(mn_conversation_session(c));
    if (m == 2) CHECK(c->bytes < state / 2, "the cache is in none: %zu of %zu bytes", c->bytes, state);
    CHECK(mn_conversation_snapshot_before(c, 50) == (kept_of[m] ? 48 : 50), "model %d", m);
    /* those of a stream that forgets hold all */
    mn_conversation *forgets = NULL;
    CHECK_OK(mn_conversation_new(f.model, f.params, &(mn_session_config){.forget = true}, NULL, &forgets));
    if (forgets) CHECK(!forgets->cuts && forgets->bytes >= state, "model %d: what is overwritten must be kept", m);
    mn_conversation_free(forgets);
    mn_conversation_free(c);
    fixture_close(&f);
  }
}

static void old_snapshots_are_thinned_out(void) {
  fixture f;
  if (!open_model(&f, 1)) return;
  mn_conversation *c = NULL;
  CHECK_OK(mn_conversation_new(f.model, f.params, NULL, &(mn_conversation_config){.every = 4, .snapshots = 6}, &c));
  CHECK_OK(mn_conversation_feed(c, tokens, 30, NULL));
  CHECK_OK(mn_conversation_mark(c));
  CHECK_OK(mn_conversation_feed(c, tokens, N - 30, NULL));
  CHECK(mn_conversation_snapshots(c) == 6, "%d", (int)mn_conversation_snapshots(c));
  CHECK(mn_conversation_snapshot_before(c, N - 1) == N - 4, "the last two are there, of which one is here");
  CHECK(mn_conversation_snapshot_before(c, 31) == 30, "the end of a turn outlives the others: %d",
        (int)mn_conversation_snapshot_before(c, 31));
  mn_conversation_free(c);
  fixture_close(&f);
}

static void a_row_of_a_batch_takes_it_over_and_gives_it_back(void) {
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!open_model(&f, m)) continue;
    mn_conversation *a = make(&f, -1), *b = make(&f, -1), *c = make(&f, -1);
    mn_session *batch = NULL;
    float x[VOCAB] = {0}, y[VOCAB] = {1};
    CHECK_OK(mn_session_new(f.model, f.params, &(mn_session_config){.batch = 2, .program = mn_session_program(mn_conversation_session(a))},
                            &batch));
    CHECK_OK(mn_conversation_feed(a, tokens, 20, NULL));
    CHECK_OK(mn_conversation_feed(b, tokens + 50, 7, NULL));
    CHECK_OK(mn_conversation_to_row(a, batch, 1));
    CHECK_OK(mn_conversation_to_row(b, batch, 0));
    int32_t both[2 * 5];
    memcpy(both, tokens + 57, 5 * sizeof *both), memcpy(both + 5, tokens + 20, 5 * sizeof *both);
    CHECK_OK(mn_session_feed(batch, both, 5, NULL));
    CHECK_OK(mn_conversation_from_row(a, batch, 1, both + 5, 5, true));
    CHECK(mn_conversation_from_row(b, batch, 0, both, 4, true) == MN_ERR_ARG, "the row stands elsewhere");
    CHECK(mn_conversation_length(a) == 25 && mn_conversation_common(a, tokens, N) == 25, "its tokens");
    CHECK_OK(mn_conversation_feed(c, tokens, 25, NULL));
    next(a, 9, x), next(c, 9, y);
    double worst = 0;
    for (int i = 0; i < VOCAB; i++) worst = fmax(worst, fabs((double)(x[i] - y[i])));
    CHECK(worst < 1e-4, "model %d: %g", m, worst);
    mn_session_free(batch);
    mn_conversation_free(a), mn_conversation_free(b), mn_conversation_free(c);
    fixture_close(&f);
  }
}

/* Saved after every turn, and gone on with elsewhere: what is said then, and what is gone back to, has the bits of never having stopped. */
static void a_file_goes_on_as_if_it_had_never_stopped(void) {
  for (int m = 0; m < N_MODELS; m++) {
    fixture f;
    if (!open_model(&f, m)) continue;
    mn_conversation *a = make(&f, 16), *b = make(&f, 16);
    float x[VOCAB] = {0}, y[VOCAB] = {1};
    CHECK_OK(mn_conversation_save(b, "c.safetensors", NULL)); /* of no tokens, too */
    for (int turn = 0; turn < 6; turn++) {
      mn_text note = {0};
      mn_conversation *next_one = NULL;
      CHECK_OK(mn_conversation_open(f.model, f.params, NULL, &(mn_conversation_config){.every = 16}, "c.safetensors", &note, &next_one));
      if (!next_one) break;
      mn_conversation_free(b);
      b = next_one;
      CHECK(turn == 0 ? !note.len : !strcmp(note.data, "turn \"five\" – 日本"), "the note: %s", note.data ? note.data : "");
      mn_text_free(&note);
      CHECK(mn_conversation_length(b) == 13 * turn && mn_conversation_common(b, tokens, N) == 13 * turn, "its tokens");
      if (turn) next(a, 3, x), next(b, 3, y);
      CHECK(!turn || same(x, y), "model %d, turn %d", m, turn);
      CHECK_OK(mn_conversation_feed(a, tokens + 13 * turn, 13, NULL));
      CHECK_OK(mn_conversation_feed(b, tokens + 13 * turn, 13, NULL));
      CHECK_OK(mn_conversation_mark(a));
      CHECK_OK(mn_conversation_mark(b));
      CHECK_OK(mn_conversation_save(b, "c.safetensors", "turn \"five\" – 日本"));
    }
    CHECK(mn_conversation_snapshots(a) == mn_conversation_snapshots(b), "as many snapshots");
    CHECK_OK(mn_conversation_back(a, 39));
    CHECK_OK(mn_conversation_back(b, 39));
    CHECK(mn_conversation_fed(b) == 13, "nothing is read again: %d", (int)mn_conversation_fed(b));
    next(a, 9, x), next(b, 9, y);
    CHECK(same(x, y), "model %d goes back in what it was before it was saved", m);
    /* a cache that is only appended to is saved as far as it was written */
    mn_file_info info = {0};
    CHECK_OK(mn_file_stat("c.safetensors", &info));
    if (m == 0) CHECK(info.size < mn_session_room_bytes(mn_conversation_session(b)) / 2, "%d bytes", (int)info.size);
    mn_conversation_free(a), mn_conversation_free(b);
    fixture_close(&f);
  }
}

static void damaged_and_foreign_files_are_refused(void) {
  fixture f, other;
  if (!open_model(&f, 2) || !open_model(&other, 3)) return;
  mn_conversation *c = make(&f, 16), *d = NULL;
  CHECK_OK(mn_conversation_feed(c, tokens, 50, NULL));
  CHECK_OK(mn_conversation_save(c, "c.safetensors", "note"));
  CHECK(mn_conversation_open(other.model, other.params, NULL, NULL, "c.safetensors", NULL, &d) == MN_ERR_CONFIG && !d &&
            strstr(mn_message(), "another model"),
        "%s", mn_message());
  CHECK_OK(mn_session_save(mn_conversation_session(c), "s.safetensors"));
  CHECK(mn_conversation_open(f.model, f.params, NULL, NULL, "s.safetensors", NULL, &d) == MN_ERR_FORMAT && !d, "a session: %s",
        mn_message());
  CHECK(mn_conversation_open(f.model, f.params, &(mn_session_config){.forget = true}, NULL, "c.safetensors", NULL, &d) != MN_OK && !d,
        "its cache is kept otherwise: %s", mn_message());
  char *bytes = NULL;
  size_t n = 0;
  CHECK_OK(mn_file_read("c.safetensors", 1 << 24, &bytes, &n));
  int refused = 0, tried = 0;
  for (size_t at = 8; bytes && at < n; at += n / 199 + 1, tried++) {
    bytes[at] ^= 4;
    CHECK_OK(mn_file_write("d.safetensors", bytes, n));
    refused += mn_conversation_open(f.model, f.params, NULL, NULL, "d.safetensors", NULL, &d) != MN_OK && !d;
    bytes[at] ^= 4;
  }
  CHECK(refused == tried && tried > 150, "%d of %d flipped bits are refused", refused, tried);
  CHECK_OK(mn_file_write("d.safetensors", bytes, n / 2));
  CHECK(mn_conversation_open(f.model, f.params, NULL, NULL, "d.safetensors", NULL, &d) != MN_OK && !d, "half of it");
  free(bytes);
  mn_conversation_free(c);
  fixture_close(&f), fixture_close(&other);
}

static void what_it_is_not_for_is_refused(void) {
  fixture f;
  if (!open_model(&f, 0)) return;
  mn_conversation *c = NULL;
  CHECK(mn_conversation_new(f.model, f.params, &(mn_session_config){.batch = 2}, NULL, &c) == MN_ERR_ARG && !c, "%s", mn_message());
  CHECK(mn_conversation_new(f.model, f.params, NULL, &(mn_conversation_config){.every = -2}, &c) == MN_ERR_ARG && !c, "%s", mn_message());
  c = make(&f, 0);
  int64_t kept;
  CHECK(mn_conversation_feed(c, tokens, 0, NULL) == MN_ERR_ARG, "no token");
  CHECK(mn_conversation_prepare(c, tokens, 0, &kept) == MN_ERR_ARG, "no token");
  CHECK(mn_conversation_back(c, 1) == MN_ERR_ARG, "forwards");
  CHECK_OK(mn_conversation_feed(c, tokens, N, NULL));
  CHECK(mn_conversation_feed(c, tokens, N, NULL) == MN_ERR_CONFIG && mn_conversation_length(c) == N, "more than its cache holds: %s",
        mn_message());
  mn_conversation_free(c);
  fixture_close(&f);
}

int main(void) {
  draw();
  RUN(only_new_tokens_are_computed);
  RUN(going_back_three_turns_gives_the_bits_of_never_having_said_them);
  RUN(every_memory_goes_back);
  RUN(a_fork_goes_on_alone);
  RUN(a_snapshot_holds_what_cannot_be_cut);
  RUN(old_snapshots_are_thinned_out);
  RUN(a_row_of_a_batch_takes_it_over_and_gives_it_back);
  RUN(a_file_goes_on_as_if_it_had_never_stopped);
  RUN(damaged_and_foreign_files_are_refused);
  RUN(what_it_is_not_for_is_refused);
  return test_end();
}
