/* optim.c - AdamW (Loshchilov & Hutter 2019) in one pass over memory. */
#include "backend/cpu/isa/optim.h"
#include "backend/cpu/isa/vec.h"

/* g' = scale g;  m' = b1 m + (1-b1) g';  v' = b2 v + (1-b2) g'^2;  p' = p - lr ((m'/c1) / (sqrt(v'/c2) + eps) + wd p) */
#define STEP(load, loadg, store)                                                                                                           \
  {                                                                                                                                        \
    vf g = (loadg)*scale, pp = load(p + i), mm = vf_fma(b1, load(m + i), b1_rest * g);                                                     \
    vf vv = vf_fma(b2, load(v + i), b2_rest * g * g);                                                                                      \
    vf update = vf_fma(decay, pp, mm * inv_c1 / (vf_sqrt(vv * inv_c2) + eps));                                                             \
    store(m1 + i, mm);                                                                                                                     \
    store(v1 + i, vv);                                                                                                                     \
    store(p1 + i, vf_fnma(rate, update, pp));                                                                                              \
  }
#define TAIL_LOAD(at)     vf_loadn(at, rest)
#define TAIL_STORE(at, x) vf_storen(at, x, rest)
#define ADAMW(name, T, loadg)                                                                                                              \
  static void name(float *p1, float *m1, float *v1, const float *p, const void *pg, const float *m, const float *v, int64_t n,             \
                   const mn_adamw_scalars *s) {                                                                                            \
    const T *grad = pg;                                                                                                                    \
    vf scale = vf_set1(s->grad_scale), rate = vf_set1(s->learning_rate), decay = vf_set1(s->weight_decay);                                 \
    vf b1 = vf_set1(s->beta1), b1_rest = vf_set1(s->rest1);                                                                                \
    vf b2 = vf_set1(s->beta2), b2_rest = vf_set1(s->rest2);                                                                                \
    vf inv_c1 = vf_set1(1 / s->correction1), inv_c2 = vf_set1(1 / s->correction2), eps = vf_set1(s->eps);                                  \
    int64_t i = 0;                                                                                                                         \
    for (; i + MN_VL <= n; i += MN_VL) STEP(vf_load, loadg(grad + i), vf_store)                                                            \
    if (i < n) {                                                                                                                           \
      int rest = (int)(n - i);                                                                                                             \
      STEP(TAIL_LOAD, loadg##n(grad + i, rest), TAIL_STORE)                                                                                \
    }                                                                                                                                      \
  }
ADAMW(adamw_f32, float, vf_load)
ADAMW(adamw_bf16, uint16_t, vf_load_bf16)

const mn_optim_vec MN_ISA_NAME(mn_optim_table) = {.adamw = {adamw_f32, adamw_bf16}};
