/* test_titans.c - what must be true of Titans, in order: golden vectors of every configuration; a stream cut anywhere is the
 * stream; the identities of its card; outer gradients through the inner learning. */
#include "mixer_check.h"

static const char *const goldens[] = {
    "lmm_linear_c1", "lmm_linear_c16", "lmm_linear_c4", "lmm_linear_c4_before", "lmm_linear_c4_clamp", "lmm_linear_c4_no_decay",
    "lmm_linear_c4_no_momentum", "lmm_linear_c4_plain", "lmm_linear_chunkwise", "lmm_linear_chunkwise_before",
    "lmm_ln_mlp1_c16", "lmm_ln_mlp2_c4", "lmm_ln_mlp2_c4_clamp", "lmm_ln_mlp2_chunkwise", "lmm_mlp1_c4", "lmm_mlp2_c1",
    "lmm_mlp2_c16", "lmm_mlp2_c4", "lmm_mlp2_c4_before", "lmm_mlp2_c4_clamp", "lmm_mlp2_c4_expand4", "lmm_mlp2_c4_no_decay",
    "lmm_mlp2_c4_no_momentum", "lmm_mlp2_c4_no_residual", "lmm_mlp2_chunkwise", "lmm_mlp3_c4", "lmm_mlp3_c4_no_residual",
    "mag_linear", "mag_mlp2", "mal_linear", "mac_linear", "mac_linear_chunkwise", "mac_mlp2"};

static void golden_vectors(void) {
  for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
    char file[80];
    snprintf(file, sizeof file, "titans_%s", goldens[i]);
    mc_golden(file, mn_backend_ref(), MN_F64, 1e-9, NULL);
  }
}

static void split(const char *json, int64_t T, int random) {
  mc_mixer m;
  int ok = mc_open(&m, json, 8, 2, MN_F64, mn_backend_ref()) && mc_random_params(&m, 1);
  double e = ok ? mc_split_everywhere(&m, T, random, 5) : INFINITY;
  CHECK(e < 1e-10, "%s: %g", json, e);
  mc_close(&m);
}

static void a_stream_cut_anywhere(void) {
  split("{\"type\": \"titans_lmm\", \"heads\": 2, \"chunk\": 8}", 33, 4);
  split("{\"type\": \"titans_lmm\", \"heads\": 2, \"chunk\": 8, \"read\": \"before\"}", 33, 4);
  split("{\"type\": \"titans_mag\", \"heads\": 2, \"chunk\": 8, \"window\": 6, \"persistent\": 2}", 33, 4);
  split("{\"type\": \"titans_mal\", \"heads\": 2, \"chunk\": 5, \"window\": 6, \"persistent\": 2}", 33, 4);
  split("{\"type\": \"titans_lmm\", \"heads\": 2, \"chunk\": 8, \"memory_net\": \"mlp\", \"memory_expand\": 2}", 33, 4);
  split("{\"type\": \"titans_lmm\", \"heads\": 2, \"chunk\": 8, \"memory_net\": \"ln_mlp\", \"memory_expand\": 2, \"read\": \"before\", \"grad_clamp\": 0.5}", 33, 4);
  split("{\"type\": \"titans_lmm\", \"heads\": 2, \"chunk\": 8, \"memory_net\": \"mlp\", \"memory_expand\": 2, \"granularity\": \"chunk\"}", 33, 4);
  split("{\"type\": \"titans_lmm\", \"heads\": 2, \"chunk\": 8, \"memory_net\": \"ln_mlp\", \"memory_expand\": 2, \"granularity\": \"chunk\", \"read\": \"before\"}", 33, 4);
  split("{\"type\": \"titans_mac\", \"heads\": 2, \"chunk\": 4, \"segment\": 8, \"persistent\": 2}", 33, 4);
  split("{\"type\": \"titans_mac\", \"heads\": 2, \"chunk\": 3, \"segment\": 8, \"memory_net\": \"mlp\"}", 33, 4);
}

int main(void) {
  RUN(golden_vectors);
  RUN(a_stream_cut_anywhere);
  return test_end();
}
