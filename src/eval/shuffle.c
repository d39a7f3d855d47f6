/* shuffle.c - see shuffle.h. */
#include "eval/shuffle.h"

#include <stdlib.h>
#include <string.h>

#include "task/rng.h"

static bool ends(const char *name, const char *end) {
  const size_t n = strlen(name), m = strlen(end);
  return n >= m && !strcmp(name + n - m, end) && (n == m || name[n - m - 1] == '.');
}

static mn_status shuffle_one(mn_params *p, int i, uint64_t seed, bool back) {
  const size_t bytes = mn_params_bytes(p, i), n = (size_t)mn_shape_count(&p->info[i].shape), size = n ? bytes / n : 0;
  char *from = NULL, *to = mn_alloc(bytes);
  int32_t *order = mn_alloc(n * sizeof *order);
  mn_status status = to && order ? mn_params_on_host(p, i, (void **)&from) : MN_ERR_MEMORY;
  if (status == MN_OK) {
    mn_rng rng;
    mn_rng_seed(&rng, mn_sample_seed(p->info[i].name, 0, seed, 0));
    for (size_t k = 0; k < n; k++) order[k] = (int32_t)k;
    mn_rng_shuffle(&rng, order, n);
    for (size_t k = 0; k < n; k++) memcpy(to + (back ? (size_t)order[k] : k) * size, from + (back ? k : (size_t)order[k]) * size, size);
    status = p->backend->upload(p->backend, p->data[i], to, bytes);
    if (p->digests) p->digests[i][0] = MN_DIGEST_CHANGES;
  }
  free(from);
  free(to);
  free(order);
  return status;
}

static bool is_of_queries_or_keys(const char *name) { return ends(name, "q_proj.weight") || ends(name, "k_proj.weight"); }

mn_status mn_shuffle_queries_and_keys(mn_params *p, uint64_t seed, bool back) {
  int found = 0;
  for (int i = 0; i < p->n_model; i++)
    if (is_of_queries_or_keys(p->info[i].name) && mn_block_values(p->type[i]) > 1)
      return mn_fail(MN_ERR_UNSUPPORTED,
                     "%s is kept in blocks (%s), whose values cannot change places; convert the model to f16 or f32 first", p->info[i].name,
                     mn_dtype_name(p->type[i]));
  MN_TRY(mn_params_own(p));
  for (int i = 0; i < p->n_model; i++) {
    if (!is_of_queries_or_keys(p->info[i].name)) continue;
    MN_TRY(shuffle_one(p, i, seed, back));
    found++;
  }
  return found ? MN_OK : mn_fail(MN_ERR_CONFIG, "the model has no q_proj or k_proj, whose weights could change places");
}
