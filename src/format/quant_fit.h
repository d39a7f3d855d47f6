/* quant_fit.h - the searches that making blocks needs: scales whose weighted squared error is least (private to format/quant*.c).
 * Levels are what a code stands for before it is scaled: the whole numbers from lo to hi, or a table of 16 that rises. */
#ifndef MN_QUANT_FIT_H
#define MN_QUANT_FIT_H

#include "base/types.h"

typedef struct mn_levels {
  int lo, hi;
  const int8_t *table; /* NULL: whole numbers; else lo and hi are its first and last */
} mn_levels;

/* sum w (x - s v)^2 with the nearest levels v, and what a better s is made of. */
typedef struct mn_fit {
  float error, xv, vv; /* xv = sum w x v, vv = sum w v v */
} mn_fit;
mn_fit mn_fit_scale(const mn_levels *l, const float *x, const float *w, int n, float s);
/* The scale for n values; `half`: of those that f16 holds. 0 when nothing but zeros is better. */
float mn_best_scale(const mn_levels *l, const float *x, const float *w, int n, bool half);
/* The levels themselves (for a table: their places in it). */
void mn_take_levels(const mn_levels *l, const float *x, int n, float s, int8_t *q);

/* The same for x = s q - m with whole q from 0 to hi. */
typedef struct mn_affine {
  float error, s, m;
} mn_affine;
float mn_affine_error(int hi, const float *x, const float *w, int n, float s, float m);
/* `positive`: m may not be below 0, as in blocks with scales within; `half`: both of those that f16 holds. */
mn_affine mn_best_affine(int hi, const float *x, const float *w, int n, bool positive, bool half);
void mn_take_affine(int hi, const float *x, int n, float s, float m, int8_t *q);

#endif
