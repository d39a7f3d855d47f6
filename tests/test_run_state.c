/* What must be true of states: they are copies and nothing else; rows go where they are sent and no other row moves; a file gives
 * back what was saved, row by row, or is refused and nothing has changed. */
#include "base/file.h"
#include "run/state.h"
#include "scratch.h"
#include "test.h"

enum { B = 3, W = 5 };

static mn_status make(int64_t batch, mn_states **out) {
  const mn_state_info info[] = {{"position", MN_I32, MN_SHAPE(batch), "where", 0},
                                {"k", MN_F32, MN_SHAPE(batch, 2, W), "keys", 0},
                                {"seen", MN_BF16, MN_SHAPE(batch, W), NULL, 0}};
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
  CHECK(mn_states_all_bytes(a) == B * (4 + 40 + 10), "%zu bytes", mn_states_all_bytes(a));
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
  const mn_state_info others[][2] = {{{"position", MN_I32, MN_SHAPE(B), NULL, 0}, {"k", MN_F64, MN_SHAPE(B, 2, W), NULL, 0}},
                                     {{"position", MN_I32, MN_SHAPE(B), NULL, 0}, {"k", MN_F32, MN_SHAPE(B, 3, W), NULL, 0}},
                                     {{"position", MN_I32, MN_SHAPE(B), NULL, 0}, {"v", MN_F32, MN_SHAPE(B, 2, W), NULL, 0}}};
  const mn_state_info mine[2] = {{"position", MN_I32, MN_SHAPE(B), NULL, 0}, {"k", MN_F32, MN_SHAPE(B, 2, W), NULL, 0}};
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
  CHECK_OK(mn_states_save(s, path, 2, (mn_states_meta[]){{"model", "m"}, {"tokenizer", NULL}}));
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
  CHECK(mn_states_save(a, path, 0, NULL) == MN_ERR_NUMERIC && strstr(mn_message(), "k is not finite"), "%s", mn_message());
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

int main(void) {
  RUN(copies_are_independent);
  RUN(rows_go_where_they_are_sent);
  RUN(other_states_are_refused);
  RUN(files_give_back_every_row);
  RUN(positions_of_every_row_are_checked);
  return test_end();
}
