/* mixer_lengths.h - a batch of rows of different lengths is the rows, each alone: outputs up to a row's length and all states. What
 * lies beyond a length is noise. Included by mixer_check.h, so that every system is held to it. */
#ifndef MN_MIXER_LENGTHS_H
#define MN_MIXER_LENGTHS_H

enum { ML_ROWS = 4, ML_SEGMENTS = 6 };
static const int64_t ml_room[ML_SEGMENTS] = {9, 5, 1, 1, 12, 4}; /* tokens of each segment, and how many of each row count */
static const int32_t ml_lengths[ML_SEGMENTS][ML_ROWS] = {{9, 4, 0, 1}, {0, 5, 3, 2},  {1, 0, 1, 0},
                                                         {0, 1, 1, 0}, {5, 12, 0, 7}, {4, 1, 2, 0}};

/* The next segment of a stream of m->B rows; lengths NULL: all tokens count. */
static inline int ml_segment(mc_mixer *m, mc_bag *state, int64_t T, const int32_t *lengths, const double *x, double *y) {
  m->length = lengths;
  int ok = mc_segment(m, state, T, x, y);
  m->length = NULL;
  return ok;
}

/* The worst difference of any row from the same row alone. m: of ML_ROWS rows; its parameters are set. */
static inline double ml_error(mc_mixer *m, uint64_t seed) {
  const int64_t D = m->d_model;
  mc_mixer one = mc_for_rows(m, 1);
  mc_bag rows = {0}, alone[ML_ROWS] = {{0}};
  double worst = mc_start(m, &rows) ? 0 : INFINITY;
  for (int r = 0; r < ML_ROWS; r++)
    if (!mc_start(&one, &alone[r])) worst = INFINITY;
  for (int i = 0; i < ML_SEGMENTS && worst < INFINITY; i++) {
    const int64_t T = ml_room[i];
    double *x = mc_normal(ML_ROWS * T * D, 1, seed + (uint64_t)i), *y = malloc((size_t)(ML_ROWS * T * D) * sizeof *y);
    if (!ml_segment(m, &rows, T, ml_lengths[i], x, y)) worst = INFINITY;
    for (int r = 0; r < ML_ROWS && worst < INFINITY; r++) {
      const int64_t n = ml_lengths[i][r];
      double *want = malloc((size_t)(n * D + 1) * sizeof *want);
      if (n && !ml_segment(&one, &alone[r], n, NULL, x + r * T * D, want)) worst = INFINITY;
      if (n) worst = fmax(worst, mc_difference(y + r * T * D, want, n * D));
      free(want);
    }
    free(x);
    free(y);
    for (int k = 0; k < rows.n && worst < INFINITY; k++)
      for (int r = 0; r < ML_ROWS; r++) {
        mc_tensor *row = mc_get(&alone[r], rows.t[k].name);
        const int64_t count = mn_shape_count(&rows.t[k].shape) / ML_ROWS;
        double e = row ? mc_difference(rows.t[k].x + r * count, row->x, count) : INFINITY;
        if (!(e <= 1e-9)) printf("  segment %d, row %d, state %s: %g\n", i, r, rows.t[k].name, e);
        if (!(e <= worst)) worst = isfinite(e) ? e : INFINITY;
      }
  }
  mc_bag_free(&rows);
  for (int r = 0; r < ML_ROWS; r++) mc_bag_free(&alone[r]);
  mc_drop_stream(&one);
  return worst;
}

/* Each configuration, in f64. A system that does not ask which tokens count is found by it. */
static inline void mc_rows_of_any_length(int n, const char *const *forms) {
  for (int i = 0; i < n; i++) {
    mc_mixer m;
    int ok = mc_open(&m, forms[i], 8, ML_ROWS, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1);
    double e = ok ? ml_error(&m, 5) : INFINITY;
    CHECK(e < 1e-10, "%s: rows of different lengths: %g", forms[i], e);
    mc_close(&m);
  }
}

#endif
