/* What must be true of states: they are copies and nothing else; rows go where they are sent and no other row moves; a file gives
 * back what was saved, row by row, or is refused and nothing has changed. */
#include "base/file.h"
#include "run/state.h"
#include "scratch.h"
#include "test.h"

enum { B = 3, W = 5 };

static mn_status make(int64_t batch, mn_states **out) {
  const mn_state_info info[] = {{"position", MN_I32, MN_SHAPE(batch), "where", 0, 0},
                                {"k", MN_F32, MN_SHAPE(batch, 2, W), "keys", 0, 0},
                                {"seen", MN_BF16, MN_SHAPE(batch, W), NULL, 0, 0}};
  return mn_states_new(mn_backend_ref(), batch, 3, info, out);
}

/* Row b: position p[b], every number of k the row's own. */
static void fill(mn_states *s, const int32_t *p) {
  float k[16 * 2 * W];
  for (int64_t b = 0; b < mn_states_batch(s); b++)
    for (int i = 0; i < 2 * W; i++) k[b * 2 * W + i] = (float)p[b] + 0.25f * (float)i;
  CHECK_OK(mn_states_put(s, 0, p));
  CHECK_OK(mn_states_put(s, 1, k));
}

static int row_is(const mn_states *s, int64_t b, int32_t p) {
  int32_t position[16];
  float k[16 * 2 * W];
  if (mn_states_get(s, 0, position) != MN_OK || mn_states_get(s, 1, k) != MN_OK) return 0;
  return position[b] == p && mn_states_position(s)[b] == p && k[b * 2 * W] == (float)p && k[b * 2 * W + 9] == (float)p + 2.25f;
}

static void copies_are_independent(void) {
  mn_states *a = NULL, *b = NULL;
  CHECK_OK(make(B, &a));
  fill(a, (int32_t[]){7, 8, 9});
  CHECK_OK(mn_states_clone(a, &b));
  CHECK(mn_states_id(a) != mn_states_id(b), "one number for two");
  fill(a, (int32_t[]){1, 2, 3});
  CHECK(row_is(b, 0, 7) && row_is(b, 1, 8) && row_is(b, 2, 9), "a clone follows what it was made from");
  CHECK_OK(mn_states_copy(b, a));
  CHECK(row_is(b, 0, 1) && row_is(b, 2, 3), "copied");
  CHECK(mn_states_used_bytes(a) == B * (4 + 40 + 10), "%zu bytes", mn_states_used_bytes(a));
  mn_states_free(a);
  mn_states_free(b);
}

static void rows_go_where_they_are_sent(void) {
  mn_states *a = NULL, *first = NULL, *wide = NULL;
  CHECK_OK(make(B, &a));
  CHECK_OK(make(1, &first));
  CHECK_OK(make(4, &wide));
  fill(a, (int32_t[]){7, 8, 9});
  fill(first, (int32_t[]){0});
  CHECK_OK(mn_states_reset(a, first, (bool[]){false, true, false}));
  CHECK(row_is(a, 0, 7) && row_is(a, 1, 0) && row_is(a, 2, 9), "one row begins anew, and no other");
  CHECK_OK(mn_states_select(wide, a, (int64_t[]){2, 0, 0, 2}));
  CHECK(row_is(wide, 0, 9) && row_is(wide, 1, 7) && row_is(wide, 2, 7) && row_is(wide, 3, 9), "rows are chosen, and repeated");
  CHECK_OK(mn_states_copy_row(a, 1, wide, 0));
  CHECK(row_is(a, 0, 7) && row_is(a, 1, 9) && row_is(a, 2, 9), "one row comes back");
  CHECK(mn_states_select(wide, a, (int64_t[]){0, 1, 3, 0}) == MN_ERR_ARG && strstr(mn_message(), "no row 3"), "%s", mn_message());
  CHECK(row_is(wide, 0, 9), "a refusal comes before any copy");
  CHECK(mn_states_copy(a, wide) == MN_ERR_ARG, "of another batch");
  CHECK_OK(mn_states_reset(a, first, NULL));
  CHECK(row_is(a, 0, 0) && row_is(a, 2, 0), "all begin anew");
  mn_states_free(a);
  mn_states_free(first);
  mn_states_free(wide);
}

static void other_states_are_refused(void) {
  const mn_state_info others[][2] = {{{"position", MN_I32, MN_SHAPE(B), NULL, 0, 0}, {"k", MN_F64, MN_SHAPE(B, 2, W), NULL, 0, 0}},
                                     {{"position", MN_I32, MN_SHAPE(B), NULL, 0, 0}, {"k", MN_F32, MN_SHAPE(B, 3, W), NULL, 0, 0}},
                                     {{"position", MN_I32, MN_SHAPE(B), NULL, 0, 0}, {"v", MN_F32, MN_SHAPE(B, 2, W), NULL, 0, 0}}};
  const mn_state_info mine[2] = {{"position", MN_I32, MN_SHAPE(B), NULL, 0, 0}, {"k", MN_F32, MN_SHAPE(B, 2, W), NULL, 0, 0}};
  mn_states *a = NULL, *b = NULL;
  CHECK_OK(mn_states_new(mn_backend_ref(), B, 2, mine, &a));
  for (int i = 0; i < 3; i++) {
    CHECK_OK(mn_states_new(mn_backend_ref(), B, 2, others[i], &b));
    CHECK(mn_states_copy(a, b) == MN_ERR_ARG && strstr(mn_message(), "same model"), "%d: %s", i, mn_message());
    mn_states_free(b);
  }
  CHECK(mn_states_new(mn_backend_ref(), B, 1, mine + 1, &b) == MN_ERR_INTERNAL && !b, "the position comes first");
  mn_states_free(a);
}

static void save_as(const char *path, const mn_states *s) {
  CHECK_OK(mn_states_save(s, path, NULL, 2, (mn_states_meta[]){{"model", "m"}, {"tokenizer", NULL}}));
}

static mn_status load_from(const char *path, mn_states *s) {
  mn_st *st = NULL;
  mn_status status = mn_st_open(path, &st);
  if (status == MN_OK) status = mn_states_load(s, st);
  mn_st_close(st);
  return status;
}

static void files_give_back_every_row(void) {
  const char *path = "states.safetensors";
  mn_states *a = NULL, *b = NULL, *two = NULL;
  CHECK_OK(make(B, &a));
  CHECK_OK(make(B, &b));
  CHECK_OK(make(2, &two));
  fill(a, (int32_t[]){70, 8, 900});
  save_as(path, a);
  CHECK_OK(load_from(path, b));
  CHECK(row_is(b, 0, 70) && row_is(b, 1, 8) && row_is(b, 2, 900), "rows at three positions");
  mn_st *st = NULL;
  CHECK_OK(mn_st_open(path, &st));
  CHECK(st && strcmp(mn_st_meta(st, "position"), "70,8,900") == 0 && !mn_st_meta(st, "tokenizer"), "what is said beside them");
  mn_st_close(st);
  CHECK(load_from(path, two) != MN_OK && row_is(two, 0, 0) == 0 && mn_states_position(two)[0] == 0, "of another batch");
  fill(a, (int32_t[]){5, 5, 5});
  save_as(path, a);
  CHECK_OK(mn_st_open(path, &st));
  CHECK(st && strcmp(mn_st_meta(st, "position"), "5") == 0, "one number for all");
  mn_st_close(st);
  CHECK_OK(load_from(path, b));
  CHECK(row_is(b, 2, 5), "loaded");
  fill(a, (int32_t[]){1, 2, 3});
  float nan[B * 2 * W] = {0};
  nan[7] = NAN;
  CHECK_OK(mn_states_put(a, 1, nan));
  CHECK(mn_states_save(a, path, NULL, 0, NULL) == MN_ERR_NUMERIC && strstr(mn_message(), "k is not finite"), "%s", mn_message());
  mn_states_free(a);
  mn_states_free(b);
  mn_states_free(two);
}

/* A file whose tensors are whole, but which says other positions than they hold. */
static void positions_of_every_row_are_checked(void) {
  static const char *const says[] = {"4,5,7", "4,5", "4,5,6,7", "4", "4,5,x", "", "-4,5,6", "4,5,6"};
  const char *path = "states-said.safetensors";
  mn_states *a = NULL, *b = NULL;
  CHECK_OK(make(B, &a));
  CHECK_OK(make(B, &b));
  fill(a, (int32_t[]){4, 5, 6});
  save_as(path, a);
  for (int i = 0; i < 8; i++) {
    mn_st *st = NULL;
    mn_st_writer *w = mn_st_writer_new();
    CHECK_OK(mn_st_open(path, &st));
    for (int t = 0; st && t < mn_st_count(st); t++)
      CHECK_OK(mn_st_writer_add(w, mn_st_at(st, t)->name, mn_st_at(st, t)->dtype, &mn_st_at(st, t)->shape, mn_st_at(st, t)->data));
    CHECK_OK(mn_st_writer_meta(w, "digest", mn_st_meta(st, "digest")));
    CHECK_OK(mn_st_writer_meta(w, "position", says[i]));
    const char *other = "states-other.safetensors";
    CHECK_OK(mn_st_writer_save(w, other));
    mn_st_writer_free(w);
    mn_st_close(st);
    mn_status status = load_from(other, b);
    if (i == 7) CHECK_OK(status);
    else CHECK(status == MN_ERR_FORMAT && strstr(mn_message(), "position"), "'%s': %s", says[i], mn_message());
    if (i < 7) CHECK(mn_states_position(b)[0] == 0, "the states were touched");
  }
  mn_states_free(a);
  mn_states_free(b);
}

/* A cache: 2 rows before the first token, room for 4,000 of 64 numbers. */
enum { ROOM = 4002, WIDE = 64 };
static mn_status make_cache(mn_backend *backend, mn_states **out) {
  const mn_state_info info[] = {{"position", MN_I32, MN_SHAPE(1), "where", 0, 0}, {"k", MN_F32, MN_SHAPE(1, ROOM, WIDE), "keys", 3, 0}};
  return mn_states_new(backend, 1, 2, info, out);
}
static float written(int token, int i, int who) { return (float)(token * WIDE + i) + 0.5f * (float)who; }
/* Tokens [from, to) are written as a run writes them. */
static void go_on(mn_states *s, int from, int to, int who) {
  float *k = mn_states_data(s, 1);
  for (int t = from; t < to; t++)
    for (int i = 0; i < WIDE; i++) k[(t + 2) * WIDE + i] = written(t, i, who);
  *(int32_t *)mn_states_data(s, 0) = to;
  mn_states_moved(s, NULL, to - from);
}
static int wrong_from(const mn_states *s, int from, int to, int who) { /* how many numbers are */
  const float *k = mn_states_data(s, 1);
  int n = 0;
  for (int t = from; t < to; t++)
    for (int i = 0; i < WIDE; i++) n += k[(t + 2) * WIDE + i] != written(t, i, who);
  return n;
}

/* A run that did not count leaves nothing in a window. */
static void what_did_not_count_is_gone(void) {
  enum { SLOTS = 8, ROWS = 2 };
  const mn_state_info info[] = {{"position", MN_I32, MN_SHAPE(ROWS), "where", 0, 0}, {"k", MN_F32, MN_SHAPE(ROWS, SLOTS, 3), "keys", 0, 1}};
  mn_states *a = NULL, *before = NULL;
  CHECK_OK(mn_states_new(mn_backend_ref(), ROWS, 2, info, &a));
  float *k = mn_states_data(a, 1);
  for (int i = 0; i < 3; i++) k[i] = k[SLOTS * 3 + i] = 1; /* a token in each row */
  for (int b = 0; b < ROWS; b++) ((int32_t *)mn_states_data(a, 0))[b] = 1;
  mn_states_moved(a, NULL, 1);
  CHECK_OK(mn_states_clone(a, &before));
  for (int i = 0; i < ROWS * SLOTS * 3; i++) k[i] = 7;
  ((int32_t *)mn_states_data(a, 0))[1] = 5;
  CHECK_OK(mn_states_put_back(a, before));
  int wrong = 0;
  for (int i = 0; i < ROWS * SLOTS * 3; i++) wrong += k[i] != (i % (SLOTS * 3) < 3 ? 1 : 0);
  CHECK(wrong == 0 && ((int32_t *)mn_states_data(a, 0))[1] == 1, "%d numbers are not what they were", wrong);
  mn_states_free(a);
  mn_states_free(before);
}

/* Three go on from one, one goes back behind what it shares, and one that was cloned from a clone: each has what it wrote. */
static void clones_share_until_they_write(void) {
  mn_states *a = NULL, *b[4] = {NULL}, *of_b = NULL;
  CHECK_OK(make_cache(mn_backend_ref(), &a));
  go_on(a, 0, 3000, 0);
  const size_t alone = mn_states_used_bytes(a);
  CHECK(alone == 4 + 3002 * WIDE * 4 && mn_states_held_bytes(a) == alone && mn_states_room_bytes(a) == 4 + ROOM * WIDE * 4, "%zu bytes",
        alone);
  for (int i = 0; i < 4; i++) CHECK_OK(mn_states_clone(a, &b[i]));
  size_t held = mn_states_held_bytes(a);
  for (int i = 0; i < 4; i++) held += mn_states_held_bytes(b[i]);
  CHECK(mn_states_used_bytes(b[3]) == alone && held < alone + alone / 50, "five of one cost %zu, one %zu bytes", held, alone);
  go_on(a, 3000, 3100, 9);
  for (int i = 0; i < 3; i++) go_on(b[i], 3000, 3010, i + 1);
  CHECK_OK(mn_states_put(b[3], 0, (int32_t[]){100})); /* back */
  go_on(b[3], 100, 200, 4);
  CHECK_OK(mn_states_clone(b[3], &of_b));
  go_on(of_b, 200, 220, 5);
  go_on(b[3], 200, 210, 6);
  CHECK(!wrong_from(a, 0, 3000, 0) && !wrong_from(a, 3000, 3100, 9), "the one they were made from");
  for (int i = 0; i < 3; i++) CHECK(!wrong_from(b[i], 0, 3000, 0) && !wrong_from(b[i], 3000, 3010, i + 1), "clone %d", i);
  CHECK(!wrong_from(b[3], 0, 100, 0) && !wrong_from(b[3], 100, 200, 4) && !wrong_from(b[3], 200, 210, 6), "the one that went back");
  CHECK(!wrong_from(of_b, 0, 100, 0) && !wrong_from(of_b, 100, 200, 4) && !wrong_from(of_b, 200, 220, 5), "a clone of it");
  mn_states_free(a); /* pages outlive who gave them */
  CHECK(!wrong_from(b[0], 0, 3000, 0) && !wrong_from(of_b, 0, 100, 0), "after the first is gone");
  /* many times, each a little further: more shelves than there are places for */
  for (int i = 0; i < 12; i++) {
    mn_states *next = NULL;
    go_on(b[1], 3010 + 80 * i, 3090 + 80 * i, 2);
    CHECK_OK(mn_states_clone(b[1], &next));
    CHECK(next && !wrong_from(next, 0, 3000, 0) && !wrong_from(next, 3000, 3090 + 80 * i, 2), "step %d", i);
    mn_states_free(b[1]);
    b[1] = next;
  }
  for (int i = 0; i < 4; i++) mn_states_free(b[i]);
  mn_states_free(of_b);
}

/* What is saved of a cache is what is in use; a file of the whole room, as they were once, is read, too. */
static void caches_are_saved_as_far_as_they_are_used(void) {
  const char *path = "cache.safetensors";
  mn_states *a = NULL, *b = NULL;
  mn_st *st = NULL;
  CHECK_OK(make_cache(mn_backend_ref(), &a));
  CHECK_OK(make_cache(mn_backend_ref(), &b));
  go_on(a, 0, 10, 1);
  save_as(path, a);
  CHECK_OK(mn_st_open(path, &st));
  CHECK(st && mn_st_find(st, "k")->shape.dim[1] == 12, "12 rows");
  mn_st_close(st);
  go_on(b, 0, 500, 2);
  CHECK_OK(load_from(path, b));
  CHECK(mn_states_position(b)[0] == 10 && !wrong_from(b, 0, 10, 1), "over a longer one");
  CHECK_OK(mn_states_copy_row_from(b, 0, a, 0, 10));
  CHECK(mn_states_copy_row_from(b, 0, a, 0, 11) == MN_ERR_ARG, "more in common than there is");
  mn_states_free(a);
  mn_states_free(b);
}

int main(void) {
  RUN(what_did_not_count_is_gone);
  RUN(clones_share_until_they_write);
  RUN(caches_are_saved_as_far_as_they_are_used);
  RUN(copies_are_independent);
  RUN(rows_go_where_they_are_sent);
  RUN(other_states_are_refused);
  RUN(files_give_back_every_row);
  RUN(positions_of_every_row_are_checked);
  return test_end();
}
