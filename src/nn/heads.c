/* heads.c - see heads.h. */
#include "nn/heads.h"
#include "graph/fused_norm.h"

#include <math.h>
#include <stdio.h>

static const mn_init init = {MN_INIT_NORMAL, 0.02, 0};

mn_status mn_head_width(const mn_value *map, const char *where, const char *key, int64_t d_model, int64_t heads, double share,
                        int64_t *width) {
  if (*width) return MN_OK;
  const double exact = share * (double)d_model / (double)heads;
  if (exact < 1)
    return mn_config_fail(map, where, key, "must be given: %lld head%s of d_model %lld would be less than one channel wide",
                          (long long)heads, heads == 1 ? "" : "s", (long long)d_model);
  if (exact != floor(exact))
    return mn_config_fail(map, where, "heads", "must divide %lld, or %s must be given", (long long)(share * (double)d_model), key);
  *width = (int64_t)exact;
  return MN_OK;
}

mn_tensor *mn_conv_heads(mn_scope *s, const char *name, mn_tensor *x, int64_t heads, int64_t head_dim, int64_t width) {
  char proj[64], conv[64];
  snprintf(proj, sizeof proj, "%s_proj", name);
  snprintf(conv, sizeof conv, "%s_conv", name);
  mn_tensor *y = mn_conv_layer(s, conv, mn_linear_exact(s, proj, x, heads * head_dim, MN_NO_BIAS, init, MN_ZEROS), width);
  return mn_split_heads(s, mn_silu(mn_scope_graph(s), y), heads);
}

mn_tensor *mn_normed_heads(mn_scope *s, mn_tensor *o) {
  return mn_join_heads(s, mn_norm_layer(s, "norm", MN_NORM_RMS, o, 1e-6, mn_scope_compute(s)));
}

static mn_tensor *gated(mn_scope *s, mn_tensor *o, mn_tensor *gain, mn_tensor *gate, mn_gated_kind kind, double eps) {
  gate = mn_split_heads(s, gate, mn_dim(o, 2));
  return mn_join_heads(s, mn_gated_norm(mn_scope_graph(s), o, gain, gate, kind, eps, mn_scope_compute(s)));
}

mn_tensor *mn_gated_heads_by(mn_scope *s, mn_tensor *o, mn_tensor *gate, mn_gated_kind kind, double eps) {
  return gated(s, o, mn_norm_gain(s, "norm", mn_dim(o, 3)), gate, kind, eps);
}

/* Parameters in the order that files have them in. */
mn_tensor *mn_gated_heads(mn_scope *s, mn_tensor *o, mn_tensor *x, double eps) {
  mn_tensor *gain = mn_norm_gain(s, "norm", mn_dim(o, 3));
  mn_tensor *gate = mn_linear(s, "gate_proj", x, mn_dim(o, 2) * mn_dim(o, 3), MN_NO_BIAS, init);
  return mn_linear(s, "o_proj", gated(s, o, gain, gate, MN_GATED_BY_SILU, eps), mn_dim(x, -1), MN_NO_BIAS, init);
}
